//! A data directory outside the cache, and servers that write to it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::{self, copy_tree};
use crate::engine::{Engine, Installation};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{Exit, Limits};
use crate::sandbox::{DataSource, Sandbox, StartOptions};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A data directory that is removed when this is dropped.
pub(super) struct Directory<E> {
    engine: E,
    installation: Installation,
    place: tempfile::TempDir,
}

impl<E: Engine> Directory<E> {
    /// Copies a data directory.
    pub(super) fn copy(engine: E, installation: Installation, data: &Path) -> Result<Self> {
        let place = tempfile::Builder::new().prefix("sandboxed-db-").tempdir();
        let place =
            place.map_err(|error| cache::failed("make a directory in", &std::env::temp_dir(), error))?;
        let copy = Self { engine, installation, place };
        copy_tree(data, &copy.data_path(), &mut || Ok(()))
            .map_err(|error| cache::failed("copy the data directory to", copy.place.path(), error))?;
        Ok(copy)
    }

    pub(super) fn copy_again(&self) -> Result<Self> {
        Self::copy(self.engine.clone(), self.installation.clone(), &self.data_path())
    }

    fn data_path(&self) -> PathBuf {
        self.place.path().join("data")
    }

    pub(super) fn data(&self) -> &Path {
        self.place.path()
    }

    /// Starts a server that writes to the directory itself.
    pub(super) fn start(&self) -> Result<Sandbox<E>> {
        Sandbox::for_build(StartOptions {
            engine: &self.engine,
            installation: &self.installation,
            settings: &[],
            start_timeout: START_TIMEOUT,
            limits: Limits::default(),
            tls: false,
            source: DataSource::Copy { data: self.data_path(), visible: Vec::new() },
        })
    }

    /// Stops a server. Returns an end that is not clean.
    pub(super) fn stop(&self, sandbox: &Sandbox<E>) -> Result<Option<Exit>> {
        let exit = sandbox.stop_server()?;
        Ok((!sandbox.prepared().stop().is_clean(exit)).then_some(exit))
    }

    /// Stops a server as at the end of a layer.
    pub(super) fn end(&self, sandbox: Sandbox<E>) -> Result<()> {
        self.stop(&sandbox)?;
        drop(sandbox);
        self.engine
            .tidy(&self.data_path())
            .map_err(|error| Error::new(ErrorKind::Layer, "tidy up the data directory").caused_by(error))
    }
}

/// The files below a directory, by the hashes of their contents.
pub(super) fn contents(directory: &Path) -> BTreeMap<PathBuf, blake3::Hash> {
    let entries = walkdir::WalkDir::new(directory).into_iter().flatten();
    let files = entries.filter(|entry| !entry.file_type().is_dir());
    files
        .map(|entry| {
            let path = entry.path().strip_prefix(directory).unwrap_or(entry.path()).to_owned();
            // A link counts by its target.
            let contents = match fs::read_link(entry.path()) {
                Ok(target) => target.as_os_str().as_encoded_bytes().to_vec(),
                Err(_) => fs::read(entry.path()).unwrap_or_default(),
            };
            (path, blake3::hash(&contents))
        })
        .collect()
}

/// Names of sockets, pipes and files with a process's id, each with its kind.
pub(super) fn traces(directory: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(directory).sort_by_file_name().into_iter().flatten();
    let found = entries.filter_map(|entry| {
        let kind = entry.file_type();
        let what = if kind.is_socket() {
            "the socket"
        } else if kind.is_fifo() {
            "the pipe"
        } else if kind.is_file() && entry.path().extension().is_some_and(|extension| extension == "pid") {
            "the id of a process in"
        } else {
            return None;
        };
        Some(format!("{what} `{}`", entry.path().strip_prefix(directory).unwrap_or(entry.path()).display()))
    });
    found.collect()
}
