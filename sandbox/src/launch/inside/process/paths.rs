//! The paths of a sandbox on the host: commands name them as in a container, and are translated when they are run.

use std::path::{Path, PathBuf};

use crate::launch::plan::Command;

/// What paths of the sandbox are on the host. Those that are not known are the host's own.
#[derive(Debug)]
pub(in crate::launch) struct Paths {
    root: PathBuf,
    known: Vec<(PathBuf, PathBuf)>,
}

impl Paths {
    /// Everything `below` is below the root; the data directory is wherever it is.
    pub(super) fn new(
        root: &Path,
        data: (PathBuf, PathBuf),
        below: impl IntoIterator<Item = PathBuf>,
    ) -> Self {
        let at = |path: PathBuf| {
            let target = root.join(path.strip_prefix("/").unwrap_or(&path));
            (path, target)
        };
        let mut known: Vec<_> = std::iter::once(data).chain(below.into_iter().map(at)).collect();
        // The innermost counts.
        known.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        Self { root: root.to_owned(), known }
    }

    /// As short as the host's limit for paths of sockets asks for.
    pub(in crate::launch) fn root(&self) -> &Path {
        &self.root
    }

    /// The same command with the host's paths: as arguments and values, and in those of the form `name=path`.
    pub(in crate::launch) fn translate(&self, mut command: Command) -> Command {
        for arg in &mut command.args {
            *arg = self.text(arg);
        }
        for (_, value) in &mut command.env {
            *value = match value.as_str() {
                // Where programs keep what is theirs; as an argument it may be a place of the user's files.
                "/tmp" => self.root.join("tmp").to_string_lossy().into_owned(),
                value => self.text(value),
            };
        }
        command.current_dir = self.path(&command.current_dir).unwrap_or(command.current_dir);
        command
    }

    /// What that path of the sandbox is on the host.
    pub(in crate::launch) fn of(&self, path: &Path) -> PathBuf {
        self.path(path).unwrap_or_else(|| path.to_owned())
    }

    fn text(&self, text: &str) -> String {
        let found = |path: &str| self.path(Path::new(path)).map(|path| path.to_string_lossy().into_owned());
        match text.split_once('=') {
            _ if text.starts_with('/') => found(text),
            Some((name, path)) => found(path).map(|path| format!("{name}={path}")),
            None => None,
        }
        .unwrap_or_else(|| text.to_owned())
    }

    fn path(&self, path: &Path) -> Option<PathBuf> {
        self.known.iter().find_map(|(from, to)| match path.strip_prefix(from).ok()? {
            rest if rest.as_os_str().is_empty() => Some(to.clone()),
            rest => Some(to.join(rest)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_sandbox_are_translated_and_no_others() {
        let data = ("/var/lib/x".into(), "/cache/staging/1/data".into());
        let below = ["/run/x", "/etc/x/x.conf", "/var/lib/x/extra"].map(PathBuf::from);
        let paths = Paths::new(Path::new("/p/1"), data, below);
        let args = ["-D", "/var/lib/x", "file=/etc/x/x.conf", "/var/lib/x/extra", "/run/xy", "/tmp/m/1.sql"];
        let sql = "select '/run/x', a = '/run/x'";
        let command = Command::new("/usr/bin/x").args(args).arg(sql).env("HOME", "/tmp").env("S", "/run/x");
        let translated = paths.translate(command);
        let expected = [
            "-D",
            "/cache/staging/1/data",
            "file=/p/1/etc/x/x.conf",
            "/p/1/var/lib/x/extra",
            "/run/xy",
            "/tmp/m/1.sql",
            sql,
        ];
        assert_eq!(translated.args, expected);
        let values: Vec<_> = translated.env.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["/p/1/tmp", "/p/1/run/x"]);
        assert_eq!(translated.current_dir, Path::new("/"));
    }
}
