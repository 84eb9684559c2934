//! Diesel: a directory for each migration, and `__diesel_schema_migrations`.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;

use super::tool::{Listing, Manner, Migration, Refusal, Tool, literal};

const METADATA: &str = "metadata.toml";

pub(super) struct Diesel;

impl Tool for Diesel {
    fn is_named(&self, listing: &Listing) -> Result<bool, Refusal> {
        let Some((directory, _)) = listing.directories.iter().find(|(_, files)| has_up(files)) else {
            return Ok(false);
        };
        match listing.sql().next() {
            Some(file) => Err(Refusal::mixed(&format!("{directory}/up.sql"), "Diesel's", file)),
            None => Ok(true),
        }
    }

    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        listing.directories.iter().map(|(directory, files)| migration(directory, files)).collect()
    }

    /// Its versions are texts.
    fn order(&self, one: &Migration, other: &Migration) -> Ordering {
        one.version.cmp(&other.version)
    }

    fn check(&self, Migration { path, version, .. }: &Migration) -> Result<(), Refusal> {
        if version.chars().count() <= 50 {
            return Ok(());
        }
        Err(Refusal::new(
            format!("`{path}` has a version of more than 50 characters, `{version}`"),
            "the version is what is before the first underscore",
        ))
    }

    fn beside(&self) -> Option<&'static str> {
        Some(METADATA)
    }

    fn manner(&self, file: &Path, _contents: &str) -> Result<Manner, Refusal> {
        match fs::read_to_string(file.with_file_name(METADATA)) {
            Ok(metadata) => Ok(Manner::whole(in_transaction(&metadata)?)),
            Err(_) => Ok(Manner::whole(true)),
        }
    }

    /// diesel, `migration/setup_migration_table.sql`.
    fn open(&self, _all: &[Migration]) -> String {
        "CREATE TABLE IF NOT EXISTS __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, \
         run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
            .to_owned()
    }

    fn note(&self, migration: &Migration, _contents: &str, _all: &[Migration]) -> String {
        format!("INSERT INTO __diesel_schema_migrations (version) VALUES ({})", literal(&migration.version))
    }
}

fn has_up(files: &[String]) -> bool {
    files.iter().any(|file| file == "up.sql")
}

/// diesel's `migrations_internals`: each directory is a migration; its version ends at the underscore, without dashes.
fn migration(directory: &str, files: &[String]) -> Result<Migration, Refusal> {
    if !has_up(files) {
        return Err(Refusal::new(
            format!("the directory `{directory}` holds no `up.sql`"),
            "Diesel takes every directory beside its migrations for one",
        ));
    }
    let (version, name) = directory.split_once('_').unwrap_or((directory, ""));
    Ok(Migration {
        path: format!("{directory}/up.sql"),
        version: version.replace('-', ""),
        name: name.to_owned(),
    })
}

/// Whether a `metadata.toml` has the migration run in a transaction. A file that does not say so says no.
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
    fn the_order_is_that_of_texts() {
        assert_eq!(
            MigrationTool::Diesel.order(&["9_a/up.sql", "10_b/up.sql"]),
            ["10_b/up.sql", "9_a/up.sql"]
        );
    }

    #[test]
    fn version_and_name_are_those_that_the_tool_keeps() {
        let kept = MigrationTool::Diesel.kept("2024-01-02-030405_add_a_table/up.sql");
        assert_eq!(kept, ("20240102030405".to_owned(), "add_a_table".to_owned()));
    }

    #[test]
    fn what_the_table_cannot_hold_is_refused() {
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
