//! The kept states of a cache: published, found, bounded in number and size.

use std::time::SystemTime;

use super::state::{KeptState, STATE};
use crate::cache::{self, Cache, StagedDirectory};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::{Limit, keeping_seal_of};

pub(super) const DATA: &str = "data";
const KEPT: &str = "kept";
/// The largest number of states.
const COUNT: usize = 20;
/// The largest size of all states together, in bytes, without the files that they share with
/// layers.
pub(super) const SIZE: u64 = 2 << 30;

/// The kept states in the user's cache directory: the data of failed tests, where the snapshot
/// [asks for it](crate::Snapshot::keep).
///
/// The cache holds at most 20 states and at most 2 GiB, without the files that they share with
/// layers; the oldest states are removed first. A state replaces the previous one of the same test,
/// and is removed together with the layer from which it started.
///
/// # Example
/// ```no_run
/// # fn main() -> sandboxed_db::Result<()> {
/// let kept = sandboxed_db::cache::Kept::open()?;
/// let db = kept.find("orders_can_be_dropped")?.start()?;
/// println!("psql '{}'", db.url());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Kept {
    cache: Cache,
}

impl Kept {
    /// Opens the states in the user's cache directory, which need not exist.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the environment determines no such directory.
    pub fn open() -> Result<Self> {
        Ok(Self { cache: Cache::open()? })
    }

    /// Returns all states, the newest first.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] when the cache cannot be read.
    pub fn list(&self) -> Result<Vec<KeptState>> {
        let directory = self.cache.path(KEPT);
        let names = self.cache.names(KEPT)?;
        let mut states: Vec<_> =
            names.iter().filter_map(|name| KeptState::read(&directory.join(name))).collect();
        states.sort_by_key(|state| std::cmp::Reverse(state.kept));
        Ok(states)
    }

    /// Returns the state of that name, or the only one whose name contains it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is none, or several names contain it;
    /// [`ErrorKind::Cache`] when the cache cannot be read.
    pub fn find(&self, name: &str) -> Result<KeptState> {
        let states = self.list()?;
        let refused = || Error::new(ErrorKind::InvalidConfig, format!("find the kept state `{name}`"));
        // The newest comes first.
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
                "`sandboxed-db open` lists the kept states; SANDBOXED_DB_KEEP=on_failure keeps the data of failed tests",
            )),
            [_] => Ok(matching.swap_remove(0)),
            several => {
                let text = format!("several names contain it:\n{}", several.join("\n"));
                Err(refused().caused_by(text).with_hint("give more of the name, or all of it"))
            }
        }
    }

    /// Removes states that are older than the limit's age, and then the oldest ones, until the rest
    /// is no larger than the limit's size and the largest size of all states. States in use stay.
    /// Returns the removed ones.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] when the cache cannot be read or written.
    pub fn prune(&self, limit: Limit) -> Result<Vec<KeptState>> {
        self.cache.sweep();
        let limit = Limit { size: limit.size.min(SIZE), ..limit };
        let mut removed = Vec::new();
        for state in excess(self.list()?, limit, SystemTime::now()) {
            if self.remove(&state)? {
                removed.push(state);
            }
        }
        Ok(removed)
    }

    /// Removes the states whose layer is gone, so that their links hold no bytes that are not
    /// counted.
    pub(crate) fn prune_without(&self, has_layer: impl Fn(&str) -> bool) -> Result<()> {
        for state in self.list()?.into_iter().filter(|state| !has_layer(&state.layer)) {
            self.remove(&state)?;
        }
        Ok(())
    }

    /// A directory to write a state in.
    pub(super) fn stage(&self) -> Result<StagedDirectory> {
        self.cache.stage(KEPT)
    }

    /// Makes a finished state visible, all at once, in place of older ones of the same test; and
    /// prunes.
    pub(super) fn publish(&self, staged: StagedDirectory, mut state: KeptState) -> Result<KeptState> {
        cache::create(&self.cache.path(KEPT))?;
        let name = staged.path().extension().unwrap_or_default();
        state.directory = self.cache.path(KEPT).join(name);
        let failed = |error| cache::failed("keep the state in", &state.directory, error);
        state.write(staged.path()).map_err(failed)?;
        drop(staged.publish(&state.directory, STATE).map_err(failed)?);
        let same = |old: &KeptState| old.name == state.name && old.package == state.package;
        for old in self.list()?.iter().filter(|old| same(old) && old.directory != state.directory) {
            self.remove(old)?;
        }
        self.prune(Limit { size: SIZE, age: None })?;
        Ok(state)
    }

    /// Removes a state unless it is in use, and returns whether it was removed. A program that this
    /// process starts at the same moment may make the state appear to be in use.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] when the cache cannot be written.
    pub fn remove(&self, state: &KeptState) -> Result<bool> {
        keeping_seal_of(&state.layer, || self.cache.remove(&state.directory, STATE))
    }
}

/// The states, sorted from the newest, that are too old, or too many, or beyond the size.
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
    use std::time::Duration;

    use super::*;
    use crate::kept::state::tests::state;

    /// States of those sizes, the newest first, a minute apart.
    fn states(sizes: &[u64], now: SystemTime) -> Vec<KeptState> {
        let minutes = (1..).map(|age| now - Duration::from_secs(60 * age));
        sizes.iter().zip(minutes).map(|(size, kept)| KeptState { size: *size, kept, ..state() }).collect()
    }

    #[test]
    fn the_oldest_states_are_in_excess_first() {
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
