//! The one directory that outlives a run: layers, what is known of servers, unpacked packages.

mod tree;

use std::env;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::fix::Fix;

pub(crate) use tree::{copy_tree, copy_tree_by};

const VARIABLE: &str = "SANDBOXED_DB_CACHE";

/// `$SANDBOXED_DB_CACHE`, else `$XDG_CACHE_HOME/sandboxed-db`, else `~/.cache/sandboxed-db`; not created yet.
pub(crate) fn directory() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = set(VARIABLE)
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("sandboxed-db")))
        .or_else(|| env::home_dir().map(|home| home.join(".cache/sandboxed-db")))
        .ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "find the cache directory").with_hint(no_cache_hint())
        })?;
    std::path::absolute(&directory)
        .map_err(|error| Error::io(ErrorKind::InvalidConfig, "make absolute the path", &directory, error))
}

/// Makes a directory of the cache, readable by its owner only, and those above it.
pub(crate) fn create(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| failed("create the cache directory", path, error))
}

/// A failed file operation in the cache, with the fix where the cause is a usual one.
pub(crate) fn failed(verb: &str, path: &Path, error: io::Error) -> Error {
    let fix = fix(path, &error);
    let error = Error::io(ErrorKind::Cache, verb, path, error);
    match fix {
        Some(fix) if error.hint().is_none() => error.with_fix(fix),
        _ => error,
    }
}

/// What to do when `path` in the cache cannot be written.
pub(crate) fn fix(path: &Path, error: &io::Error) -> Option<Fix> {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    // By its kind: an error that was given a path has no number any more.
    match error.kind() {
        StorageFull | QuotaExceeded => Some(full()),
        ReadOnlyFilesystem | PermissionDenied => Some(match foreign_owner(path) {
            Some((directory, owner)) if error.kind() == PermissionDenied => Fix::run(
                format!("the cache is not writable: `{}` belongs to user {owner}", directory.display()),
                format!("sudo chown -R \"$(id -u)\" '{}'", directory.display()),
            ),
            _ => Fix::new(
                "the cache is not writable",
                "set SANDBOXED_DB_CACHE to a directory that is, as in",
                "export SANDBOXED_DB_CACHE=DIRECTORY",
            ),
        }),
        _ => None,
    }
}

/// The nearest directory above `path` that exists, if it belongs to another user than this process runs as, and that
/// user's id.
pub(crate) fn foreign_owner(path: &Path) -> Option<(PathBuf, u32)> {
    let (directory, owner) =
        path.ancestors().find_map(|path| Some((path, std::fs::metadata(path).ok()?.uid())))?;
    (owner != rustix::process::geteuid().as_raw()).then(|| (directory.to_owned(), owner))
}

pub(crate) fn full() -> Fix {
    Fix::new(
        "the file system of the cache is full",
        "set SANDBOXED_DB_CACHE to a directory on another one, or make room, as by",
        "sandboxed-db prune --size 1GiB",
    )
}

pub(crate) fn full_hint() -> String {
    full().to_string()
}

fn no_cache_hint() -> String {
    format!("set {VARIABLE}, XDG_CACHE_HOME or HOME")
}
