//! The user's checkpoints: in the cache, one for each plan and layer, for the time of a boot.
//!
//! ```text
//! <cache>/checkpoints/<key>/image     the image of a ready server
//! <cache>/checkpoints/<key>/changes/  what that server had changed of its layer
//! <cache>/checkpoints/<key>/seal      hashes of both, and fingerprints
//! <cache>/checkpoints/<key>.asked     a plan that was started once
//! <cache>/checkpoints/<key>.none      the reason why a plan has no checkpoint
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::difference;
use super::seal::{Fingerprint, Seal};
use crate::cache::{self, Cache, DirectoryLock};
use crate::environment::START;
use crate::launch::plan::{Data, Plan};
use crate::launch::protocol::{Holds, NoImage};
use crate::machine::boot_id;

/// Enters the name of a checkpoint, so that one of another form is never read.
const FORMAT: u32 = 2;

/// The most checkpoints, of some megabytes each; the oldest are removed.
const MOST: usize = 16;

/// The most bytes by which a server may have changed its layer.
const MOST_CHANGES: u64 = 64 << 20;

const DIRECTORY: &str = "checkpoints";
const IMAGE: &str = "image";
const CHANGES: &str = "changes";
const SEAL: &str = "seal";

/// A checkpoint, which is not removed while this is held.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    lock: DirectoryLock,
    image: File,
    fingerprint: Fingerprint,
    /// `true` if this process made it.
    is_own: bool,
}

impl Checkpoint {
    pub(in crate::launch) fn image(&self) -> &File {
        &self.image
    }

    /// Returns the plan of a server that is resumed.
    pub(in crate::launch) fn plan(&self, plan: &Plan) -> Plan {
        with_changes(plan, &self.lock.path().join(CHANGES))
    }

    fn is_unchanged(&self) -> bool {
        self.lock.exists() && Fingerprint::of(&self.image).is_ok_and(|found| found == self.fingerprint)
    }
}

/// A checkpoint in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(in crate::launch) image: File,
    changes: PathBuf,
}

impl Draft {
    /// Notes what the server has changed, once its image is taken. `data` is its data directory.
    pub(in crate::launch) fn take_changes(&self, plan: &Plan, data: &Path) -> Result<(), NoImage> {
        let Data::Overlay { lower, .. } = &plan.data else {
            return Err(io::Error::other("it has no layer").into());
        };
        Ok(difference::write(data, lower, &self.changes, MOST_CHANGES)?)
    }

    pub(in crate::launch) fn plan(&self, plan: &Plan) -> Plan {
        with_changes(plan, &self.changes)
    }
}

fn with_changes(plan: &Plan, changes: &Path) -> Plan {
    let mut plan = plan.clone();
    if let Data::Overlay { changes: between, .. } = &mut plan.data {
        *between = Some(changes.to_owned());
    }
    // The changes have them.
    plan.when_ready.clear();
    plan
}

#[derive(Debug, Serialize, Deserialize)]
struct Seals {
    image: Seal,
    changes: String,
    /// Changes with the changes.
    fingerprint: String,
}

#[derive(Debug, Clone)]
enum Known {
    /// It was asked for once.
    Asked,
    Checkpoint(Arc<Checkpoint>),
    None(NoImage),
    /// A thread is making it.
    InTheMaking,
}

static KNOWN: LazyLock<Mutex<HashMap<String, Known>>> = LazyLock::new(Mutex::default);

fn known() -> MutexGuard<'static, HashMap<String, Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the checkpoint of a plan's server. The second call of a boot makes it by `make`, which
/// takes half a second; calls meanwhile do without.
///
/// # Errors
/// The reason to start the server in another way.
pub(crate) fn checkpoint_of(
    plan: &Plan,
    make: impl FnOnce(&Draft) -> Result<(), NoImage>,
) -> Result<Arc<Checkpoint>, NoImage> {
    let for_process = |why: String| NoImage::new(why, Holds::Process);
    eligible(plan).map_err(for_process)?;
    let key = key(plan).map_err(for_process)?;
    let path = CheckpointPath::of(&key).map_err(|error| for_process(error.to_string()))?;
    {
        let mut known = known();
        match known.get(&key) {
            Some(Known::Checkpoint(checkpoint)) if checkpoint.is_unchanged() => {
                return Ok(checkpoint.clone());
            }
            Some(Known::None(why)) => return Err(why.clone()),
            Some(Known::InTheMaking) => return Err(in_the_making()),
            None if !path.was_asked() => {
                known.insert(key, Known::Asked);
                return Err(NoImage::new("it is started for the first time", Holds::Once));
            }
            Some(Known::Asked | Known::Checkpoint(_)) | None => {
                known.insert(key.clone(), Known::InTheMaking);
            }
        }
    }
    let found = path.find().and_then(|found| match found {
        Some(checkpoint) => Ok(checkpoint),
        None => path.make(make),
    });
    let mut known = known();
    match found {
        Ok(checkpoint) => {
            let checkpoint = Arc::new(checkpoint);
            known.insert(key, Known::Checkpoint(checkpoint.clone()));
            Ok(checkpoint)
        }
        Err(why) => {
            tracing::debug!(?why, "a server has no checkpoint");
            path.refuse(&why);
            let next = if why.holds == Holds::Once { Known::Asked } else { Known::None(why.clone()) };
            known.insert(key, next);
            Err(why)
        }
    }
}

