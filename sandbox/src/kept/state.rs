//! What is known of a kept state besides its data.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::store::DATA;
use crate::cache;
use crate::error::{Error, ErrorKind, Result};

pub(super) const STATE: &str = "state.json";
/// Changes when states of an older form cannot be started any more.
pub(super) const FORMAT: u32 = 1;

/// A data directory as a test left it, kept in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeptState {
    pub(super) format: u32,
    /// What it is found by: the path of the test, from its crate on, or what [`Snapshot::keep_as`](crate::Snapshot::keep_as)
    /// says; with `#2`, `#3`, … for further sandboxes of the same.
    pub name: String,
    /// Where relative paths of its description start: the directory of the test's package.
    pub package: PathBuf,
    /// Whether the test failed.
    pub failed: bool,
    /// Whether the server was shut down cleanly before. If not, it had died or hung, and its files are as a crash leaves
    /// them: what it had not written yet is lost, and a server that starts on them recovers first.
    pub clean: bool,
    /// When it was kept.
    pub kept: SystemTime,
    /// The engine's name, such as `postgres`.
    pub engine: String,
    /// What the server's program prints as its version.
    pub version: String,
    /// What else the engine was asked for: pairs of a name and a value, such as the name of the database.
    pub identity: Vec<(String, String)>,
    /// The settings of the server, as the snapshot had them.
    pub settings: Vec<(String, String)>,
    /// The digest of the layer it started from.
    pub layer: String,
    /// Bytes that it takes besides what it shares with the layer.
    pub size: u64,
    /// Where it is.
    #[serde(default)]
    pub directory: PathBuf,
}

impl KeptState {
    /// The data directory. What changes a file there may change the layer, too: files that both have are the same.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join(DATA)
    }

    /// Reads what is known of the state in that directory; none if it is none, or one of another version of this library.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let text = fs::read(directory.join(STATE)).ok()?;
        let state: Self = serde_json::from_slice(&text).ok()?;
        (state.format == FORMAT).then(|| Self { directory: directory.to_owned(), ..state })
    }

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        fs::write(directory.join(STATE), serde_json::to_vec_pretty(self)?)
    }

    /// Keeps the state from being removed as long as the file is held.
    pub(super) fn hold(&self) -> Result<File> {
        let gone = || {
            Error::new(ErrorKind::InvalidConfig, format!("use what is kept of `{}`", self.name))
                .caused_by("it was removed")
        };
        let directory = match File::open(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone()),
            opened => opened.map_err(|error| cache::failed("open", &self.directory, error))?,
        };
        match directory.try_lock_shared() {
            Ok(()) if self.directory.exists() => Ok(directory),
            // Only who removes it locks it for itself.
            Ok(()) | Err(TryLockError::WouldBlock) => Err(gone()),
            Err(TryLockError::Error(error)) => Err(cache::failed("lock", &self.directory, error)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::kept) fn state() -> KeptState {
        KeptState {
            format: FORMAT,
            name: "shop::orders".to_owned(),
            package: "/src/shop".into(),
            failed: true,
            clean: true,
            kept: SystemTime::UNIX_EPOCH,
            engine: "postgres".to_owned(),
            version: "postgres (PostgreSQL) 15.18".to_owned(),
            identity: vec![("database".to_owned(), "shop".to_owned())],
            settings: Vec::new(),
            layer: "00".to_owned(),
            size: 7,
            directory: PathBuf::new(),
        }
    }

    #[test]
    fn a_state_is_read_as_it_was_written_and_one_of_another_form_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(KeptState::read(directory.path()), None);
        state().write(directory.path()).unwrap();
        let read = KeptState::read(directory.path()).unwrap();
        assert_eq!(read, KeptState { directory: directory.path().to_owned(), ..state() });
        KeptState { format: FORMAT + 1, ..state() }.write(directory.path()).unwrap();
        assert_eq!(KeptState::read(directory.path()), None);
    }

    proptest! {
        #[test]
        fn damaged_states_are_survived(at in any::<prop::sample::Index>(), byte in any::<u8>(), end in any::<prop::sample::Index>()) {
            let mut bytes = serde_json::to_vec(&state()).unwrap();
            let length = bytes.len();
            bytes[at.index(length)] = byte;
            bytes.truncate(1 + end.index(length));
            let _ = serde_json::from_slice::<KeptState>(&bytes);
        }
    }
}
