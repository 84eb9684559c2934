//! How an entry gets into the cache and out of it: staged, locked, published by a rename, swept.
//!
//! An entry is filled in a staging directory, where its maker holds a shared lock on it, and
//! published by a rename. A published directory is locked shared as long as a process uses it. The
//! kernel drops locks with their holders, however these end. So an entry that can be locked
//! exclusively is not in use: it may be removed, and is garbage if it is staged.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, linkat};
use tempfile::{NamedTempFile, TempDir, TempPath};
use walkdir::WalkDir;

/// How long an exclusive lock is waited out: a sweep holds one for an instant, a removal until its
/// end.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often a new entry may be swept, or its directory removed, before it is locked.
const TRIES: usize = 1000;

/// A locked directory: one that is in use, or that is being removed.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    path: PathBuf,
    file: File,
}

impl DirectoryLock {
    /// Locks a directory for use, for as long as the lock lives; `None` where there is none, or it
    /// is being removed.
    ///
    /// # Errors
    /// [`ErrorKind::NotADirectory`] for a file or a symbolic link, which is not followed.
    pub(crate) fn shared(path: &Path) -> io::Result<Option<Self>> {
        let Some(file) = open(path)? else { return Ok(None) };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock_shared() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(Self::of(path, file))
    }

    /// Locks a directory that no process uses; `None` where there is none, or it is in use.
    ///
    /// # Errors
    /// As [`shared`](Self::shared).
    pub(super) fn exclusive(path: &Path) -> io::Result<Option<Self>> {
        let Some(file) = open(path)? else { return Ok(None) };
        match file.try_lock() {
            Ok(()) => Ok(Self::of(path, file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Returns `true` if a process uses the directory.
    pub(crate) fn is_held(path: &Path) -> bool {
        matches!(open(path), Ok(Some(file)) if file.try_lock().is_err())
    }

    /// The directory may have been replaced between opening and locking it.
    fn of(path: &Path, file: File) -> Option<Self> {
        let lock = Self { path: path.to_owned(), file };
        lock.exists().then_some(lock)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns `true` if the directory is still in its place.
    pub(crate) fn exists(&self) -> bool {
        is_same(&self.path, &self.file)
    }

    /// Returns `true` if the directory was removed, not merely moved. A removed directory has no
    /// name any more.
    pub(crate) fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|directory| directory.nlink() == 0)
    }

    pub(crate) fn metadata(&self) -> io::Result<fs::Metadata> {
        self.file.metadata()
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn is_same(path: &Path, opened: &File) -> bool {
    let key = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (named, opened) = (fs::symlink_metadata(path).map(key), opened.metadata().map(key));
    named.ok().is_some_and(|named| opened.is_ok_and(|opened| opened == named))
}

/// A directory that is being filled, locked shared; removed when dropped.
#[derive(Debug)]
pub(crate) struct StagedDirectory {
    directory: TempDir,
    lock: File,
}

impl StagedDirectory {
    /// Makes a directory in `parent`, which is created if it is missing.
    pub(crate) fn new(parent: &Path, prefix: &str) -> io::Result<Self> {
        until_locked(parent, || {
            // Its mode does not depend on the umask.
            let mut builder = tempfile::Builder::new();
            builder.prefix(prefix).rand_bytes(8).permissions(Permissions::from_mode(0o700));
            let directory = builder.tempdir_in(parent)?;
            Ok(DirectoryLock::shared(directory.path())?.map(|lock| Self { directory, lock: lock.file }))
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Gives the directory its final name, once its contents are on disk. A directory that is in
    /// the way is set aside.
    pub(crate) fn publish(self, target: &Path, mark: &str) -> io::Result<DirectoryLock> {
        // One call for a thousand files, instead of a thousand.
        rustix::fs::syncfs(&self.lock)?;
        self.publish_for_boot(target, mark)
    }

    /// As [`publish`](Self::publish), for an entry that is read until the next boot only: its
    /// contents need not be on disk.
    pub(crate) fn publish_for_boot(self, target: &Path, mark: &str) -> io::Result<DirectoryLock> {
        let staging = self.path().parent().unwrap_or(self.path());
        let in_the_way = match fs::rename(self.path(), target) {
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                DirectoryLock::shared(target)?
                    .map_or(Ok(None), |lock| set_aside(&lock, mark, staging))
                    .map(drop)
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => fs::remove_file(target),
            renamed => {
                renamed?;
                return Ok(self.published(target));
            }
        };
        in_the_way?;
        fs::rename(self.path(), target)?;
        Ok(self.published(target))
    }

    fn published(self, target: &Path) -> DirectoryLock {
        // The directory has its final name; nothing is left for the guard to remove.
        let _ = self.directory.keep();
        DirectoryLock { path: target.to_owned(), file: self.lock }
    }
}

/// A file that is being written, locked shared. Where the file system can, it has no name until it
/// is published, so that nothing is left of it if this process ends before.
#[derive(Debug)]
pub(crate) struct StagedFile {
    file: File,
    name: Option<TempPath>,
    parent: PathBuf,
}

impl StagedFile {
    /// Makes a file in `parent`, readable by its owner only.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        until_locked(parent, || {
            let mut options = File::options();
            options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
            let (file, name) = match options.open(parent) {
                Ok(file) => (file, None),
                Err(_) => {
                    let (file, name) = NamedTempFile::new_in(parent)?.into_parts();
                    (file, Some(name))
                }
            };
            let locked = file.try_lock_shared().is_ok();
            let exists = name.as_ref().is_none_or(|name| is_same(name, &file));
            Ok((locked && exists).then(|| Self { file, name, parent: parent.to_owned() }))
        })
    }

    pub(crate) fn as_file(&self) -> &File {
        &self.file
    }

    /// Gives the file its final name, once its contents are on disk.
    pub(crate) fn publish(self, target: &Path) -> io::Result<File> {
        self.file.sync_all()?;
        self.rename(target)
    }

    /// Gives the file its final name, before its contents need be on disk. A file that is there is
    /// replaced at once.
    fn rename(mut self, target: &Path) -> io::Result<File> {
        let name = match self.name.take() {
            Some(name) => name,
            None => match self.link(target) {
                // A link replaces no file, so it is made beside the target's place and renamed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    tempfile::Builder::new().make_in(&self.parent, |path| self.link(path))?.into_temp_path()
                }
                linked => return linked.map(|()| self.file),
            },
        };
        name.persist(target)?;
        Ok(self.file)
    }

    /// As [`rename`](Self::rename), for a file that only saves time: a reader may find none while
    /// one replaces another, and nothing is left of it if this process ends amid that. Of several
    /// writers one wins.
    pub(super) fn replace(mut self, target: &Path) -> io::Result<()> {
        if let Some(name) = self.name.take() {
            return name.persist(target).map_err(io::Error::from);
        }
        for _ in 0..2 {
            match self.link(target) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                linked => return linked,
            }
            match fs::remove_file(target) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match self.link(target) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    }

    /// Gives a file without a name its first one.
    fn link(&self, path: &Path) -> io::Result<()> {
        let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(CWD, unnamed.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from)
    }
}

/// Makes an entry, again where a sweep was faster than its lock, or `parent` was removed meanwhile.
fn until_locked<T>(parent: &Path, mut make: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent).and_then(|()| make());
        tries += 1;
        match made {
            Ok(Some(entry)) => return Ok(entry),
            Ok(None) if tries < TRIES => {}
            Ok(None) => return Err(ErrorKind::NotFound.into()),
            // `AlreadyExists`: the directory existed when it was to be made, and no longer a moment
            // later.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists)
                    && tries < TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes the entries of a staging directory that no process has locked; `before` is called with
/// each.
pub(crate) fn sweep(staging: &Path, before: impl Fn(&Path)) {
    for entry in fs::read_dir(staging).into_iter().flatten().flatten() {
        let path = entry.path();
        let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        if !opened.as_ref().is_ok_and(|opened| opened.try_lock().is_ok()) {
            continue;
        }
        before(&path);
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "an abandoned entry is not removed");
            }
            _ => tracing::info!(path = %path.display(), "removed an abandoned entry"),
        }
    }
}

/// Moves a directory into `staging`, unless another is in its place than the one that is locked.
pub(super) fn set_aside(lock: &DirectoryLock, mark: &str, staging: &Path) -> io::Result<Option<PathBuf>> {
    if !lock.exists() {
        return Ok(None);
    }
    let name = lock.path.file_name().unwrap_or_default().to_string_lossy();
    // A random name: processes of two containers may share a cache and a process id.
    let aside = tempfile::Builder::new().prefix(&format!("{name}.")).tempdir_in(staging)?.keep();
    match fs::rename(&lock.path, &aside) {
        // Another process was faster.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let _ = fs::remove_dir(&aside);
            Ok(None)
        }
        // An overlay cannot rename directories of its lower layers, such as a container's image.
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            move_tree(&lock.path, &aside, mark).map(|()| Some(aside))
        }
        renamed => renamed.map(|()| Some(aside)),
    }
}

