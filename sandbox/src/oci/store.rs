//! Unpacked images in the cache.
//!
//! ```text
//! <cache>/images/<digest of the configuration>/root/         the files
//! <cache>/images/<digest>/image.json                         where it came from, its environment
//! <cache>/images/<digest>/files                              the list of its files
//! <cache>/images/<digest>/states                             the states of its files, when it was whole
//! <cache>/images/<digest>/checked                            the boot and the run that compared all
//! <cache>/images/<digest>/used                               as in a layer
//! <cache>/image-names/<hash of a reference with a digest>    the image to which a registry led
//! <cache>/image-digests/<hash of a reference>                the digest to which a registry led
//! ```
//!
//! An image is unpacked in the staging directory and published by a rename, so one under its final
//! name is whole. It is locked shared as long as a process uses it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use super::digest::{Hashed, Sha256};
use super::reference::Reference;
#[cfg(feature = "registries")]
use super::registry::Remote;
use super::source::{self, Compression, Layer, Source, same};
use super::states::{self, Extent};
use super::unpack::{MOST_BYTES, Unpacking};
use crate::cache::{self, Cache, DirectoryLock, Listed};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::boot_id;
use crate::progress::{Progress, notice};
use crate::test_id::shared_run;
use crate::zstd::Zstd;

const IMAGES: &str = "images";
/// The mark of a whole image.
const INFO: &str = "image.json";
/// The directory of notes to which images the names in registries led.
const NAMES: &str = "image-names";
const ROOT: &str = "root";
const STATES: &str = "states";
const CHECKED: &str = "checked";

/// How long a comparison of all files holds: until then, only the directories are compared.
const RECENT: Duration = Duration::from_secs(60 * 60);
/// How long another process may unpack the same image.
const LOCK_LIMIT: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Serialize, Deserialize)]
struct Info {
    reference: String,
    env: Vec<(String, String)>,
}

/// A comparison that found an image intact.
#[derive(Debug, Serialize, Deserialize)]
struct Check {
    boot: String,
    /// When all files were compared.
    at: SystemTime,
    /// The last run that looked.
    run: Option<String>,
}

/// An image in the cache, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct UnpackedImage {
    cache: Cache,
    id: Sha256,
    lock: DirectoryLock,
    env: Vec<(String, String)>,
}

/// Images that this process uses, each locked once, until the process ends.
static IN_USE: Mutex<Option<HashMap<Sha256, Arc<UnpackedImage>>>> = Mutex::new(None);

fn in_use<T>(work: impl FnOnce(&mut HashMap<Sha256, Arc<UnpackedImage>>) -> T) -> T {
    work(IN_USE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// The right to use names that the lock file of a repository does not record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewNames {
    Recorded,
    Refused,
}

/// Returns the image, which is unpacked unless it is in the cache, and its reference, with the
/// digest for which a name in a registry stands in a directory.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] for an image that is missing, damaged or of another platform;
/// [`ErrorKind::Cache`] if the cache cannot be written.
pub(crate) fn obtain(
    reference: &Reference,
    directory: &Path,
    new: NewNames,
) -> Result<(Arc<UnpackedImage>, Reference)> {
    let cache = Cache::open()?;
    let (reference, found) = resolved(&cache, reference, directory, new)?;
    if let Some(id) = noted(&cache, &reference)
        && let Some(image) = find(&cache, id)?
    {
        return Ok((image, reference));
    }
    let found = match found {
        Some(found) => found,
        None => Found::open(&reference).map_err(|error| unusable(&reference, error))?,
    };
    let id = found.id();
    let image = match find(&cache, id)? {
        Some(image) => image,
        None => register(unpack_once(&cache, &found, &reference)?),
    };
    note(&cache, &reference, id);
    Ok((image, reference))
}

/// Returns a reference that always leads to the same image, as far as one is known, and the image
/// if a registry had to be asked.
fn resolved(
    cache: &Cache,
    reference: &Reference,
    directory: &Path,
    new: NewNames,
) -> Result<(Reference, Option<Found>)> {
    #[cfg(feature = "registries")]
    if let Reference::Registry(name) = reference {
        let resolved = super::names::resolve(cache, name, directory, new)?;
        let found = resolved.remote.map(Box::new).map(Found::InRegistry);
        return Ok((Reference::Registry(resolved.reference), found));
    }
    let _ = (cache, directory, new);
    Ok((reference.clone(), None))
}

/// An image whose layers are not read yet.
enum Found {
    Here(Source),
    #[cfg(feature = "registries")]
    InRegistry(Box<Remote>),
}

impl Found {
    fn open(reference: &Reference) -> io::Result<Self> {
        match reference {
            #[cfg(feature = "registries")]
            Reference::Registry(registry) => Remote::open(registry).map(Box::new).map(Self::InRegistry),
            reference => source::open(reference).map(Self::Here),
        }
    }

    fn id(&self) -> Sha256 {
        match self {
            Self::Here(source) => source.id,
            #[cfg(feature = "registries")]
            Self::InRegistry(remote) => remote.id(),
        }
    }

    /// Returns the image with its layers on this machine: downloaded into a directory, or where
    /// they are.
    fn fetched(&self, into: &Path, progress: &Progress) -> io::Result<Cow<'_, Source>> {
        let _ = (into, progress);
        match self {
            Self::Here(source) => Ok(Cow::Borrowed(source)),
            #[cfg(feature = "registries")]
            Self::InRegistry(remote) => remote.download(into, progress).map(Cow::Owned),
        }
    }
}

