//! An image as an engine sees it: a root file system in which to find the server.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};

use super::children;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Command;

/// The search path of an image that sets none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The root file system of an image, for [`Engine::locate_in`](super::Engine::locate_in).
///
/// All paths are those that a program in the image sees. Symbolic links lead where they lead for
/// such a program, never to the host's files.
#[derive(Debug, Clone)]
pub struct Image {
    reference: String,
    root: PathBuf,
    id: String,
    env: Vec<(String, String)>,
    run: RunInImage,
}

/// Runs a program of the image in a container, and returns its standard output.
pub(crate) type RunInImage = fn(&Image, Command) -> Result<String>;

impl Image {
    #[cfg(any(feature = "images", test))]
    pub(crate) fn new(
        reference: String,
        root: PathBuf,
        id: String,
        env: Vec<(String, String)>,
        run: RunInImage,
    ) -> Self {
        Self { reference, root, id, env, run }
    }

    /// Returns a reference that leads to this image from any directory.
    pub(crate) fn reference(&self) -> &str {
        &self.reference
    }

    /// Returns the digest that names the image: that of its configuration, which covers its files
    /// and its environment.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the directories of the image's `PATH`.
    #[must_use]
    pub fn search_path(&self) -> Vec<PathBuf> {
        let path = self.env.iter().rev().find(|(name, _)| name == "PATH");
        let path = path.map_or(PATH, |(_, value)| value);
        std::env::split_paths(path).filter(|directory| directory.is_absolute()).collect()
    }

    /// Returns `true` if there is a file at a path.
    #[must_use]
    pub fn is_file(&self, path: &Path) -> bool {
        self.on_host(path).is_some_and(|path| path.is_file())
    }

    /// Returns the paths in a directory, sorted by name; none if it cannot be read.
    #[must_use]
    pub fn children(&self, directory: &Path) -> Vec<PathBuf> {
        let Some(on_host) = self.on_host(directory) else { return Vec::new() };
        children(&on_host).iter().filter_map(|child| Some(directory.join(child.file_name()?))).collect()
    }

    /// Returns a path without symbolic links; `None` if nothing is there.
    #[must_use]
    pub fn canonical(&self, path: &Path) -> Option<PathBuf> {
        let root = openat(CWD, &self.root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = openat2(&root, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).ok()?;
        let name = |fd: i32| {
            let path = readlinkat(CWD, format!("/proc/self/fd/{fd}"), Vec::new()).ok()?;
            Some(PathBuf::from(path.to_string_lossy().into_owned()))
        };
        let (root, found) = (name(root.as_raw_fd())?, name(found.as_raw_fd())?);
        Some(Path::new("/").join(found.strip_prefix(root).ok()?))
    }

    /// Returns the host's path of what is at a path.
    pub(crate) fn on_host(&self, path: &Path) -> Option<PathBuf> {
        let canonical = self.canonical(path)?;
        Some(self.root.join(canonical.strip_prefix("/").unwrap_or(&canonical)))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the variables of its environment.
    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// Returns the first line that a program of the image prints for an argument.
    pub(super) fn ask(&self, program: &Path, arg: &str) -> Result<String> {
        let output = (self.run)(self, Command::new(program).arg(arg))?;
        Ok(output.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// Reads a file, which the image may have made of any size.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        const MOST: u64 = 64 << 20;
        let mut contents = Vec::new();
        let file = File::open(self.on_host(path).ok_or(io::ErrorKind::NotFound)?)?;
        file.take(MOST + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 > MOST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(contents) }
    }
}

/// The error of an image that lacks a program.
pub(super) fn missing(image: &Image, program: &str) -> Error {
    Error::new(ErrorKind::NotInstalled, format!("find `{program}` in the image {}", image.id))
        .caused_by("it is neither in the image's PATH nor in the usual directories")
        .with_hint("use an image that holds the server, such as the official one of the database")
}

/// The error of an image whose server has another version than the requested one.
pub(super) fn other_version(image: &Image, wanted: Option<&str>, found: &[String]) -> Error {
    let wanted = wanted.unwrap_or_default();
    // Directories of one image may be links to each other.
    let found: std::collections::BTreeSet<_> = found.iter().map(String::as_str).collect();
    let found: Vec<_> = found.into_iter().collect();
    Error::new(ErrorKind::NotInstalled, format!("find version {wanted} in the image {}", image.id))
        .caused_by(format!("it holds {}", found.join(", ")))
        .with_hint("leave out the version, or choose an image that has it")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_where_they_lead_inside() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/lib/db/bin")).unwrap();
        fs::write(root.path().join("usr/lib/db/bin/server"), "").unwrap();
        symlink("/usr/lib/db/bin/server", root.path().join("usr/lib/server")).unwrap();
        symlink("../../../../usr/lib", root.path().join("lib")).unwrap();
        symlink("/etc/passwd", root.path().join("users")).unwrap();
        let env = vec![("PATH".to_owned(), "/a:b:/c".to_owned())];
        let run: RunInImage = |_, _| Ok(String::new());
        let image = Image::new("x".to_owned(), root.path().to_owned(), "x".to_owned(), env, run);
        assert_eq!(image.canonical(Path::new("/lib/server")).unwrap(), Path::new("/usr/lib/db/bin/server"));
        assert!(image.is_file(Path::new("/lib/server")) && !image.is_file(Path::new("/users")));
        assert_eq!(image.children(Path::new("/lib/db")), [Path::new("/lib/db/bin")]);
        assert_eq!(image.canonical(Path::new("/")).unwrap(), Path::new("/"));
        assert_eq!(image.search_path(), [Path::new("/a"), Path::new("/c")]);
    }
}
