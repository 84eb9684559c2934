//! A published layer: its parts, whether it is intact, when it was used.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::digest::Digest;
use super::manifest::Manifest;
use super::{run, seal};
use crate::cache;
use crate::error::Result;
use crate::sandbox::DirectoryLock;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const DATA: &str = "data";
pub(super) const SEAL: &str = "seal";
pub(super) const CHECKED: &str = "checked";
pub(super) const USED: &str = "used";
pub(super) const UNREADABLE: &str = "`manifest.json` cannot be read";

/// A published layer, which is not removed while this is held.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(super) digest: Digest,
    pub(super) directory: PathBuf,
    /// On the layer's directory.
    pub(super) lock: DirectoryLock,
}

impl Layer {
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join(DATA)
    }

    pub(crate) fn lock(&self) -> &DirectoryLock {
        &self.lock
    }

    /// Whether it is still in its place; somebody may have removed it, or have built another there.
    pub(super) fn exists(&self) -> bool {
        is_same(&self.directory, self.lock.file())
    }

    /// What is wrong with the layer; empty if nothing is.
    ///
    /// As long as its seal holds nothing has been touched. When it does not, the contents are compared with the manifest:
    /// a copy of the cache has other times, and a hard link made by somebody else changes them too.
    pub(super) fn damage(&self) -> Result<Vec<String>> {
        // A run of many processes looks once, as a run of one does.
        let checked = self.directory.join(CHECKED);
        let run = run::shared();
        if run.is_some_and(|run| fs::read_to_string(&checked).is_ok_and(|checked| checked == run)) {
            return Ok(Vec::new());
        }
        let damage = self.look_for_damage()?;
        if let Some(run) = run.filter(|_| damage.is_empty()) {
            // A store that cannot be written is checked by every process.
            let _ = fs::write(&checked, run);
        }
        Ok(damage)
    }

    fn look_for_damage(&self) -> Result<Vec<String>> {
        if self.is_sealed() {
            return Ok(Vec::new());
        }
        let Ok(manifest) = self.manifest() else {
            return Ok(vec![UNREADABLE.to_owned()]);
        };
        let differences = manifest.differences(&self.data());
        let differences =
            differences.map_err(|error| cache::failed("verify the layer", &self.directory, error))?;
        if differences.is_empty() {
            self.seal();
        }
        Ok(differences)
    }

    pub(super) fn is_sealed(&self) -> bool {
        let seal = fs::read_to_string(self.directory.join(SEAL));
        seal.is_ok_and(|seal| self.seal_now().is_ok_and(|now| now == seal))
    }

    fn seal_now(&self) -> io::Result<String> {
        seal::of(&self.directory.join(MANIFEST), &self.data())
    }

    /// Seals the layer as it is. A store that cannot be written stays as it is, and is verified each time.
    pub(super) fn seal(&self) {
        let sealed = self.seal_now().and_then(|seal| fs::write(self.directory.join(SEAL), seal));
        if let Err(error) = sealed {
            tracing::debug!(?error, layer = %self.digest, "the layer is not sealed");
        }
    }

    /// Does what changes the number of links to the layer's files, which counts as a change of these, and nothing else of
    /// them.
    pub(crate) fn keeping_seal<T>(&self, work: impl FnOnce() -> T) -> T {
        let sealed = self.is_sealed();
        let outcome = work();
        if sealed {
            self.seal();
        }
        outcome
    }

    pub(super) fn manifest(&self) -> Result<Manifest> {
        read_manifest(&self.directory)
    }

    /// Notes that the layer is used, if that was not noted within the hour.
    pub(super) fn note_use(&self) {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        let used = self.directory.join(USED);
        let noted = fs::metadata(&used).and_then(|used| used.modified());
        if !noted.is_ok_and(|time| time.elapsed().is_ok_and(|since| since < HOUR)) {
            // A store that cannot be written is not pruned either.
            let _ = fs::write(&used, "");
        }
    }
}

/// Whether that path leads to what was opened.
pub(super) fn is_same(path: &Path, opened: &File) -> bool {
    let key = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    fs::metadata(path)
        .map(key)
        .ok()
        .is_some_and(|named| opened.metadata().map(key).is_ok_and(|opened| opened == named))
}

pub(super) fn read_manifest(layer: &Path) -> Result<Manifest> {
    let path = layer.join(MANIFEST);
    let text = fs::read(&path).map_err(|error| cache::failed("read", &path, error))?;
    serde_json::from_slice(&text).map_err(|error| cache::failed("read", &path, error.into()))
}
