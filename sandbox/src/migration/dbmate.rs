//! dbmate: both ways in one file, divided by `-- migrate:up` and `-- migrate:down`, and `schema_migrations`.

use std::cmp::Ordering;
use std::path::Path;

use super::tool::{Listing, Manner, Mark, Migration, Refusal, Tool, literal, numbered};

const UP: &str = "migrate:up";

pub(super) struct Dbmate;

impl Tool for Dbmate {
    fn mark(&self) -> Option<Mark> {
        Some(Mark { tool: "dbmate", text: UP })
    }

    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        Ok(listing.files().filter_map(migration).collect())
    }

    fn order(&self, one: &Migration, other: &Migration) -> Ordering {
        one.path.cmp(&other.path)
    }

    /// Its versions are texts of any length.
    fn check(&self, _migration: &Migration) -> Result<(), Refusal> {
        Ok(())
    }

    fn manner(&self, _file: &Path, contents: &str) -> Result<Manner, Refusal> {
        let (part, transaction) = up(contents)?;
        Ok(Manner { transaction, part: Some(part) })
    }

    /// dbmate, `pkg/driver/postgres/postgres.go`.
    fn open(&self, _all: &[Migration]) -> String {
        "CREATE TABLE IF NOT EXISTS schema_migrations (version varchar primary key)".to_owned()
    }

    fn note(&self, migration: &Migration, _contents: &str, _all: &[Migration]) -> String {
        // Where a file of pg_dump's has emptied the search path, dbmate takes `public`.
        format!(
            "SELECT set_config('search_path', 'public', false) WHERE current_schema() IS NULL; \
             INSERT INTO schema_migrations (version) VALUES ({})",
            literal(&migration.version)
        )
    }
}

/// dbmate, `pkg/dbmate/db.go`: `^\d+.*\.sql$`; the version is kept with its zeros.
fn migration(file: &str) -> Option<Migration> {
    let (version, rest) = numbered(file)?;
    let name = rest.strip_suffix(".sql")?;
    Some(Migration { path: file.to_owned(), version: version.to_owned(), name: name.to_owned() })
}

/// The part of a file to be run, at the lines it has in the file, and whether it is run in a transaction.
fn up(contents: &str) -> Result<(String, bool), Refusal> {
    let wrong = |seen: &str| {
        Refusal::new(
            seen,
            "dbmate wants one `-- migrate:up`, before any statement, and `-- migrate:down` after it",
        )
    };
    let lines: Vec<_> = contents.split_inclusive('\n').collect();
    let ups: Vec<_> = (0..lines.len()).filter(|at| directive(lines[*at], UP).is_some()).collect();
    let down = lines.iter().position(|line| directive(line, "migrate:down").is_some());
    let end = down.unwrap_or(lines.len());
    let up = match ups[..] {
        [] => return Err(wrong("it has no `-- migrate:up`")),
        [up] if up < end => up,
        [_] => return Err(wrong("its `-- migrate:down` is before its `-- migrate:up`")),
        _ => return Err(wrong("it has more than one `-- migrate:up`")),
    };
    let is_statement = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("--");
    if let Some(statement) = lines[..up].iter().find(|line| is_statement(line)) {
        return Err(wrong(&format!("`{}` is before its `-- migrate:up`", statement.trim())));
    }
    let in_transaction =
        !directive(lines[up], UP).is_some_and(|mut options| options.any(|it| it == "transaction:false"));
    Ok(("\n".repeat(up) + &lines[up..end].concat(), in_transaction))
}

/// The options of a line `-- migrate:up …`.
fn directive<'a>(line: &'a str, name: &str) -> Option<impl Iterator<Item = &'a str>> {
    let rest = line.strip_prefix("--")?.trim_start().strip_prefix(name)?;
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::tool::MigrationTool;

    #[test]
    fn the_order_is_that_of_names() {
        let order = MigrationTool::Dbmate.order(&["10_c.sql", "9_b.sql", "1_a.sql"]);
        assert_eq!(order, ["10_c.sql", "1_a.sql", "9_b.sql"]);
    }

    #[test]
    fn a_version_keeps_its_zeros_and_is_there_once() {
        assert_eq!(MigrationTool::Dbmate.kept("007_a.sql").0, "007");
        assert!(MigrationTool::Dbmate.refusal(&["1_a.sql", "1_b.sql"]).contains("same version"));
    }

    #[test]
    fn the_part_to_run_keeps_its_lines() {
        let file = "-- a\n\n-- migrate:up\ncreate table a ();\n-- migrate:down\ndrop table a;\n";
        let (part, in_transaction) = up(file).unwrap();
        assert_eq!(part, "\n\n-- migrate:up\ncreate table a ();\n");
        assert!(in_transaction);
        let (part, in_transaction) = up("--migrate:up transaction:false\r\nvacuum;").unwrap();
        assert_eq!((part.as_str(), in_transaction), ("--migrate:up transaction:false\r\nvacuum;", false));
        let refused = |file| up(file).unwrap_err().seen;
        assert_eq!(refused("select 1;"), "it has no `-- migrate:up`");
        assert_eq!(refused("select 1;\n-- migrate:up\n"), "`select 1;` is before its `-- migrate:up`");
        assert!(refused("-- migrate:down\n-- migrate:up\n").contains("before its `-- migrate:up`"));
        assert!(refused("-- migrate:up\n-- migrate:down\n-- migrate:up\n").contains("more than one"));
        // A word that only begins so.
        assert!(refused("-- migrate:upwards\n").contains("no `-- migrate:up`"));
    }
}
