//! The store: where layers are kept, found, locked and published.
//!
//! ```text
//! <cache>/layers/<digest>/data/            the data directory
//! <cache>/layers/<digest>/manifest.json
//! <cache>/layers/<digest>/seal             of the data as it was last known to match the manifest
//! <cache>/layers/<digest>/checked          the run of many processes that last compared data and seal
//! <cache>/layers/<digest>/used             its time is when the layer was last used, to the hour
//! <cache>/staging/<digest>.<random>/       a build under way; garbage once its lock is free
//! <cache>/locks/<digest>                   held by whoever builds that layer
//! ```

use std::fmt::Display;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use walkdir::WalkDir;

use super::digest::Digest;
use super::manifest::Manifest;
use super::published::{DATA, Layer, MANIFEST, SEAL, UNREADABLE, USED, is_same, read_manifest};
use super::{run, seal};
use crate::cache;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::notice;
use crate::sandbox::DirectoryLock;

#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
}

/// The right to build a layer; ends with its holder.
#[derive(Debug)]
pub(super) struct BuildLock {
    _file: File,
}

impl Store {
    /// The store in the user's cache directory; nothing is created yet.
    pub(super) fn open() -> Result<Self> {
        Ok(Self { root: cache::directory()? })
    }

    /// The layer of that digest, if it is published. Writes nothing, so a read-only store will do.
    pub(super) fn find(&self, digest: Digest) -> Result<Option<Layer>> {
        let directory = self.layer(digest);
        let lock = match File::open(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| cache::failed("open the layer", &directory, error))?,
        };
        let patience = Instant::now() + Duration::from_millis(200);
        loop {
            match lock.try_lock_shared() {
                Ok(()) => break,
                // Somebody looks whether it is in use, which takes no time, or removes it.
                Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(cache::failed("lock the layer", &directory, error));
                }
            }
        }
        let locked = lock.metadata().map_err(|error| cache::failed("read", &directory, error))?;
        let owner = rustix::process::geteuid().as_raw();
        if locked.uid() != owner {
            return Err(Error::new(ErrorKind::Cache, format!("use the layer `{}`", directory.display()))
                .caused_by(format!("it belongs to user {}, and this is user {owner}", locked.uid()))
                .with_hint("set SANDBOXED_DB_CACHE to a directory of your own, or give this one to yourself by chown(1)"));
        }
        // It may have been removed, or replaced, between the two calls; then the lock is on a directory without a name.
        let named = fs::metadata(&directory).is_ok_and(|named| named.ino() == locked.ino());
        let complete = named && directory.join(MANIFEST).exists() && directory.join(DATA).exists();
        if !complete {
            return Ok(None);
        }
        let layer = Layer { digest, directory, lock: DirectoryLock::new(lock) };
        if run::rebuilds() && layer.manifest().is_ok_and(|manifest| manifest.run != run::id()) {
            return Ok(None);
        }
        let damage = match layer.damage() {
            // Somebody else found it damaged, and took it away while it was looked at.
            _ if !layer.exists() => return Ok(None),
            damage => damage?,
        };
        if damage.is_empty() {
            layer.note_use();
            return Ok(Some(layer));
        }
        let set_aside = self.set_aside(&digest.to_string(), layer.lock.file(), "damaged");
        set_aside.map_err(|error| cache::failed("set aside the damaged layer", &layer.directory, error))?;
        let what = damage.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        notice(&format!("layer {digest} was damaged ({what}): it is set aside and built anew"));
        Ok(None)
    }

    /// Takes a layer out of its place, unless another is there than the one that was opened; returns where it is. Those who
    /// use it go on; the sweep removes it when nobody does.
    pub(super) fn set_aside(&self, digest: &str, opened: &File, why: &str) -> io::Result<Option<PathBuf>> {
        let staging = self.root.join("staging");
        DirBuilder::new().recursive(true).mode(0o700).create(&staging)?;
        let layer = self.layer(digest);
        if !is_same(&layer, opened) {
            return Ok(None);
        }
        // A name that nobody has: processes of two containers may share a cache and a number.
        let aside = tempfile::Builder::new().prefix(&format!("{digest}.{why}-")).tempdir_in(&staging)?.keep();
        match fs::rename(&layer, &aside) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _ = fs::remove_dir(&aside);
                Ok(None)
            }
            // An overlay cannot rename directories of its lower layers, such as a container's image.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                move_tree(&layer, &aside).map(|()| Some(aside))
            }
            renamed => renamed.map(|()| Some(aside)),
        }
    }

    /// Waits until nobody else builds that layer. `on_wait` is told once who does.
    pub(super) fn lock(
        &self,
        digest: Digest,
        deadline: Instant,
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<BuildLock> {
        let path = self.root.join("locks").join(digest.to_string());
        cache::create(&self.root.join("locks"))?;
        let failed = |error| cache::failed("lock", &path, error);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let mut pause = Duration::from_millis(1);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    let mut holder = String::new();
                    if file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut holder)).is_ok() {
                        on_wait(holder.trim());
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::new(
                        ErrorKind::Layer,
                        format!("wait for the build of layer {digest}"),
                    )
                    .with_hint(
                        "another process builds it and does not finish: look at it, or raise `build_timeout`",
                    ));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        let note = || {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            write!(file, "process {}", std::process::id())
        };
        // Only a courtesy to those who wait, so a full disk may have it.
        let mut note = note;
        let _ = note();
        Ok(BuildLock { _file: file })
    }

    /// An empty directory to build that layer in, on the store's file system. Removed when dropped.
    pub(super) fn staging(&self, digest: Digest, _lock: &BuildLock) -> Result<TempDir> {
        let staging = self.root.join("staging");
        cache::create(&staging)?;
        cache::create(&self.root.join("layers"))?;
        self.sweep(&staging, Some(digest));
        tempfile::Builder::new()
            .prefix(&format!("{digest}."))
            .tempdir_in(&staging)
            .map_err(|error| cache::failed("make a directory in", &staging, error))
    }

    /// Removes builds whose builder was killed: those of this digest, whose lock the caller holds, and those of any
    /// other whose lock is free.
    fn sweep(&self, staging: &Path, ours: Option<Digest>) {
        let ours = ours.map(|digest| digest.to_string());
        for entry in fs::read_dir(staging).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digest = name.split('.').next().unwrap_or_default();
            let lock = File::options().write(true).open(self.root.join("locks").join(digest));
            let abandoned =
                ours.as_deref() == Some(digest) || lock.as_ref().is_ok_and(|lock| lock.try_lock().is_ok());
            // A layer that was set aside may be in use still.
            let unused = File::open(entry.path()).is_ok_and(|directory| directory.try_lock().is_ok());
            if abandoned && unused {
                tracing::info!(build = name, "removing an abandoned build");
                if let Err(error) = fs::remove_dir_all(entry.path()) {
                    tracing::warn!(?error, build = name, "an abandoned build cannot be removed");
                }
            }
        }
    }

    /// Makes a finished build visible under its digest, all at once.
    pub(super) fn publish(
        &self,
        staging: TempDir,
        digest: Digest,
        manifest: &Manifest,
        _lock: &BuildLock,
    ) -> Result<()> {
        let target = self.layer(digest);
        let failed = |error: io::Error| cache::failed("publish the layer", &target, error);
        let file = staging.path().join(MANIFEST);
        let text = serde_json::to_vec(manifest).map_err(|error| failed(error.into()))?;
        fs::write(&file, text).map_err(|error| cache::failed("write", &file, error))?;
        seal::of(&file, &data_directory(staging.path()))
            .and_then(|seal| fs::write(staging.path().join(SEAL), seal))
            .map_err(failed)?;
        fs::write(staging.path().join(USED), "").map_err(failed)?;
        // One call for a thousand files, instead of a thousand.
        let directory = File::open(staging.path()).map_err(failed)?;
        rustix::fs::syncfs(&directory).map_err(|errno| failed(errno.into()))?;
        match fs::rename(staging.path(), &target) {
            // Half a layer, which somebody's clean-up has left, or one of an earlier run that is not to be used.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {
                File::open(&target)
                    .and_then(|old| self.set_aside(&digest.to_string(), &old, "replaced"))
                    .and_then(|_| fs::rename(staging.path(), &target))
                    .map_err(failed)?;
            }
            renamed => renamed.map_err(failed)?,
        }
        // The directory has its final name; nothing is left for the guard to remove.
        let _ = staging.keep();
        Ok(())
    }

    pub(super) fn layer(&self, digest: impl Display) -> PathBuf {
        self.root.join("layers").join(digest.to_string())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The names of all layers.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let layers = self.root.join("layers");
        let entries = match fs::read_dir(&layers) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| cache::failed("read", &layers, error))?,
        };
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    pub(super) fn manifest(&self, digest: &str) -> Result<Manifest> {
        read_manifest(&self.layer(digest))
    }

    /// What of a layer is not as its manifest says, contents included.
    pub(super) fn differences(&self, digest: &str) -> Result<Vec<String>> {
        let directory = self.layer(digest);
        match read_manifest(&directory) {
            Err(_) if !directory.exists() => Ok(Vec::new()),
            Err(_) => Ok(vec![UNREADABLE.to_owned()]),
            Ok(manifest) => manifest
                .differences(&directory.join(DATA))
                .map_err(|error| cache::failed("verify the layer", &directory, error)),
        }
    }

    /// When a layer was last used, or else made.
    pub(super) fn last_used(&self, digest: &str) -> SystemTime {
        let directory = self.layer(digest);
        let time = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
        time(&directory.join(USED)).or_else(|_| time(&directory)).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Removes a layer, unless it is in use.
    pub(super) fn remove(&self, digest: &str) -> Result<bool> {
        let directory = self.layer(digest);
        let failed = |error| cache::failed("remove the layer", &directory, error);
        let lock = match File::open(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(failed)?,
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Out of its place first, so that nobody finds half of it. Until the lock is free nobody else removes it.
        let Some(aside) = self.set_aside(digest, &lock, "pruned").map_err(failed)? else {
            return Ok(false);
        };
        fs::remove_dir_all(&aside).map_err(|error| cache::failed("remove", &aside, error))?;
        Ok(true)
    }

    /// Removes every build and every layer set aside that nobody is busy with.
    pub(super) fn sweep_all(&self) {
        self.sweep(&self.root.join("staging"), None);
    }
}

/// The layer of that name, if it is published.
pub(crate) fn find(digest: &str) -> Result<Option<Arc<Layer>>> {
    let Ok(digest) = digest.parse() else { return Ok(None) };
    Ok(Store::open()?.find(digest)?.map(Arc::new))
}

/// Where the data of the layer of that name is, whether or not there is one.
pub(crate) fn data_of(digest: &str) -> Option<PathBuf> {
    Store::open().ok().map(|store| store.layer(digest).join(DATA))
}

/// Does what changes the number of links to a layer's files, and nothing else of them; see [`Layer::keeping_seal`].
pub(crate) fn sealed_again<T>(digest: &str, work: impl FnOnce() -> T) -> T {
    let layer = || {
        let digest = digest.parse::<Digest>().ok()?;
        let directory = Store::open().ok()?.layer(digest);
        let opened = File::open(&directory).ok()?;
        Some(Layer { digest, directory, lock: DirectoryLock::new(opened) })
    };
    match layer() {
        Some(layer) => layer.keeping_seal(work),
        None => work(),
    }
}

/// Moves a layer file by file, its manifest first: without it, it is none.
fn move_tree(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from.join(MANIFEST), to.join(MANIFEST)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for entry in WalkDir::new(from).min_depth(1) {
        let entry = entry?;
        let target = to.join(entry.path().strip_prefix(from).map_err(io::Error::other)?);
        if entry.file_type().is_dir() { fs::create_dir(&target)? } else { fs::rename(entry.path(), &target)? }
    }
    fs::remove_dir_all(from)
}

/// The data directory of a build.
pub(super) fn make_data_directory(staging: &Path) -> Result<PathBuf> {
    let data = staging.join(DATA);
    let made = DirBuilder::new().mode(0o700).create(&data);
    made.map_err(|error| cache::failed("create", &data, error))?;
    Ok(data)
}

/// Where a copy of a parent's data goes.
pub(super) fn data_directory(staging: &Path) -> PathBuf {
    staging.join(DATA)
}
