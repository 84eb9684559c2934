//! The description of a kept state, stored beside its data.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::store::DATA;
use crate::cache::{self, DirectoryLock};
use crate::error::{Error, ErrorKind, Result};

pub(super) const STATE: &str = "state.json";
/// Changes when states of an older form cannot be read or started any more.
pub(super) const FORMAT: u32 = 2;

/// A data directory as a test left it, kept in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeptState {
    pub(super) format: u32,
    /// The path of the test, from its crate on, or the name from
    /// [`Snapshot::keep_as`](crate::Snapshot::keep_as); with `#2`, `#3`, … for further sandboxes of
    /// the same test.
    pub name: String,
    /// The directory at which relative paths of the description start: that of the test's package.
    pub package: PathBuf,
    /// `true` if the test failed.
    pub failed: bool,
    /// `true` if the server was shut down cleanly before the data was kept. If not, it had died or
    /// hung, and its files are as after a crash: data that it had not written is lost, and a server
    /// that starts on them recovers first.
    pub clean: bool,
    /// The time when the state was kept; in JSON a text of ISO 8601.
    #[serde(with = "cache::iso_8601")]
    pub kept: SystemTime,
    /// The engine's name, such as `postgres`.
    pub engine: String,
    /// The version, as the server's program prints it.
    pub version: String,
    /// The image of the server, as in [`Snapshot::image`](crate::Snapshot::image), if it is not the
    /// machine's.
    #[serde(default)]
    pub image: Option<String>,
    /// Further properties of the engine, as pairs of a name and a value, such as the name of the
    /// database.
    pub identity: Vec<(String, String)>,
    /// The packages on top of the server, as in the snapshot.
    #[serde(default)]
    pub packages: Vec<String>,
    /// The settings of the server, as in the snapshot.
    pub settings: Vec<(String, String)>,
    /// The digest of the layer from which the sandbox started.
    pub layer: String,
    /// The size on disk in bytes, without the files that the state shares with the layer.
    pub size: u64,
    /// The directory of the state.
    #[serde(default)]
    pub directory: PathBuf,
}

impl KeptState {
    /// Returns the data directory. It shares files with the layer: do not write to them.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join(DATA)
    }

    /// Reads the state in that directory; `None` if there is none, or one of another version of
    /// this library.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let text = fs::read(directory.join(STATE)).ok()?;
        let state: Self = serde_json::from_slice(&text).ok()?;
        (state.format == FORMAT).then(|| Self { directory: directory.to_owned(), ..state })
    }

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(directory.join(STATE))?;
        file.write_all(&serde_json::to_vec_pretty(self)?)
    }

    /// Keeps the state from being removed as long as the lock is held.
    pub(super) fn lock(&self) -> Result<DirectoryLock> {
        let lock = DirectoryLock::shared(&self.directory);
        lock.map_err(|error| cache::failed("lock", &self.directory, error))?.ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, format!("use the kept state `{}`", self.name))
                .caused_by("it was removed")
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
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
            image: None,
            identity: vec![("database".to_owned(), "shop".to_owned())],
            packages: vec!["postgresql-15-cron".to_owned()],
            settings: Vec::new(),
            layer: "00".to_owned(),
            size: 7,
            directory: PathBuf::new(),
        }
    }

    #[test]
    fn a_state_is_read_as_written_unless_its_format_differs() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(KeptState::read(directory.path()), None);
        state().write(directory.path()).unwrap();
        let read = KeptState::read(directory.path()).unwrap();
        assert_eq!(read, KeptState { directory: directory.path().to_owned(), ..state() });
        fs::remove_file(directory.path().join(STATE)).unwrap();
        KeptState { format: FORMAT + 1, ..state() }.write(directory.path()).unwrap();
        assert_eq!(KeptState::read(directory.path()), None);
    }
}
