//! refinery: files `V<version>__<name>.sql`, which may be Flyway's names too, and
//! `refinery_schema_history`.

use std::hash::{Hash, Hasher};
use std::path::Path;

use siphasher::sip::SipHasher13;

use crate::engine::Dialect;

use super::tool::{Applied, Execution, Listing, Migration, MigrationTool, Refusal, Tool, numbered, unpadded};

pub(super) struct Refinery;

impl Tool for Refinery {
    fn name(&self) -> &'static str {
        "refinery"
    }

    fn is_named(&self, listing: &Listing) -> Result<bool, Refusal> {
        let Some(versioned) = listing.sql().find(|name| is_versioned(name)) else {
            return Ok(false);
        };
        match listing.sql().find(|name| migration(name).is_none()) {
            None => Ok(true),
            Some(other) if is_versioned(other) => Err(unreadable_version(other)),
            Some(other) => Err(Refusal::mixed(versioned, self.name(), other)),
        }
    }

    /// refinery also runs migrations in Rust, and searches all directories below: both are refused
    /// here.
    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        if let Some(name) = listing.files().find(|name| is_versioned(name) && name.ends_with(".rs")) {
            return Err(Refusal::new(
                format!("`{name}` is a migration in Rust, which only refinery's own runner can run"),
                "run refinery's runner in a step, by `Snapshot::prepare` or `Snapshot::run`",
            ));
        }
        if let Some(name) = listing.sql().find(|name| is_versioned(name) && migration(name).is_none()) {
            return Err(unreadable_version(name));
        }
        let below = listing.directories.iter().find_map(|(directory, files)| {
            Some(format!("{directory}/{}", files.iter().find(|name| migration(name).is_some())?))
        });
        if let Some(name) = below {
            return Err(Refusal::new(
                format!("`{name}` is in a directory below, which only refinery's own runner searches"),
                "keep all migrations in one directory",
            ));
        }
        Ok(listing.files().filter_map(migration).collect())
    }

    fn execution(&self, _file: &Path, contents: &str) -> Result<Execution, Refusal> {
        Ok(Execution::whole(true, contents))
    }

    /// refinery-core, `traits/mod.rs`.
    fn create_table(&self, _dialect: Dialect, all: &[Migration]) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS refinery_schema_history (version {} PRIMARY KEY, name VARCHAR(255), \
             applied_on VARCHAR(255), checksum VARCHAR(255))",
            if is_wide(all) { "int8" } else { "int4" }
        )
    }

    fn record(&self, dialect: Dialect, applied: &Applied<'_>) -> String {
        let Applied { migration: Migration { version, name, .. }, contents, all } = applied;
        let now = match dialect {
            Dialect::Postgres => {
                "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
            }
            Dialect::MySql => "DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')",
            Dialect::Sqlite => "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
        };
        format!(
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES ({version}, {}, {now}, '{}')",
            dialect.literal(name),
            checksum(version, name, contents, is_wide(all)),
        )
    }
}

/// refinery-core, `util.rs`: `^[UV]\d+__\w+\.sql$`.
fn migration(file: &str) -> Option<Migration> {
    let (version, rest) = numbered(file.strip_prefix(['U', 'V'])?)?;
    let name = rest.strip_prefix("__")?.strip_suffix(".sql")?;
    let is_word = !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    is_word.then(|| Migration { path: file.to_owned(), version: unpadded(version), name: name.to_owned() })
}

/// Returns `true` if a name begins as refinery's and Flyway's do.
fn is_versioned(file: &str) -> bool {
    file.strip_prefix(['U', 'V']).and_then(numbered).is_some_and(|(_, rest)| rest.contains("__"))
}

fn unreadable_version(file: &str) -> Refusal {
    Refusal::new(
        format!("`{file}` begins as Flyway's files do, and refinery cannot read its version"),
        format!(
            "refinery's are `V<number>__<name>.sql`; for Flyway's choose {}",
            MigrationTool::Flyway.choice()
        ),
    )
}

/// Returns `true` if versions have 64 bits, which is a feature of refinery, and not 32. The last is
/// the largest.
fn is_wide(all: &[Migration]) -> bool {
    all.last().is_some_and(|migration| migration.version.parse::<i32>().is_err())
}

/// refinery-core, `runner.rs`: SipHash 1-3 over name, version and text as `Hash` feeds them.
fn checksum(version: &str, name: &str, contents: &str, wide: bool) -> u64 {
    let mut hasher = SipHasher13::new();
    name.hash(&mut hasher);
    match (wide, version.parse::<i32>()) {
        (false, Ok(version)) => version.hash(&mut hasher),
        _ => version.parse::<i64>().unwrap_or_default().hash(&mut hasher),
    }
    contents.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::order::in_order;
    use crate::migration::tool::MigrationTool;

    #[test]
    fn migrations_are_ordered_by_version() {
        let order = MigrationTool::Refinery.order(&["V10__b.sql", "U2__a.sql", "x.sql"]);
        assert_eq!(order, ["U2__a.sql", "V10__b.sql"]);
    }

    #[test]
    fn version_and_name_are_recorded_as_by_refinery() {
        assert_eq!(MigrationTool::Refinery.kept("V01__add_é.sql"), ("1".to_owned(), "add_é".to_owned()));
    }

    #[test]
    fn files_that_only_refinery_runs_are_refused() {
        let refusal = |names: &[&str]| MigrationTool::Refinery.refusal(names);
        assert!(refusal(&["V1__a.sql", "U1__a.sql"]).contains("same version"));
        assert!(refusal(&["V1__a.sql", "V2__b.rs"]).contains("in Rust"));
        assert!(refusal(&["V1__a.sql", "V1.1__b.sql"]).contains("cannot read its version"));
        assert!(refusal(&["V1__a.sql", "more/V2__b.sql"]).contains("`more/V2__b.sql`"));
    }

    /// The numbers are those of refinery-core 0.10.1, without and with its feature `int8-versions`.
    #[test]
    fn checksums_and_version_types_are_those_of_refinery() {
        let sum = |version, name, wide| checksum(version, name, "select 1;\n", wide);
        assert_eq!(sum("1", "a", false), 13_954_345_995_306_633_449);
        assert_eq!(sum("1", "a", true), 12_487_144_296_312_717_842);
        assert_eq!(sum("20240101000000", "add_notes", true), 15_880_459_238_323_964_925);
        let table = |names: &[&str]| {
            Refinery.create_table(
                Dialect::Postgres,
                &in_order(Some(MigrationTool::Refinery), &Listing::of(names)).unwrap(),
            )
        };
        assert!(table(&["V1__a.sql", "V2__a.sql"]).contains("version int4"));
        assert!(table(&["V20240101000000__a.sql", "V3__a.sql"]).contains("version int8"));
    }
}
