//! Looking after the store: what is in it, what may go, what is damaged.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use walkdir::WalkDir;

use super::published::is_same;
use super::store::Store;
use super::{history, lookup};
use crate::cache;
use crate::error::Result;
use crate::kept::Kept;

/// How much the store may hold after a build; see [`Layers::prune`].
const LIMIT: Limit = Limit { size: 10 << 30, age: None };
/// How often a build looks whether it holds more.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long it is known where somebody was editing.
const CHAIN_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The layers in the user's cache directory, for those who look after it.
///
/// A build prunes the cache to 10 GiB by itself, at most once an hour; the command `sandboxed-db` does the rest.
///
/// # Example
/// ```no_run
/// # fn main() -> sandboxed_db::Result<()> {
/// for layer in sandboxed_db::Layers::open()?.list()? {
///     println!("{} {} bytes", layer.digest, layer.size);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Layers {
    store: Store,
}

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LayerInfo {
    /// Its name.
    pub digest: String,
    /// The engine's name, such as `postgres`; empty when the manifest cannot be read.
    pub engine: String,
    /// What the server's program prints as its version.
    pub version: String,
    /// The digest of the layer it was built on.
    pub parent: Option<String>,
    /// The files that were run on the parent.
    pub steps: Vec<String>,
    /// Bytes on disk, all told.
    pub size: u64,
    /// Bytes of it that other layers share, so that removing this layer alone does not free them.
    pub shared: u64,
    /// When it was last used, to the hour.
    pub last_used: SystemTime,
    /// Whether a process uses it now.
    pub in_use: bool,
}

/// A layer that is not what its manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Damage {
    /// The layer.
    pub digest: String,
    /// What is wrong, a line for each file.
    pub differences: Vec<String>,
}

/// What may stay in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Bytes on disk of all layers together.
    pub size: u64,
    /// How long a layer may go unused.
    pub age: Option<Duration>,
}

impl Layers {
    /// The layers of the user's cache directory, which need not exist.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when no such directory can be named.
    pub fn open() -> Result<Self> {
        Ok(Self { store: Store::open()? })
    }

    /// The cache directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.store.root()
    }

    /// All layers, the one used last first.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`](crate::ErrorKind::Cache) when the cache cannot be read.
    pub fn list(&self) -> Result<Vec<LayerInfo>> {
        let names = self.store.names()?;
        let mut layers = names.iter().map(|name| self.info(name)).collect::<Result<Vec<_>>>()?;
        // One that was removed meanwhile has no files left.
        layers.retain(|layer| layer.size > 0);
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.last_used));
        Ok(layers)
    }

    /// Removes layers that went unused for too long, and then those that were used least lately, until the rest is no larger
    /// than the limit. Layers in use stay. Returns those that were removed.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`](crate::ErrorKind::Cache) when the cache cannot be read or written.
    pub fn prune(&self, limit: Limit) -> Result<Vec<LayerInfo>> {
        let mut layers = self.list()?;
        layers.reverse();
        let mut disk = Disk::default();
        for layer in &layers {
            disk.add(&self.store.layer(&layer.digest))?;
        }
        let now = SystemTime::now();
        let mut removed = Vec::new();
        for (index, layer) in layers.into_iter().enumerate() {
            let unused = now.duration_since(layer.last_used).unwrap_or_default();
            let too_old = limit.age.is_some_and(|age| unused > age);
            if (too_old || disk.size > limit.size) && self.store.remove(&layer.digest)? {
                disk.take(index);
                tracing::info!(layer = layer.digest, "removed");
                removed.push(layer);
            }
        }
        self.store.sweep_all();
        Kept::open()?.prune_without(|layer| self.store.layer(layer).exists())?;
        history::prune(self.store.root(), CHAIN_AGE);
        lookup::prune(self.store.root(), INTERVAL, |layer| self.store.layer(layer).exists());
        Ok(removed)
    }

    /// Compares every layer's files with its manifest, contents included. Damaged ones are set aside, so that they are built
    /// anew when they are asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`](crate::ErrorKind::Cache) when the cache cannot be read or written.
    pub fn verify(&self) -> Result<Vec<Damage>> {
        let mut damaged = Vec::new();
        for digest in self.store.names()? {
            let path = self.store.layer(&digest);
            // One that is removed meanwhile is not missed.
            let Ok(opened) = File::open(&path) else { continue };
            let differences = match self.store.differences(&digest) {
                _ if !is_same(&path, &opened) => continue,
                differences => differences?,
            };
            if !differences.is_empty() {
                let aside = self.store.set_aside(&digest, &opened, "damaged");
                aside.map_err(|error| cache::failed("set aside the damaged layer", &path, error))?;
                damaged.push(Damage { digest, differences });
            }
        }
        Ok(damaged)
    }

    fn info(&self, digest: &str) -> Result<LayerInfo> {
        let path = self.store.layer(digest);
        let manifest = self.store.manifest(digest).ok();
        let mut disk = Disk::default();
        disk.add(&path)?;
        let (engine, version, parent, steps) = manifest
            .map(|manifest| (manifest.engine, manifest.version, manifest.parent, manifest.steps))
            .unwrap_or_default();
        Ok(LayerInfo {
            digest: digest.to_owned(),
            engine,
            version,
            parent,
            steps,
            size: disk.size,
            shared: disk.linked,
            last_used: self.store.last_used(digest),
            in_use: File::open(&path).is_ok_and(|directory| directory.try_lock().is_err()),
        })
    }
}

/// Prunes, if nobody has within the hour. A failure costs room, nothing else.
pub(super) fn prune_if_due(store: &Store) {
    let mark = store.root().join("locks/prune");
    let recent = fs::metadata(&mark)
        .and_then(|mark| mark.modified())
        .is_ok_and(|time| time.elapsed().is_ok_and(|since| since < INTERVAL));
    if recent || fs::write(&mark, "").is_err() {
        return;
    }
    if let Err(error) = Layers::open().and_then(|layers| layers.prune(LIMIT)) {
        tracing::warn!(?error, "the cache is not pruned");
    }
}

/// What trees take on disk, where hard links count once.
#[derive(Debug, Default)]
struct Disk {
    size: u64,
    /// Bytes of files with further links, in these trees or elsewhere.
    linked: u64,
    /// In how many of the trees a file is, by device and inode, and its bytes.
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

    /// Takes out the tree that was added as that one: what no other holds is freed.
    fn take(&mut self, index: usize) {
        for key in std::mem::take(&mut self.trees[index]) {
            if let Some((count, bytes)) = self.files.get_mut(&key) {
                *count -= 1;
                self.size -= if *count == 0 { *bytes } else { 0 };
            }
        }
    }
}

/// The metadata of all files and directories below; what disappears meanwhile is left out.
fn files(tree: &Path) -> io::Result<Vec<fs::Metadata>> {
    let mut found = Vec::new();
    for entry in WalkDir::new(tree) {
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
