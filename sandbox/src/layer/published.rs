//! A published layer: its parts, whether it is intact, when it was used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use super::digest::Digest;
use super::manifest::Manifest;
use super::seal;
use crate::cache::{self, Cache, DirectoryLock};
use crate::error::Result;
use crate::test_id::shared_run;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const DATA: &str = "data";
pub(super) const SEAL: &str = "seal";
pub(super) const CHECKED: &str = "checked";
pub(super) const USED: &str = "used";
pub(super) const UNREADABLE: &str = "`manifest.json` cannot be read";

/// A published layer, which is not removed while this is held.
#[derive(Debug)]
pub(crate) struct Layer {
    cache: Cache,
    digest: Digest,
    lock: Arc<DirectoryLock>,
    oldest_step: OnceLock<Option<SystemTime>>,
}

impl Layer {
    /// The layer whose directory is locked.
    pub(super) fn new(cache: Cache, digest: Digest, lock: DirectoryLock) -> Self {
        Self { cache, digest, lock: Arc::new(lock), oldest_step: OnceLock::new() }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// The lock that keeps the layer from being removed.
    pub(crate) fn lock(&self) -> &Arc<DirectoryLock> {
        &self.lock
    }

    pub(super) fn directory(&self) -> &Path {
        self.lock.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory().join(DATA)
    }

    /// Returns `true` if the layer is in its place: another process may have removed it, or built
    /// another one there.
    pub(super) fn exists(&self) -> bool {
        self.lock.exists()
    }

    /// When the oldest of the steps that led to the layer was run; `None` for a fresh server.
    pub(super) fn oldest_step(&self) -> Option<SystemTime> {
        // A layer without a manifest is damaged, and not used anyway.
        *self.oldest_step.get_or_init(|| self.manifest().ok()?.oldest_step)
    }

    /// Lists the damage of the layer; empty if it is intact.
    ///
    /// As long as its seal holds, nothing has been touched. When it does not, the contents are
    /// compared with the manifest: a copy of the cache has other times, and a hard link by another
    /// program changes them too.
    pub(super) fn damage(&self) -> Result<Vec<String>> {
        // A run of many processes looks once, as a run of one does.
        let checked = self.directory().join(CHECKED);
        let run = shared_run();
        if run.is_some_and(|run| fs::read_to_string(&checked).is_ok_and(|checked| checked == run)) {
            return Ok(Vec::new());
        }
        let damage = self.look_for_damage()?;
        if let Some(run) = run.filter(|_| damage.is_empty()) {
            // A cache that cannot be written is checked by every process.
            let _ = self.cache.write(&checked, run);
        }
        Ok(damage)
    }

    fn look_for_damage(&self) -> Result<Vec<String>> {
        if self.is_sealed() {
            return Ok(Vec::new());
        }
        let differences = self.differences()?;
        if differences.is_empty() {
            self.seal();
        }
        Ok(differences)
    }

    /// Lists how the layer differs from its manifest, contents included.
    pub(super) fn differences(&self) -> Result<Vec<String>> {
        let Ok(manifest) = self.manifest() else { return Ok(vec![UNREADABLE.to_owned()]) };
        if manifest.digest != self.digest.to_string() {
            return Ok(vec![format!("it is the layer {}", manifest.digest)]);
        }
        let differences = manifest.differences(&self.data());
        differences.map_err(|error| cache::failed("verify the layer", self.directory(), error))
    }

    fn is_sealed(&self) -> bool {
        let seal = fs::read_to_string(self.directory().join(SEAL));
        seal.is_ok_and(|seal| self.current_seal().is_ok_and(|current| current == seal))
    }

    fn current_seal(&self) -> io::Result<String> {
        seal::of(self.digest, self.directory())
    }

    /// Seals the layer as it is. In a cache that cannot be written it stays unsealed, and is
    /// compared each time.
    fn seal(&self) {
        let seal = self.current_seal().map_err(|error| cache::failed("read", self.directory(), error));
        if let Err(error) = seal.and_then(|seal| self.cache.write(&self.directory().join(SEAL), seal)) {
            tracing::debug!(?error, layer = %self.digest, "the layer is not sealed");
        }
    }

    /// Does work that changes the number of links to the layer's files, which counts as a change of
    /// these, and changes nothing else.
    pub(crate) fn keeping_seal<T>(&self, work: impl FnOnce() -> T) -> T {
        let sealed = self.is_sealed();
        let outcome = work();
        if sealed {
            self.seal();
        }
        outcome
    }

    pub(super) fn manifest(&self) -> Result<Manifest> {
        Manifest::read(self.directory())
    }

    /// Notes that the layer is used, unless that was noted within the hour.
    pub(super) fn note_use(&self) {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        let used = self.directory().join(USED);
        if !cache::is_younger(&used, HOUR) {
            // A cache that cannot be written is not pruned either.
            let _ = self.cache.write(&used, "");
        }
    }
}
