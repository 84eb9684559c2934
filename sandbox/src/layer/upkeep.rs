//! Looking after the layers of a cache: listing, pruning, verifying them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use walkdir::WalkDir;

use super::manifest::Manifest;
use super::published::MANIFEST;
use super::store::Store;
use super::{history, lookup};
use crate::cache::{self, Cache, DirectoryLock, Listed};
use crate::engine::packages;
use crate::error::Result;
use crate::kept::Kept;
use crate::launch::{prune_checkpoints, verify_checkpoints, verify_images};
#[cfg(feature = "images")]
use crate::oci;

/// The limit for the layers after a build; see [`Layers::prune`].
const LIMIT: Limit = Limit { size: 10 << 30, age: None };
/// The names for the engine of an unpacked image and of unpacked packages.
#[cfg(feature = "images")]
const IMAGE: &str = "image";
const PACKAGES: &str = "packages";
/// How often a build prunes the layers.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The directory of notes that a registry cannot be used.
pub(super) const REGISTRIES: &str = "registries";
/// How long the chain of a description is remembered.
const CHAIN_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The layers in the user's cache directory, for programs that look after it.
///
/// A build prunes the cache to 10 GiB, at most once an hour. The command `sandboxed-db` offers the
/// methods below.
///
/// # Example
/// ```no_run
/// # fn main() -> sandboxed_db::Result<()> {
/// for layer in sandboxed_db::cache::Layers::open()?.list()? {
///     println!("{} {} bytes", layer.digest, layer.size);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Layers {
    pub(super) store: Store,
}

/// A layer, as [`Layers::list`] describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LayerInfo {
    /// The digest, which is the layer's name.
    pub digest: String,
    /// The engine's name, such as `postgres`; `image` for an unpacked image and `packages` for
    /// unpacked packages, which belong to no engine; empty when the manifest cannot be read.
    pub engine: String,
    /// The version, as the server's program prints it; the reference of an unpacked image; the
    /// distribution of unpacked packages.
    pub version: String,
    /// The digest of the layer on which this one was built; `None` for a fresh server's layer.
    pub parent: Option<String>,
    /// The files that were run on the parent.
    pub steps: Vec<String>,
    /// The place in a registry from which the layer was pulled; `None` if it was built on this
    /// machine.
    pub origin: Option<String>,
    /// The size on disk in bytes.
    pub size: u64,
    /// The bytes of `size` that other layers share: removing this layer alone does not free them.
    pub shared: u64,
    /// The time of the last use, to the hour; in JSON a text of ISO 8601.
    #[serde(serialize_with = "cache::iso_8601::serialize")]
    pub last_used: SystemTime,
    /// `true` if a process uses the layer now.
    pub in_use: bool,
}

/// A layer that differs from its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Damage {
    /// The layer, the unpacked image or packages, or the key of a prelinked image or a checkpoint.
    pub digest: String,
    /// The place in a registry from which a layer was pulled.
    pub origin: Option<String>,
    /// The differences, a line for each file.
    pub differences: Vec<String>,
}

/// The limit to which layers are pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The size on disk of all layers together, in bytes.
    pub size: u64,
    /// The time that a layer may go unused; `None` for no limit.
    pub age: Option<Duration>,
}

impl Layers {
    /// Opens the layers of the user's cache directory, which need not exist.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if the environment determines
    /// no such directory.
    pub fn open() -> Result<Self> {
        Ok(Self { store: Store::open(None)? })
    }

