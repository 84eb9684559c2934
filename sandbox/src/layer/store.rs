//! The layers of a cache: found, staged, published, set aside.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::digest::Digest;
use super::manifest::Manifest;
use super::published::{DATA, Layer, MANIFEST, SEAL, USED};
use super::{run, seal};
use crate::cache::{self, Cache, DirectoryLock, LockFile, StagedDirectory};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::notice;

const LAYERS: &str = "layers";

#[derive(Debug)]
pub(super) struct Store {
    cache: Cache,
    /// Layers with older steps are not found.
    max_age: Option<Duration>,
}

impl Store {
    /// The layers in the user's cache directory, which need not exist.
    pub(super) fn open(max_age: Option<Duration>) -> Result<Self> {
        Ok(Self { cache: Cache::open()?, max_age })
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(super) fn path(&self, digest: &str) -> PathBuf {
        self.cache.path(LAYERS).join(digest)
    }

    /// The names of all layers.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        self.cache.names(LAYERS)
    }

    /// Locks the layer of that digest, if it is published, without a look at its contents.
    pub(super) fn lock_layer(&self, digest: Digest) -> Result<Option<Layer>> {
        let path = self.path(&digest.to_string());
        let lock = match DirectoryLock::shared(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                self.cache.remove(&path, MANIFEST)?;
                notice(&format!(
                    "layer {digest} was replaced by a file or a link: it is removed and rebuilt"
                ));
                None
            }
            lock => lock.map_err(|error| cache::failed("lock the layer", &path, error))?,
        };
        Ok(lock.map(|lock| Layer::new(self.cache.clone(), digest, lock)))
    }

    /// The intact layer of that digest, however old it is.
    #[cfg(feature = "registries")]
    pub(super) fn intact(&self, digest: Digest) -> Result<Option<Layer>> {
        self.find_if(digest, |_| true)
    }

    /// The intact layer of that digest, if it is published. A cache that cannot be written will do.
    pub(super) fn find(&self, digest: Digest) -> Result<Option<Layer>> {
        self.find_if(digest, |layer| self.accepts(layer))
    }

    fn find_if(&self, digest: Digest, accepts: impl Fn(&Layer) -> bool) -> Result<Option<Layer>> {
        let Some(layer) = self.lock_layer(digest)? else { return Ok(None) };
        let directory = layer.directory();
        let metadata = layer.lock().metadata().map_err(|error| cache::failed("read", directory, error))?;
        if cache::is_foreign(&metadata) {
            let owner = std::os::unix::fs::MetadataExt::uid(&metadata);
            return Err(Error::new(ErrorKind::Cache, format!("use the layer `{}`", directory.display()))
                .with_fix(cache::another_directory(format!("it belongs to user {owner}"))));
        }
        if !directory.join(MANIFEST).exists() || !directory.join(DATA).exists() || !accepts(&layer) {
            return Ok(None);
        }
        let damage = match layer.damage() {
            // Another process found it damaged as well, and set it aside meanwhile.
            _ if !layer.exists() => return Ok(None),
            damage => damage?,
        };
        if damage.is_empty() {
            layer.note_use();
            return Ok(Some(layer));
        }
        self.cache.set_aside(layer.lock(), MANIFEST)?;
        let damage = damage.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        notice(&format!("layer {digest} was damaged ({damage}): it is set aside and rebuilt"));
        Ok(None)
    }

    /// Returns `true` if the layer is new enough.
    pub(super) fn accepts(&self, layer: &Layer) -> bool {
        if run::rebuilds() && layer.manifest().is_ok_and(|manifest| !run::has_built(&manifest)) {
            return false;
        }
        self.accepts_age(self.max_age.and_then(|_| layer.oldest_step()))
    }

    /// Returns `true` if layers can be too old.
    #[cfg(feature = "registries")]
    pub(super) fn limits_age(&self) -> bool {
        self.max_age.is_some()
    }

    /// Returns `true` if steps that ran at that time are new enough.
    pub(super) fn accepts_age(&self, oldest_step: Option<SystemTime>) -> bool {
        let Some((max_age, run)) = self.max_age.zip(oldest_step) else { return true };
        // A step that ran in the future is as old as can be: the clock was wrong then, or is now.
        SystemTime::now().duration_since(run).is_ok_and(|age| age <= max_age)
    }

    /// Waits until no other process builds that layer. `on_wait` gets the name of the one that
    /// does.
    pub(super) fn lock_build(
        &self,
        digest: Digest,
        deadline: Instant,
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<LockFile> {
        self.cache.lock(&digest.to_string(), deadline, on_wait)?.ok_or_else(|| {
            Error::new(ErrorKind::Layer, format!("wait for the build of layer {digest}")).with_hint(
                "another process builds it and does not finish: look at it, or raise `build_timeout`",
            )
        })
    }

    /// The same lock, if no other process holds it.
    #[cfg(feature = "registries")]
    pub(super) fn try_lock_build(&self, digest: Digest) -> Result<Option<LockFile>> {
        self.cache.lock(&digest.to_string(), Instant::now(), &mut |_| ())
    }

    /// An empty directory to build that layer in.
    pub(super) fn stage(&self, digest: Digest) -> Result<StagedDirectory> {
        self.cache.stage(&digest.to_string())
    }

    /// Makes a finished build visible under its digest, all at once.
    pub(super) fn publish(
        &self,
        staged: StagedDirectory,
        digest: Digest,
        manifest: &Manifest,
    ) -> Result<Layer> {
        let target = self.path(&digest.to_string());
        let failed = |error: io::Error| cache::failed("publish the layer", &target, error);
        cache::create(&self.cache.path(LAYERS))?;
        let write = |name: &str, text: &[u8]| {
            let path = staged.path().join(name);
            File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(text)
        };
        let manifest = serde_json::to_vec(manifest).map_err(|error| failed(error.into()))?;
        write(MANIFEST, &manifest)
            .and_then(|()| write(SEAL, seal::of(digest, staged.path())?.as_bytes()))
            .and_then(|()| write(USED, b""))
            .map_err(failed)?;
        let lock = staged.publish(&target, MANIFEST).map_err(failed)?;
        Ok(Layer::new(self.cache.clone(), digest, lock))
    }

    /// When a layer was last used, or else made.
    pub(super) fn last_used(&self, digest: &str) -> SystemTime {
        let directory = self.path(digest);
        let time = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
        time(&directory.join(USED)).or_else(|_| time(&directory)).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Removes a layer, unless it is in use.
    pub(super) fn remove(&self, digest: &str) -> Result<bool> {
        self.cache.remove(&self.path(digest), MANIFEST)
    }
}

/// The layer of that name, if it is published.
pub(crate) fn find(digest: &str) -> Result<Option<Arc<Layer>>> {
    let Ok(digest) = digest.parse() else { return Ok(None) };
    Ok(Store::open(None)?.find(digest)?.map(Arc::new))
}

/// The data directory of the layer of that name, which need not exist.
pub(crate) fn data_of(digest: &str) -> Option<PathBuf> {
    Store::open(None).ok().map(|store| store.path(digest).join(DATA))
}

/// Does work that changes the number of links to a layer's files; see [`Layer::keeping_seal`].
pub(crate) fn keeping_seal_of<T>(digest: &str, work: impl FnOnce() -> T) -> T {
    let layer = || Store::open(None).ok()?.lock_layer(digest.parse().ok()?).ok()?;
    match layer() {
        Some(layer) => layer.keeping_seal(work),
        None => work(),
    }
}

/// Creates the data directory of a fresh server.
pub(super) fn create_data_directory(data: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(data).map_err(|error| cache::failed("create", data, error))
}

/// The data directory of a build.
pub(super) fn data_directory(staging: &Path) -> PathBuf {
    staging.join(DATA)
}
