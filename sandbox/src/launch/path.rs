//! Paths inside a sandbox.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// An absolute path inside a sandbox, as its programs see it. A path of the host is a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SandboxPath(PathBuf);

impl SandboxPath {
    /// Returns the path in the sandbox; a path without a leading slash begins at the root.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self(Path::new("/").join(path))
    }

    /// Returns the path below this one.
    #[must_use]
    pub fn join(&self, path: impl AsRef<Path>) -> Self {
        Self::new(self.0.join(path))
    }

    /// Returns the path as programs in the sandbox write it.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Returns the path on the host, by the host's path of the sandbox's root: the one that
    /// [`Sandbox::root`](crate::Sandbox::root) returns.
    #[must_use]
    pub fn below(&self, root: &Path) -> PathBuf {
        // The root itself adds no slash to the end.
        self.relative().components().fold(root.to_owned(), |path, part| path.join(part))
    }

    /// Returns the path from the root on, without a leading slash; nothing for the root itself.
    pub(super) fn relative(&self) -> &Path {
        self.0.strip_prefix("/").expect("it begins with a slash")
    }
}

impl<P: AsRef<Path>> From<P> for SandboxPath {
    fn from(path: P) -> Self {
        Self::new(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_place_below_a_root() {
        let root = Path::new("/proc/7/root");
        assert_eq!(SandboxPath::new("/run/x").below(root), Path::new("/proc/7/root/run/x"));
        assert_eq!(SandboxPath::new("run/x"), SandboxPath::new("/run/x"));
        assert_eq!(SandboxPath::new("/").below(root).as_os_str(), root.as_os_str());
        assert_eq!(SandboxPath::new("/a").join("b").as_path(), Path::new("/a/b"));
    }
}
