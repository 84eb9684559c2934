//! The tables in which migration tools keep what they have applied: statements of PostgreSQL that fill them as the tools do.

use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha384};
use siphasher::sip::SipHasher13;

use super::convention::{Migration, MigrationTool};

/// How a tool's table is made, and what is written into it after each migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Books {
    tool: MigrationTool,
    /// refinery's versions: 32 bits, or 64 if it is compiled so.
    wide: bool,
}

impl Books {
    /// The books of a tool that has these migrations, if it keeps any.
    pub(super) fn of(tool: MigrationTool, migrations: &[Migration]) -> Option<Self> {
        let wide = migrations.iter().any(|migration| migration.version.parse::<i32>().is_err());
        (tool != MigrationTool::Plain).then_some(Self { tool, wide })
    }

    pub(super) fn tool(self) -> MigrationTool {
        self.tool
    }

    /// Makes the table.
    pub(super) fn open(self) -> String {
        match self.tool {
            MigrationTool::Plain => String::new(),
            // sqlx-postgres, `migrate.rs`.
            MigrationTool::Sqlx => "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, \
                                    description TEXT NOT NULL, \
                                    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, \
                                    checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL)"
                .to_owned(),
            // diesel, `migration/setup_migration_table.sql`.
            MigrationTool::Diesel => {
                "CREATE TABLE IF NOT EXISTS __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, \
                 run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
                    .to_owned()
            }
            // refinery-core, `traits/mod.rs`.
            MigrationTool::Refinery => format!(
                "CREATE TABLE IF NOT EXISTS refinery_schema_history (version {} PRIMARY KEY, name VARCHAR(255), \
                 applied_on VARCHAR(255), checksum VARCHAR(255))",
                if self.wide { "int8" } else { "int4" }
            ),
            // golang-migrate, `database/postgres/postgres.go`.
            MigrationTool::GolangMigrate => {
                "CREATE TABLE IF NOT EXISTS schema_migrations (version bigint not null primary key, \
                 dirty boolean not null)"
                    .to_owned()
            }
            // dbmate, `pkg/driver/postgres/postgres.go`.
            MigrationTool::Dbmate => {
                "CREATE TABLE IF NOT EXISTS schema_migrations (version varchar primary key)".to_owned()
            }
        }
    }

    /// Notes a migration, of which that is the file's text.
    pub(super) fn note(self, migration: &Migration, contents: &str) -> String {
        let Migration { version, name, .. } = migration;
        match self.tool {
            MigrationTool::Plain => String::new(),
            // sqlx measures; the age of the session is the time of the migration here.
            MigrationTool::Sqlx => format!(
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 SELECT {version}, {}, TRUE, decode('{}', 'hex'), \
                 (extract(epoch from clock_timestamp() - backend_start) * 1000000000)::bigint \
                 FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid()",
                literal(name),
                hex(&Sha384::digest(contents)),
            ),
            MigrationTool::Diesel => {
                format!("INSERT INTO __diesel_schema_migrations (version) VALUES ({})", literal(version))
            }
            MigrationTool::Refinery => format!(
                "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES ({version}, {}, \
                 to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), '{}')",
                literal(name),
                refinery_checksum(version, name, contents, self.wide),
            ),
            // It looks its schema up once, before the first migration; a session begins with the same.
            MigrationTool::GolangMigrate => format!(
                "RESET search_path; TRUNCATE schema_migrations; \
                 INSERT INTO schema_migrations (version, dirty) VALUES ({version}, false)"
            ),
            MigrationTool::Dbmate => {
                format!("INSERT INTO schema_migrations (version) VALUES ({})", literal(version))
            }
        }
    }
}

/// refinery-core, `runner.rs`: SipHash 1-3 over name, version and text as `Hash` feeds them.
fn refinery_checksum(version: &str, name: &str, contents: &str, wide: bool) -> u64 {
    let mut hasher = SipHasher13::new();
    name.hash(&mut hasher);
    match (wide, version.parse::<i32>()) {
        (false, Ok(version)) => version.hash(&mut hasher),
        _ => version.parse::<i64>().unwrap_or_default().hash(&mut hasher),
    }
    contents.hash(&mut hasher);
    hasher.finish()
}

/// A string constant, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted() {
        assert_eq!(literal(r"it's \ here"), r"E'it''s \\ here'");
    }

    /// The numbers are those of refinery-core 0.10.1, without and with its feature `int8-versions`.
    #[test]
    fn checksums_and_versions_are_those_of_refinery() {
        let checksum = |version, name, wide| refinery_checksum(version, name, "select 1;\n", wide);
        assert_eq!(checksum("1", "a", false), 13_954_345_995_306_633_449);
        assert_eq!(checksum("1", "a", true), 12_487_144_296_312_717_842);
        assert_eq!(checksum("20240101000000", "add_notes", true), 15_880_459_238_323_964_925);
        let migration = |version: &str| Migration {
            path: String::new(),
            version: version.to_owned(),
            name: "a".to_owned(),
        };
        let table = |versions: &[&str]| {
            let migrations: Vec<_> = versions.iter().map(|version| migration(version)).collect();
            Books::of(MigrationTool::Refinery, &migrations).unwrap().open()
        };
        assert!(table(&["1", "2"]).contains("version int4"));
        assert!(table(&["1", "20240101000000"]).contains("version int8"));
        assert_eq!(Books::of(MigrationTool::Plain, &[]), None);
    }
}
