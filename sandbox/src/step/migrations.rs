//! Migrations: a directory of files of SQL, each run as the tool runs it that it is written for.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source::unreadable;
use super::{FileStep, ReadFiles, SourceFile};
use crate::engine::{Dialect, Scripts};
use crate::error::{Error, ErrorKind, Result};
use crate::migration::{self, Applied, Listing, Migration, MigrationTool, Refusal, in_order};

/// Returns `true` for a directory that holds files of SQL, or that cannot be read.
pub(crate) fn holds_scripts(directory: &Path) -> bool {
    directory.is_dir()
        && list(directory).map_or(true, |(listing, _)| {
            listing.files.iter().any(|name| name.ends_with(".sql"))
                || scripts_below(&listing).next().is_some()
        })
}

/// Reads a directory that is named in the package with this directory.
pub(super) fn read(
    directory: &Path,
    package: &Path,
    tool: Option<MigrationTool>,
    engine: &dyn Scripts,
    dialect: Dialect,
) -> Result<ReadFiles> {
    let (listing, dangling) = list(directory)?;
    let undecided = |refusal| refused("decide how to run the migrations in", directory, refusal);
    let mut sources = HashMap::new();
    let mut source = |migration: &Migration| -> Result<Arc<SourceFile>> {
        if let Some(source) = sources.get(&migration.path) {
            return Ok(Arc::clone(source));
        }
        let source = SourceFile::script(&directory.join(&migration.path), engine)?;
        sources.insert(migration.path.clone(), source.clone());
        Ok(source)
    };
    let manifest = package.join("Cargo.toml");
    let mut watched = vec![directory.to_owned()];
    let recognised = match tool {
        Some(tool) => Some(tool),
        None => {
            let by_names = migration::by_names(&listing).map_err(undecided)?;
            let files = in_order(by_names, &listing).map_err(undecided)?.into_iter();
            let contents = files.map(|file| {
                let path = &source(&file)?.path;
                // The file of no tool may have any encoding.
                let contents = fs::read(path).map_err(|error| unreadable(path, error))?;
                Ok((file.path, String::from_utf8_lossy(&contents).into_owned()))
            });
            let contents = contents.collect::<Result<Vec<_>>>()?;
            match migration::by_contents(by_names, &listing, &contents).map_err(undecided)? {
                None if migration::are_named_by_time(&listing) => {
                    watched.push(manifest.clone());
                    of_sqlx(directory, &manifest)
                }
                recognised => recognised,
            }
        }
    };
    let migrations = in_order(recognised, &listing).map_err(undecided)?;
    if migrations.is_empty() {
        return Err(none_in(directory, recognised, &listing));
    }
    let rules = recognised.and_then(MigrationTool::rules);
    if let Some(rules) = rules {
        rules.check_dialect(dialect).map_err(undecided)?;
    }
    let files = migrations.iter().enumerate().map(|(index, migration)| {
        let mut file = FileStep::whole(source(migration)?)?;
        file.name.clone_from(&migration.path);
        let Some(rules) = rules else { return Ok(file) };
        let (path, contents) = (&file.source.path, file.source.contents()?);
        let execution = rules.execution(path, &contents).and_then(|execution| {
            execution.check(rules)?;
            Ok(execution)
        });
        let execution = execution.map_err(|refusal| refused("run", path, refusal))?;
        file.transaction = execution.transaction || rules.begins_transactions(dialect);
        file.requests = execution.requests;
        let sql = |sql: String| (!sql.is_empty()).then_some(sql);
        let table = if index == 0 { rules.create_table(dialect, &migrations) } else { String::new() };
        file.before = sql(joined(rules.session(dialect), &table));
        file.after =
            sql(rules.record(dialect, &Applied { migration, contents: &contents, all: &migrations }));
        Ok(file)
    });
    let files = files.collect::<Result<Vec<FileStep>>>()?;
    if recognised.is_none() {
        check_subdirectories(directory, &listing, &files)?;
    }
    // The time of a directory changes with the names in it.
    let directories = listing.directories.iter().map(|(name, _)| directory.join(name));
    watched.extend(directories.chain(dangling));
    watched.extend(files.iter().flat_map(|file| file.source.watched()));
    if let Some(name) = rules.and_then(|rules| rules.beside()) {
        watched.extend(files.iter().map(|file| file.source.path.with_file_name(name)));
    }
    Ok(ReadFiles { label: format!("migrations `{}`", directory.display()), files, watched })
}

fn joined(one: &str, other: &str) -> String {
    let separator = if one.is_empty() || other.is_empty() { "" } else { "; " };
    format!("{one}{separator}{other}")
}

