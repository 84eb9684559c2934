//! The user's images: in the cache, one for each program and its arguments, for the time of a boot.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use super::PAUSE;
use super::platform::Platform;
use super::seal::{Fingerprint, Seal};
use crate::cache::{self, Cache, StagedFile};
use crate::environment::START;
use crate::launch::limits::Limits;
use crate::launch::plan::{Data, Plan};
use crate::launch::protocol::{Holds, NoImage};

/// Enters the name of an image, so that an image of another form is never read.
const FORMAT: u32 = 8;

/// The most images, of some megabytes each; those that are unused for the longest time are removed.
const MOST: usize = 64;

/// How a container's server was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProcessOrigin {
    /// From a checkpoint of a ready one.
    Resumed,
    /// From the image of a linked one.
    Linked,
    /// By execve(2), for this reason.
    Executed(NoImage),
}

/// Images that this process knows, by their keys.
static KNOWN: LazyLock<Mutex<HashMap<String, Known>>> = LazyLock::new(Mutex::default);

#[derive(Debug, Clone)]
enum Known {
    Image(KnownImage),
    /// No image can be made, for this reason.
    None(NoImage),
    /// No image is used until then, for this reason.
    Pause(Instant, NoImage),
    /// A thread is making the image.
    InTheMaking,
}

#[derive(Debug, Clone)]
struct KnownImage {
    file: Arc<File>,
    fingerprint: Fingerprint,
    /// `true` if this process made it.
    is_own: bool,
}

impl KnownImage {
    /// Returns `true` if the file is still as it was when it was made or found.
    fn is_unchanged(&self) -> bool {
        Fingerprint::of(&self.file).is_ok_and(|fingerprint| fingerprint == self.fingerprint)
    }
}

fn known() -> MutexGuard<'static, HashMap<String, Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the image of a plan's server. The first call of a boot makes it, by `capture`, which
/// takes as long as two starts; calls meanwhile do without.
///
/// # Errors
/// The reason to start the server by execve(2).
pub(in crate::launch) fn image_of<E: fmt::Display>(
    plan: &Plan,
    capture: impl FnOnce(&Plan, &File) -> Result<Result<(), NoImage>, E>,
) -> Result<Arc<File>, NoImage> {
    let for_process = |why| NoImage::new(why, Holds::Process);
    eligible(plan).map_err(for_process)?;
    let key = key(plan).map_err(for_process)?;
    {
        let mut known = known();
        match known.get(&key) {
            Some(Known::Image(image)) if image.is_unchanged() => return Ok(image.file.clone()),
            Some(Known::None(why)) => return Err(why.clone()),
            Some(Known::Pause(end, why)) if Instant::now() < *end => return Err(why.clone()),
            Some(Known::InTheMaking) => return Err(in_the_making()),
            // A changed file may have been replaced by a good one.
            Some(Known::Image(_) | Known::Pause(..)) | None => known.insert(key.clone(), Known::InTheMaking),
        };
    }
    let path = ImagePath::of(&key).map_err(|error| for_process(error.to_string()));
    let outcome = path.and_then(|path| match path.find().map_err(for_process)? {
        Some(image) => Ok(image),
        None => make(plan, &path, capture).inspect_err(|why| path.refuse(why)),
    });
    let mut known = known();
    match outcome {
        Ok(image) => {
            let file = image.file.clone();
            known.insert(key, Known::Image(image));
            Ok(file)
        }
        Err(why) => {
            match why.holds {
                Holds::Once => known.remove(&key),
                Holds::Pause => known.insert(key, Known::Pause(Instant::now() + PAUSE, why.clone())),
                Holds::Process | Holds::Boot => known.insert(key, Known::None(why.clone())),
            };
            Err(why)
        }
    }
}

/// Notes that a server could not be restored from this image. An image that was found may be
/// outdated, and is made anew. If this process made it, restoring does not work. A shortage says
/// nothing about the image.
pub(in crate::launch) fn give_up(plan: &Plan, image: &Arc<File>, why: &NoImage) {
    tracing::debug!(?why, "a server was executed instead of restored");
    if why.holds == Holds::Once {
        return;
    }
    let Ok(key) = key(plan) else { return };
    let Ok(path) = ImagePath::of(&key) else { return };
    let mut known = known();
    match known.get(&key) {
        Some(Known::Image(current)) if Arc::ptr_eq(&current.file, image) => {
            if why.holds == Holds::Pause {
                known.insert(key, Known::Pause(Instant::now() + PAUSE, why.clone()));
            } else if current.is_own || why.holds == Holds::Process {
                path.refuse(why);
                known.insert(key, Known::None(why.clone()));
            } else {
                path.remove();
                known.remove(&key);
            }
        }
        // Another thread has done so already.
        _ => {}
    }
}

