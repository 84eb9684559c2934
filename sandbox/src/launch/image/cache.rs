//! The images that this user has: in the cache, one for each program and its arguments, as long as the machine is up.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::cache::{self, Cache, StagedFile};
use crate::environment::LINK_ONCE;
use crate::launch::limits::Limits;
use crate::launch::plan::{Data, Plan};
use crate::machine::boot_id;

/// Enters the name of an image, so that one of another form is never read.
const FORMAT: u32 = 3;

const IN_THE_MAKING: &str = "its image is being made";

/// Programs that there are images of at most, each of some megabytes; those made first go first.
const MOST: usize = 16;

/// How a container's server came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProcessOrigin {
    /// From an image.
    Restored,
    /// By execve(2), and why.
    Executed(String),
}

/// What this process knows of images: one, why there is none, or that a thread is making it.
static KNOWN: LazyLock<Mutex<HashMap<String, Known>>> = LazyLock::new(Mutex::default);

#[derive(Debug, Clone)]
enum Known {
    /// `own`: it was made by this process, not found.
    Image {
        image: Arc<File>,
        own: bool,
    },
    None(String),
    InTheMaking,
}

fn known() -> MutexGuard<'static, HashMap<String, Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The image of a plan's server. The first that asks since the machine was started makes it, which takes as long as two
/// starts; whoever asks meanwhile does without.
///
/// # Errors
/// Why the server is to be executed.
pub(in crate::launch) fn image_of<E: fmt::Display>(
    plan: &Plan,
    capture: impl FnOnce(&Plan, &File) -> Result<Result<(), String>, E>,
) -> Result<Arc<File>, String> {
    eligible(plan)?;
    let key = key(plan)?;
    {
        let mut known = known();
        match known.get(&key) {
            Some(Known::Image { image, .. }) => return Ok(image.clone()),
            Some(Known::None(why)) => return Err(why.clone()),
            Some(Known::InTheMaking) => return Err(IN_THE_MAKING.to_owned()),
            None => known.insert(key.clone(), Known::InTheMaking),
        };
    }
    let place = ImagePath::of(&key).map_err(|error| error.to_string());
    let outcome = place.and_then(|place| match place.find()? {
        Some(image) => Ok(Some((image, false))),
        None => Ok(make(plan, &place, capture)?.map(|image| (image, true))),
    });
    let mut known = known();
    match outcome {
        Ok(Some((image, own))) => {
            known.insert(key, Known::Image { image: image.clone(), own });
            Ok(image)
        }
        Ok(None) => {
            known.remove(&key);
            Err(IN_THE_MAKING.to_owned())
        }
        Err(why) => {
            known.insert(key, Known::None(why.clone()));
            Err(why)
        }
    }
}

/// Notes that a server could not be restored from this image. One that was found may be out of date and is made anew; one
/// that this process has made tells that it cannot be done.
pub(in crate::launch) fn give_up(plan: &Plan, image: &Arc<File>, why: &str) {
    tracing::debug!(why, "a server was executed instead of restored");
    let Ok(key) = key(plan) else { return };
    let Ok(place) = ImagePath::of(&key) else { return };
    let mut known = known();
    match known.get(&key) {
        Some(Known::Image { image: current, own }) if Arc::ptr_eq(current, image) => {
            if *own {
                place.refuse(why);
                known.insert(key, Known::None(why.to_owned()));
            } else {
                remove(&place.image);
                known.remove(&key);
            }
        }
        // Another thread has been here before.
        _ => {}
    }
}

/// Has no server restored from the image of this one any more, since one did not live to be ready.
pub(crate) fn distrust(plan: &Plan) {
    let Ok(key) = key(plan) else { return };
    let why = "a server that was restored did not become ready, and one that was executed did";
    tracing::warn!("{why}: servers are executed from here on");
    if let Ok(place) = ImagePath::of(&key) {
        place.refuse(why);
    }
    known().insert(key, Known::None(why.to_owned()));
}

fn eligible(plan: &Plan) -> Result<(), String> {
    let refusal = if LINK_ONCE.word().map_err(|error| error.to_string())? == Some("0") {
        "SANDBOXED_DB_LINK_ONCE=0 is set"
    } else if !cfg!(target_arch = "x86_64") {
        "it is not known how on this architecture"
    } else if plan.process_mode.is_some() {
        "process mode has no container"
    } else if !plan.prelink {
        "the plan excludes it"
    } else if plan.server.is_none() || matches!(plan.data, Data::Writable { .. }) {
        "a layer is built"
    } else {
        return Ok(());
    };
    Err(refusal.to_owned())
}

