//! Files in a directory that stands for a root: no path leads out of it.
//!
//! Paths are resolved by openat2(2) as a process would resolve them whose root is the directory, so
//! absolute links and `..` stay inside. The last part of a path is never followed.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, linkat, mkdirat, openat, openat2,
    readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

/// How deep directories may lie: removing them takes stack and descriptors for each.
const DEEPEST: usize = 128;

const HANDLE: OFlags = OFlags::DIRECTORY.union(OFlags::PATH).union(OFlags::CLOEXEC);
const LISTING: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The mode of a directory that an archive does not mention.
const USUAL: Mode = Mode::from_raw_mode(0o755);

/// A path in the tree: parts without `.` and `..`, relative to the root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TreePath(PathBuf);

impl TreePath {
    /// Returns `None` for a path that would lead out of the root.
    pub(super) fn new(path: &Path) -> Option<Self> {
        let mut parts = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => parts.push(name),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return None,
            }
        }
        Some(Self(parts))
    }

    /// Returns the last part; `None` for the root.
    pub(super) fn name(&self) -> Option<&OsStr> {
        self.0.file_name()
    }

    /// Returns the number of its bytes.
    pub(super) fn size(&self) -> usize {
        self.0.as_os_str().len()
    }

    pub(super) fn parent(&self) -> Self {
        Self(self.0.parent().unwrap_or(Path::new("")).to_owned())
    }

    pub(super) fn join(&self, name: &OsStr) -> Self {
        Self(self.0.join(name))
    }
}

/// A directory that stands for a root.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// The number of directories above the root, for the check of depth.
    above: usize,
}

/// A place in the tree: an open directory and a name in it.
pub(super) struct Place<'a> {
    directory: OwnedFd,
    name: &'a OsStr,
}

impl Tree {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = openat(CWD, root, HANDLE, Mode::empty())?;
        let above = depth(&root)?;
        Ok(Self { root, above })
    }

    /// Returns a directory; `None` if there is none, or something else in its place.
    fn directory(&self, path: &TreePath) -> io::Result<Option<OwnedFd>> {
        let path = if path.0.as_os_str().is_empty() { Path::new(".") } else { &path.0 };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match openat2(&self.root, path, HANDLE, Mode::empty(), resolve) {
                Ok(directory) => return Ok(Some(directory)),
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                // A rename elsewhere on the machine makes the kernel unsure of `..`.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the place of a path whose directory exists.
    pub(super) fn find<'a>(&self, path: &'a TreePath) -> io::Result<Option<Place<'a>>> {
        let Some(name) = path.name() else { return Ok(None) };
        Ok(self.directory(&path.parent())?.map(|directory| Place { directory, name }))
    }

    /// Returns the place of a path, with the directories above it, which are made if necessary.
    pub(super) fn make<'a>(&self, path: &'a TreePath) -> io::Result<Place<'a>> {
        if let Some(place) = self.find(path)? {
            return Ok(place);
        }
        let mut at = TreePath(PathBuf::new());
        for part in path.parent().0.iter() {
            let above = self.directory(&at)?.ok_or_else(|| not_a_directory(&at))?;
            at = at.join(part);
            if self.directory(&at)?.is_none() {
                let place = Place { directory: above, name: part };
                // A file, or a link to nothing.
                if place.kind()?.is_some() {
                    return Err(not_a_directory(&at));
                }
                self.make_directory(&place, USUAL)?;
            }
        }
        self.find(path)?.ok_or_else(|| not_a_directory(&path.parent()))
    }

    /// Makes a directory, or gives an existing one this mode.
    pub(super) fn make_directory(&self, place: &Place<'_>, mode: Mode) -> io::Result<()> {
        if place.kind()? != Some(FileType::Directory) {
            place.remove()?;
            if depth(&place.directory)? >= self.above + DEEPEST {
                return Err(io::Error::other(format!("its directories are more than {DEEPEST} deep")));
            }
            mkdirat(&place.directory, place.name, Mode::RWXU)?;
        }
        // The owner may always enter: the tree has to be removed some day.
        Ok(fchmod(openat(&place.directory, place.name, LISTING, Mode::empty())?, mode | Mode::RWXU)?)
    }

    /// Removes from a directory everything but the paths that are `kept`, and those above them,
    /// unless that is `done`.
    pub(super) fn clear(
        &self,
        path: &TreePath,
        kept: &dyn Fn(&TreePath) -> bool,
        done: &mut Cleared,
    ) -> io::Result<()> {
        let Some(directory) = self.directory(path)? else { return Ok(()) };
        clear(&openat(&directory, ".", LISTING, Mode::empty())?, path, kept, done)
    }
}