/// Finds an image in the cache, and keeps it locked until the process ends.
fn find(cache: &Cache, id: Sha256) -> Result<Option<Arc<UnpackedImage>>> {
    let known = in_use(|images| images.get(&id).cloned()).filter(|image| image.lock.exists());
    match known {
        Some(image) => Ok(Some(image)),
        None => Ok(UnpackedImage::find(cache, id)?.map(register)),
    }
}

fn register(image: UnpackedImage) -> Arc<UnpackedImage> {
    let image = Arc::new(image);
    in_use(|images| images.insert(image.id, image.clone()));
    image
}

/// Returns the image to which a digest in a registry led. A registry is asked again only once that
/// image has left the cache.
fn noted(cache: &Cache, reference: &Reference) -> Option<Sha256> {
    let Reference::Registry(_) = reference else { return None };
    fs::read_to_string(note_path(cache, reference)).ok()?.parse().ok()
}

/// Notes the image to which a digest in a registry led. Without the note it is asked each time.
fn note(cache: &Cache, reference: &Reference, id: Sha256) {
    if let Reference::Registry(_) = reference {
        let _ = cache.write(&note_path(cache, reference), id.to_string());
    }
}

fn note_path(cache: &Cache, reference: &Reference) -> PathBuf {
    cache.path(NAMES).join(blake3::hash(reference.to_string().as_bytes()).to_hex().as_str())
}

pub(super) fn unusable(reference: &Reference, error: io::Error) -> Error {
    let advice = advice(reference, error.kind());
    let kind = match error.kind() {
        // Tests may be skipped on a machine without a network.
        io::ErrorKind::NotConnected => ErrorKind::NotInstalled,
        _ => ErrorKind::InvalidConfig,
    };
    Error::new(kind, format!("use the image `{reference}`"))
        .caused_by(error)
        .or_hint(|| advice.map(str::to_owned))
}

/// Returns the fix for an image of this kind.
fn advice(reference: &Reference, error: io::ErrorKind) -> Option<&'static str> {
    Some(match (reference, error) {
        (Reference::Registry(_), io::ErrorKind::NotFound) => {
            "check its name and tag: `skopeo list-tags` shows those of a repository"
        }
        (Reference::Registry(_), io::ErrorKind::NotConnected) => {
            "check the network, and a proxy's HTTPS_PROXY; an image of this machine is `oci:DIRECTORY`, \
             `oci-archive:FILE` or `docker-archive:FILE`"
        }
        (Reference::Registry(_), _) => return None,
        (Reference::Layout { .. }, io::ErrorKind::NotADirectory) => {
            "for a file write `oci-archive:FILE`, or `docker-archive:FILE` for the output of `docker save`"
        }
        (Reference::LayoutArchive { .. } | Reference::DockerArchive { .. }, io::ErrorKind::IsADirectory) => {
            "for a directory write `oci:DIRECTORY`"
        }
        (Reference::LayoutArchive { .. }, io::ErrorKind::InvalidData) => {
            "for the output of `docker save` write `docker-archive:FILE`"
        }
        (Reference::DockerArchive { .. }, io::ErrorKind::InvalidData) => {
            "for an archive of an OCI layout write `oci-archive:FILE`"
        }
        (Reference::DockerArchive { .. }, io::ErrorKind::NotFound) => {
            "make it, as by `docker save postgres:17 --output FILE`"
        }
        (Reference::LayoutArchive { .. }, io::ErrorKind::NotFound) => {
            "make it, as by `skopeo copy docker://postgres:17 oci-archive:FILE`"
        }
        (Reference::Layout { .. }, io::ErrorKind::NotFound) => {
            "make it, as by `skopeo copy docker://postgres:17 oci:DIRECTORY`"
        }
        _ => return None,
    })
}

