//! The private directory of a server in process mode, and the removal of those whose supervisor was
//! killed.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, geteuid};

use super::end::remove_memory_of;
use crate::cache::{StagedDirectory, sweep};
use crate::launch::protocol::{Failure, LaunchStep};
use crate::machine::boot_id;

/// The file with the id of the server and that of the boot, after which process ids mean other
/// processes.
const SERVER: &str = "server";
/// The longest path of a socket, unix(7).
const LONGEST: usize = 107;
/// Room for the name of a socket within its directory.
const NAME: usize = 32;
/// How often other supervisors may remove a directory while it is made.
const TRIES: usize = 1000;

/// A directory for one server, locked as long as its supervisor lives, and removed when dropped.
#[derive(Debug)]
pub(super) struct PrivateDirectory {
    directory: StagedDirectory,
    /// A symbolic link to the directory, if its path is too long for sockets.
    link: Option<PathBuf>,
}

impl PrivateDirectory {
    /// Makes a directory in the first writable one of `parents`. `length` is that of the longest
    /// path below it that has a socket: if the directory's own path is too long for it, a link is
    /// made in the first of `short_parents` that is not.
    pub(super) fn make(
        parents: &[PathBuf],
        short_parents: &[PathBuf],
        length: usize,
    ) -> Result<Self, Failure> {
        let none = || refused(Path::new(""), &ErrorKind::NotFound.into());
        let mut made = first(parents, Self::make_in).map_err(|failure| failure.unwrap_or_else(none))?;
        // PostgreSQL splits paths of socket directories at commas.
        let is_one = |path: &Path| !path.as_os_str().as_bytes().contains(&b',');
        let fits = |path: &Path| path.as_os_str().len() + length + NAME <= LONGEST && is_one(path);
        if !fits(made.directory.path()) {
            made.link = Some(made.link(short_parents, fits)?);
        }
        Ok(made)
    }

    fn make_in(parent: &Path) -> io::Result<Self> {
        let directory = StagedDirectory::new(parent, "")?;
        // Checked last, since the parent cannot be replaced as long as the directory is in it.
        private(parent)?;
        sweep(parent, |abandoned| {
            if let Some(server) = server_of(abandoned) {
                remove_memory_of(&[server]);
            }
        });
        Ok(Self { directory, link: None })
    }

    /// Makes a link to the directory in the first of `parents` in which its path fits.
    fn link(&self, parents: &[PathBuf], fits: impl Fn(&Path) -> bool) -> Result<PathBuf, Failure> {
        let directory = self.directory.path();
        let name = directory.file_name().unwrap_or_default();
        let made = first(parents.iter().filter(|parent| fits(&parent.join(name))), |parent| {
            let link = parent.join(name);
            retry(|| {
                private(parent)?;
                remove_broken_links(parent);
                symlink(directory, &link)
            })?;
            Ok(link)
        });
        let long = "no path of a temporary directory is short and plain enough for a socket";
        made.map_err(|failure| failure.unwrap_or_else(|| refused(directory, &io::Error::other(long))))
    }

    /// Returns the path of the directory or of the link to it.
    pub(super) fn path(&self) -> &Path {
        self.link.as_deref().unwrap_or(self.directory.path())
    }

    /// Returns a function that notes the id of the server, whose memory is removed with the
    /// directory.
    pub(super) fn notes(&self) -> Box<dyn Fn(Pid)> {
        let file = self.directory.path().join(SERVER);
        // It serves if this process is killed. A failure then loses a few bytes of memory.
        Box::new(move |server| {
            let _ = fs::write(&file, format!("{} {}", server.as_raw_nonzero(), boot()));
        })
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            remove(link, |link| fs::remove_file(link));
        }
        remove(self.directory.path(), |directory| fs::remove_dir_all(directory));
    }
}

fn refused(path: &Path, error: &io::Error) -> Failure {
    Failure::io(LaunchStep::PrivateDirectory, &path.to_string_lossy(), error)
}

