//! sqlx: numbered files, with or without a down migration, and `_sqlx_migrations`.

use std::path::Path;

use crate::engine::Dialect;

use super::tool::{Applied, Execution, Listing, Migration, Refusal, Tool, hex, numbered, unpadded};

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

    /// sqlx-mysql and sqlx-sqlite, `options/connect.rs`. MySQL's time is kept for
    /// [`record`](Tool::record).
    fn session(&self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Postgres => "",
            Dialect::Sqlite => "PRAGMA foreign_keys = ON",
            Dialect::MySql => {
                "SET sql_mode = (SELECT CONCAT(@@sql_mode, ',PIPES_AS_CONCAT,NO_ENGINE_SUBSTITUTION')), \
                 time_zone = '+00:00', NAMES utf8mb4, @sqlx_began = SYSDATE(6)"
            }
        }
    }

    /// sqlx-postgres, sqlx-mysql and sqlx-sqlite, `migrate.rs`.
    fn create_table(&self, dialect: Dialect, _all: &[Migration]) -> String {
        let (time, bytes) = match dialect {
            Dialect::Postgres => ("TIMESTAMPTZ NOT NULL DEFAULT now()", "BYTEA"),
            Dialect::MySql | Dialect::Sqlite => ("TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP", "BLOB"),
        };
        format!(
            "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
             installed_on {time}, success BOOLEAN NOT NULL, checksum {bytes} NOT NULL, \
             execution_time BIGINT NOT NULL)"
        )
    }

    /// The age of the session stands for the time that sqlx measures. SQLite has no such clock, so
    /// the time is -1, which sqlx itself writes until it has measured.
    fn record(&self, dialect: Dialect, applied: &Applied<'_>) -> String {
        let Applied { migration: Migration { version, name, .. }, contents, .. } = applied;
        let checksum = hex(&hmac_sha512::sha384::Hash::hash(contents.as_bytes()));
        let (checksum, time) = match dialect {
            Dialect::Postgres => (
                format!("decode('{checksum}', 'hex')"),
                "(extract(epoch from clock_timestamp() - backend_start) * 1000000000)::bigint \
                 FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid()",
            ),
            Dialect::MySql => {
                (format!("X'{checksum}'"), "TIMESTAMPDIFF(MICROSECOND, @sqlx_began, SYSDATE(6)) * 1000")
            }
            Dialect::Sqlite => (format!("X'{checksum}'"), "-1"),
        };
        format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             SELECT {version}, {}, TRUE, {checksum}, {time}",
            dialect.literal(name),
        )
    }
}

/// Returns `true` if all files are named by a time, as `sqlx migrate add` names them: fourteen
/// digits, `YYYYMMDDHHMMSS`. Other tools do so too.
pub(crate) fn are_named_by_time(listing: &Listing) -> bool {
    let by_time = |name: &str| matches!(numbered(name), Some((time, rest)) if time.len() == 14 && rest.starts_with('_'));
    listing.sql().next().is_some() && listing.sql().all(by_time)
}

/// Returns `true` if the manifest of a package names sqlx as a dependency.
pub(crate) fn is_dependency(manifest: &str) -> bool {
    let of_key = |rest: &str| rest.trim_start().starts_with(['=', '.']);
    manifest.lines().map(str::trim).any(|line| {
        line.strip_prefix("sqlx").is_some_and(of_key)
            || line.starts_with('[') && line.ends_with("dependencies.sqlx]")
            || !line.starts_with('#') && line.contains("package = \"sqlx\"")
    })
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
    use super::*;
    use crate::migration::tool::MigrationTool::Sqlx;

    #[test]
    fn files_named_by_a_time_may_be_those_of_sqlx() {
        let by_time = |names: &[&str]| are_named_by_time(&Listing::of(names));
        assert!(by_time(&["20240101120000_a.sql", "20240102120000_b.up.sql", "README.md"]));
        for other in [&["20240101120000_a.sql", "2_b.sql"][..], &["20240101_a.sql"], &["README.md"]] {
            assert!(!by_time(other), "{other:?}");
        }
    }

    #[test]
    fn a_manifest_names_its_dependencies() {
        for manifest in [
            "[dependencies]\nsqlx = \"0.8\"",
            "[dev-dependencies]\n  sqlx.workspace = true",
            "[dependencies.sqlx]\nversion = \"0.8\"",
            "[target.'cfg(unix)'.dependencies.sqlx]",
            "db = { version = \"0.8\", package = \"sqlx\" }",
        ] {
            assert!(is_dependency(manifest), "{manifest}");
        }
        for manifest in ["[package]\nname = \"sqlx-app\"", "sqlx-cli = \"0.8\"", "# sqlx = \"0.8\"", ""] {
            assert!(!is_dependency(manifest), "{manifest}");
        }
    }

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
