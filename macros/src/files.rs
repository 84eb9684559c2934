//! A check that named files exist when the test is compiled.
//!
//! Files are read when the test runs, but a compile error shows a wrong name earlier. A file that
//! is generated later is named in the function of `snapshot`, which is not known here.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::args::Arguments;
use crate::diagnostics::{self, Diagnostics};
use crate::matrix::Engine;

/// Returns the directory of the package that is being compiled. None for build systems other than
/// cargo, which may show the compiler fewer files than the test.
pub(crate) fn package(manifest_dir: Option<OsString>) -> Option<PathBuf> {
    manifest_dir.map(PathBuf::from).filter(|directory| directory.join("Cargo.toml").is_file())
}

/// Reports names without a file, and migrations that are not a directory.
pub(crate) fn check(arguments: &Arguments, package: &Path, diagnostics: &mut Diagnostics) {
    for file in arguments.engines.iter().filter_map(Engine::file) {
        if let Err(error) = fs::metadata(package.join(file.value()))
            && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        {
            diagnostics.push(match built_in(&file.value()) {
                Some(engine) => diagnostics::quoted_engine(file, engine),
                None => diagnostics::no_such_file(file, &neighbours(&package.join(file.value()))),
            });
        }
    }
    for step in &arguments.steps {
        let (files, directory) = step.files();
        for file in files {
            let path = package.join(file.value());
            match fs::metadata(&path) {
                Ok(found) if directory && !found.is_dir() => {
                    diagnostics.push(diagnostics::not_a_directory(file));
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    diagnostics.push(diagnostics::no_such_file(file, &neighbours(&path)));
                }
                // The test may be able to read a path that is unreadable here.
                _ => {}
            }
        }
    }
}

/// Returns the engine that the command line calls so.
fn built_in(name: &str) -> Option<&'static str> {
    Some(match &*name.to_ascii_lowercase() {
        "postgres" | "postgresql" | "pg" => "Postgres",
        "mariadb" => "MariaDb",
        "mysql" => "MySql",
        "redis" | "valkey" => "Redis",
        "sqlite" | "sqlite3" => "Sqlite",
        _ => return None,
    })
}

/// Returns the names in the directory of a path.
fn neighbours(path: &Path) -> Vec<String> {
    let entries = path.parent().map(fs::read_dir).and_then(Result::ok).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use proc_macro2::TokenStream;
    use quote::quote;

    use super::*;

    fn reports(arguments: TokenStream) -> Vec<String> {
        let mut diagnostics = Diagnostics::default();
        let arguments = Arguments::parse(arguments, &mut diagnostics);
        check(&arguments, Path::new(env!("CARGO_MANIFEST_DIR")), &mut diagnostics);
        diagnostics.messages()
    }

    #[test]
    fn existing_files_are_accepted() {
        let absolute = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let fine = quote!(
            migrations = #absolute,
            migrations_of(Sqlx, "src"),
            seed = ["Cargo.toml", "src"],
            depends_on = ["src", "../Cargo.toml"],
            run("no/such/program"),
        );
        assert_eq!(reports(fine), [""; 0]);
    }

    #[test]
    fn a_missing_file_is_reported_with_a_suggestion() {
        let found =
            reports(quote!(migrations = "source/none", seed = ["Cargo.tml", "src"], depends_on = "zzzz"));
        let engine = reports(quote!(engine = "Cargo.tml"));
        assert!(engine[0].starts_with("`Cargo.tml` does not exist in the package's directory"), "{engine:?}");
        assert_eq!(
            reports(quote!(engine = "mariadb")),
            [
                "an engine is a type: write `engine = MariaDb`; a string names a file of TOML that describes one"
            ]
        );
        let beginnings = [
            "`source/none` does not exist in",
            "`Cargo.tml` does not exist in the package's directory, did you mean `Cargo.toml`?\n",
            "`zzzz` does not exist in the package's directory\n",
        ];
        assert_eq!(found.len(), beginnings.len(), "{found:#?}");
        for (message, beginning) in found.iter().zip(beginnings) {
            assert!(message.starts_with(beginning), "{message}");
        }
        let file = reports(quote!(migrations = "Cargo.toml"));
        assert_eq!(file, ["`Cargo.toml` is a file; `migrations` names the directory of migrations"]);
    }

    #[test]
    fn only_a_cargo_package_is_checked() {
        assert!(package(Some(env!("CARGO_MANIFEST_DIR").into())).is_some());
        assert_eq!(package(Some("/nonexistent".into())), None);
        assert_eq!(package(None), None);
    }
}
