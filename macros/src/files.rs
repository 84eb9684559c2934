//! Files that the attribute names: whether they are there when the test is compiled.
//!
//! They are read when the test runs, but a mistake in a name is better told while it is written. What a test finds only
//! later, since something makes it, is named in the function of `snapshot`, of which nothing is known here.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use syn::LitStr;

use crate::args::{Arguments, Step};
use crate::diagnostics::{self, Diagnostics};

/// The directory of the package that is being compiled, where relative paths start. Nothing where some other build system
/// than cargo compiles: it may show the compiler less than a test will find.
pub(crate) fn package(manifest_dir: Option<OsString>) -> Option<PathBuf> {
    manifest_dir.map(PathBuf::from).filter(|directory| directory.join("Cargo.toml").is_file())
}

/// Complains of names without a file, and of migrations that are no directory.
pub(crate) fn check(arguments: &Arguments, package: &Path, diagnostics: &mut Diagnostics) {
    for step in &arguments.steps {
        let (files, directory): (&[LitStr], _) = match step {
            Step::Migrations(path) | Step::MigrationsOf(_, path) => (std::slice::from_ref(path), true),
            Step::Seed(path) => (std::slice::from_ref(path), false),
            Step::DependsOn(paths) => (paths, false),
            Step::Run(..) | Step::Prepare(..) => continue,
        };
        for file in files {
            let path = package.join(file.value());
            match fs::metadata(&path) {
                Ok(found) if directory && !found.is_dir() => {
                    diagnostics.push(diagnostics::not_a_directory(file));
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    diagnostics.push(diagnostics::no_such_file(file, &neighbours(&path)));
                }
                // What cannot be looked at may still be read by the test.
                _ => {}
            }
        }
    }
}

/// The names in the directory that a file should be in.
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

    fn complaints(arguments: TokenStream) -> Vec<String> {
        let mut diagnostics = Diagnostics::default();
        let arguments = Arguments::parse(arguments, &mut diagnostics);
        check(&arguments, Path::new(env!("CARGO_MANIFEST_DIR")), &mut diagnostics);
        diagnostics.messages()
    }

    #[test]
    fn what_is_there_is_fine() {
        let absolute = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let fine = quote!(
            migrations = #absolute,
            migrations_of(Sqlx, "src"),
            seed = ["Cargo.toml", "src"],
            depends_on = ["src", "../Cargo.toml"],
            run("no/such/program"),
        );
        assert_eq!(complaints(fine), [""; 0]);
    }

    #[test]
    fn what_is_not_there_is_told_with_what_was_probably_meant() {
        let found =
            complaints(quote!(migrations = "source/none", seed = ["Cargo.tml", "src"], depends_on = "zzzz"));
        let beginnings = [
            "there is no `source/none` in",
            "there is no `Cargo.tml` in the package's directory, did you mean `Cargo.toml`?\n",
            "there is no `zzzz` in the package's directory\n",
        ];
        assert_eq!(found.len(), beginnings.len(), "{found:#?}");
        for (message, beginning) in found.iter().zip(beginnings) {
            assert!(message.starts_with(beginning), "{message}");
        }
        let file = complaints(quote!(migrations = "Cargo.toml"));
        assert_eq!(file, ["`Cargo.toml` is a file; `migrations` names the directory of them"]);
    }

    #[test]
    fn only_a_package_of_cargos_is_looked_at() {
        assert!(package(Some(env!("CARGO_MANIFEST_DIR").into())).is_some());
        assert_eq!(package(Some("/nonexistent".into())), None);
        assert_eq!(package(None), None);
    }
}