/// Notes that a server could not be resumed from this checkpoint, or has ended early. One that was
/// found is made anew; if this process made it, resuming does not work. A shortage says nothing
/// about it.
pub(crate) fn give_up_checkpoint(plan: &Plan, checkpoint: &Arc<Checkpoint>, why: &NoImage) {
    tracing::warn!(why = why.why, "a server was not resumed from its checkpoint");
    if why.holds == Holds::Once {
        return;
    }
    let Ok(key) = key(plan) else { return };
    let Ok(path) = CheckpointPath::of(&key) else { return };
    let mut known = known();
    match known.get(&key) {
        Some(Known::Checkpoint(current)) if Arc::ptr_eq(current, checkpoint) => {
            path.set_aside(&checkpoint.lock);
            if checkpoint.is_own || why.holds == Holds::Process {
                path.refuse(why);
                known.insert(key, Known::None(why.clone()));
            } else {
                known.insert(key, Known::Asked);
            }
        }
        // Another thread has done so already.
        _ => {}
    }
}

/// Hashes all checkpoints, and sets aside those that were changed since they were made. Returns
/// their keys.
///
/// # Errors
/// The cache cannot be read.
pub(crate) fn verify_checkpoints() -> crate::error::Result<Vec<String>> {
    let cache = Cache::open()?;
    let mut damaged = Vec::new();
    for key in cache.names(DIRECTORY)? {
        let path = CheckpointPath::at(&cache, &key);
        let Ok(Some(lock)) = DirectoryLock::shared(&path.directory) else { continue };
        if !path.seals().is_ok_and(|seals| path.fits(&seals).unwrap_or(false)) {
            path.set_aside(&lock);
            damaged.push(key);
        }
    }
    Ok(damaged)
}

fn in_the_making() -> NoImage {
    NoImage::new("its checkpoint is being made", Holds::Once)
}

fn eligible(plan: &Plan) -> Result<(), String> {
    let refusal = if START.word().map_err(|error| error.to_string())? != Some("checkpoint") {
        "SANDBOXED_DB_START=checkpoint is not set"
    } else if !cfg!(target_arch = "x86_64") {
        "this architecture is not supported"
    } else if plan.process_mode.is_some() {
        "process mode has no container"
    } else if plan.server.is_none() || matches!(plan.data, Data::Writable { .. }) {
        "a layer is built"
    } else {
        return Ok(());
    };
    Err(refusal.to_owned())
}

/// Returns a hash of everything that a checkpoint depends on: the whole plan, the layer that is in
/// its place now, the limits that a server inherits, and what an image depends on.
fn key(plan: &Plan) -> Result<String, String> {
    let text = |error: io::Error| error.to_string();
    let boot = boot_id().map_err(text)?;
    let linker =
        fs::metadata("/etc/ld.so.cache").map(|cache| (cache.ino(), cache.ctime(), cache.ctime_nsec())).ok();
    let limits = fs::read_to_string("/proc/self/limits").map_err(text)?;
    let layer = match &plan.data {
        Data::Overlay { lower, .. } => {
            let lower = fs::metadata(lower).map_err(text)?;
            Some((lower.dev(), lower.ino(), lower.ctime(), lower.ctime_nsec()))
        }
        Data::Writable { .. } => None,
    };
    let all = serde_json::to_vec(&(FORMAT, boot, linker, limits, layer, plan));
    Ok(blake3::hash(&all.map_err(|error| error.to_string())?).to_hex().to_string())
}

/// The places of a checkpoint in the cache.
struct CheckpointPath {
    cache: Cache,
    key: String,
    directory: PathBuf,
}

impl CheckpointPath {
    fn of(key: &str) -> crate::error::Result<Self> {
        let cache = Cache::open()?;
        cache::create(&cache.path(DIRECTORY))?;
        Ok(Self::at(&cache, key))
    }

