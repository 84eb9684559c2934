//! Migrations: a directory of files of SQL, run as the tool runs them that they are written for.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source::unreadable;
use super::{FileStep, Input, Link, SourceFile};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::migration::{self, Listing, Manner, Migration, MigrationTool, Refusal, in_order};

pub(super) fn read<E: Engine>(directory: &Path, tool: Option<MigrationTool>, engine: &E) -> Result<Input<E>> {
    let (listing, nowhere) = list(directory)?;
    let untold = |refusal| refused("tell how to run the migrations in", directory, refusal);
    let mut sources = HashMap::new();
    let mut source = |migration: &Migration| -> Result<Arc<SourceFile>> {
        if let Some(source) = sources.get(&migration.path) {
            return Ok(Arc::clone(source));
        }
        let source = SourceFile::script(&directory.join(&migration.path), engine)?;
        sources.insert(migration.path.clone(), source.clone());
        Ok(source)
    };
    let tool = match tool {
        Some(tool) => Some(tool),
        None => match migration::by_names(&listing).map_err(untold)? {
            Some(tool) => Some(tool),
            None => {
                let files = in_order(None, &listing).map_err(untold)?.into_iter();
                let marks = files.map(|file| {
                    let path = &source(&file)?.path;
                    // As bytes: what turns out to be no tool's may be in any encoding.
                    let contents = fs::read(path).map_err(|error| unreadable(path, error))?;
                    Ok((migration::mark(&contents), file.path))
                });
                migration::by_sections(&marks.collect::<Result<Vec<_>>>()?).map_err(untold)?
            }
        },
    };
    let migrations = in_order(tool, &listing).map_err(untold)?;
    if migrations.is_empty() {
        return Err(none_in(directory, tool));
    }
    let known = tool.and_then(MigrationTool::known);
    let runs = migrations.iter().enumerate().map(|(index, migration)| {
        let mut run = FileStep::plain(source(migration)?);
        run.name.clone_from(&migration.path);
        if let Some(tool) = known {
            let (path, contents) = (&run.source.path, run.source.contents()?);
            let manner = tool.manner(path, &contents).map_err(|refusal| refused("run", path, refusal));
            let Manner { transaction, part } = manner?;
            (run.transaction, run.part) = (transaction, part);
            run.before = (index == 0).then(|| tool.open(&migrations));
            run.after = Some(tool.note(migration, &contents, &migrations));
        }
        Ok(run)
    });
    let runs = runs.collect::<Result<Vec<FileStep>>>()?;
    // A directory tells by its own time which names are in it.
    let directories = listing.directories.iter().map(|(name, _)| directory.join(name));
    let mut watched: Vec<_> = [directory.to_owned()].into_iter().chain(directories).collect();
    // What a link leads to may come to be.
    watched.extend(nowhere);
    watched.extend(runs.iter().flat_map(|run| run.source.watched()));
    if let Some(name) = known.and_then(|tool| tool.beside()) {
        watched.extend(runs.iter().map(|run| run.source.path.with_file_name(name)));
    }
    let links = runs.into_iter().map(Link::File).collect();
    Ok(Input { label: format!("migrations `{}`", directory.display()), links, watched })
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

/// What is in the directory, and the links in it that lead nowhere.
fn list(directory: &Path) -> Result<(Listing, Vec<PathBuf>)> {
    let (mut listing, mut nowhere) = (Listing::default(), Vec::new());
    for (name, kind) in entries(directory)? {
        match kind {
            Kind::File => listing.files.push(name),
            Kind::Directory => {
                // One that cannot be read is none of migrations.
                let below = entries(&directory.join(&name)).unwrap_or_default();
                nowhere.extend(
                    below
                        .iter()
                        .filter(|(_, kind)| *kind == Kind::Nowhere)
                        .map(|(file, _)| directory.join(&name).join(file)),
                );
                let files =
                    below.into_iter().filter(|(_, kind)| *kind == Kind::File).map(|(file, _)| file).collect();
                listing.directories.push((name, files));
            }
            Kind::Nowhere => nowhere.push(directory.join(name)),
        }
    }
    Ok((listing, nowhere))
}

/// Links count as what they lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Nowhere,
}

/// What is not hidden.
fn entries(directory: &Path) -> Result<Vec<(String, Kind)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| unreadable(directory, error))? {
        let entry = entry.map_err(|error| unreadable(directory, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => names.push((name, Kind::File)),
            Ok(metadata) if metadata.is_dir() => names.push((name, Kind::Directory)),
            Ok(_) => {}
            Err(_) => names.push((name, Kind::Nowhere)),
        }
    }
    Ok(names)
}

fn refused(verb: &str, path: &Path, refusal: Refusal) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{verb} `{}`", path.display()))
        .caused_by(refusal.seen)
        .with_hint(refusal.hint)
}
