//! Flyway: files `V<version>__<name>.sql`, and `R__<name>.sql` after them.

use std::cmp::Ordering;
use std::path::Path;

use crate::engine::Dialect;

use super::script::line;
use super::tool::{Applied, Execution, Listing, Migration, Refusal, Tool, by_number, unpadded};

pub(super) struct Flyway;

impl Tool for Flyway {
    fn name(&self) -> &'static str {
        "Flyway"
    }

    /// `V1__a.sql` and `U2__b.sql` may be refinery's too. A version of several parts, a repeatable
    /// migration, and `U1__a.sql` beside `V1__a.sql` are not.
    fn is_named(&self, listing: &Listing) -> Result<bool, Refusal> {
        let versions: Vec<_> =
            listing.sql().filter_map(migration).map(|migration| migration.version).collect();
        let is_own = |name: &&str| match migration(name) {
            Some(migration) => migration.version.is_empty() || migration.version.contains('.'),
            None => undone(name).is_some_and(|version| versions.contains(&version)),
        };
        let Some(own) = listing.sql().find(is_own) else {
            return Ok(false);
        };
        match listing.sql().find(|name| migration(name).is_none() && undone(name).is_none()) {
            None => Ok(true),
            Some(other) => Err(Refusal::mixed(own, self.name(), other)),
        }
    }

    /// Without `U<version>__<name>.sql`, which takes a version back.
    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        if let Some(name) = listing.files().find(|name| name.ends_with(".sql.conf")) {
            return Err(Refusal::new(
                format!("`{name}` configures a migration, which only Flyway understands"),
                "run Flyway itself in a step, by `Snapshot::run(\"flyway\", …)` (`--prepare`)",
            ));
        }
        let below = |(directory, files): &(String, Vec<String>)| {
            let file = files.iter().find(|name| migration(name).is_some())?;
            Some(format!("{directory}/{file}"))
        };
        if let Some(name) = listing.directories.iter().find_map(below) {
            return Err(Refusal::new(
                format!("`{name}` is in a directory below, which Flyway searches too"),
                "keep all migrations in one directory",
            ));
        }
        let is_other = |name: &&str| migration(name).is_none() && undone(name).is_none();
        if let Some(name) = listing.sql().find(is_other) {
            return Err(Refusal::new(
                format!(
                    "`{name}` is no versioned or repeatable migration: Flyway may run it as a callback or baseline"
                ),
                "move it elsewhere, or run Flyway itself in a step, by `Snapshot::run(\"flyway\", …)` (`--prepare`)",
            ));
        }
        Ok(listing.files().filter_map(migration).collect())
    }

    fn order(&self, one: &Migration, other: &Migration) -> Ordering {
        let repeatable = |migration: &Migration| migration.version.is_empty();
        let by_version = || by_parts(&one.version, &other.version);
        repeatable(one).cmp(&repeatable(other)).then_with(by_version).then_with(|| one.name.cmp(&other.name))
    }

    /// Repeatable migrations have no version.
    fn key<'a>(&self, migration: &'a Migration) -> &'a str {
        if migration.version.is_empty() { &migration.name } else { &migration.version }
    }

    fn check(&self, _all: &[Migration]) -> Result<(), Refusal> {
        Ok(())
    }

    fn execution(&self, _file: &Path, contents: &str) -> Result<Execution, Refusal> {
        match contents.find("${") {
            None => Ok(Execution { transaction: false, requests: None }),
            Some(at) => Err(Refusal::new(
                format!("line {} has a placeholder, which only Flyway replaces", line(contents, at) + 1),
                "run Flyway itself in a step, by `Snapshot::run(\"flyway\", …)` (`--prepare`)",
            )),
        }
    }

    fn create_table(&self, _dialect: Dialect, _all: &[Migration]) -> String {
        String::new()
    }

    fn record(&self, _dialect: Dialect, _applied: &Applied<'_>) -> String {
        String::new()
    }
}

/// Reads `V<version>__<name>.sql`, whose version has parts divided by dots or underscores, or
/// `R__<name>.sql`.
fn migration(file: &str) -> Option<Migration> {
    let (head, name) = file.strip_suffix(".sql")?.split_once("__")?;
    let version = match head.strip_prefix('V') {
        Some(version) => parts(version)?,
        None if head == "R" => String::new(),
        None => return None,
    };
    Some(Migration { path: file.to_owned(), version, name: name.to_owned() })
}

/// Reads `U<version>__<name>.sql`, which takes that version back.
fn undone(file: &str) -> Option<String> {
    let (version, _) = file.strip_suffix(".sql")?.strip_prefix('U')?.split_once("__")?;
    parts(version)
}

/// A version without leading zeros in its parts, and without last parts that are zero, divided by
/// dots.
fn parts(version: &str) -> Option<String> {
    let parts: Vec<_> = version.split(['.', '_']).collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !parts.iter().all(is_number) {
        return None;
    }
    let mut parts: Vec<_> = parts.into_iter().map(unpadded).collect();
    while parts.len() > 1 && parts.last().is_some_and(|part| part == "0") {
        parts.pop();
    }
    Some(parts.join("."))
}

fn by_parts(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return Ordering::Equal,
            (one, other) => match by_number(one.unwrap_or("0"), other.unwrap_or("0")) {
                Ordering::Equal => {}
                order => return order,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::tool::MigrationTool;

    #[test]
    fn versions_are_ordered_by_their_parts() {
        let names =
            ["R__b.sql", "V1.10__d.sql", "V1_9__c.sql", "V2__e.sql", "R__a.sql", "V1__b.sql", "U2__e.sql"];
        assert_eq!(
            MigrationTool::Flyway.order(&names),
            ["V1__b.sql", "V1_9__c.sql", "V1.10__d.sql", "V2__e.sql", "R__a.sql", "R__b.sql"]
        );
        assert!(MigrationTool::Flyway.refusal(&["V1.0__a.sql", "V1__b.sql"]).contains("same version"));
    }

    #[test]
    fn files_that_only_flyway_understands_are_refused() {
        let refusal = |names: &[&str]| MigrationTool::Flyway.refusal(names);
        assert!(refusal(&["V1__a.sql", "V1__a.sql.conf"]).contains("configures"));
        assert!(refusal(&["V1__a.sql", "more/V2__b.sql"]).contains("`more/V2__b.sql`"));
        for name in ["B1__a.sql", "afterMigrate.sql"] {
            assert!(refusal(&["V1__a.sql", name]).contains(name));
        }
        let refused = Flyway.execution(Path::new("V1__a.sql"), "\nselect '${name}';").unwrap_err();
        assert_eq!(refused.cause, "line 2 has a placeholder, which only Flyway replaces");
    }
}