/// Moves a directory file by file, beginning with the one without which it is incomplete.
fn move_tree(from: &Path, to: &Path, mark: &str) -> io::Result<()> {
    match fs::rename(from.join(mark), to.join(mark)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for entry in WalkDir::new(from).min_depth(1) {
        let entry = entry?;
        let target = to.join(entry.path().strip_prefix(from).map_err(io::Error::other)?);
        if entry.file_type().is_dir() { fs::create_dir(&target)? } else { fs::rename(entry.path(), &target)? }
    }
    fs::remove_dir_all(from)
}

/// An exclusive lock on a file, so that something is made by one process at a time.
#[derive(Debug)]
pub(crate) struct LockFile {
    _file: File,
}

impl LockFile {
    /// Waits for the lock; `None` when the deadline has passed. `on_wait` gets the holder's note at
    /// each look.
    pub(super) fn acquire(
        path: &Path,
        deadline: Instant,
        on_wait: &mut dyn FnMut(&str),
    ) -> io::Result<Option<Self>> {
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(path)?;
        let mut pause = Duration::from_millis(1);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    let mut holder = String::new();
                    if file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut holder)).is_ok() {
                        on_wait(holder.trim());
                    }
                    thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        // Only a courtesy to those that wait, so a full disk may have it.
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| write!(file, "process {}", std::process::id()));
        Ok(Some(Self { _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_staged_entry_is_swept_once_its_lock_is_free() {
        let root = tempfile::tempdir().unwrap();
        let staging = root.path().join("staging");
        let held = StagedDirectory::new(&staging, "held.").unwrap();
        let file = StagedFile::new(&staging).unwrap();
        fs::create_dir(staging.join("abandoned")).unwrap();
        fs::write(staging.join("abandoned.file"), "").unwrap();
        sweep(&staging, |_| ());
        assert!(held.path().is_dir());
        drop(held);
        assert!(!staging.join("abandoned").exists() && !staging.join("abandoned.file").exists());
        let target = root.path().join("file");
        fs::write(&target, "old").unwrap();
        file.as_file().write_all(b"new").unwrap();
        file.publish(&target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    }

    #[test]
    fn a_published_directory_replaces_another_and_stays_locked() {
        let root = tempfile::tempdir().unwrap();
        let (staging, target) = (root.path().join("staging"), root.path().join("entry"));
        let publish = |text: &str| {
            let staged = StagedDirectory::new(&staging, "entry.").unwrap();
            fs::write(staged.path().join("mark"), text).unwrap();
            staged.publish(&target, "mark").unwrap()
        };
        let first = publish("one");
        assert!(first.exists() && DirectoryLock::exclusive(&target).unwrap().is_none());
        let second = publish("two");
        assert!(!first.exists() && second.exists());
        assert_eq!(fs::read_to_string(target.join("mark")).unwrap(), "two");
        // The first is in use still.
        sweep(&staging, |_| ());
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 1);
        drop(first);
        sweep(&staging, |_| ());
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    }

    #[test]
    fn a_symbolic_link_is_replaced_and_never_followed() {
        let root = tempfile::tempdir().unwrap();
        let (elsewhere, target) = (root.path().join("elsewhere"), root.path().join("entry"));
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, &target).unwrap();
        assert_eq!(DirectoryLock::shared(&target).unwrap_err().kind(), ErrorKind::NotADirectory);
        let staged = StagedDirectory::new(&root.path().join("staging"), "entry.").unwrap();
        assert!(staged.publish(&target, "mark").unwrap().exists());
        assert!(elsewhere.is_dir() && !target.is_symlink());
    }

    #[test]
    fn a_lock_file_is_waited_for_until_its_deadline() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("lock");
        let acquire = |patience: u64, on_wait: &mut dyn FnMut(&str)| {
            LockFile::acquire(&path, Instant::now() + Duration::from_millis(patience), on_wait).unwrap()
        };
        let held = acquire(0, &mut |_| ()).unwrap();
        let mut notes = Vec::new();
        assert!(acquire(50, &mut |note| notes.push(note.to_owned())).is_none());
        assert!(
            notes.iter().all(|note| *note == format!("process {}", std::process::id())) && !notes.is_empty()
        );
        drop(held);
        assert!(acquire(0, &mut |_| ()).is_some());
    }

    #[test]
    fn racing_writers_leave_one_text_and_no_staged_file() {
        let root = tempfile::tempdir().unwrap();
        let (staging, target) = (root.path().join("staging"), root.path().join("note"));
        thread::scope(|scope| {
            for writer in 0..8 {
                let (staging, target) = (&staging, &target);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let staged = StagedFile::new(staging).unwrap();
                        write!(staged.as_file(), "text {writer}").unwrap();
                        staged.replace(target).unwrap();
                    }
                });
            }
        });
        assert!(fs::read_to_string(&target).unwrap().starts_with("text "));
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    }
}