/// Excludes a plan's server from restoring: a restored one did not become ready, and an executed
/// one did.
pub(crate) fn distrust(plan: &Plan) {
    let Ok(key) = key(plan) else { return };
    let why = "a server that was restored did not become ready, and one that was executed did";
    tracing::warn!("{why}: servers are executed from here on");
    let why = NoImage::new(why, Holds::Boot);
    if let Ok(path) = ImagePath::of(&key) {
        path.refuse(&why);
    }
    known().insert(key, Known::None(why));
}

/// Hashes all images, and sets aside those that were changed since they were made. Returns their
/// keys.
///
/// # Errors
/// The cache cannot be read.
pub(crate) fn verify_images() -> crate::error::Result<Vec<String>> {
    let mut damaged = Vec::new();
    let cache = Cache::open()?;
    for entry in fs::read_dir(cache.path(DIRECTORY)).into_iter().flatten().flatten() {
        let path = ImagePath::at(&cache, &entry.path());
        // An image without a seal is never used.
        if let (None, Some((image, seal))) = (path.image.extension(), path.open())
            && !seal.fits(&image).unwrap_or(false)
        {
            path.set_aside();
            damaged.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(damaged)
}

fn in_the_making() -> NoImage {
    NoImage::new("its image is being made", Holds::Once)
}

fn eligible(plan: &Plan) -> Result<(), String> {
    let refusal = if START.word().map_err(|error| error.to_string())? == Some("exec") {
        "SANDBOXED_DB_START=exec is set"
    } else if !cfg!(target_arch = "x86_64") {
        "this architecture is not supported"
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

/// Returns a hash of everything that an image depends on.
fn key(plan: &Plan) -> Result<String, String> {
    let text = |error: io::Error| error.to_string();
    let platform = Platform::current().map_err(text)?;
    let Plan { image, env, usr, binds, files, server, .. } = plan;
    // Libraries read this configuration before the image is taken.
    let configuration: Vec<_> =
        files.iter().filter(|file| file.path.as_path().starts_with("/etc/ssl")).collect();
    let root = (image, env, usr, binds);
    let all = serde_json::to_vec(&(FORMAT, platform, root, configuration, server));
    Ok(blake3::hash(&all.map_err(|error| text(error.into()))?).to_hex().to_string())
}

/// Makes an image, unless another process is making it, which is not waited for.
fn make<E: fmt::Display>(
    plan: &Plan,
    path: &ImagePath,
    capture: impl FnOnce(&Plan, &File) -> Result<Result<(), NoImage>, E>,
) -> Result<KnownImage, NoImage> {
    let directory = File::open(&path.directory)?;
    if directory.try_lock().is_err() {
        return Err(in_the_making());
    }
    // In a cache that cannot be written the image is this process's alone.
    let staged = path.cache.stage_file();
    let image = staged.as_ref().map_or_else(|_| tempfile::tempfile(), |staged| staged.as_file().try_clone());
    let image = image?;
    // Linking needs little, and the limits of a test must not prevent it.
    let plan = Plan { limits: Limits::default().settled(0), ..plan.clone() };
    match capture(&plan, &image) {
        Ok(captured) => captured?,
        Err(error) => return Err(NoImage::new(error.to_string(), Holds::Pause)),
    }
    if let Ok(staged) = staged {
        path.publish(staged, &image);
    }
    let fingerprint = Fingerprint::of(&image)?;
    Ok(KnownImage { file: Arc::new(image), fingerprint, is_own: true })
}

/// The directory of images in the cache.
const DIRECTORY: &str = "linked";

/// The files of an image in the cache.
struct ImagePath {
    cache: Cache,
    directory: PathBuf,
    image: PathBuf,
    seal: PathBuf,
    /// Holds the reason why there is no image.
    refusal: PathBuf,
}

impl ImagePath {
    fn of(key: &str) -> crate::error::Result<Self> {
        let cache = Cache::open()?;
        let directory = cache.path(DIRECTORY);
        cache::create(&directory)?;
        Ok(Self::at(&cache, &directory.join(key)))
    }

    fn at(cache: &Cache, image: &Path) -> Self {
        Self {
            cache: cache.clone(),
            directory: cache.path(DIRECTORY),
            image: image.to_owned(),
            seal: image.with_extension("seal"),
            refusal: image.with_extension("none"),
        }
    }

    /// Opens the image and reads its seal, if both exist.
    fn open(&self) -> Option<(File, Seal)> {
        let image = File::open(&self.image).ok()?;
        let seal = serde_json::from_slice(&fs::read(&self.seal).ok()?).ok()?;
        Some((image, seal))
    }

    /// Returns the image, if there is one and its seal holds; the error is the reason why there is
    /// none.
    fn find(&self) -> Result<Option<KnownImage>, String> {
        if let Ok(why) = fs::read_to_string(&self.refusal) {
            return Err(why);
        }
        let Some((file, seal)) = self.open() else { return Ok(None) };
        let file = Arc::new(file);
        let known =
            |seal: &Seal| KnownImage { file: file.clone(), fingerprint: seal.fingerprint, is_own: false };
        let image = known(&seal);
        if image.is_unchanged() {
            self.note_use();
            return Ok(Some(image));
        }
        if let Ok(Some(seal)) = seal.renewed(&file) {
            let image = known(&seal);
            self.write_seal(&seal)
                .unwrap_or_else(|error| tracing::debug!(%error, "an image is not sealed again"));
            return Ok(Some(image));
        }
        self.set_aside();
        Ok(None)
    }

    /// Sets the time of the seal, by which images are pruned. In a cache that cannot be written it
    /// stays the time when the image was made.
    fn note_use(&self) {
        let touched = File::open(&self.seal).and_then(|seal| seal.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(%error, "the use of an image is not noted");
        }
    }

    /// Moves an image that was changed out of its place, so that it is made anew.
    fn set_aside(&self) {
        tracing::warn!(image = %self.image.display(), "a prelinked image was changed, and is made anew");
        if fs::rename(&self.image, self.image.with_extension("damaged")).is_err() {
            remove(&self.image);
        }
        remove(&self.seal);
    }

    /// Gives the file its name, and seals it. Where that fails, each process makes its own image.
    fn publish(&self, staged: StagedFile, image: &File) {
        let published = staged.publish(&self.image).and_then(|_| Seal::of(image));
        let sealed = published.map_err(|error| error.to_string()).and_then(|seal| self.write_seal(&seal));
        match sealed {
            Ok(()) => self.prune(),
            Err(error) => tracing::debug!(%error, "the image of a server is not shared"),
        }
    }

    fn write_seal(&self, seal: &Seal) -> Result<(), String> {
        let seal = serde_json::to_vec(seal).map_err(|error| error.to_string())?;
        self.cache.write(&self.seal, seal).map(drop).map_err(|error| error.to_string())
    }

    /// Records a reason that holds for all processes, and removes the image.
    fn refuse(&self, why: &NoImage) {
        if why.holds != Holds::Boot {
            return;
        }
        if let Err(error) = self.cache.write(&self.refusal, &why.why) {
            tracing::debug!(?error, "that a server has no image is not noted");
        }
        self.remove();
    }

    fn remove(&self) {
        remove(&self.image);
        remove(&self.seal);
    }

    /// Removes the images that no process has looked up for the longest time. Those in use stay in
    /// memory.
    fn prune(&self) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let mut all: Vec<(SystemTime, PathBuf)> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_none_or(|extension| extension != "seal"))
            .filter_map(|path| {
                Some((modified(&path.with_extension("seal")).or_else(|| modified(&path))?, path))
            })
            .collect();
        all.sort_unstable();
        let surplus = all.len().saturating_sub(MOST);
        for (_, path) in &all[..surplus] {
            remove(path);
            remove(&path.with_extension("seal"));
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, "an old image is not removed");
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::launch::Command;
    use crate::launch::plan::{File as PlannedFile, root};

    #[test]
    fn an_image_depends_on_configuration_of_libraries() {
        let data = Data::Writable { source: PathBuf::from("/data") };
        let usual = root(vec![PathBuf::from("/usr")], data, "/data".into(), "x");
        let with = |path: &str| {
            let mut plan = usual.clone();
            let contents = b"openssl_conf = own".to_vec().into();
            plan.files.push(PlannedFile { path: path.into(), mode: 0o644, contents });
            key(&plan).unwrap()
        };
        assert_ne!(key(&usual), Ok(with("/etc/ssl/openssl.cnf")));
        // Each server reads its own configuration.
        assert_eq!(key(&usual), Ok(with("/etc/postgresql/postgresql.conf")));
    }

    #[test]
    fn a_capture_that_failed_by_chance_is_tried_again_later() {
        let data = Data::Overlay { lower: PathBuf::from("/lower"), changes: None, upper_size: 1 };
        let mut plan = root(vec![PathBuf::from("/usr")], data, "/data".into(), "x");
        // No other program has an image by this key.
        let program = format!("/nonexistent/{}", std::process::id());
        plan.server = Some(Command::new(program));
        plan.prelink = true;
        let captures = Cell::new(0);
        let find = || {
            loop {
                let found = image_of(&plan, |_, _| {
                    captures.set(captures.get() + 1);
                    Err("no launcher")
                });
                // Another process may be making an image.
                match found {
                    Err(why) if why == in_the_making() => {}
                    found => return found,
                }
            }
        };
        let why = find().unwrap_err();
        assert_eq!(why, NoImage::new("no launcher", Holds::Pause));
        assert_eq!(find().unwrap_err(), why);
        assert_eq!(captures.get(), 1);
        known().insert(key(&plan).unwrap(), Known::Pause(Instant::now(), why.clone()));
        assert_eq!(find().unwrap_err(), why);
        assert_eq!(captures.get(), 2);
    }
}
