//! The cache: the one directory that outlives a run.
//!
//! ```text
//! <cache>/staging/     entries that are being made or removed; garbage once they are not locked
//! <cache>/locks/       files that are locked while something is made, so that it is made once
//! ```
//!
//! `entry` has the only ways into the cache and out of it. The floors above decide on names and
//! contents.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::entry::{self, DirectoryLock, LockFile, StagedDirectory, StagedFile, sweep};
use crate::environment::CACHE;
use crate::error::{Error, ErrorKind, Result};
use crate::fix::Fix;

/// The cache directory of this user, or another one in tests.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache that the environment names; nothing is created.
    pub(crate) fn open() -> Result<Self> {
        Ok(Self::at(directory()?))
    }

    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// The names in one of the cache's directories; none where the directory does not exist.
    pub(crate) fn names(&self, directory: &str) -> Result<Vec<String>> {
        let path = self.path(directory);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| failed("read", &path, error))?,
        };
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    /// Waits for the lock of that name; `None` when the deadline has passed. `on_wait` gets the
    /// holder's note.
    pub(crate) fn lock(
        &self,
        name: &str,
        deadline: Instant,
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<Option<LockFile>> {
        let locks = self.path("locks");
        create(&locks)?;
        let path = locks.join(name);
        LockFile::acquire(&path, deadline, on_wait).map_err(|error| failed("lock", &path, error))
    }

    /// A directory to fill and publish. Removes what killed processes have left.
    pub(crate) fn stage(&self, name: &str) -> Result<StagedDirectory> {
        let staging = self.staging()?;
        sweep(&staging, |_| ());
        StagedDirectory::new(&staging, &format!("{name}."))
            .map_err(|error| failed("make a directory in", &staging, error))
    }

    /// A file to write and publish.
    pub(crate) fn stage_file(&self) -> Result<StagedFile> {
        let staging = self.staging()?;
        StagedFile::new(&staging).map_err(|error| failed("make a file in", &staging, error))
    }

    /// Writes a file that only saves time: a reader finds the old contents, the new, or no file.
    pub(crate) fn write(&self, path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
        let staged = self.stage_file()?;
        let failed = |error| failed("write", path, error);
        io::Write::write_all(&mut staged.as_file(), contents.as_ref()).map_err(failed)?;
        path.parent().map_or(Ok(()), create)?;
        staged.replace(path).map_err(failed)
    }

    /// Moves a directory out of its place, unless another is there than the one that is locked;
    /// returns its new path. Processes that use it go on. A directory without its file `mark`
    /// counts as incomplete.
    pub(crate) fn set_aside(&self, lock: &DirectoryLock, mark: &str) -> Result<Option<PathBuf>> {
        let staging = self.staging()?;
        entry::set_aside(lock, mark, &staging)
            .map_err(|error| failed("set aside the directory", lock.path(), error))
    }

    /// Removes a directory, unless it is in use; returns whether it was removed.
    pub(crate) fn remove(&self, path: &Path, mark: &str) -> Result<bool> {
        let failed = |error| failed("remove", path, error);
        let lock = match DirectoryLock::exclusive(path) {
            // A file or a symbolic link, which is in use by no process.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return fs::remove_file(path).map(|()| true).map_err(failed);
            }
            lock => lock.map_err(failed)?,
        };
        // Out of its place first, so that no process finds half of it.
        let Some(lock) = lock else { return Ok(false) };
        let Some(aside) = self.set_aside(&lock, mark)? else { return Ok(false) };
        fs::remove_dir_all(&aside).map_err(failed)?;
        Ok(true)
    }

    /// Removes what killed processes have left, and directories set aside that are not used any
    /// more.
    pub(crate) fn sweep(&self) {
        sweep(&self.path("staging"), |_| ());
    }

    /// Removes the files in one of the cache's directories that are older than `age`, except for
    /// those that `keep` accepts.
    pub(crate) fn remove_older(&self, directory: &str, age: Duration, keep: impl Fn(&Path) -> bool) {
        for entry in fs::read_dir(self.path(directory)).into_iter().flatten().flatten() {
            let path = entry.path();
            if !is_younger(&path, age) && !keep(&path) {
                // Another process may have removed it.
                let _ = fs::remove_file(path);
            }
        }
    }

    fn staging(&self) -> Result<PathBuf> {
        let staging = self.path("staging");
        create(&staging)?;
        Ok(staging)
    }
}

