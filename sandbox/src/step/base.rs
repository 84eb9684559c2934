//! The directory at which the relative paths of a step start: that of the package whose source
//! names the path.
//!
//! `Location::file` is relative to the workspace for its members, and absolute for packages
//! elsewhere. The program may have moved since it was compiled, so the workspace is searched from
//! the package under test, the working directory and the program, in this order.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::fs;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// A path as a description has it, and the directory at which it starts.
#[derive(Debug, Clone)]
pub(crate) struct StepPath {
    /// Names the file in digests, so that checkouts in different places share layers.
    pub(crate) written: PathBuf,
    base: Base,
}

impl StepPath {
    pub(crate) fn new(written: PathBuf, base: Base) -> Self {
        Self { written, base }
    }

    /// Returns the path of a directory that no argument of the attribute names.
    pub(crate) fn found(written: PathBuf, package: PathBuf) -> Self {
        Self { written, base: Base { directory: package, reason: Reason::Found } }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.base.directory.join(&self.written)
    }

    /// Returns the directory at which relative paths start.
    pub(super) fn base(&self) -> &Path {
        &self.base.directory
    }

    /// Adds the directory that was used, and the reason, to the error of a missing file.
    pub(super) fn explain(&self, error: Error) -> Error {
        if matches!(self.base.reason, Reason::Found) {
            let found = "no argument names this directory: write `migrations = none` to leave it out";
            let hint = error.hint().map_or(found.to_owned(), |hint| format!("{hint}\n{found}"));
            return error.with_hint(hint);
        }
        let missing = self.written.is_relative() && fs::metadata(self.path()).is_err();
        let hint = || {
            let hint = format!("`{}` is relative to {}", self.written.display(), self.base);
            match self.missing_parent() {
                Some(parent) => format!("{hint}; there is no `{}`", parent.display()),
                None => hint,
            }
        };
        error.or_hint(|| missing.then(hint))
    }

    /// Returns the first directory of the path that does not exist.
    fn missing_parent(&self) -> Option<&Path> {
        let parents = self.written.parent()?.ancestors();
        let parents = parents.filter(|path| !path.as_os_str().is_empty());
        parents.filter(|path| fs::metadata(self.base().join(path)).is_err()).last()
    }
}

/// The start of relative paths, and the reason why it is there.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) directory: PathBuf,
    reason: Reason,
}

