//! Migrations: a directory of files of SQL, run as the tool runs them that they are written for.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::books::Books;
use super::convention::{self, Listing, Migration, MigrationTool, Refusal};
use super::{Input, Run, SourceFile, unreadable};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};

pub(super) fn read(directory: &Path, tool: Option<MigrationTool>, engine: &impl Engine) -> Result<Input> {
    let listing = list(directory)?;
    let refused = |refusal| refused("tell how to run the migrations in", directory, refusal);
    let mut sources = HashMap::new();
    let mut source = |migration: &Migration| -> Result<Arc<SourceFile>> {
        if let Some(source) = sources.get(&migration.path) {
            return Ok(Arc::clone(source));
        }
        let source = SourceFile::read(&directory.join(&migration.path), engine)?;
        sources.insert(migration.path.clone(), source.clone());
        Ok(source)
    };
    let tool = match tool {
        Some(tool) => Some(tool),
        None => match convention::by_names(&listing).map_err(refused)? {
            Some(tool) => Some(tool),
            None => {
                let files = convention::plan(None, &listing).map_err(refused)?.into_iter();
                let sections = files.map(|file| Ok((source(&file)?.sections, file.path)));
                convention::by_sections(&sections.collect::<Result<Vec<_>>>()?).map_err(refused)?
            }
        },
    };
    let migrations = convention::plan(tool, &listing).map_err(refused)?;
    if migrations.is_empty() {
        return Err(none_in(directory, tool));
    }
    let books = tool.and_then(|tool| Books::of(tool, &migrations));
    let runs = migrations.iter().enumerate().map(|(index, migration)| {
        let mut run = Run::plain(source(migration)?);
        run.name.clone_from(&migration.path);
        if let Some(books) = books {
            let Manner { transaction, part, after } = manner(&run.source, migration, books)?;
            run.transaction = transaction && in_transaction(&run.source.path, books)?;
            (run.part, run.after) = (part, Some(after));
            run.before = (index == 0).then(|| books.open());
        }
        Ok(run)
    });
    let runs = runs.collect::<Result<_>>()?;
    Ok(Input { label: format!("migrations `{}`", directory.display()), runs })
}

fn none_in(directory: &Path, tool: Option<MigrationTool>) -> Error {
    let error = Error::new(ErrorKind::InvalidConfig, format!("find migrations in `{}`", directory.display()));
    match tool {
        None | Some(MigrationTool::Plain) => error.with_hint(
            "a migration is a file whose name ends in `.sql`; they run in the order of their names",
        ),
        Some(tool) => {
            error.with_hint(format!("no name in it is that of a migration of `MigrationTool::{tool:?}`"))
        }
    }
}

/// What the text of a migration asks for, and what is noted of it.
#[derive(Debug, Clone)]
struct Manner {
    transaction: bool,
    part: Option<String>,
    after: String,
}

/// Worked out once for a text: checksums are slow in a test's unoptimised build, and every test comes by here.
fn manner(source: &SourceFile, migration: &Migration, books: Books) -> Result<Manner> {
    type Key = (blake3::Hash, Migration, Books);
    static KNOWN: Mutex<Option<HashMap<Key, Manner>>> = Mutex::new(None);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (source.hash, migration.clone(), books);
    if let Some(manner) = known().as_ref().and_then(|known| known.get(&key)) {
        return Ok(manner.clone());
    }
    let contents = source.contents()?;
    let (part, transaction) = match books.tool() {
        MigrationTool::Plain | MigrationTool::GolangMigrate => (None, false),
        MigrationTool::Diesel | MigrationTool::Refinery => (None, true),
        MigrationTool::Sqlx => (None, !contents.starts_with("-- no-transaction")),
        MigrationTool::Dbmate => {
            let up = convention::dbmate_up(&contents);
            let (part, transaction) = up.map_err(|refusal| refused("run", &source.path, refusal))?;
            (Some(part), transaction)
        }
    };
    let manner = Manner { transaction, part, after: books.note(migration, &contents) };
    known().get_or_insert_default().insert(key, manner.clone());
    Ok(manner)
}

/// Whether nothing beside the file says that it is not to be run in a transaction.
fn in_transaction(file: &Path, books: Books) -> Result<bool> {
    if books.tool() != MigrationTool::Diesel {
        return Ok(true);
    }
    match fs::read_to_string(file.with_file_name("metadata.toml")) {
        Ok(metadata) => {
            convention::diesel_in_transaction(&metadata).map_err(|refusal| refused("run", file, refusal))
        }
        Err(_) => Ok(true),
    }
}

fn list(directory: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    for (name, is_directory) in entries(directory)? {
        if is_directory {
            // One that cannot be read is none of migrations.
            let below = entries(&directory.join(&name)).unwrap_or_default();
            let files = below.into_iter().filter(|(_, is_directory)| !is_directory);
            listing.directories.push((name, files.map(|(name, _)| name).collect()));
        } else {
            listing.files.push(name);
        }
    }
    Ok(listing)
}

/// Files and directories that are not hidden, and which of them are directories.
fn entries(directory: &Path) -> Result<Vec<(String, bool)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| unreadable(directory, error))? {
        let entry = entry.map_err(|error| unreadable(directory, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        // Links count as what they lead to; one that leads nowhere is passed over.
        if let Ok(metadata) = fs::metadata(entry.path())
            && (metadata.is_file() || metadata.is_dir())
        {
            names.push((name, metadata.is_dir()));
        }
    }
    Ok(names)
}

fn refused(verb: &str, path: &Path, refusal: Refusal) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{verb} `{}`", path.display()))
        .caused_by(refusal.seen)
        .with_hint(refusal.hint)
}