/// `$SANDBOXED_DB_CACHE`, else `$XDG_CACHE_HOME/sandboxed-db`, else `~/.cache/sandboxed-db`.
pub(crate) fn directory() -> Result<PathBuf> {
    if let Some(named) = CACHE.value() {
        let directory = absolute(PathBuf::from(&named))?;
        let existing = directory.ancestors().find(|path| path.exists());
        if let Some(file) = existing.filter(|path| !path.is_dir()) {
            return Err(CACHE.refused(&named).caused_by(format!("`{}` is not a directory", file.display())));
        }
        return Ok(directory);
    }
    let xdg = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = xdg
        .map(|cache| cache.join("sandboxed-db"))
        .or_else(|| env::home_dir().map(|home| home.join(".cache/sandboxed-db")))
        .ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "find the cache directory")
                .with_hint(format!("set {}, XDG_CACHE_HOME or HOME", CACHE.name))
        })?;
    absolute(directory)
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path)
        .map_err(|error| Error::io(ErrorKind::InvalidConfig, "make absolute the path", &path, error))
}

/// Creates a directory of the cache and those above it, each readable by its owner only.
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

/// The fix for a failed operation on `path` in the cache.
///
/// It never changes the owner or the mode of a directory. The one that is not writable may be `/`,
/// or hold the layers of another user, who could not use them afterwards.
pub(crate) fn fix(path: &Path, error: &io::Error) -> Option<Fix> {
    use io::ErrorKind::{
        AlreadyExists, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
        StorageFull,
    };
    let metadata = |path| fs::metadata(path).or_else(|_| fs::symlink_metadata(path)).ok();
    let found = path.ancestors().find_map(|path| Some((path, metadata(path)?)));
    // By its kind: an error with a path in its text has no number.
    Some(match (error.kind(), found) {
        (StorageFull | QuotaExceeded, _) => full(),
        (PermissionDenied, Some((directory, metadata))) if is_foreign(&metadata) => {
            let (directory, owner) = (directory.display(), metadata.uid());
            another_directory(format!("the cache is not writable: `{directory}` belongs to user {owner}"))
        }
        (ReadOnlyFilesystem | PermissionDenied, _) => another_directory("the cache is not writable"),
        (NotADirectory | AlreadyExists, Some((file, metadata))) if !metadata.is_dir() => {
            another_directory(format!("`{}` is not a directory", file.display()))
        }
        (NotFound, _) => removed(),
        _ => return None,
    })
}

/// Returns `true` if a file exists and was written within that time.
pub(crate) fn is_younger(path: &Path, age: Duration) -> bool {
    let written = fs::metadata(path).and_then(|file| file.modified());
    written.is_ok_and(|time| time.elapsed().is_ok_and(|since| since < age))
}

/// Returns `true` if a file belongs to another user than this process runs as.
pub(crate) fn is_foreign(metadata: &fs::Metadata) -> bool {
    metadata.uid() != rustix::process::geteuid().as_raw()
}

/// The advice to use another cache directory: one that this user can make, by a command that works
/// as it is.
pub(crate) fn another_directory(sentence: impl Into<String>) -> Fix {
    Fix::new(
        sentence,
        "set SANDBOXED_DB_CACHE to another directory, as in",
        "export SANDBOXED_DB_CACHE=\"${TMPDIR:-/tmp}/sandboxed-db-$(id -u)\"",
    )
}

pub(crate) fn removed() -> Fix {
    Fix::none(
        "files were removed from the cache while it was in use: run the tests again, and remove layers with \
         `sandboxed-db prune`, which leaves those in use",
    )
}

pub(crate) fn full() -> Fix {
    Fix::new(
        "the file system of the cache is full",
        "set SANDBOXED_DB_CACHE to a directory on another one, or make room, as by",
        "sandboxed-db prune --size 1GiB",
    )
}
