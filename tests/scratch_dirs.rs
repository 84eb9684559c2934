//! Directories of a test process.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::processes::{CLEANUP_DEADLINE, entries, kernel_objects};

/// Directories for one child process, which show the files that it leaves behind.
#[derive(Debug)]
pub struct ScratchDirs {
    root: TempDir,
    cache: PathBuf,
    /// The kernel's objects before the process.
    objects: BTreeSet<String>,
}

impl ScratchDirs {
    /// With an empty cache.
    #[must_use]
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let cache = root.path().join("cache");
        Self::with_cache(root, cache)
    }

    /// With the cache of this process, whose layers need not be built again. [`Self::leftovers`]
    /// skips it.
    #[must_use]
    pub fn with_shared_cache() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = set("SANDBOXED_DB_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("sandboxed-db")))
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache/sandboxed-db")))
            .expect("there is a cache directory");
        let root = tempfile::tempdir().expect("a temporary directory");
        Self::with_cache(root, std::path::absolute(cache).expect("a path"))
    }

    fn with_cache(root: TempDir, cache: PathBuf) -> Self {
        for name in ["home", "tmp", "work"] {
            fs::create_dir(root.path().join(name)).expect("an empty directory");
        }
        Self { root, cache, objects: kernel_objects() }
    }

    /// Gives the directories to another user, with a copy of `program` that the user can run.
    pub fn give_to(&self, user: u32, program: &Path) -> PathBuf {
        let copy = self.root.path().join("program");
        fs::copy(program, &copy).expect("there is room");
        let own = ["home", "tmp", "work"].map(|name| self.root.path().join(name));
        for path in own.iter().map(PathBuf::as_path).chain([copy.as_path(), self.root.path()]) {
            chown(path, Some(user), Some(user)).expect("root gives files away");
        }
        copy
    }

    /// The parent of the directories. Other files below it are not leftovers.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// The child's cache directory.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// A command that runs a program with these directories and no others.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let at = |name| self.root.path().join(name);
        let mut command = Command::new(program);
        command
            .current_dir(at("work"))
            .env("HOME", at("home"))
            .env("TMPDIR", at("tmp"))
            .env("SANDBOXED_DB_CACHE", &self.cache)
            .env("RUST_BACKTRACE", "0")
            .env_remove("XDG_CACHE_HOME");
        command
    }

    /// Every file that is left, except for finished entries of the cache, and for checkpoints of
    /// processes that were ended while they made one: the next process that makes one removes them.
    #[must_use]
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for name in ["home", "tmp", "work"] {
            left.extend(entries(&self.root.path().join(name)));
        }
        if self.cache.starts_with(self.root.path()) {
            for part in entries(&self.cache) {
                match part.file_name().unwrap_or_default().to_str() {
                    Some("packages") => {}
                    Some(
                        "layers" | "linked" | "checkpoints" | "locks" | "servers" | "lookups" | "chains",
                    ) => {
                        left.extend(entries(&part).into_iter().filter(|path| !is_finished(path)));
                    }
                    Some("staging") => {
                        left.extend(entries(&part).into_iter().filter(|path| !is_abandoned(path)));
                    }
                    Some("live") => {}
                    _ => left.push(part),
                }
            }
        }
        left
    }

    /// Asserts that no file is left, except for finished entries of the cache.
    #[track_caller]
    pub fn assert_no_leftovers(&self) {
        assert_eq!(self.leftovers(), Vec::<PathBuf>::new());
    }

    /// Asserts that neither a file nor an object of the kernel is left since these directories were
    /// made; the kernel has some seconds for its objects.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        self.assert_no_leftovers();
        let deadline = Instant::now() + CLEANUP_DEADLINE;
        loop {
            let left: Vec<_> = kernel_objects().difference(&self.objects).cloned().collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left {CLEANUP_DEADLINE:?} after the end: {left:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Default for ScratchDirs {
    fn default() -> Self {
        Self::new()
    }
}

/// A directory with files, each with its contents.
#[must_use]
pub fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, contents) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("it is below the directory")).expect("there is room");
        fs::write(path, contents).expect("there is room");
    }
    directory
}

/// Returns `true` if a path is a finished entry of the cache, by its name and shape: a layer, a
/// lock, a lookup, ...
/// Returns `true` for a checkpoint in the making that no process makes any more.
fn is_abandoned(path: &Path) -> bool {
    let locked = |directory: fs::File| directory.try_lock().is_err();
    let is_layer = ["data", "manifest.json"].iter().any(|part| path.join(part).exists());
    path.is_dir() && !is_layer && !fs::File::open(path).is_ok_and(locked)
}

fn is_finished(path: &Path) -> bool {
    if (path.ends_with("locks/prune") || path.ends_with("locks/packages")) && path.is_file() {
        return true;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = [".json", ".none", ".seal", ".asked"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(&name);
    let named = stem.len() >= 16 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_whole = |directory: &str, file: &str| path.join(directory).is_dir() && path.join(file).is_file();
    named && (path.is_file() || is_whole("data", "manifest.json") || is_whole("changes", "seal"))
}