/// Returns what `make` makes in the first of the directories in which it can, else its first
/// failure.
fn first<'a, T>(
    directories: impl IntoIterator<Item = &'a PathBuf>,
    make: impl Fn(&Path) -> io::Result<T>,
) -> Result<T, Option<Failure>> {
    let mut failure = None;
    for directory in directories {
        match make(directory) {
            Ok(made) => return Ok(made),
            Err(error) => failure = failure.or_else(|| Some(refused(directory, &error))),
        }
    }
    Err(failure)
}

/// Removes a path, and its parent if that is empty.
fn remove(path: &Path, by: fn(&Path) -> io::Result<()>) {
    let _ = by(path);
    if let Some(parent) = path.parent() {
        let _ = fs::remove_dir(parent);
    }
}

/// Repeats `make` where another supervisor, the last in a directory, has removed that meanwhile.
fn retry<T>(mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match make() {
            // `AlreadyExists`: the directory existed when it was to be made, and no longer a moment
            // later.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists)
                    && tries < TRIES =>
            {
                tries += 1;
            }
            made => return made,
        }
    }
}

/// Makes a directory of mode 0700, which may lie where all users write.
fn private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = fs::symlink_metadata(path)?;
    match found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0 {
        true => Ok(()),
        false => Err(io::Error::other("it is not a directory of this user with mode 0700")),
    }
}

fn server_of(directory: &Path) -> Option<Pid> {
    let text = fs::read_to_string(directory.join(SERVER)).ok()?;
    let (pid, since) = text.split_once(' ')?;
    Pid::from_raw(pid.parse().ok()?).filter(|_| since == boot())
}

fn boot() -> String {
    boot_id().unwrap_or_default()
}

/// Removes links whose directories are gone.
fn remove_broken_links(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_broken = fs::metadata(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if is_broken && path.is_symlink() {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("processes");
        (root, parent)
    }

    #[test]
    fn a_directory_and_abandoned_ones_are_removed() {
        let (_root, parent) = parent();
        let one = PrivateDirectory::make(std::slice::from_ref(&parent), &[], 4).unwrap();
        let abandoned = parent.join("abandoned");
        fs::create_dir(&abandoned).unwrap();
        let other = PrivateDirectory::make(std::slice::from_ref(&parent), &[], 4).unwrap();
        assert!(one.path().is_dir() && other.path().is_dir() && one.path() != other.path());
        assert!(!abandoned.exists());
        drop(one);
        assert!(other.path().is_dir());
        drop(other);
        assert!(!parent.exists());
    }

    #[test]
    fn many_are_made_and_removed_concurrently() {
        let (_root, parent) = parent();
        let churn = || {
            for _ in 0..50 {
                let made = PrivateDirectory::make(std::slice::from_ref(&parent), &[], 4).unwrap();
                assert!(made.path().is_dir());
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(churn);
            }
        });
        assert!(!parent.exists());
    }

    #[test]
    fn a_long_path_gets_a_short_link() {
        let (root, parent) = parent();
        let long = parent.join("x".repeat(100));
        let short = root.path().join("short");
        let made =
            PrivateDirectory::make(std::slice::from_ref(&long), std::slice::from_ref(&short), 4).unwrap();
        assert_eq!(made.path().parent(), Some(short.as_path()));
        assert!(made.path().is_dir());
        drop(made);
        assert!(!short.exists() && !long.exists());
        assert!(PrivateDirectory::make(&[long], &[], 4).is_err());
    }

    #[test]
    fn a_parent_that_others_may_enter_is_not_used() {
        let (root, parent) = parent();
        DirBuilder::new().mode(0o755).create(root.path().join("open")).unwrap();
        let made = PrivateDirectory::make(&[root.path().join("open"), parent.clone()], &[], 4).unwrap();
        assert!(made.path().starts_with(parent));
    }
}
