//! Where kept states are: written, found, and bounded in number and size.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::state::KeptState;
use crate::cache;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::{Limit, sealed_again};

pub(super) const DATA: &str = "data";
const DIRECTORY: &str = "kept";
/// How many states there may be.
const COUNT: usize = 20;
/// How many bytes they may take together, besides what they share with layers.
pub(super) const SIZE: u64 = 2 << 30;
/// What is not finished by then was abandoned; keeping gives up long before.
const ABANDONED: Duration = Duration::from_secs(10 * 60);

/// The kept states in the user's cache directory: the data of tests that failed, where that was
/// [asked for](crate::Snapshot::keep).
///
/// At most 20 are there and at most 2 GiB, besides what they share with layers: those kept first go first. A further
/// failure of the same test takes the place of the one before. They go with the layer they started from, too.
///
/// # Example
/// ```no_run
/// # fn main() -> sandboxed_db::Result<()> {
/// let kept = sandboxed_db::Kept::open()?;
/// let db = kept.find("orders_can_be_dropped")?.start()?;
/// println!("psql '{}'", db.url());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Kept {
    directory: PathBuf,
}

impl Kept {
    /// The states in the user's cache directory, which need not exist.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when no such directory can be named.
    pub fn open() -> Result<Self> {
        Ok(Self { directory: cache::directory()?.join(DIRECTORY) })
    }

    /// All states, the one kept last first.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] when the cache cannot be read.
    pub fn list(&self) -> Result<Vec<KeptState>> {
        let mut states: Vec<_> = self.entries()?.iter().filter_map(|path| KeptState::read(path)).collect();
        states.sort_by_key(|state| std::cmp::Reverse(state.kept));
        Ok(states)
    }

