//! Packages unpacked into the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::FORMAT;
use crate::cache::{Cache, DirectoryLock, Listed};
use crate::error::Result;

/// The directory of all trees.
pub(super) const TREES: &str = "packages";
/// The mark of a whole tree.
pub(super) const CONTENTS: &str = "packages.json";

/// Packages unpacked into the cache.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: PathBuf,
    pub(super) contents: Contents,
}

/// The contents of a tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Contents {
    /// The names of the package files, each with a hash of the file.
    pub(super) archives: Vec<(String, String)>,
    /// The packages as apt-get shall know them if others are unpacked on top.
    pub(super) status: String,
}

/// The locks of trees that this process uses. They end with the process, since its servers may use
/// a tree that was set aside.
static IN_USE: Mutex<Vec<DirectoryLock>> = Mutex::new(Vec::new());

fn in_use() -> MutexGuard<'static, Vec<DirectoryLock>> {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn keep_locked(lock: DirectoryLock) {
    in_use().push(lock);
}

pub(super) fn listed(path: PathBuf) -> Listed {
    Listed { path, files: "usr", mark: CONTENTS }
}

/// Returns all trees of a cache for those who look after it, each with its name and distribution.
pub(crate) fn trees(cache: &Cache) -> Result<Vec<(String, String, Listed)>> {
    let mut trees = Vec::new();
    for distribution in cache.names(TREES)? {
        let directory = Path::new(TREES).join(&distribution);
        if !cache.path(&directory).is_dir() {
            continue;
        }
        let names = cache.names(&directory.to_string_lossy())?.into_iter();
        let tree = |name: String| {
            let path = cache.path(directory.join(&name));
            (name, distribution.clone(), listed(path))
        };
        trees.extend(names.map(tree));
    }
    Ok(trees)
}

impl Tree {
    pub(super) fn new(root: &Path, contents: Contents) -> Self {
        Self { root: root.to_owned(), contents }
    }

    /// Finds a whole tree in the cache, and keeps it locked until the process ends.
    pub(super) fn find(cache: &Cache, root: &Path) -> Option<Self> {
        let is_locked = in_use().iter().any(|lock| lock.path() == root && lock.exists());
        // One that is no directory is replaced.
        let lock = if is_locked { None } else { Some(DirectoryLock::shared(root).ok()??) };
        let tree = Self::read(root)?;
        in_use().extend(lock);
        listed(root.to_owned()).note_use(cache);
        Some(tree)
    }

    fn read(root: &Path) -> Option<Self> {
        let text = fs::read(root.join(CONTENTS)).ok()?;
        let contents = serde_json::from_slice(&text).ok()?;
        root.join("usr").is_dir().then(|| Self { root: root.to_owned(), contents })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The place of a path of a sandbox, if it is in the tree.
    pub(crate) fn on_host(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A hash of the packages' names, versions and contents.
    pub(crate) fn identity(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&FORMAT.to_le_bytes());
        for (file, hash) in &self.contents.archives {
            hasher.update(file.as_bytes()).update(hash.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_without_its_parts_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        assert!(Tree::read(root).is_none());
        fs::create_dir(root.join("usr")).unwrap();
        assert!(Tree::read(root).is_none());
        let contents = |hash: &str| Contents {
            archives: vec![("a_1_all.deb".to_owned(), hash.to_owned())],
            status: String::new(),
        };
        let identity = |hash: &str| {
            fs::write(root.join(CONTENTS), serde_json::to_vec(&contents(hash)).unwrap()).unwrap();
            Tree::read(root).unwrap().identity()
        };
        assert_ne!(identity("1"), identity("2"));
        assert_eq!(identity("1"), identity("1"));
        fs::remove_dir(root.join("usr")).unwrap();
        assert!(Tree::read(root).is_none());
    }
}
