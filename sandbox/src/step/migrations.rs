//! Migrations: a directory of .sql files, run in the order of their names.

use std::fs;
use std::path::Path;

use super::{Input, SourceFile, unreadable};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};

pub(super) fn read(directory: &Path, engine: &impl Engine) -> Result<Input> {
    let entries = fs::read_dir(directory).map_err(|error| unreadable(directory, error))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(directory, error))?.path();
        if is_migration(&path) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("find migrations in `{}`", directory.display()),
        )
        .with_hint("a migration is a file whose name ends in `.sql`; they run in the order of their names"));
    }
    paths.sort();
    let files = paths.iter().map(|path| SourceFile::read(path, engine)).collect::<Result<_>>()?;
    Ok(Input { label: format!("migrations `{}`", directory.display()), files })
}

/// The way back is not part of the way to a prepared database.
fn is_migration(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".sql") && !name.ends_with(".down.sql") && !name.starts_with('.') && path.is_file()
}