    /// The state of that name, or the only one whose name has it as a part.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is none, or names of several have that part; [`ErrorKind::Cache`] when the cache
    /// cannot be read.
    pub fn find(&self, name: &str) -> Result<KeptState> {
        let states = self.list()?;
        let refused = || Error::new(ErrorKind::InvalidConfig, format!("find what is kept of `{name}`"));
        // The one kept last comes first.
        if let Some(state) = states.iter().find(|state| state.name == name) {
            return Ok(state.clone());
        }
        let mut matching: Vec<_> = states.into_iter().filter(|state| state.name.contains(name)).collect();
        matching.dedup_by(|later, earlier| later.name == earlier.name);
        let mut names: Vec<_> = matching.iter().map(|state| state.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        match names.as_slice() {
            [] => Err(refused().with_hint(
                "`sandboxed-db open` lists what is kept; SANDBOXED_DB_KEEP=on_failure keeps the data of tests that fail",
            )),
            [_] => Ok(matching.swap_remove(0)),
            several => {
                let text = format!("several have that in their names:\n{}", several.join("\n"));
                Err(refused().caused_by(text).with_hint("give more of the name, or all of it"))
            }
        }
    }

    /// Removes states that were kept longer ago than the limit's age, and then those kept first, until the rest is no larger
    /// than the limit's size, nor than what there may be at most. States in use stay. Returns those that were removed.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] when the cache cannot be read or written.
    pub fn prune(&self, limit: Limit) -> Result<Vec<KeptState>> {
        self.sweep();
        let limit = Limit { size: limit.size.min(SIZE), ..limit };
        let mut removed = Vec::new();
        for state in excess(self.list()?, limit, SystemTime::now()) {
            if self.remove(&state)? {
                removed.push(state);
            }
        }
        Ok(removed)
    }

    /// Removes those that started from a layer that is gone, whose files would stay on disk for them.
    pub(crate) fn prune_without(&self, has_layer: impl Fn(&str) -> bool) -> Result<()> {
        for state in self.list()?.into_iter().filter(|state| !has_layer(&state.layer)) {
            self.remove(&state)?;
        }
        Ok(())
    }

    /// A place to write a state, removed when dropped.
    pub(super) fn place(&self) -> Result<TempDir> {
        cache::create(&self.directory)?;
        self.sweep();
        let place = tempfile::Builder::new().prefix(".").tempdir_in(&self.directory);
        place.map_err(|error| cache::failed("make a directory in", &self.directory, error))
    }

    /// Makes a finished state visible, all at once, instead of older ones of the same test; and removes what is too much.
    pub(super) fn publish(&self, place: TempDir, mut state: KeptState) -> Result<KeptState> {
        let hidden = place.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        state.directory = self.directory.join(hidden.trim_start_matches('.'));
        let failed = |error| cache::failed("keep the state in", &state.directory, error);
        state.write(place.path()).map_err(failed)?;
        fs::rename(place.path(), &state.directory).map_err(failed)?;
        // It has its final name; nothing is left for the guard to remove.
        let _ = place.keep();
        let same = |old: &KeptState| old.name == state.name && old.package == state.package;
        for old in self.list()?.iter().filter(|old| same(old) && old.directory != state.directory) {
            self.remove(old)?;
        }
        self.prune(Limit { size: SIZE, age: None })?;
        Ok(state)
    }

    /// Removes a state, unless it is in use; whether it did. A program that this process starts at the same time seems to
    /// use it for an instant.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] when the cache cannot be written.
    pub fn remove(&self, state: &KeptState) -> Result<bool> {
        let path = &state.directory;
        let failed = |error| cache::failed("remove", path, error);
        let directory = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(failed)?,
        };
        if directory.try_lock().is_err() {
            return Ok(false);
        }
        // Out of sight first, so that nobody finds half of it.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let hidden = path.with_file_name(format!(".{name}"));
        match fs::rename(path, &hidden) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            renamed => renamed.map_err(failed)?,
        }
        sealed_again(&state.layer, || fs::remove_dir_all(&hidden)).map_err(failed)?;
        Ok(true)
    }

    /// Removes what was never finished.
    fn sweep(&self) {
        for path in self.all().unwrap_or_default() {
            let age = fs::metadata(&path).and_then(|place| place.modified()).ok();
            let age = age.and_then(|time| time.elapsed().ok()).unwrap_or_default();
            // Who removes a state has it locked.
            let unlocked = File::open(&path).is_ok_and(|place| place.try_lock().is_ok());
            if is_hidden(&path) && age > ABANDONED && unlocked {
                tracing::info!(?path, "removing what was not kept to its end");
                if let Err(error) = fs::remove_dir_all(&path) {
                    tracing::warn!(?error, ?path, "what was not kept to its end cannot be removed");
                }
            }
        }
    }

    fn entries(&self) -> Result<Vec<PathBuf>> {
        let all = self.all().map_err(|error| cache::failed("read", &self.directory, error))?;
        Ok(all.into_iter().filter(|path| !is_hidden(path)).collect())
    }

    fn all(&self) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.map(|entry| Ok(entry?.path())).collect(),
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Those of the states, the last first, that are too old or too many; the last is one only if nothing may stay.
fn excess(states: Vec<KeptState>, limit: Limit, now: SystemTime) -> Vec<KeptState> {
    let mut size = 0;
    let mut excess = Vec::new();
    for (index, state) in states.into_iter().enumerate() {
        let age = now.duration_since(state.kept).unwrap_or_default();
        size += state.size;
        if index >= COUNT || size > limit.size || limit.age.is_some_and(|limit| age > limit) {
            excess.push(state);
        }
    }
    excess
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::state::tests::state;

    /// States of those sizes, the last kept first, each a minute after the one after it.
    fn states(sizes: &[u64], now: SystemTime) -> Vec<KeptState> {
        let minutes = (1..).map(|age| now - Duration::from_secs(60 * age));
        sizes.iter().zip(minutes).map(|(size, kept)| KeptState { size: *size, kept, ..state() }).collect()
    }

    #[test]
    fn those_kept_first_go_first() {
        let now = SystemTime::now();
        let excess = |sizes: &[u64], size, age| -> Vec<u64> {
            let limit = Limit { size, age };
            excess(states(sizes, now), limit, now).iter().map(|state| state.size).collect()
        };
        assert_eq!(excess(&[1, 2, 3], 6, None), [0; 0]);
        assert_eq!(excess(&[1, 2, 3, 4], 5, None), [3, 4]);
        assert_eq!(excess(&[9, 1], 5, None), [9, 1]);
        assert_eq!(excess(&[1; 30], 100, None).len(), 10);
        assert_eq!(excess(&[1, 2, 3], 6, Some(Duration::from_secs(90))), [2, 3]);
    }
}
