//! refinery: files `V<version>__<name>.sql`, which are Flyway's names too, and `refinery_schema_history`.

use std::hash::{Hash, Hasher};
use std::path::Path;

use siphasher::sip::SipHasher13;

use super::tool::{Listing, Manner, Migration, Refusal, Tool, literal, numbered, unpadded};

pub(super) struct Refinery;

impl Tool for Refinery {
    fn is_named(&self, listing: &Listing) -> Result<bool, Refusal> {
        let Some(versioned) = listing.sql().find(|name| is_versioned(name)) else {
            return Ok(false);
        };
        match listing.sql().find(|name| migration(name).is_none()) {
            None => Ok(true),
            Some(other) if is_versioned(other) => Err(unreadable_version(other)),
            Some(other) => Err(Refusal::mixed(versioned, "refinery's", other)),
        }
    }

    /// It also runs migrations in Rust, and looks for them in all directories below.
    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        if let Some(name) = listing.files().find(|name| is_versioned(name) && name.ends_with(".rs")) {
            return Err(Refusal::new(
                format!("`{name}` is a migration in Rust, which only refinery's own runner can run"),
                "run it on the URL of a sandbox, or keep such a migration in a directory of its own",
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
                format!("`{name}` lies in a directory below, which only refinery's own runner looks into"),
                "keep all migrations in one directory",
            ));
        }
        Ok(listing.files().filter_map(migration).collect())
    }

    fn manner(&self, _file: &Path, _contents: &str) -> Result<Manner, Refusal> {
        Ok(Manner::whole(true))
    }

    /// refinery-core, `traits/mod.rs`.
    fn open(&self, all: &[Migration]) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS refinery_schema_history (version {} PRIMARY KEY, name VARCHAR(255), \
             applied_on VARCHAR(255), checksum VARCHAR(255))",
            if is_wide(all) { "int8" } else { "int4" }
        )
    }

    fn note(&self, Migration { version, name, .. }: &Migration, contents: &str, all: &[Migration]) -> String {
        format!(
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES ({version}, {}, \
             to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), '{}')",
            literal(name),
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

/// Begins as refinery's do, and Flyway's.
fn is_versioned(file: &str) -> bool {
    file.strip_prefix(['U', 'V']).and_then(numbered).is_some_and(|(_, rest)| rest.contains("__"))
}

fn unreadable_version(file: &str) -> Refusal {
    Refusal::new(
        format!("`{file}` begins as refinery's and Flyway's files do, but refinery cannot read its version"),
        "refinery's are `V<number>__<name>.sql`; `MigrationTool::Plain` runs all files in the order of names",
    )
}

/// Whether versions have 64 bits, for which refinery must be compiled so, and not 32. The last is the largest.
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
    fn the_order_is_that_of_versions() {
        let order = MigrationTool::Refinery.order(&["V10__b.sql", "U2__a.sql", "x.sql"]);
        assert_eq!(order, ["U2__a.sql", "V10__b.sql"]);
    }

    #[test]
    fn version_and_name_are_those_that_the_tool_keeps() {
        assert_eq!(MigrationTool::Refinery.kept("V01__add_é.sql"), ("1".to_owned(), "add_é".to_owned()));
    }

    #[test]
    fn what_refinery_would_not_run_so_is_refused() {
        let refusal = |names: &[&str]| MigrationTool::Refinery.refusal(names);
        assert!(refusal(&["V1__a.sql", "U1__a.sql"]).contains("same version"));
        assert!(refusal(&["V1__a.sql", "V2__b.rs"]).contains("in Rust"));
        assert!(refusal(&["V1__a.sql", "V1.1__b.sql"]).contains("cannot read its version"));
        assert!(refusal(&["V1__a.sql", "more/V2__b.sql"]).contains("`more/V2__b.sql`"));
    }

    /// The numbers are those of refinery-core 0.10.1, without and with its feature `int8-versions`.
    #[test]
    fn checksums_and_versions_are_those_of_refinery() {
        let sum = |version, name, wide| checksum(version, name, "select 1;\n", wide);
        assert_eq!(sum("1", "a", false), 13_954_345_995_306_633_449);
        assert_eq!(sum("1", "a", true), 12_487_144_296_312_717_842);
        assert_eq!(sum("20240101000000", "add_notes", true), 15_880_459_238_323_964_925);
        let table = |names: &[&str]| {
            Refinery.open(&in_order(Some(MigrationTool::Refinery), &Listing::of(names)).unwrap())
        };
        assert!(table(&["V1__a.sql", "V2__a.sql"]).contains("version int4"));
        assert!(table(&["V20240101000000__a.sql", "V3__a.sql"]).contains("version int8"));
    }
}