fn unpack_once(cache: &Cache, found: &Found, reference: &Reference) -> Result<UnpackedImage> {
    let mut waiting = None;
    let id = found.id();
    let name = format!("image-{}", id.hex());
    let lock = cache.lock(&name, Instant::now() + LOCK_LIMIT, &mut |holder| {
        waiting
            .get_or_insert_with(|| Progress::start(&format!("waiting for {holder} to unpack {reference}")));
    })?;
    let _lock = lock.ok_or_else(|| {
        Error::new(ErrorKind::Cache, format!("wait for another process that unpacks `{reference}`"))
            .with_hint("that process does not finish: inspect it, and end it")
    })?;
    if let Some(image) = UnpackedImage::find(cache, id)? {
        return Ok(image);
    }
    drop(waiting);
    let progress = Progress::start(&format!("unpacking {reference}"));
    let staged = cache.stage(IMAGES)?;
    let root = staged.path().join(ROOT);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
            cache::failed("unpack an image in", staged.path(), error)
        }
        _ => unusable(reference, error),
    };
    let downloads = cache.stage(IMAGES)?;
    let source = found.fetched(downloads.path(), &progress).map_err(failed)?;
    unpack(&source, &root, &progress).map_err(failed)?;
    drop(downloads);
    let info = Info { reference: reference.to_string(), env: source.configuration.env() };
    let write = || -> io::Result<()> {
        listed(staged.path().to_owned()).write()?;
        fs::write(staged.path().join(STATES), states::list(id, &root)?)?;
        fs::write(staged.path().join(INFO), serde_json::to_vec(&info)?)
    };
    write().map_err(failed)?;
    let directory = directory(cache, id);
    cache::create(&cache.path(IMAGES))?;
    let lock =
        staged.publish(&directory, INFO).map_err(|error| cache::failed("publish", &directory, error))?;
    Ok(UnpackedImage { cache: cache.clone(), id, lock, env: info.env })
}

fn directory(cache: &Cache, id: Sha256) -> PathBuf {
    cache.path(IMAGES).join(id.hex())
}

/// Unpacks all layers, and checks the digests of what was read.
pub(super) fn unpack(source: &Source, root: &Path, progress: &Progress) -> io::Result<()> {
    fs::create_dir(root)?;
    let mut unpacking = Unpacking::into(root, MOST_BYTES)?;
    for (index, layer) in source.layers.iter().enumerate() {
        let [number, all] = [index + 1, source.layers.len()];
        progress.step(&format!("layer {number} of {all}, {:.1} MB", layer.size() as f64 / 1e6));
        unpack_layer(layer, &mut unpacking)?;
    }
    Ok(())
}

fn unpack_layer(layer: &Layer, unpacking: &mut Unpacking) -> io::Result<()> {
    let mut stored = BufReader::with_capacity(1 << 18, layer.open()?);
    let compression = Compression::of(stored.fill_buf()?);
    let found = match compression {
        Compression::None => contents(&mut stored, unpacking)?,
        Compression::Gzip => contents(MultiGzDecoder::new(&mut stored), unpacking)?,
        Compression::Zstd => contents(Zstd::new(&mut stored), unpacking)?,
    };
    layer.check_stored(stored.into_inner().finish()?)?;
    same("a layer", layer.contents, found)
}

/// Unpacks an uncompressed archive, and returns its digest.
fn contents(reader: impl Read, unpacking: &mut Unpacking) -> io::Result<Sha256> {
    // Bytes after the entries are hashed too, and may be zeros without end.
    let reader = reader.take(2 * MOST_BYTES);
    let mut contents = Hashed::new(BufReader::with_capacity(1 << 18, reader));
    unpacking.layer(&mut contents)?;
    contents.finish()
}

impl UnpackedImage {
    /// Returns the digest of its configuration, which covers its files and its environment.
    pub(crate) fn id(&self) -> String {
        self.id.to_string()
    }

