//! golang-migrate: numbered files `.up.sql` and `.down.sql`, and `schema_migrations` with the last
//! version.

use std::path::Path;

use crate::engine::Dialect;

use super::tool::{Applied, Execution, Listing, Migration, Refusal, Tool, numbered, unpadded};

pub(super) struct GolangMigrate;

impl Tool for GolangMigrate {
    fn name(&self) -> &'static str {
        "golang-migrate"
    }

    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        Ok(listing.files().filter_map(migration).collect())
    }

    fn execution(&self, _file: &Path, contents: &str) -> Result<Execution, Refusal> {
        Ok(Execution::whole(false, contents))
    }

    /// golang-migrate, `database/sqlite3/sqlite3.go`, unless the URL says `x-no-tx-wrap`.
    fn begins_transactions(&self, dialect: Dialect) -> bool {
        dialect == Dialect::Sqlite
    }

    /// golang-migrate, `database`: `postgres/postgres.go`, `mysql/mysql.go`, `sqlite3/sqlite3.go`.
    fn create_table(&self, dialect: Dialect, _all: &[Migration]) -> String {
        let definition = match dialect {
            Dialect::Postgres | Dialect::MySql => {
                "CREATE TABLE IF NOT EXISTS schema_migrations (version bigint not null primary key, \
                 dirty boolean not null)"
            }
            Dialect::Sqlite => {
                "CREATE TABLE IF NOT EXISTS schema_migrations (version uint64,dirty bool); \
                 CREATE UNIQUE INDEX IF NOT EXISTS version_unique ON schema_migrations (version)"
            }
        };
        definition.to_owned()
    }

    /// golang-migrate looks its schema up before the first migration, when `search_path` is that of
    /// a new session.
    fn record(&self, dialect: Dialect, applied: &Applied<'_>) -> String {
        let empty = match dialect {
            Dialect::Postgres => "RESET search_path; TRUNCATE schema_migrations",
            Dialect::MySql => "TRUNCATE schema_migrations",
            Dialect::Sqlite => "DELETE FROM schema_migrations",
        };
        format!(
            "{empty}; INSERT INTO schema_migrations (version, dirty) VALUES ({}, false)",
            applied.migration.version
        )
    }
}

/// Reads a name as golang-migrate does, `source/parse.go`: `^[0-9]+_.*\.up\..*$`.
fn migration(file: &str) -> Option<Migration> {
    let (version, rest) = numbered(file)?;
    let name = rest.strip_prefix('_')?.strip_suffix(".up.sql")?;
    Some(Migration { path: file.to_owned(), version: unpadded(version), name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use crate::migration::tool::MigrationTool::GolangMigrate;

    #[test]
    fn up_files_are_ordered_by_version() {
        let names = ["010_b.up.sql", "9_a.up.sql", "9_a.down.sql", "x.sql"];
        assert_eq!(GolangMigrate.order(&names), ["9_a.up.sql", "010_b.up.sql"]);
    }

    #[test]
    fn versions_are_recorded_without_zeros() {
        assert_eq!(GolangMigrate.kept("000001_a.b.up.sql"), ("1".to_owned(), "a.b".to_owned()));
    }

    #[test]
    fn a_version_that_is_no_bigint_is_refused() {
        assert!(GolangMigrate.refusal(&["99999999999999999999_a.up.sql"]).contains("too large"));
    }
}
