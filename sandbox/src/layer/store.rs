//! The store: where layers are kept, found, locked and published.
//!
//! ```text
//! <cache>/layers/<digest>/data/            the data directory
//! <cache>/layers/<digest>/manifest.json
//! <cache>/staging/<digest>.<random>/       a build under way; garbage once its lock is free
//! <cache>/locks/<digest>                   held by whoever builds that layer
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::digest::Digest;
use super::manifest::Manifest;
use crate::cache;
use crate::error::{Error, ErrorKind, Result};

const MANIFEST: &str = "manifest.json";
const DATA: &str = "data";

#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
}

/// A published layer, which is not removed while this is held.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(super) digest: Digest,
    directory: PathBuf,
    /// The layer's directory, locked shared. The lock ends with the last holder of the descriptor.
    _in_use: File,
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
        match lock.try_lock_shared() {
            Ok(()) => {}
            // Somebody is removing it.
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(cache::failed("lock the layer", &directory, error));
            }
        }
        let locked = lock.metadata().map_err(|error| cache::failed("read", &directory, error))?;
        let owner = rustix::process::geteuid().as_raw();
        if locked.uid() != owner {
            return Err(Error::new(ErrorKind::Layer, format!("use the layer `{}`", directory.display()))
                .caused_by(format!("it belongs to user {}, and this is user {owner}", locked.uid()))
                .with_hint("set SANDBOXED_DB_CACHE to a directory of your own, or give this one to yourself by chown(1)"));
        }
        // It may have been removed, or replaced, between the two calls; then the lock is on a directory without a name.
        let named = fs::metadata(&directory).is_ok_and(|named| named.ino() == locked.ino());
        let complete = named && directory.join(MANIFEST).exists() && directory.join(DATA).exists();
        Ok(complete.then_some(Layer { digest, directory, _in_use: lock }))
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
        self.sweep(&staging, digest);
        tempfile::Builder::new()
            .prefix(&format!("{digest}."))
            .tempdir_in(&staging)
            .map_err(|error| cache::failed("make a directory in", &staging, error))
    }

    /// Removes builds whose builder was killed: those of this digest, whose lock the caller holds, and those of any
    /// other whose lock is free.
    fn sweep(&self, staging: &Path, ours: Digest) {
        let ours = ours.to_string();
        for entry in fs::read_dir(staging).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digest = name.split('.').next().unwrap_or_default();
            let lock = File::options().write(true).open(self.root.join("locks").join(digest));
            let abandoned = digest == ours || lock.as_ref().is_ok_and(|lock| lock.try_lock().is_ok());
            if abandoned {
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
        // One call for a thousand files, instead of a thousand.
        let directory = File::open(staging.path()).map_err(failed)?;
        rustix::fs::syncfs(&directory).map_err(|errno| failed(errno.into()))?;
        match fs::rename(staging.path(), &target) {
            // Half a layer, which somebody's clean-up has left: out of the way with it; the next sweep removes it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {
                let aside = self.root.join("staging").join(format!("{digest}.broken-{}", std::process::id()));
                tracing::warn!(layer = %digest, "an incomplete layer is replaced");
                fs::rename(&target, aside)
                    .and_then(|()| fs::rename(staging.path(), &target))
                    .map_err(failed)?;
            }
            renamed => renamed.map_err(failed)?,
        }
        // The directory has its final name; nothing is left for the guard to remove.
        let _ = staging.keep();
        Ok(())
    }

    fn layer(&self, digest: Digest) -> PathBuf {
        self.root.join("layers").join(digest.to_string())
    }
}

impl Layer {
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join(DATA)
    }

    /// Whether it is still there; somebody may have removed the whole cache by hand.
    pub(super) fn exists(&self) -> bool {
        self.directory.exists()
    }

    pub(super) fn manifest(&self) -> Result<Manifest> {
        let path = self.directory.join(MANIFEST);
        let text = fs::read(&path).map_err(|error| cache::failed("read", &path, error))?;
        serde_json::from_slice(&text).map_err(|error| {
            cache::failed("read", &path, error.into()).with_hint("remove the layer: it is built again")
        })
    }
}

/// The data directory of a build.
pub(super) fn make_data_directory(staging: &Path) -> Result<PathBuf> {
    let data = staging.join(DATA);
    let made = fs::DirBuilder::new().mode(0o700).create(&data);
    made.map_err(|error| cache::failed("create", &data, error))?;
    Ok(data)
}

/// Where a copy of a parent's data goes.
pub(super) fn data_directory(staging: &Path) -> PathBuf {
    staging.join(DATA)
}
