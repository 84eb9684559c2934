//! The places of a checkpoint in the cache.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Checkpoint, Draft, in_the_making};
use crate::cache::{self, Cache, DirectoryLock};
use crate::launch::image::difference;
use crate::launch::image::seal::{Fingerprint, Seal};
use crate::launch::protocol::{Holds, NoImage};
use crate::machine::boot_id;

/// The most checkpoints, of some megabytes each; the oldest are removed.
const MOST: usize = 16;

pub(super) const DIRECTORY: &str = "checkpoints";
const IMAGE: &str = "image";
pub(super) const CHANGES: &str = "changes";
const SEAL: &str = "seal";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seals {
    /// A checkpoint in the place of another is refused.
    key: String,
    /// The boot and the layer without which it is of no use.
    boot: String,
    layer: PathBuf,
    image: Seal,
    changes: String,
    /// Changes with the changes.
    fingerprint: String,
}

pub(super) struct CheckpointPath {
    cache: Cache,
    key: String,
    directory: PathBuf,
}

impl CheckpointPath {
    pub(super) fn of(key: &str) -> crate::error::Result<Self> {
        let cache = Cache::open()?;
        cache::create(&cache.path(DIRECTORY))?;
        Ok(Self::at(&cache, key))
    }

    pub(super) fn at(cache: &Cache, key: &str) -> Self {
        let directory = cache.path(DIRECTORY).join(key);
        Self { cache: cache.clone(), key: key.to_owned(), directory }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn note(&self, kind: &str) -> PathBuf {
        self.directory.with_extension(kind)
    }

    /// The file that counts starts by its length, and is locked while the checkpoint is made.
    fn open_count(&self) -> io::Result<File> {
        File::options().create(true).append(true).mode(0o600).open(self.note("asked"))
    }

    /// Returns `true` if there is a checkpoint, or if this is at least start number `due` of its
    /// plan, in any process.
    pub(super) fn is_due(&self, due: u64) -> io::Result<bool> {
        if self.directory.exists() {
            return Ok(true);
        }
        let mut count = self.open_count()?;
        let before = count.metadata()?.len();
        if before + 1 < due {
            count.write_all(b".")?;
        }
        Ok(before + 1 >= due)
    }

    /// Returns the checkpoint, if there is one and its seals hold; the error is the reason why
    /// there is none.
    pub(super) fn find(&self) -> Result<Option<Checkpoint>, NoImage> {
        if let Ok(why) = fs::read_to_string(self.note("none")) {
            return Err(NoImage::new(why, Holds::Process));
        }
        let Some(lock) = DirectoryLock::shared(&self.directory)? else { return Ok(None) };
        let Ok(seals) = self.seals() else {
            self.set_aside(&lock);
            return Ok(None);
        };
        let image = File::open(self.directory.join(IMAGE))?;
        let fingerprint = Fingerprint::of(&image)?;
        let changes = difference::hash(&self.directory.join(CHANGES), false)?;
        let found = (&self.key, fingerprint, &changes);
        if found != (&seals.key, seals.image.fingerprint, &seals.fingerprint) {
            if !self.fits(&seals)? {
                tracing::warn!(key = self.key, "a checkpoint was changed, and is made anew");
                self.set_aside(&lock);
                return Ok(None);
            }
            // A copy of the cache has other times.
            let staged = self.cache.stage_file().map_err(in_cache)?;
            staged.as_file().write_all(&self.seal(&self.directory, &seals.layer)?)?;
            // Another process that finds no seal sets the checkpoint aside.
            staged.publish(&self.directory.join(SEAL))?;
        }
        Ok(Some(Checkpoint { lock, image, fingerprint, is_own: false }))
    }

    pub(super) fn seals(&self) -> io::Result<Seals> {
        Ok(serde_json::from_slice(&fs::read(self.directory.join(SEAL))?)?)
    }

    /// Returns `true` if the contents are those that were sealed, all of which are read.
    pub(super) fn fits(&self, seals: &Seals) -> io::Result<bool> {
        let image = File::open(self.directory.join(IMAGE))?;
        Ok(seals.key == self.key
            && seals.image.fits(&image)?
            && difference::hash(&self.directory.join(CHANGES), true)? == seals.changes)
    }

    /// Returns the contents of the seal of a checkpoint in that directory.
    fn seal(&self, directory: &Path, layer: &Path) -> io::Result<Vec<u8>> {
        let changes = directory.join(CHANGES);
        let seals = Seals {
            key: self.key.clone(),
            boot: boot_id()?,
            layer: layer.to_owned(),
            image: Seal::of(&File::open(directory.join(IMAGE))?)?,
            fingerprint: difference::hash(&changes, false)?,
            changes: difference::hash(&changes, true)?,
        };
        Ok(serde_json::to_vec(&seals)?)
    }

    /// Makes the checkpoint, unless another process is making it, which is not waited for. The next
    /// call removes the directory of a process that was killed amid this.
    pub(super) fn make(
        &self,
        layer: &Path,
        make: impl FnOnce(&Draft) -> Result<(), NoImage>,
    ) -> Result<Checkpoint, NoImage> {
        let lock = self.open_count()?;
        if lock.try_lock().is_err() {
            return Err(in_the_making());
        }
        // Another process may have made it meanwhile.
        if let Some(found) = self.find()? {
            return Ok(found);
        }
        let staged = self.cache.stage(&self.key).map_err(in_cache)?;
        let path = staged.path().to_owned();
        let mut options = File::options();
        let image = options.read(true).write(true).create_new(true).mode(0o600).open(path.join(IMAGE))?;
        let made = make(&Draft { image: image.try_clone()?, changes: path.join(CHANGES) });
        if made.as_ref().is_err_and(NoImage::may_pass) {
            // An attempt is expensive, and the next one waits for as many starts.
            lock.set_len(0)?;
        }
        made?;
        fs::write(path.join(SEAL), self.seal(&path, layer)?)?;
        let fingerprint = Fingerprint::of(&image)?;
        let lock = staged.publish_for_boot(&self.directory, SEAL)?;
        self.prune();
        Ok(Checkpoint { lock, image, fingerprint, is_own: true })
    }

    /// Removes the checkpoint if its boot or its layer is gone, or if it has no seal.
    pub(super) fn remove_if_useless(&self) {
        let is_of_use = |seals: Seals| seals.layer.exists() && boot_id().is_ok_and(|boot| boot == seals.boot);
        if !self.seals().is_ok_and(is_of_use)
            && let Err(error) = self.cache.remove(&self.directory, SEAL)
        {
            tracing::debug!(?error, "a checkpoint stays in its place");
        }
    }

    /// Records a reason that holds for all processes.
    pub(super) fn refuse(&self, why: &NoImage) {
        if why.holds == Holds::Boot
            && let Err(error) = self.cache.write(&self.note("none"), &why.why)
        {
            tracing::debug!(?error, "that a server has no checkpoint is not noted");
        }
    }

    /// Moves a checkpoint out of its place. Sandboxes that use it go on.
    pub(super) fn set_aside(&self, lock: &DirectoryLock) {
        if let Err(error) = self.cache.set_aside(lock, SEAL) {
            tracing::debug!(?error, "a checkpoint stays in its place");
        }
    }

    /// Removes the oldest checkpoints and notes that are not in use.
    fn prune(&self) {
        let entries = fs::read_dir(self.cache.path(DIRECTORY)).into_iter().flatten().flatten();
        let mut all: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        all.sort_unstable();
        let (directories, notes): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, path)| path.is_dir());
        for (_, directory) in &directories[..directories.len().saturating_sub(MOST)] {
            let _ = self.cache.remove(directory, SEAL);
        }
        // There may be a note for each plan that was ever started.
        for (_, note) in &notes[..notes.len().saturating_sub(16 * MOST)] {
            let _ = fs::remove_file(note);
        }
    }
}

fn in_cache(error: crate::error::Error) -> NoImage {
    NoImage::new(error.to_string(), Holds::Process)
}