    /// Returns its root directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.lock.path().join(ROOT)
    }

    /// Returns the variables of its environment.
    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// Finds an intact image.
    fn find(cache: &Cache, id: Sha256) -> Result<Option<Self>> {
        let Some(image) = Self::lock(cache, id)? else { return Ok(None) };
        let last = image.last_check();
        // A run of many processes looks once, as a run of one does.
        if last.as_ref().is_some_and(|last| last.run.is_some() && last.run.as_deref() == shared_run()) {
            return Ok(Some(image));
        }
        let extent = if last.is_some() { Extent::Directories } else { Extent::Everything };
        let states = image.lock.path().join(STATES);
        let is_same = states::hold(&states, id, &image.root(), extent);
        let differences = if is_same { Vec::new() } else { image.listed().differences()? };
        if !image.lock.exists() {
            return Ok(None);
        }
        if differences.is_empty() {
            image.note_use(is_same, last);
            return Ok(Some(image));
        }
        cache.set_aside(&image.lock, INFO)?;
        let some = differences.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        notice(&format!("image {id} was damaged ({some}): it is set aside and unpacked again"));
        Ok(None)
    }

    /// Locks an image, without a look at its files.
    fn lock(cache: &Cache, id: Sha256) -> Result<Option<Self>> {
        let path = directory(cache, id);
        let lock = match DirectoryLock::shared(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                cache.remove(&path, INFO)?;
                None
            }
            lock => lock.map_err(|error| cache::failed("lock the image", &path, error))?,
        };
        let Some(lock) = lock else { return Ok(None) };
        let metadata = lock.metadata().map_err(|error| cache::failed("read", &path, error))?;
        if cache::is_foreign(&metadata) {
            let owner = std::os::unix::fs::MetadataExt::uid(&metadata);
            return Err(Error::new(ErrorKind::Cache, format!("use the image `{}`", path.display()))
                .with_fix(cache::another_directory(format!("it belongs to user {owner}"))));
        }
        let info = fs::read(path.join(INFO)).ok().and_then(|text| serde_json::from_slice::<Info>(&text).ok());
        Ok(info.map(|info| Self { cache: cache.clone(), id, lock, env: info.env }))
    }

    /// Returns the last comparison of all files in this boot, if it is recent.
    fn last_check(&self) -> Option<Check> {
        let check = fs::read(self.lock.path().join(CHECKED)).ok()?;
        let check: Check = serde_json::from_slice(&check).ok()?;
        let is_recent = check.at.elapsed().is_ok_and(|since| since < RECENT);
        (is_recent && check.boot == boot_id().ok()?).then_some(check)
    }

    fn listed(&self) -> Listed {
        listed(self.lock.path().to_owned())
    }

    /// Notes that an image was found intact, and its use. In a cache that cannot be written all
    /// files are compared each time.
    fn note_use(&self, is_same: bool, last: Option<Check>) {
        let write = |name: &str, contents: &[u8]| {
            let _ = self.cache.write(&self.lock.path().join(name), contents);
        };
        if !is_same && let Ok(list) = states::list(self.id, &self.root()) {
            write(STATES, &list);
        }
        self.listed().note_use(&self.cache);
        let run = shared_run().map(str::to_owned);
        if (last.is_none() || run.is_some())
            && let Ok(boot) = boot_id()
        {
            // A look at directories does not make the last comparison younger.
            let at = last.map_or_else(SystemTime::now, |last| last.at);
            write(CHECKED, &serde_json::to_vec(&Check { boot, at, run }).unwrap_or_default());
        }
    }
}

/// Returns all images of a cache for those who look after it, each with its name and the reference
/// by which it was first used.
pub(crate) fn images(cache: &Cache) -> Result<Vec<(String, String, Listed)>> {
    let names = cache.names(IMAGES)?.into_iter();
    let images = names.filter_map(|name| {
        let listed = listed(directory(cache, id(&name)?));
        let info = fs::read(listed.path.join(INFO)).ok();
        let info = info.and_then(|text| serde_json::from_slice::<Info>(&text).ok());
        Some((name, info.map(|info| info.reference).unwrap_or_default(), listed))
    });
    Ok(images.collect())
}

fn listed(path: PathBuf) -> Listed {
    Listed { path, files: ROOT, mark: INFO }
}

/// The digest in the name of an image's directory.
fn id(name: &str) -> Option<Sha256> {
    format!("sha256:{name}").parse().ok()
}