/// Directories from which everything was removed that was to be. Each is listed once, however often
/// an archive asks for that.
#[derive(Debug, Default)]
pub(super) struct Cleared(HashSet<(u64, u64)>);

fn not_a_directory(path: &TreePath) -> io::Error {
    io::Error::other(format!("`{}` is used as a directory, and is none", path.0.display()))
}

/// Returns how deep a directory lies in the file system, links resolved.
fn depth(directory: &OwnedFd) -> io::Result<usize> {
    let path = readlinkat(CWD, format!("/proc/self/fd/{}", directory.as_raw_fd()), Vec::new())?;
    Ok(path.as_bytes().iter().filter(|byte| **byte == b'/').count())
}

fn clear(
    directory: &OwnedFd,
    path: &TreePath,
    kept: &dyn Fn(&TreePath) -> bool,
    done: &mut Cleared,
) -> io::Result<()> {
    let stat = fstat(directory)?;
    if !done.0.insert((stat.st_dev, stat.st_ino)) {
        return Ok(());
    }
    for (name, kind) in entries(directory)? {
        let below = path.join(&name);
        if !kept(&below) {
            remove(directory, &name)?;
        } else if kind == FileType::Directory {
            clear(&openat(directory, &name, LISTING, Mode::empty())?, &below, kept, done)?;
        }
    }
    Ok(())
}

fn entries(directory: &OwnedFd) -> io::Result<Vec<(OsString, FileType)>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            let kind = FileType::from_raw_mode(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
            entries.push((name.to_owned(), kind));
        }
    }
    Ok(entries)
}

fn remove(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let below = openat(&directory, name, LISTING, Mode::empty())?;
    for (name, _) in entries(&below)? {
        remove(&below, &name)?;
    }
    Ok(unlinkat(&directory, name, AtFlags::REMOVEDIR)?)
}

impl Place<'_> {
    /// Returns the kind of the file there; `None` without one.
    pub(super) fn kind(&self) -> io::Result<Option<FileType>> {
        match statat(&self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what is there.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove(&self.directory, self.name)
    }

    /// Makes a symbolic link. Its target is text, which nothing here follows.
    pub(super) fn make_symlink(&self, target: &Path) -> io::Result<()> {
        self.remove()?;
        Ok(symlinkat(target, &self.directory, self.name)?)
    }

    /// Makes a further name of the file at another place.
    pub(super) fn make_link(&self, source: &Place<'_>) -> io::Result<()> {
        match source.kind()? {
            None => return Err(io::Error::other("a hard link leads to no file")),
            Some(FileType::Directory) => return Err(io::Error::other("a hard link leads to a directory")),
            Some(_) => {}
        }
        let is_same = |place: &Place<'_>| {
            let stat = statat(&place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW);
            stat.ok().map(|stat| (stat.st_dev, stat.st_ino))
        };
        // A link to itself must not remove the file.
        if is_same(self) == is_same(source) {
            return Ok(());
        }
        self.remove()?;
        Ok(linkat(&source.directory, source.name, &self.directory, self.name, AtFlags::empty())?)
    }

    /// Makes an empty file.
    pub(super) fn make_file(&self) -> io::Result<File> {
        self.remove()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.directory, self.name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }
}
