//! sqlx: numbered files, with or without a way back, and `_sqlx_migrations`.

use std::path::Path;

use super::tool::{Execution, Listing, Migration, Refusal, Tool, hex, literal, numbered, unpadded};

pub(super) struct Sqlx;

impl Tool for Sqlx {
    fn name(&self) -> &'static str {
        "sqlx"
    }

    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        listing.files().filter_map(|file| migration(file).transpose()).collect()
    }

    fn execution(&self, _file: &Path, contents: &str) -> Result<Execution, Refusal> {
        Ok(Execution::whole(!contents.starts_with("-- no-transaction"), contents))
    }

    /// sqlx-postgres, `migrate.rs`.
    fn create_table(&self, _all: &[Migration]) -> String {
        "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, \
         checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL)"
            .to_owned()
    }

    /// The age of the session stands for the time that sqlx measures.
    fn record(
        &self,
        Migration { version, name, .. }: &Migration,
        contents: &str,
        _all: &[Migration],
    ) -> String {
        format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             SELECT {version}, {}, TRUE, decode('{}', 'hex'), \
             (extract(epoch from clock_timestamp() - backend_start) * 1000000000)::bigint \
             FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid()",
            literal(name),
            hex(&hmac_sha512::sha384::Hash::hash(contents.as_bytes())),
        )
    }
}

/// Reads a name as sqlx-core does, `migrate/source.rs`: ignores one without an underscore or
/// `.sql`, and refuses any other that has no number.
fn migration(file: &str) -> Result<Option<Migration>, Refusal> {
    let Some((version, rest)) = file.split_once('_').filter(|(_, rest)| rest.ends_with(".sql")) else {
        return Ok(None);
    };
    if numbered(version).is_none_or(|(_, rest)| !rest.is_empty()) {
        return Err(Refusal::new(
            format!("`{file}` has no number before its first underscore"),
            "sqlx wants `<number>_<name>.sql`",
        ));
    }
    if rest.ends_with(".down.sql") {
        return Ok(None);
    }
    let suffix = if rest.ends_with(".up.sql") { ".up.sql" } else { ".sql" };
    let name = rest.trim_end_matches(suffix).replace('_', " ");
    Ok(Some(Migration { path: file.to_owned(), version: unpadded(version), name }))
}

#[cfg(test)]
mod tests {
    use crate::migration::tool::MigrationTool::Sqlx;

    #[test]
    fn migrations_are_ordered_by_version() {
        assert_eq!(Sqlx.order(&["10_c.sql", "9_b.sql", "1_a.sql"]), ["1_a.sql", "9_b.sql", "10_c.sql"]);
    }

    #[test]
    fn down_files_are_left_out() {
        assert_eq!(Sqlx.order(&["1_a.up.sql", "1_a.down.sql", "2_b.sql"]), ["1_a.up.sql", "2_b.sql"]);
    }

    #[test]
    fn version_and_name_are_recorded_as_by_sqlx() {
        assert_eq!(Sqlx.kept("007_add_a_table.up.sql"), ("7".to_owned(), "add a table".to_owned()));
        assert_eq!(Sqlx.kept("0_x.sql"), ("0".to_owned(), "x".to_owned()));
    }

    #[test]
    fn versions_that_sqlx_refuses_are_refused() {
        assert_eq!(
            Sqlx.refusal(&["1_a.sql", "01_b.up.sql"]),
            "`01_b.up.sql` and `1_a.sql` have the same version, 1"
        );
        assert!(Sqlx.refusal(&["one_a.sql"]).contains("no number"));
    }
}