    /// Returns the cache directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.store.cache().root()
    }

    /// Returns all layers, unpacked images and unpacked packages, the most recently used first.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`](crate::ErrorKind::Cache) when the cache cannot be read.
    pub fn list(&self) -> Result<Vec<LayerInfo>> {
        Ok(self.entries()?.into_iter().map(|entry| entry.info).collect())
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let layer = |name: String| Ok(Entry { info: self.info(&name)?, listed: None });
        let layers = self.store.names()?.into_iter().map(layer);
        let mut entries = layers.chain(self.unpacked()?).collect::<Result<Vec<_>>>()?;
        // A layer that was removed meanwhile has no files left.
        entries.retain(|entry| entry.info.size > 0);
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.info.last_used));
        Ok(entries)
    }

    /// Removes layers that were unused for longer than the limit's age, and then the least recently
    /// used ones until the rest is no larger than the limit's size. Layers in use stay. Returns the
    /// removed ones.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`](crate::ErrorKind::Cache) when the cache cannot be read or written.
    pub fn prune(&self, limit: Limit) -> Result<Vec<LayerInfo>> {
        let mut entries = self.entries()?;
        entries.reverse();
        let mut disk = Disk::default();
        for entry in &entries {
            disk.add(&self.directory_of(entry))?;
        }
        let now = SystemTime::now();
        let mut removed = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let unused = now.duration_since(entry.info.last_used).unwrap_or_default();
            let too_old = limit.age.is_some_and(|age| unused > age);
            if (too_old || disk.size > limit.size) && self.remove(&entry)? {
                disk.take(index);
                tracing::info!(layer = entry.info.digest, "removed");
                removed.push(entry.info);
            }
        }
        self.store.cache().sweep();
        prune_checkpoints()?;
        Kept::open()?.prune_without(|layer| self.store.path(layer).exists())?;
        self.store.cache().remove_older(REGISTRIES, INTERVAL, |_| false);
        history::prune(self.store.cache(), CHAIN_AGE);
        lookup::prune(self.store.cache(), INTERVAL, |layer| self.store.path(layer).exists());
        Ok(removed)
    }

    /// Compares every layer's files with its manifest, including their contents. Damaged layers are
    /// set aside and rebuilt at their next request.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`](crate::ErrorKind::Cache) when the cache cannot be read or written.
    pub fn verify(&self) -> Result<Vec<Damage>> {
        let mut damaged = Vec::new();
        for digest in self.store.names()? {
            let Ok(name) = digest.parse() else { continue };
            let Some(layer) = self.store.lock_layer(name)? else { continue };
            let differences = layer.differences();
            // Another process may have removed it meanwhile.
            if layer.exists() && !differences.as_ref().is_ok_and(Vec::is_empty) {
                let (differences, origin) = (differences?, layer.manifest().ok().and_then(|it| it.origin));
                self.store.cache().set_aside(layer.lock(), MANIFEST)?;
                damaged.push(Damage { digest, origin, differences });
            }
        }
        for (_, digest, _, listed) in self.listed()? {
            let differences = listed.verify(self.store.cache())?;
            if !differences.is_empty() {
                damaged.push(Damage { digest, origin: None, differences });
            }
        }
        damaged.extend(verify_images()?.into_iter().map(|key| Damage {
            digest: key,
            origin: None,
            differences: vec!["this prelinked image of a server was changed".to_owned()],
        }));
        damaged.extend(verify_checkpoints()?.into_iter().map(|key| Damage {
            digest: key,
            origin: None,
            differences: vec!["this checkpoint of a server was changed".to_owned()],
        }));
        Ok(damaged)
    }

    /// Returns what is unpacked: a name for the engine, the name, the version, and the directory.
    fn listed(&self) -> Result<Vec<(&'static str, String, String, Listed)>> {
        let cache = self.store.cache();
        let of = |engine| move |(name, version, listed)| (engine, name, version, listed);
        let found = packages::trees(cache)?.into_iter().map(of(PACKAGES));
        #[cfg(feature = "images")]
        let found = found.chain(oci::images(cache)?.into_iter().map(of(IMAGE)));
        Ok(found.collect())
    }

    /// Describes what is unpacked.
    fn unpacked(&self) -> Result<impl Iterator<Item = Result<Entry>> + use<>> {
        let entry = |(engine, digest, version, listed): (&str, String, String, Listed)| {
            let mut disk = Disk::default();
            disk.add(&listed.path)?;
            let info = LayerInfo {
                digest,
                engine: engine.to_owned(),
                version,
                parent: None,
                steps: Vec::new(),
                origin: None,
                size: disk.size,
                shared: 0,
                last_used: listed.last_used(),
                in_use: DirectoryLock::is_held(&listed.path),
            };
            Ok(Entry { info, listed: Some(listed) })
        };
        Ok(self.listed()?.into_iter().map(entry))
    }

    fn directory_of(&self, entry: &Entry) -> PathBuf {
        entry
            .listed
            .as_ref()
            .map_or_else(|| self.store.path(&entry.info.digest), |listed| listed.path.clone())
    }

    fn remove(&self, entry: &Entry) -> Result<bool> {
        match &entry.listed {
            Some(listed) => listed.remove(self.store.cache()),
            None => self.store.remove(&entry.info.digest),
        }
    }

    fn info(&self, digest: &str) -> Result<LayerInfo> {
        let path = self.store.path(digest);
        let mut disk = Disk::default();
        disk.add(&path)?;
        let (engine, version, parent, steps, origin) = Manifest::read(&path)
            .map(|it| (it.engine, it.version, it.parent, it.steps, it.origin))
            .unwrap_or_default();
        Ok(LayerInfo {
            digest: digest.to_owned(),
            engine,
            version,
            parent,
            steps,
            origin,
            size: disk.size,
            shared: disk.linked,
            last_used: self.store.last_used(digest),
            in_use: DirectoryLock::is_held(&path),
        })
    }
}

