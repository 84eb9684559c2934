//! The one directory that outlives a run: layers, what is known of servers, unpacked packages.

use std::env;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

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

/// A failed file operation in the cache, with the remedy where the cause is a usual one.
pub(crate) fn failed(verb: &str, path: &Path, error: io::Error) -> Error {
    // By its kind: an error that was given a path has no number any more.
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(full_hint()),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            Some(format!("the cache is not writable: set {VARIABLE} to a directory that is"))
        }
        _ => None,
    };
    Error::io(ErrorKind::Layer, verb, path, error).or_hint(|| remedy)
}

pub(crate) fn full_hint() -> String {
    format!(
        "the file system of the cache is full: make room, or set {VARIABLE} to a directory on another one"
    )
}

fn no_cache_hint() -> String {
    format!("set {VARIABLE}, XDG_CACHE_HOME or HOME")
}
