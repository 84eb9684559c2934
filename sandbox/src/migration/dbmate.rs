//! dbmate: files with the sections `-- migrate:up` and `-- migrate:down`, and `schema_migrations`.

use std::cmp::Ordering;
use std::ops::Range;
use std::path::Path;

use crate::engine::Dialect;

use super::script::lines;
use super::tool::{Applied, Execution, Listing, Migration, Refusal, Tool, numbered};

const UP: &str = "migrate:up";
const DOWN: &str = "migrate:down";

pub(super) struct Dbmate;

impl Tool for Dbmate {
    fn name(&self) -> &'static str {
        "dbmate"
    }

    fn mark<'a>(&self, contents: &'a str) -> Option<&'a str> {
        let is_mark = |line: &&str| directive(line, UP).or(directive(line, DOWN)).is_some();
        contents.trim_start_matches('\u{feff}').lines().find(is_mark)
    }

    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        Ok(listing.files().filter_map(migration).collect())
    }

    fn order(&self, one: &Migration, other: &Migration) -> Ordering {
        one.path.cmp(&other.path)
    }

    /// Versions are texts of any length.
    fn check(&self, _all: &[Migration]) -> Result<(), Refusal> {
        Ok(())
    }

    fn execution(&self, _file: &Path, contents: &str) -> Result<Execution, Refusal> {
        let (up, transaction) = up(contents)?;
        Ok(Execution::request(transaction, contents, up))
    }

    /// dbmate, `pkg/driver`: `postgres/postgres.go`, `mysql/mysql.go` and `sqlite/sqlite.go`.
    fn create_table(&self, dialect: Dialect, _all: &[Migration]) -> String {
        let version = match dialect {
            Dialect::Postgres => "varchar",
            Dialect::MySql | Dialect::Sqlite => "varchar(128)",
        };
        format!("CREATE TABLE IF NOT EXISTS schema_migrations (version {version} primary key)")
    }

    fn record(&self, dialect: Dialect, applied: &Applied<'_>) -> String {
        let insert = format!(
            "INSERT INTO schema_migrations (version) VALUES ({})",
            dialect.literal(&applied.migration.version)
        );
        match dialect {
            // Where a dump has emptied the search path, dbmate uses `public`.
            Dialect::Postgres => format!(
                "SELECT set_config('search_path', 'public', false) WHERE current_schema() IS NULL; {insert}"
            ),
            Dialect::MySql | Dialect::Sqlite => insert,
        }
    }
}

/// Reads a name as dbmate does, `pkg/dbmate/db.go`: `^\d+.*\.sql$`. The version keeps its zeros.
fn migration(file: &str) -> Option<Migration> {
    let (version, rest) = numbered(file)?;
    let name = rest.strip_suffix(".sql")?;
    Some(Migration { path: file.to_owned(), version: version.to_owned(), name: name.to_owned() })
}

/// Returns the section to run, and whether it runs in a transaction.
fn up(contents: &str) -> Result<(Range<usize>, bool), Refusal> {
    let refused = |cause: &str| {
        Refusal::new(
            cause,
            "dbmate wants one `-- migrate:up`, before any statement, and `-- migrate:down` after it",
        )
    };
    let mut ups = lines(contents).filter_map(|(at, line)| Some((at, directive(line, UP)?)));
    let (begin, mut options) = ups.next().ok_or_else(|| refused("it has no `-- migrate:up`"))?;
    if ups.next().is_some() {
        return Err(refused("it has more than one `-- migrate:up`"));
    }
    let down = lines(contents).find(|(_, line)| directive(line, DOWN).is_some());
    let (end, _) = down.ok_or_else(|| refused("it has no `-- migrate:down`"))?;
    if end < begin {
        return Err(refused("its `-- migrate:down` is before its `-- migrate:up`"));
    }
    let is_statement = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("--");
    if let Some(statement) = contents[..begin].lines().find(is_statement) {
        return Err(refused(&format!("`{}` is before its `-- migrate:up`", statement.trim())));
    }
    Ok((begin..end, options.all(|option| option != "transaction:false")))
}

/// Returns the options of a line `-- migrate:up …`.
fn directive<'a>(line: &'a str, name: &str) -> Option<impl Iterator<Item = &'a str>> {
    let rest = line.strip_prefix("--")?.trim_start().strip_prefix(name)?;
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::tool::MigrationTool;

    #[test]
    fn migrations_are_ordered_by_name() {
        let order = MigrationTool::Dbmate.order(&["10_c.sql", "9_b.sql", "1_a.sql"]);
        assert_eq!(order, ["10_c.sql", "1_a.sql", "9_b.sql"]);
    }

    #[test]
    fn a_version_keeps_its_zeros_and_is_unique() {
        assert_eq!(MigrationTool::Dbmate.kept("007_a.sql").0, "007");
        assert!(MigrationTool::Dbmate.refusal(&["1_a.sql", "1_b.sql"]).contains("same version"));
    }

    #[test]
    fn only_the_up_section_runs() {
        let section =
            |file: &'static str| up(file).map(|(up, transaction)| (&file[up], transaction)).unwrap();
        let file = "-- a\n\n-- migrate:up\ncreate table a ();\n-- migrate:down\ndrop table a;\n";
        assert_eq!(section(file), ("-- migrate:up\ncreate table a ();\n", true));
        let file = "--migrate:up transaction:false\r\nvacuum;\r\n--migrate:down";
        assert_eq!(section(file), ("--migrate:up transaction:false\r\nvacuum;\r\n", false));
        let refused = |file| up(file).unwrap_err().cause;
        assert_eq!(refused("select 1;"), "it has no `-- migrate:up`");
        assert_eq!(
            refused("select 1;\n-- migrate:up\n-- migrate:down\n"),
            "`select 1;` is before its `-- migrate:up`"
        );
        assert!(refused("-- migrate:down\n-- migrate:up\n").contains("before its `-- migrate:up`"));
        assert!(refused("-- migrate:up\n-- migrate:down\n-- migrate:up\n").contains("more than one"));
        assert_eq!(refused("-- migrate:up\nselect 1;\n"), "it has no `-- migrate:down`");
        assert!(refused("-- migrate:upwards\n").contains("no `-- migrate:up`"));
    }
}