/// A layer, or something unpacked.
struct Entry {
    info: LayerInfo,
    listed: Option<Listed>,
}

/// Prunes, unless a process did so within the hour. A failure costs room, nothing else.
pub(super) fn prune_if_due(cache: &Cache) {
    let mark = cache.path("locks/prune");
    if cache::is_younger(&mark, INTERVAL) || cache.write(&mark, "").is_err() {
        return;
    }
    if let Err(error) = Layers::open().and_then(|layers| layers.prune(LIMIT)) {
        tracing::warn!(?error, "could not prune the cache");
    }
}

/// The disk usage of trees, where hard links count once.
#[derive(Debug, Default)]
struct Disk {
    size: u64,
    /// Bytes of files with further links, in these trees or elsewhere.
    linked: u64,
    /// The number of trees that hold a file, by device and inode, and its bytes.
    files: HashMap<(u64, u64), (usize, u64)>,
    trees: Vec<Vec<(u64, u64)>>,
}

impl Disk {
    fn add(&mut self, tree: &Path) -> Result<()> {
        let mut keys = Vec::new();
        for file in files(tree).map_err(|error| cache::failed("read", tree, error))? {
            let (key, bytes) = ((file.dev(), file.ino()), file.blocks() * 512);
            let (count, _) = self.files.entry(key).or_insert((0, bytes));
            *count += 1;
            if *count == 1 {
                self.size += bytes;
                self.linked += if file.nlink() > 1 && file.is_file() { bytes } else { 0 };
            }
            keys.push(key);
        }
        self.trees.push(keys);
        Ok(())
    }

    /// Takes out a tree by its index: files that no other tree holds are freed.
    fn take(&mut self, index: usize) {
        for key in std::mem::take(&mut self.trees[index]) {
            if let Some((count, bytes)) = self.files.get_mut(&key) {
                *count -= 1;
                self.size -= if *count == 0 { *bytes } else { 0 };
            }
        }
    }
}

/// The metadata of all files and directories of a tree, without those that disappear meanwhile.
fn files(tree: &Path) -> io::Result<Vec<fs::Metadata>> {
    let mut found = Vec::new();
    for entry in WalkDir::new(tree).follow_root_links(false) {
        match entry.map_err(io::Error::from).and_then(|entry| entry.metadata().map_err(io::Error::from)) {
            Ok(metadata) => found.push(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once_and_are_freed_with_the_last() {
        let root = tempfile::tempdir().unwrap();
        let (one, other) = (root.path().join("one"), root.path().join("other"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(one.join("file"), vec![1; 100_000]).unwrap();
        fs::hard_link(one.join("file"), other.join("file")).unwrap();
        let mut disk = Disk::default();
        disk.add(&one).unwrap();
        let alone = disk.size;
        disk.add(&other).unwrap();
        assert!(alone >= 100_000 && disk.linked >= 100_000 && disk.size < 2 * alone, "{disk:?}");
        disk.take(0);
        assert!(disk.size >= 100_000, "{disk:?}");
        disk.take(1);
        assert_eq!(disk.size, 0);
    }
}