/// Returns sqlx if the package depends on it.
fn of_sqlx(directory: &Path, manifest: &Path) -> Option<MigrationTool> {
    let manifest = fs::read_to_string(manifest).unwrap_or_default();
    migration::is_sqlx_a_dependency(&manifest).then(|| {
        tracing::info!(directory = %directory.display(), "run as sqlx does, since the package depends on it");
        MigrationTool::Sqlx
    })
}

/// Refuses a directory whose subdirectories hold files that run neither by themselves nor as parts
/// of others.
fn check_subdirectories(directory: &Path, listing: &Listing, files: &[FileStep]) -> Result<()> {
    let is_read = |below: &Path| {
        let below = fs::canonicalize(below).unwrap_or_default();
        files.iter().flat_map(|file| file.source.all()).any(|file| file.path.starts_with(&below))
    };
    match scripts_below(listing).find(|(name, _)| !is_read(&directory.join(name))) {
        None => Ok(()),
        Some((name, file)) => {
            let cause = format!("`{name}/{file}` is in a subdirectory, which is not searched");
            let hint = in_subdirectory(directory, name);
            Err(refused("decide how to run the migrations in", directory, Refusal { cause, hint }))
        }
    }
}

/// The subdirectories that hold files of SQL, each with its first.
fn scripts_below(listing: &Listing) -> impl Iterator<Item = (&str, &str)> {
    let script = |files: &'_ [String]| files.iter().position(|file| file.ends_with(".sql"));
    listing
        .directories
        .iter()
        .filter_map(move |(name, files)| Some((name.as_str(), files[script(files)?].as_str())))
}

fn in_subdirectory(directory: &Path, name: &str) -> String {
    let below = directory.join(name);
    format!(
        "add `.migrations({below:?})` (`--migrations {}`) in its place of the order, or choose \
         `MigrationTool::Plain` (`--tool plain`) to leave it out",
        below.display()
    )
}

fn none_in(directory: &Path, tool: Option<MigrationTool>, listing: &Listing) -> Error {
    let error = Error::new(ErrorKind::InvalidConfig, format!("find migrations in `{}`", directory.display()));
    match (tool, scripts_below(listing).next()) {
        (None | Some(MigrationTool::Plain), Some((name, _))) => {
            let directory = directory.join(name);
            error.with_hint(format!(
                "subdirectories are not searched: name one, as in `.migrations({directory:?})` (`--migrations {}`)",
                directory.display()
            ))
        }
        (None | Some(MigrationTool::Plain), None) => error.with_hint(
            "a migration is a file whose name ends in `.sql`; they run in the order of their names",
        ),
        (Some(tool), _) => {
            error.with_hint(format!("no name in it is that of a migration of `MigrationTool::{tool:?}`"))
        }
    }
}

/// Returns the names in the directory, and the dangling links in it, whose targets may be made
/// later.
fn list(directory: &Path) -> Result<(Listing, Vec<PathBuf>)> {
    let (mut listing, mut dangling) = (Listing::default(), Vec::new());
    for (name, kind) in entries(directory)? {
        match kind {
            Kind::File => listing.files.push(name),
            Kind::Directory => {
                let path = directory.join(&name);
                // A directory that cannot be read holds no migrations.
                let below = entries(&path).unwrap_or_default();
                let of_kind = |wanted: Kind| {
                    below.iter().filter(move |(_, kind)| *kind == wanted).map(|(file, _)| file.clone())
                };
                dangling.extend(of_kind(Kind::Dangling).map(|file| path.join(file)));
                listing.directories.push((name, of_kind(Kind::File).collect()));
            }
            Kind::Dangling => dangling.push(directory.join(name)),
        }
    }
    listing.directories.sort();
    Ok((listing, dangling))
}

/// Links count as their targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Dangling,
}

/// The entries that are not hidden.
fn entries(directory: &Path) -> Result<Vec<(String, Kind)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| unreadable(directory, error))? {
        let entry = entry.map_err(|error| unreadable(directory, error))?;
        let name = match entry.file_name().into_string() {
            Ok(name) if name.starts_with('.') => continue,
            Ok(name) => name,
            Err(name) => {
                let cause = format!("the name `{}` is not UTF-8", name.display());
                let hint = "rename it, as by `convmv -f latin1 -t utf8 --notest`".to_owned();
                return Err(refused("read the migrations in", directory, Refusal { cause, hint }));
            }
        };
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => names.push((name, Kind::File)),
            Ok(metadata) if metadata.is_dir() => names.push((name, Kind::Directory)),
            Ok(_) => {}
            Err(_) => names.push((name, Kind::Dangling)),
        }
    }
    Ok(names)
}

fn refused(verb: &str, path: &Path, refusal: Refusal) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{verb} `{}`", path.display()))
        .caused_by(refusal.cause)
        .with_hint(refusal.hint)
}
