//! The steps that lead from a fresh server to a prepared database: one file per kind, each read into files to run.

mod dbmate;
mod diesel;
mod golang_migrate;
mod load;
mod migrations;
mod order;
mod plain;
mod recognise;
mod refinery;
mod seed;
mod sqlx;
mod tool;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};

pub(crate) use load::{load, run_script};
pub use tool::MigrationTool;

/// A step as described; nothing of it has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A directory of files of SQL, and the tool they are written for if the user names it.
    Migrations(PathBuf, Option<MigrationTool>),
    /// One .sql file.
    Seed(PathBuf),
}

/// A step as read: what it runs, in order. Each run becomes a link of the digest chain.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) label: String,
    pub(crate) runs: Vec<Run>,
}

/// A file, and how it is run.
#[derive(Debug)]
pub(crate) struct Run {
    /// As it enters the digest and is told to the user.
    pub(crate) name: String,
    pub(crate) source: Arc<SourceFile>,
    /// What is run instead of the whole file, at the lines it has there.
    pub(crate) part: Option<String>,
    /// Whether all of it is one transaction.
    pub(crate) transaction: bool,
    /// SQL to run first, in the same session and transaction.
    pub(crate) before: Option<String>,
    /// SQL to run last, in the same session and transaction.
    pub(crate) after: Option<String>,
}

/// A file of SQL, with the files that it has the client read.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: PathBuf,
    pub(crate) hash: blake3::Hash,
    pub(crate) included: Vec<SourceFile>,
    identity: Identity,
}

/// What changes when a file is written: enough to notice an edit between reading and running.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Step {
    /// Reads the step's files. Relative paths start at `base`.
    pub(crate) fn read(&self, base: &Path, engine: &impl Engine) -> Result<Input> {
        match self {
            Self::Migrations(directory, tool) => migrations::read(&base.join(directory), *tool, engine),
            Self::Seed(file) => seed::read(&base.join(file), engine),
        }
    }
}

impl Run {
    /// The whole file, as the client runs it.
    fn plain(source: Arc<SourceFile>) -> Self {
        let name = source.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, source, part: None, transaction: false, before: None, after: None }
    }
}

impl SourceFile {
    /// Reads a file and, recursively, those it includes; what this process has read before, and is unchanged, only once.
    fn read(path: &Path, engine: &impl Engine) -> Result<Arc<Self>> {
        static READ: Mutex<Option<HashMap<PathBuf, Arc<SourceFile>>>> = Mutex::new(None);
        let path = fs::canonicalize(path).map_err(|error| unreadable(path, error))?;
        let read = || READ.lock().unwrap_or_else(PoisonError::into_inner);
        let known = read().as_ref().and_then(|files| files.get(&path).cloned());
        if let Some(file) = known.filter(|file| file.all().into_iter().all(Self::is_unchanged)) {
            return Ok(file);
        }
        let mut seen = HashSet::from([path.clone()]);
        let file = Arc::new(Self::read_below(&path, path.parent().unwrap_or(&path), engine, &mut seen)?);
        read().get_or_insert_default().insert(path, file.clone());
        Ok(file)
    }

    fn read_below(
        path: &Path,
        top: &Path,
        engine: &impl Engine,
        seen: &mut HashSet<PathBuf>,
    ) -> Result<Self> {
        let identity = Identity::of(path).map_err(|error| unreadable(path, error))?;
        let contents = fs::read(path).map_err(|error| unreadable(path, error))?;
        let hash = blake3::hash(&contents);
        let mut included = Vec::new();
        for name in engine.included_files(&String::from_utf8_lossy(&contents)) {
            // Some commands start at the including file's directory, some at the client's. One that is not there at
            // all is reported by the client, in its own words.
            for directory in [path.parent().unwrap_or(top), top] {
                if let Ok(found) = fs::canonicalize(directory.join(&name))
                    && seen.insert(found.clone())
                {
                    included.push(Self::read_below(&found, top, engine, seen)?);
                }
            }
        }
        Ok(Self { path: path.to_owned(), hash, included, identity })
    }

    /// The file's text, read anew: seeds may be large, so none is kept.
    fn contents(&self) -> Result<String> {
        let contents = fs::read(&self.path).map_err(|error| unreadable(&self.path, error))?;
        let failed = |kind| Error::new(kind, format!("read `{}`", self.path.display()));
        if blake3::hash(&contents) != self.hash {
            let error = failed(ErrorKind::Layer).caused_by("it changed while it was being read");
            return Err(error.with_hint("run the tests again"));
        }
        String::from_utf8(contents).map_err(|error| failed(ErrorKind::InvalidConfig).caused_by(error))
    }

    /// The file and all it includes.
    pub(crate) fn all(&self) -> Vec<&Self> {
        std::iter::once(self).chain(self.included.iter().flat_map(Self::all)).collect()
    }

    /// Whether the file is still the one that was read.
    pub(crate) fn is_unchanged(&self) -> bool {
        Identity::of(&self.path).is_ok_and(|identity| identity == self.identity)
    }
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self { inode: file.ino(), size: file.size(), changed: (file.ctime(), file.ctime_nsec()) })
    }
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    let hint = (error.kind() == io::ErrorKind::NotFound)
        .then(|| "relative paths start at the directory of the package's Cargo.toml".to_owned());
    Error::io(ErrorKind::InvalidConfig, "read", path, error).or_hint(|| hint)
}
