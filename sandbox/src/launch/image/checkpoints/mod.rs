//! The user's checkpoints: in the cache, one for each plan and layer, for the time of a boot.
//!
//! ```text
//! <cache>/checkpoints/<key>/image     the image of a ready server
//! <cache>/checkpoints/<key>/changes/  what that server had changed of its layer
//! <cache>/checkpoints/<key>/seal      the key, hashes of both, and fingerprints
//! <cache>/checkpoints/<key>.asked     a byte for each start of a plan without a checkpoint
//! <cache>/checkpoints/<key>.none      the reason why a plan has no checkpoint
//! ```

mod key;
mod path;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use self::key::key;
use self::path::{CHANGES, CheckpointPath, DIRECTORY};
use super::seal::Fingerprint;
use super::{PAUSE, difference};
use crate::cache::{Cache, DirectoryLock};
use crate::environment::START;
use crate::launch::plan::{Data, Plan};
use crate::launch::protocol::{Holds, NoImage};

/// The most bytes by which a server may have changed its layer.
const MOST_CHANGES: u64 = 64 << 20;

/// The start of a plan that makes its checkpoint by default. Making one takes as much processor
/// time as it saves in about twenty starts.
const PAYS_FROM: u64 = 24;

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

#[derive(Debug, Clone)]
enum Known {
    Checkpoint(Arc<Checkpoint>),
    None(NoImage),
    /// The last attempt met a shortage, or a server without rest.
    Failed(NoImage),
    /// None is used until then, for this reason.
    Pause(Instant, NoImage),
    /// A thread is making it.
    InTheMaking,
}

static KNOWN: LazyLock<Mutex<HashMap<String, Known>>> = LazyLock::new(Mutex::default);

fn known() -> MutexGuard<'static, HashMap<String, Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the checkpoint of a plan's server. One of the first calls of a boot makes it by
/// `make`, which takes as long as some starts; calls meanwhile do without.
///
/// # Errors
/// The reason to start the server in another way.
pub(crate) fn checkpoint_of(
    plan: &Plan,
    make: impl FnOnce(&Draft) -> Result<(), NoImage>,
) -> Result<Arc<Checkpoint>, NoImage> {
    let for_process = |why: String| NoImage::new(why, Holds::Process);
    let layer = eligible(plan).map_err(for_process)?;
    let due = due().map_err(for_process)?;
    let key = key(plan).map_err(for_process)?;
    let path = CheckpointPath::of(&key).map_err(|error| for_process(error.to_string()))?;
    {
        let mut known = known();
        match known.get(&key) {
            Some(Known::Checkpoint(checkpoint)) if checkpoint.is_unchanged() => {
                return Ok(checkpoint.clone());
            }
            Some(Known::None(why)) => return Err(why.clone()),
            Some(Known::Pause(end, why)) if Instant::now() < *end => return Err(why.clone()),
            Some(Known::InTheMaking) => return Err(in_the_making()),
            Some(Known::Checkpoint(_) | Known::Failed(_) | Known::Pause(..)) | None => {}
        }
        if !path.is_due(due)? {
            return Err(match known.get(&key) {
                Some(Known::Failed(why)) => why.clone(),
                _ => NoImage::new(format!("it is made at start number {due}"), Holds::Once),
            });
        }
        known.insert(key.clone(), Known::InTheMaking);
    }
    let found = path.find().and_then(|found| match found {
        Some(checkpoint) => Ok(checkpoint),
        None => path.make(layer, make),
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
            let outcome = match why.holds {
                Holds::Once | Holds::Pause => Known::Failed,
                Holds::Process | Holds::Boot => Known::None,
            };
            known.insert(key, outcome(why.clone()));
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
            if why.holds == Holds::Pause {
                known.insert(key, Known::Pause(Instant::now() + PAUSE, why.clone()));
                return;
            }
            path.set_aside(&checkpoint.lock);
            if checkpoint.is_own || why.holds == Holds::Process {
                path.refuse(why);
                known.insert(key, Known::None(why.clone()));
            } else {
                known.remove(&key);
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
        let Ok(Some(lock)) = DirectoryLock::shared(path.directory()) else { continue };
        if !path.seals().is_ok_and(|seals| path.fits(&seals).unwrap_or(false)) {
            path.set_aside(&lock);
            damaged.push(key);
        }
    }
    Ok(damaged)
}

/// Removes checkpoints that no server can be resumed from any more.
pub(crate) fn prune_checkpoints() -> crate::error::Result<()> {
    let cache = Cache::open()?;
    for key in cache.names(DIRECTORY)? {
        let path = CheckpointPath::at(&cache, &key);
        if path.directory().is_dir() {
            path.remove_if_useless();
        }
    }
    Ok(())
}

fn in_the_making() -> NoImage {
    NoImage::new("its checkpoint is being made", Holds::Once)
}

/// Returns the number of the start that makes a checkpoint.
fn due() -> Result<u64, String> {
    match START.word().map_err(|error| error.to_string())? {
        None => Ok(PAYS_FROM),
        Some("checkpoint") => Ok(2),
        Some(way) => Err(format!("SANDBOXED_DB_START={way} is set")),
    }
}

/// Returns the layer of a plan whose server may have a checkpoint.
fn eligible(plan: &Plan) -> Result<&Path, String> {
    let refusal = match &plan.data {
        _ if !cfg!(target_arch = "x86_64") => "this architecture is not supported",
        _ if plan.process_mode.is_some() => "process mode has no container",
        Data::Overlay { lower, .. } if plan.server.is_some() => return Ok(lower),
        _ => "a layer is built",
    };
    Err(refusal.to_owned())
}
