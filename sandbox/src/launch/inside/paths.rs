//! The host's paths of a sandbox in process mode.

use std::path::{Path, PathBuf};

use crate::launch::path::SandboxPath;

/// Translates paths of the sandbox to those of the host.
#[derive(Debug)]
pub(super) struct HostPaths {
    /// The innermost first.
    known: Vec<(SandboxPath, PathBuf)>,
}

impl HostPaths {
    /// Everything `below` lies below the root; the data directory lies at the path given for it.
    pub(super) fn new(
        root: &Path,
        data: (SandboxPath, PathBuf),
        below: impl IntoIterator<Item = SandboxPath>,
    ) -> Self {
        let below = below.into_iter().map(|path| (path.clone(), path.below(root)));
        let mut known: Vec<_> = std::iter::once(data).chain(below).collect();
        known.sort_by_key(|(path, _)| std::cmp::Reverse(path.as_path().components().count()));
        Self { known }
    }

    /// Returns the host's path; a path that is not known is the host's own.
    pub(super) fn on_host(&self, path: &SandboxPath) -> PathBuf {
        let path = path.as_path();
        let found = self.known.iter().find_map(|(from, to)| {
            let rest = path.strip_prefix(from.as_path()).ok()?;
            Some(SandboxPath::new(rest).below(to))
        });
        found.unwrap_or_else(|| path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_paths_are_translated_by_the_innermost() {
        let data = ("/var/lib/x".into(), "/cache/staging/1/data".into());
        let below = ["/run/x", "/etc/x/x.conf", "/var/lib/x/extra", "/tmp"].map(SandboxPath::from);
        let paths = HostPaths::new(Path::new("/p/1"), data, below);
        for (path, expected) in [
            ("/var/lib/x", "/cache/staging/1/data"),
            ("/var/lib/x/a/b", "/cache/staging/1/data/a/b"),
            ("/var/lib/x/extra", "/p/1/var/lib/x/extra"),
            ("/etc/x/x.conf", "/p/1/etc/x/x.conf"),
            ("/tmp/x", "/p/1/tmp/x"),
            ("/run/xy", "/run/xy"),
        ] {
            assert_eq!(paths.on_host(&path.into()), Path::new(expected), "{path}");
        }
    }
}