#[derive(Debug, Clone)]
enum Reason {
    /// The attribute or `Snapshot::relative_to` names the directory.
    Given,
    /// The attribute searches here what no argument names.
    Found,
    /// The directory of the package to which this source file belongs.
    PackageOf(&'static str),
    /// The package under test, since this source file was not found or found in several places.
    NotFound(&'static str),
    /// The working directory, since this source file was not found either.
    Nowhere(&'static str),
}

impl Base {
    pub(crate) fn given(directory: PathBuf) -> Self {
        let here = directory.as_os_str().is_empty();
        Self { directory: if here { ".".into() } else { directory }, reason: Reason::Given }
    }

    /// The base of paths that are written at this place.
    pub(crate) fn of(location: &'static Location<'static>) -> Self {
        static KNOWN: Mutex<Option<HashMap<&'static str, PathBuf>>> = Mutex::new(None);
        let file = location.file();
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let working = || env::current_dir().unwrap_or_default();
        let package = known.get(file).cloned().or_else(|| {
            let anchors = [manifest_dir.clone(), Some(working()), env::current_exe().ok()];
            anchors.iter().flatten().find_map(|anchor| package_of(Path::new(file), anchor))
        });
        match (package, manifest_dir) {
            (Some(directory), _) => {
                known.insert(file, directory.clone());
                Self { directory, reason: Reason::PackageOf(file) }
            }
            (None, Some(directory)) => Self { directory, reason: Reason::NotFound(file) },
            (None, None) => Self { directory: working(), reason: Reason::Nowhere(file) },
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.directory.display())?;
        match self.reason {
            Reason::Given | Reason::Found => Ok(()),
            Reason::PackageOf(file) => write!(f, ", the package of `{file}`, which names it"),
            Reason::NotFound(file) => {
                write!(f, ", the package under test, since `{file}`, which names it, was not found")
            }
            Reason::Nowhere(file) => {
                write!(f, ", the working directory, since `{file}`, which names it, was not found")
            }
        }
    }
}

/// The package of a source file, as seen from a directory or file of the same workspace.
fn package_of(file: &Path, anchor: &Path) -> Option<PathBuf> {
    let found = if file.is_absolute() {
        file.is_file().then(|| file.to_owned())
    } else {
        let candidates = anchor.ancestors().filter(|root| root.join(file).is_file()).collect::<Vec<_>>();
        let root = match candidates[..] {
            [only] => Some(only),
            // A root package and a member may both have a `src/lib.rs`.
            _ => workspace_root(anchor).filter(|root| candidates.contains(root)),
        };
        root.map(|root| root.join(file))
    };
    let is_package = |directory: &&Path| directory.join("Cargo.toml").is_file();
    found?.ancestors().skip(1).find(is_package).map(Path::to_owned)
}

/// The root of the workspace to which a directory belongs, found as cargo finds it.
fn workspace_root(member: &Path) -> Option<&Path> {
    let is_root = |root: &&Path| {
        let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
        manifest.lines().any(|line| line.trim_start().starts_with("[workspace"))
            && !excluded(&manifest).any(|path| member.starts_with(root.join(path)))
    };
    member.ancestors().find(is_root)
}

/// The paths of `exclude = […]`: a member's own list, of files to publish, holds no package.
fn excluded(manifest: &str) -> impl Iterator<Item = &str> {
    let lists = manifest.split("exclude").skip(1).filter_map(|rest| {
        let list = rest.trim_start().strip_prefix('=')?.trim_start().strip_prefix('[')?;
        list.split(']').next()
    });
    lists.flat_map(|list| list.split('"').skip(1).step_by(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, contents) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
    }

    #[test]
    fn a_source_file_leads_to_its_package() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        write(
            root,
            &[
                ("Cargo.toml", "[package]\n[workspace]\nexclude = [\"apart\"]\n"),
                ("src/lib.rs", ""),
                ("a/Cargo.toml", "[package]"),
                ("a/src/lib.rs", ""),
                ("b/Cargo.toml", "[package]"),
                ("b/tests/all/main.rs", ""),
                ("apart/Cargo.toml", "[package]"),
                ("apart/src/lib.rs", ""),
            ],
        );
        let package = |file: &str, anchor: &str| package_of(Path::new(file), &root.join(anchor));
        assert_eq!(package("b/tests/all/main.rs", "a"), Some(root.join("b")));
        assert_eq!(package("a/src/lib.rs", "a/target/debug/deps/a-0"), Some(root.join("a")));
        // `src/lib.rs` may be the root package's, the member's or that of a package apart.
        assert_eq!(package("src/lib.rs", "a"), Some(root.to_owned()));
        assert_eq!(package("src/lib.rs", "apart"), None);
        assert_eq!(package("none/src/lib.rs", "a"), None);
        let absolute = root.join("b/tests/all/main.rs");
        assert_eq!(package_of(&absolute, Path::new("/")), Some(root.join("b")));
        assert_eq!(package_of(Path::new("/none/src/lib.rs"), root), None);
    }

    #[test]
    fn a_missing_file_names_the_directory_and_the_reason() {
        let base = Base::of(Location::caller());
        assert_eq!(base.directory, Path::new(env!("CARGO_MANIFEST_DIR")));
        assert!(base.to_string().ends_with("base.rs`, which names it"), "{base}");
        let hint = |path: &str| {
            let error = Error::new(crate::ErrorKind::InvalidConfig, "read");
            let error = StepPath::new(path.into(), base.clone()).explain(error);
            error.hint().unwrap().to_owned()
        };
        assert_eq!(hint("none"), format!("`none` is relative to {base}"));
        assert_eq!(hint("src/none"), format!("`src/none` is relative to {base}"));
        assert_eq!(hint("src/x/y/z"), format!("`src/x/y/z` is relative to {base}; there is no `src/x`"));
    }
}
