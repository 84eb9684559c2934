//! golang-migrate: a numbered file for each way, and `schema_migrations` with the last version.

use std::path::Path;

use super::tool::{Listing, Manner, Migration, Refusal, Tool, numbered, unpadded};

pub(super) struct GolangMigrate;

impl Tool for GolangMigrate {
    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        Ok(listing.files().filter_map(migration).collect())
    }

    fn manner(&self, _file: &Path, _contents: &str) -> Result<Manner, Refusal> {
        Ok(Manner::whole(false))
    }

    /// golang-migrate, `database/postgres/postgres.go`.
    fn open(&self, _all: &[Migration]) -> String {
        "CREATE TABLE IF NOT EXISTS schema_migrations (version bigint not null primary key, \
         dirty boolean not null)"
            .to_owned()
    }

    /// It looks its schema up once, before the first migration; a session begins with the same.
    fn note(&self, migration: &Migration, _contents: &str, _all: &[Migration]) -> String {
        format!(
            "RESET search_path; TRUNCATE schema_migrations; \
             INSERT INTO schema_migrations (version, dirty) VALUES ({}, false)",
            migration.version
        )
    }
}

/// golang-migrate, `source/parse.go`: `^[0-9]+_.*\.up\..*$`, with `sql` for the last.
fn migration(file: &str) -> Option<Migration> {
    let (version, rest) = numbered(file)?;
    let name = rest.strip_prefix('_')?.strip_suffix(".up.sql")?;
    Some(Migration { path: file.to_owned(), version: unpadded(version), name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use crate::migration::tool::MigrationTool::GolangMigrate;

    #[test]
    fn the_order_is_that_of_versions_and_the_way_back_is_left_out() {
        let names = ["010_b.up.sql", "9_a.up.sql", "9_a.down.sql", "x.sql"];
        assert_eq!(GolangMigrate.order(&names), ["9_a.up.sql", "010_b.up.sql"]);
    }

    #[test]
    fn version_and_name_are_those_that_the_tool_keeps() {
        assert_eq!(GolangMigrate.kept("000001_a.b.up.sql"), ("1".to_owned(), "a.b".to_owned()));
    }

    #[test]
    fn what_the_table_cannot_hold_is_refused() {
        assert!(GolangMigrate.refusal(&["99999999999999999999_a.up.sql"]).contains("too large"));
    }
}