/// Names all that an image depends on. The kernel's own mappings and what the C library has found out of processors are the
/// same until the machine is started anew. Which libraries are found is told by the linker's cache, which is written anew
/// whenever one is installed; each file that is mapped is looked at again when the image is used.
fn key(plan: &Plan) -> Result<String, String> {
    let boot = boot_id().map_err(|error| error.to_string())?;
    let Plan { usr, binds, files, server, .. } = plan;
    // What libraries read before the image is taken.
    let configuration: Vec<_> =
        files.iter().filter(|file| file.path.as_path().starts_with("/etc/ssl")).collect();
    let linker =
        fs::metadata("/etc/ld.so.cache").map(|cache| (cache.ino(), cache.ctime(), cache.ctime_nsec())).ok();
    let all = serde_json::to_vec(&(FORMAT, boot, linker, usr, binds, configuration, server));
    let all = all.map_err(|error| error.to_string())?;
    Ok(blake3::hash(&all).to_hex().to_string())
}

/// None if another process is about to make the same; that is not waited for.
fn make<E: fmt::Display>(
    plan: &Plan,
    place: &ImagePath,
    capture: impl FnOnce(&Plan, &File) -> Result<Result<(), String>, E>,
) -> Result<Option<Arc<File>>, String> {
    let directory = File::open(&place.directory).map_err(|error| error.to_string())?;
    if directory.try_lock().is_err() {
        return Ok(None);
    }
    // In a cache that cannot be written the image is this process's alone.
    let staged = place.cache.stage_file();
    let image = staged.as_ref().map_or_else(|_| tempfile::tempfile(), |staged| staged.as_file().try_clone());
    let image = image.map_err(|error| error.to_string())?;
    // What is linked needs little, and no test's limits are to keep it from that.
    let plan = Plan { limits: Limits::default().settled(0), ..plan.clone() };
    match capture(&plan, &image) {
        Ok(Ok(())) => {
            if let Ok(staged) = staged {
                place.publish(staged);
            }
            Ok(Some(Arc::new(image)))
        }
        Ok(Err(why)) => {
            place.refuse(&why);
            Err(why)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Where an image is in the cache.
struct ImagePath {
    cache: Cache,
    directory: PathBuf,
    image: PathBuf,
    /// Holds why there is none.
    refusal: PathBuf,
}

impl ImagePath {
    fn of(key: &str) -> crate::error::Result<Self> {
        let cache = Cache::open()?;
        let directory = cache.path("linked");
        cache::create(&directory)?;
        let image = directory.join(key);
        Ok(Self { refusal: image.with_extension("none"), cache, directory, image })
    }

    /// The image, if there is one; the error is why there will be none.
    fn find(&self) -> Result<Option<Arc<File>>, String> {
        match fs::read_to_string(&self.refusal) {
            Ok(why) => Err(why),
            Err(_) => Ok(File::open(&self.image).ok().map(Arc::new)),
        }
    }

    /// Gives the file its name. Where that fails, each process makes its own image.
    fn publish(&self, image: StagedFile) {
        match image.publish(&self.image) {
            Ok(_) => self.prune(),
            Err(error) => tracing::debug!(%error, "the image of a server is not shared"),
        }
    }

    fn refuse(&self, why: &str) {
        if let Err(error) = self.cache.write(&self.refusal, why) {
            tracing::debug!(?error, "that a server has no image is not noted");
        }
        remove(&self.image);
    }

    /// Removes what is oldest. Images in use stay in memory.
    fn prune(&self) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut all: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        all.sort_unstable();
        let surplus = all.len().saturating_sub(MOST);
        all.iter().take(surplus).for_each(|(_, path): &(SystemTime, PathBuf)| remove(path));
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, "an old image is not removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::plan::{File as PlannedFile, root};

    #[test]
    fn an_image_depends_on_what_is_read_before_it_is_taken() {
        let data = Data::Writable { source: PathBuf::from("/data") };
        let usual = root(vec![PathBuf::from("/usr")], data, "/data".into());
        let with = |path: &str| {
            let mut plan = usual.clone();
            let contents = "openssl_conf = own".to_owned();
            plan.files.push(PlannedFile { path: path.into(), mode: 0o644, contents });
            key(&plan).unwrap()
        };
        assert_ne!(key(&usual), Ok(with("/etc/ssl/openssl.cnf")));
        // The server's own is read by each server.
        assert_eq!(key(&usual), Ok(with("/etc/postgresql/postgresql.conf")));
    }
}
