//! Prisma: a directory for each migration beside `migration_lock.toml`, and `_prisma_migrations`.

use std::cmp::Ordering;
use std::path::Path;

use crate::engine::Dialect;

use super::tool::{Applied, Execution, Listing, Migration, Refusal, Tool, hex};

pub(super) const SCRIPT: &str = "migration.sql";
const LOCK: &str = "migration_lock.toml";

/// Types of the columns for the id, the checksum and the name.
const LIMITED: [&str; 3] = ["VARCHAR(36)", "VARCHAR(64)", "VARCHAR(255)"];

/// A random UUID, version 4.
const UUID_OF_SQLITE: &str = "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || \
    substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))";

pub(super) struct Prisma;

impl Tool for Prisma {
    fn name(&self) -> &'static str {
        "Prisma"
    }

    /// Other tools have directories with a `migration.sql` too, but not the lock file.
    fn is_named(&self, listing: &Listing) -> Result<bool, Refusal> {
        if listing.files().all(|name| name != LOCK) {
            return Ok(false);
        }
        match listing.sql().next() {
            Some(file) => Err(Refusal::mixed(LOCK, self.name(), file)),
            None => Ok(true),
        }
    }

    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        let read = |(directory, files): &(String, Vec<String>)| {
            if !files.iter().any(|file| file == SCRIPT) {
                return Err(Refusal::new(
                    format!("the directory `{directory}` holds no `{SCRIPT}`"),
                    "Prisma takes each directory beside its migrations for one: move it elsewhere",
                ));
            }
            let path = format!("{directory}/{SCRIPT}");
            Ok(Migration { path, version: directory.clone(), name: directory.clone() })
        };
        listing.directories.iter().map(read).collect()
    }

    fn order(&self, one: &Migration, other: &Migration) -> Ordering {
        one.name.cmp(&other.name)
    }

    fn check(&self, _all: &[Migration]) -> Result<(), Refusal> {
        Ok(())
    }

    fn execution(&self, _file: &Path, contents: &str) -> Result<Execution, Refusal> {
        Ok(Execution::whole(false, contents))
    }

    /// The SQLite of Prisma's engine enforces foreign keys, and its migrations say where not.
    fn session(&self, dialect: Dialect) -> &'static str {
        if dialect == Dialect::Sqlite { "PRAGMA foreign_keys = ON" } else { "" }
    }

    /// prisma-engines, `flavour`: `postgres.rs`, `mysql.rs` and `sqlite.rs`.
    fn create_table(&self, dialect: Dialect, _all: &[Migration]) -> String {
        let ([id, checksum, name], time, now, number, options) = match dialect {
            Dialect::Postgres => (LIMITED, "TIMESTAMPTZ", "now()", "INTEGER", ""),
            Dialect::MySql => (
                LIMITED,
                "DATETIME(3)",
                "CURRENT_TIMESTAMP(3)",
                "INTEGER UNSIGNED",
                " DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
            ),
            Dialect::Sqlite => (["TEXT"; 3], "DATETIME", "current_timestamp", "INTEGER UNSIGNED", ""),
        };
        // The text is repeated to find the place of an error, when the table may be there.
        format!(
            "CREATE TABLE IF NOT EXISTS _prisma_migrations (id {id} PRIMARY KEY NOT NULL, checksum {checksum} NOT NULL, \
             finished_at {time}, migration_name {name} NOT NULL, logs TEXT, rolled_back_at {time}, \
             started_at {time} NOT NULL DEFAULT {now}, applied_steps_count {number} NOT NULL DEFAULT 0){options}"
        )
    }

    fn record(&self, dialect: Dialect, applied: &Applied<'_>) -> String {
        let (id, now) = match dialect {
            Dialect::Postgres => ("md5(random()::text)::uuid::text", "statement_timestamp()"),
            Dialect::MySql => ("uuid()", "SYSDATE(3)"),
            // Milliseconds.
            Dialect::Sqlite => (UUID_OF_SQLITE, "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"),
        };
        let checksum = hex(&hmac_sha256::Hash::hash(applied.contents.as_bytes()));
        let name = dialect.literal(&applied.migration.name);
        format!(
            "INSERT INTO _prisma_migrations (id, checksum, started_at, finished_at, migration_name, applied_steps_count) \
             VALUES ({id}, '{checksum}', {now}, {now}, {name}, 1)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::tool::MigrationTool;

    #[test]
    fn directories_are_ordered_by_name() {
        let names = ["20240201_b/migration.sql", "20240101_a/migration.sql", LOCK];
        assert_eq!(MigrationTool::Prisma.order(&names), [names[1], names[0]]);
        let refusal = MigrationTool::Prisma.refusal(&["1_a/migration.sql", "more/a.sql"]);
        assert!(refusal.contains("`more` holds no `migration.sql`"));
    }

    #[test]
    fn the_lock_file_names_the_tool() {
        let is_named = |names: &[&str]| Prisma.is_named(&Listing::of(names));
        assert_eq!(is_named(&["1_a/migration.sql"]), Ok(false));
        assert_eq!(is_named(&["1_a/migration.sql", LOCK]), Ok(true));
        assert!(is_named(&["1_a/migration.sql", LOCK, "b.sql"]).is_err());
    }
}