    fn at(cache: &Cache, key: &str) -> Self {
        let directory = cache.path(DIRECTORY).join(key);
        Self { cache: cache.clone(), key: key.to_owned(), directory }
    }

    fn note(&self, kind: &str) -> PathBuf {
        self.directory.with_extension(kind)
    }

    /// Returns `true` if the plan was started before, in this process or another; notes that it is.
    fn was_asked(&self) -> bool {
        let asked = self.note("asked");
        // A cache that cannot be written holds no checkpoint either.
        asked.exists() || { self.cache.write(&asked, "").is_err() }
    }

    /// Returns the checkpoint, if there is one and its seals hold; the error is the reason why
    /// there is none.
    fn find(&self) -> Result<Option<Checkpoint>, NoImage> {
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
        if (fingerprint, changes) != (seals.image.fingerprint, seals.fingerprint.clone()) {
            if !self.fits(&seals)? {
                tracing::warn!(key = self.key, "a checkpoint was changed, and is made anew");
                self.set_aside(&lock);
                return Ok(None);
            }
            // A copy of the cache has other times.
            self.write_seals(&self.directory)?;
        }
        Ok(Some(Checkpoint { lock, image, fingerprint, is_own: false }))
    }

    fn seals(&self) -> io::Result<Seals> {
        Ok(serde_json::from_slice(&fs::read(self.directory.join(SEAL))?)?)
    }

    /// Returns `true` if the contents are those that were sealed, all of which are read.
    fn fits(&self, seals: &Seals) -> io::Result<bool> {
        let image = File::open(self.directory.join(IMAGE))?;
        Ok(seals.image.fits(&image)?
            && difference::hash(&self.directory.join(CHANGES), true)? == seals.changes)
    }

    fn write_seals(&self, directory: &Path) -> io::Result<()> {
        let changes = directory.join(CHANGES);
        let seals = Seals {
            image: Seal::of(&File::open(directory.join(IMAGE))?)?,
            fingerprint: difference::hash(&changes, false)?,
            changes: difference::hash(&changes, true)?,
        };
        fs::write(directory.join(SEAL), serde_json::to_vec(&seals)?)
    }

    /// Makes the checkpoint, unless another process is making it, which is not waited for.
    fn make(&self, make: impl FnOnce(&Draft) -> Result<(), NoImage>) -> Result<Checkpoint, NoImage> {
        let lock = File::options().create(true).append(true).open(self.note("asked"))?;
        if lock.try_lock().is_err() {
            return Err(in_the_making());
        }
        // Another process may have made it meanwhile.
        if let Some(found) = self.find()? {
            return Ok(found);
        }
        let in_cache = |error: crate::error::Error| NoImage::new(error.to_string(), Holds::Process);
        let staged = self.cache.stage(&self.key).map_err(in_cache)?;
        let path = staged.path().to_owned();
        let mut options = File::options();
        let image = options.read(true).write(true).create_new(true).mode(0o600).open(path.join(IMAGE))?;
        make(&Draft { image: image.try_clone()?, changes: path.join(CHANGES) })?;
        self.write_seals(&path)?;
        let fingerprint = Fingerprint::of(&image)?;
        let lock = staged.publish(&self.directory, SEAL)?;
        self.prune();
        Ok(Checkpoint { lock, image, fingerprint, is_own: true })
    }

    /// Records a reason that holds for all processes.
    fn refuse(&self, why: &NoImage) {
        if why.holds == Holds::Boot
            && let Err(error) = self.cache.write(&self.note("none"), &why.why)
        {
            tracing::debug!(?error, "that a server has no checkpoint is not noted");
        }
    }

    /// Moves a checkpoint out of its place. Sandboxes that use it go on.
    fn set_aside(&self, lock: &DirectoryLock) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::plan::root;

    #[test]
    fn a_checkpoint_depends_on_everything_that_is_planned() {
        let place = tempfile::tempdir().unwrap();
        let lower = place.path().join("data");
        fs::create_dir(&lower).unwrap();
        let data = Data::Overlay { lower: lower.clone(), changes: None, upper_size: 1 };
        let plan = root(vec![PathBuf::from("/usr")], data, "/data".into(), "x");
        let usual = key(&plan).unwrap();
        assert_eq!(key(&plan), Ok(usual.clone()));
        let mut other = plan.clone();
        other.limits.memory += 1;
        assert_ne!(key(&other), Ok(usual.clone()));
        // A layer that was built again in the same place is another one.
        fs::rename(&lower, place.path().join("old")).unwrap();
        fs::create_dir(&lower).unwrap();
        assert_ne!(key(&plan), Ok(usual));
    }
}
