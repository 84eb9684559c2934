//! The private directory of a server that has no container, and the removal of those whose supervisor was killed.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, geteuid};

use super::end::remove_memory_of;
use crate::launch::protocol::{Failure, Step};

/// Names the server of a directory, and when the machine was started: numbers of processes say nothing after that.
const SERVER: &str = "server";
/// The longest path of a socket, unix(7).
const LONGEST: usize = 107;
/// The name of a socket within its directory.
const NAME: usize = 32;
/// How often something may be removed by others while it is made.
const TRIES: usize = 1000;

/// A directory for one server, removed when dropped. It is locked as long as its supervisor lives.
#[derive(Debug)]
pub(super) struct Place {
    directory: PathBuf,
    /// A symbolic link to it where its own path is too long for sockets.
    link: Option<PathBuf>,
    _lock: File,
}

impl Place {
    /// In the first of `places` that can be written; reached by a path in the first of `short` that is short enough, if its
    /// own is not, for sockets in a directory whose path inside has that length.
    pub(super) fn make(places: &[PathBuf], short: &[PathBuf], length: usize) -> Result<Self, Failure> {
        let mut failure = None;
        for parent in places {
            match Self::make_in(parent) {
                Ok(mut place) => {
                    // PostgreSQL's clients and its setting split at commas.
                    let is_one = |path: &Path| !path.as_os_str().as_bytes().contains(&b',');
                    let fits =
                        |path: &Path| path.as_os_str().len() + length + NAME <= LONGEST && is_one(path);
                    if !fits(&place.directory) {
                        place.link(short, fits)?;
                    }
                    return Ok(place);
                }
                Err(error) => {
                    failure.get_or_insert(Failure::io(Step::Place, &parent.to_string_lossy(), &error));
                }
            }
        }
        Err(failure.unwrap_or_else(|| Failure::io(Step::Place, "", &ErrorKind::NotFound.into())))
    }

    fn make_in(parent: &Path) -> io::Result<Self> {
        retry(|| {
            private(parent)?;
            let made = tempfile::Builder::new().prefix("").rand_bytes(8).tempdir_in(parent)?;
            let lock = File::open(made.path())?;
            match lock.try_lock() {
                // Somebody took it for an abandoned one and removes it.
                Err(TryLockError::WouldBlock) => return Err(ErrorKind::NotFound.into()),
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) => {}
            }
            // Or has done so before.
            match fs::metadata(made.path())?.ino() == lock.metadata()?.ino() {
                true => Ok(Self { directory: made.keep(), link: None, _lock: lock }),
                false => Err(ErrorKind::NotFound.into()),
            }
        })
        .inspect(|_| sweep(parent))
    }

    fn link(&mut self, short: &[PathBuf], fits: impl Fn(&Path) -> bool) -> Result<(), Failure> {
        let name = self.directory.file_name().unwrap_or_default();
        let mut failure = None;
        for parent in short.iter().filter(|parent| fits(&parent.join(name))) {
            let link = parent.join(name);
            let made = retry(|| {
                private(parent)?;
                forget_links(parent);
                symlink(&self.directory, &link)
            });
            match made {
                Ok(()) => {
                    self.link = Some(link);
                    return Ok(());
                }
                Err(error) => {
                    failure.get_or_insert(Failure::io(Step::Place, &parent.to_string_lossy(), &error));
                }
            }
        }
        Err(failure.unwrap_or_else(|| {
            let error =
                io::Error::other("no path of a temporary directory is short and plain enough for a socket");
            Failure::io(Step::Place, &self.directory.to_string_lossy(), &error)
        }))
    }

    /// The path by which it is reached.
    pub(super) fn root(&self) -> &Path {
        self.link.as_ref().unwrap_or(&self.directory)
    }

    /// What notes the server, whose memory is to be removed with the directory.
    pub(super) fn notes(&self) -> Box<dyn Fn(Pid)> {
        let file = self.directory.join(SERVER);
        // Needed only if this process is killed, and then a few bytes are lost.
        Box::new(move |server| {
            let _ = fs::write(&file, format!("{} {}", server.as_raw_nonzero(), boot()));
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            remove(link, |link| fs::remove_file(link));
        }
        remove(&self.directory, |directory| fs::remove_dir_all(directory));
    }
}

/// Removes what is there, and its parent if nothing else is in that.
fn remove(path: &Path, by: fn(&Path) -> io::Result<()>) {
    let _ = by(path);
    if let Some(parent) = path.parent() {
        let _ = fs::remove_dir(parent);
    }
}

/// Does it again where something was removed meanwhile: the last of the others takes its parent with it.
fn retry<T>(mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match make() {
            // The second where it was there to be made and gone to be looked at.
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

/// Makes a directory of the user's own, which nobody else may look into: it may lie where everybody writes.
fn private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = fs::symlink_metadata(path)?;
    match found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0 {
        true => Ok(()),
        false => Err(io::Error::other("it is no directory of this user's own with the mode 0700")),
    }
}

/// Removes directories whose supervisor is gone.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let lock = File::open(&path);
        if lock.as_ref().is_ok_and(|lock| lock.try_lock().is_ok()) {
            if let Some(server) = server_of(&path) {
                remove_memory_of(&[server]);
            }
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn server_of(directory: &Path) -> Option<Pid> {
    let text = fs::read_to_string(directory.join(SERVER)).ok()?;
    let (pid, since) = text.split_once(' ')?;
    Pid::from_raw(pid.parse().ok()?).filter(|_| since == boot())
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Removes links to directories that are gone.
fn forget_links(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let leads_nowhere = fs::metadata(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if leads_nowhere && path.is_symlink() {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("processes");
        (root, parent)
    }

    #[test]
    fn a_place_goes_with_its_holder_and_those_of_the_dead_with_the_next() {
        let (_root, parent) = places();
        let one = Place::make(std::slice::from_ref(&parent), &[], 4).unwrap();
        let abandoned = parent.join("abandoned");
        fs::create_dir(&abandoned).unwrap();
        let other = Place::make(std::slice::from_ref(&parent), &[], 4).unwrap();
        assert!(one.root().is_dir() && other.root().is_dir() && one.root() != other.root());
        assert!(!abandoned.exists());
        drop(one);
        assert!(other.root().is_dir());
        drop(other);
        assert!(!parent.exists());
    }

    #[test]
    fn many_come_and_go_at_once() {
        let (_root, parent) = places();
        let churn = || {
            for _ in 0..50 {
                let place = Place::make(std::slice::from_ref(&parent), &[], 4).unwrap();
                assert!(place.root().is_dir());
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
    fn a_long_path_is_reached_by_a_short_one() {
        let (root, parent) = places();
        let long = parent.join("x".repeat(100));
        let short = root.path().join("short");
        let place = Place::make(std::slice::from_ref(&long), std::slice::from_ref(&short), 4).unwrap();
        assert_eq!(place.root().parent(), Some(short.as_path()));
        assert!(place.root().is_dir());
        drop(place);
        assert!(!short.exists() && !long.exists());
        assert!(Place::make(&[long], &[], 4).is_err());
    }

    #[test]
    fn what_others_may_enter_is_not_used() {
        let (root, parent) = places();
        DirBuilder::new().mode(0o755).create(root.path().join("open")).unwrap();
        let place = Place::make(&[root.path().join("open"), parent.clone()], &[], 4).unwrap();
        assert!(place.root().starts_with(parent));
    }
}
