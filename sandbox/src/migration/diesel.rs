//! Diesel: a directory for each migration, and `__diesel_schema_migrations`.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;

use crate::engine::Dialect;

use super::tool::{Applied, Execution, Listing, Migration, Refusal, Tool};

const UP: &str = "up.sql";
const METADATA: &str = "metadata.toml";

pub(super) struct Diesel;

impl Tool for Diesel {
    fn name(&self) -> &'static str {
        "Diesel"
    }

    fn is_named(&self, listing: &Listing) -> Result<bool, Refusal> {
        let Some((_, up)) = listing.below(UP).next() else {
            return Ok(false);
        };
        match listing.sql().next() {
            Some(file) => Err(Refusal::mixed(&up, self.name(), file)),
            None => Ok(true),
        }
    }

    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        listing.directories.iter().map(|(directory, files)| migration(directory, files)).collect()
    }

    /// Versions are texts.
    fn order(&self, one: &Migration, other: &Migration) -> Ordering {
        one.version.cmp(&other.version)
    }

    fn check(&self, all: &[Migration]) -> Result<(), Refusal> {
        match all.iter().find(|migration| migration.version.chars().count() > 50) {
            None => Ok(()),
            Some(Migration { path, version, .. }) => Err(Refusal::new(
                format!("`{path}` has a version of more than 50 characters, `{version}`"),
                "the version is the part of the name before the first underscore",
            )),
        }
    }

    fn beside(&self) -> Option<&'static str> {
        Some(METADATA)
    }

    fn execution(&self, file: &Path, contents: &str) -> Result<Execution, Refusal> {
        if contents.is_empty() {
            return Err(Refusal::new(
                "it is empty",
                "Diesel refuses an empty migration: add a comment to it",
            ));
        }
        let transaction = match fs::read_to_string(file.with_file_name(METADATA)) {
            Ok(metadata) => in_transaction(&metadata)?,
            Err(_) => true,
        };
        Ok(Execution::whole(transaction, contents))
    }

    /// diesel, `mysql/connection/mod.rs`.
    fn session(&self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Postgres | Dialect::Sqlite => "",
            Dialect::MySql => "SET time_zone = '+00:00'",
        }
    }

    /// diesel, `migration/setup_migration_table.sql`.
    fn create_table(&self, _dialect: Dialect, _all: &[Migration]) -> String {
        "CREATE TABLE IF NOT EXISTS __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, \
         run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
            .to_owned()
    }

    fn record(&self, dialect: Dialect, applied: &Applied<'_>) -> String {
        format!(
            "INSERT INTO __diesel_schema_migrations (version) VALUES ({})",
            dialect.literal(&applied.migration.version)
        )
    }
}

/// Reads a directory as diesel's `migrations_internals` does: its version ends at the underscore,
/// and loses its dashes.
fn migration(directory: &str, files: &[String]) -> Result<Migration, Refusal> {
    if !files.iter().any(|file| file == UP) {
        return Err(Refusal::new(
            format!("the directory `{directory}` holds no `up.sql`"),
            "Diesel takes each directory beside its migrations for one: move it elsewhere",
        ));
    }
    let (version, name) = directory.split_once('_').unwrap_or((directory, ""));
    Ok(Migration {
        path: format!("{directory}/up.sql"),
        version: version.replace('-', ""),
        name: name.to_owned(),
    })
}

/// Returns `true` if a `metadata.toml` has the migration run in a transaction. Without the key it
/// does not.
fn in_transaction(metadata: &str) -> Result<bool, Refusal> {
    for line in metadata.lines() {
        let line = line.split('#').next().unwrap_or_default();
        if let Some((key, value)) = line.split_once('=')
            && key.trim() == "run_in_transaction"
        {
            return value.trim().parse().map_err(|_| {
                Refusal::new(
                    format!("`run_in_transaction` is `{}` in its `metadata.toml`", value.trim()),
                    "it is `true` or `false`",
                )
            });
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::tool::MigrationTool;

    #[test]
    fn versions_are_ordered_as_texts() {
        assert_eq!(
            MigrationTool::Diesel.order(&["9_a/up.sql", "10_b/up.sql"]),
            ["10_b/up.sql", "9_a/up.sql"]
        );
    }

    #[test]
    fn version_and_name_are_recorded_as_by_diesel() {
        let kept = MigrationTool::Diesel.kept("2024-01-02-030405_add_a_table/up.sql");
        assert_eq!(kept, ("20240102030405".to_owned(), "add_a_table".to_owned()));
    }

    #[test]
    fn directories_that_diesel_refuses_are_refused() {
        let refusal = |names: &[&str]| MigrationTool::Diesel.refusal(names);
        assert!(refusal(&["1-1_a/up.sql", "11_b/up.sql"]).contains("same version"));
        assert!(refusal(&["1_a/up.sql", "empty/readme"]).contains("`empty` holds no `up.sql`"));
        assert!(refusal(&[&format!("{}_a/up.sql", "1".repeat(51))]).contains("more than 50 characters"));
    }

    #[test]
    fn metadata_is_read_as_diesel_does() {
        assert_eq!(in_transaction("# no\nrun_in_transaction = true # yes\n"), Ok(true));
        assert_eq!(in_transaction("run_in_transaction=false"), Ok(false));
        assert_eq!(in_transaction("# run_in_transaction = true\n"), Ok(false));
        assert!(in_transaction("run_in_transaction = no").is_err());
    }
}
