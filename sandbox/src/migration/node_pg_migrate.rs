//! node-pg-migrate: files with the sections `-- Up Migration` and `-- Down Migration`, or pairs of
//! files, and `pgmigrations`.

use std::cmp::Ordering;
use std::path::Path;

use crate::engine::Dialect;

use super::script::lines;
use super::tool::{Applied, Execution, Listing, Migration, Refusal, Tool, by_number, numbered, unpadded};

pub(super) struct NodePgMigrate;

impl Tool for NodePgMigrate {
    fn name(&self) -> &'static str {
        "node-pg-migrate"
    }

    fn mark<'a>(&self, contents: &'a str) -> Option<&'a str> {
        contents.lines().find(|line| is_mark(line, "up") || is_mark(line, "down"))
    }

    fn needs_mark(&self) -> bool {
        false
    }

    fn dialects(&self) -> &'static [Dialect] {
        &[Dialect::Postgres]
    }

    /// node-pg-migrate, `migrationLoader.ts`: every file is a migration. Where there are
    /// `.down.sql` files, they and their `.up.sql` files are pairs.
    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        if let Some(name) = listing.files().find(|name| !name.ends_with(".sql")) {
            return Err(Refusal::new(
                format!("`{name}` is no SQL, and node-pg-migrate takes each file for a migration"),
                "run node-pg-migrate itself in a step, by `Snapshot::run(\"node-pg-migrate\", …)` (`--prepare`)",
            ));
        }
        let paired = listing.files().any(|name| name.ends_with(".down.sql"));
        let mut migrations = Vec::new();
        for file in listing.files() {
            if let Some(name) = file.strip_suffix(".down.sql") {
                let up = format!("{name}.up.sql");
                if listing.files().all(|file| file != up) {
                    return Err(Refusal::new(format!("`{file}` has no `{up}` beside it"), "add that file"));
                }
                continue;
            }
            let stem = file.trim_end_matches(".sql");
            let name = if paired { stem.trim_end_matches(".up") } else { stem };
            let Some((digits, _)) = numbered(name) else {
                return Err(Refusal::new(
                    format!("`{file}` begins with no number"),
                    "node-pg-migrate wants `<timestamp>_<name>.sql`",
                ));
            };
            migrations.push(Migration {
                path: file.to_owned(),
                version: time(digits),
                name: name.to_owned(),
            });
        }
        Ok(migrations)
    }

    fn order(&self, one: &Migration, other: &Migration) -> Ordering {
        by_number(&one.version, &other.version).then_with(|| one.name.cmp(&other.name))
    }

    fn key<'a>(&self, migration: &'a Migration) -> &'a str {
        &migration.name
    }

    fn check(&self, _all: &[Migration]) -> Result<(), Refusal> {
        Ok(())
    }

    fn execution(&self, _file: &Path, contents: &str) -> Result<Execution, Refusal> {
        let position = |word| lines(contents).find(|(_, line)| is_mark(line, word));
        match (position("up"), position("down")) {
            (None, None) => Ok(Execution::whole(true, contents)),
            (None, Some((_, down))) => Err(Refusal::new(
                format!("it has `{}`, but no `-- Up Migration`", down.trim()),
                "node-pg-migrate runs all of such a file, the down migration too: add a line `-- Up Migration`",
            )),
            (Some((up, _)), down) => {
                let end = down.map(|(down, _)| down).filter(|down| *down > up);
                Ok(Execution::request(true, contents, up..end.unwrap_or(contents.len())))
            }
        }
    }

    /// node-pg-migrate, `runner.ts`.
    fn create_table(&self, _dialect: Dialect, _all: &[Migration]) -> String {
        "CREATE TABLE public.pgmigrations (id SERIAL PRIMARY KEY, name varchar(255) NOT NULL, \
         run_on timestamp NOT NULL)"
            .to_owned()
    }

    fn record(&self, dialect: Dialect, applied: &Applied<'_>) -> String {
        format!(
            "INSERT INTO public.pgmigrations (name, run_on) VALUES ({}, NOW())",
            dialect.literal(&applied.migration.name)
        )
    }
}

/// Returns `true` if a line begins a section, as `^\s*--[\s-]*up\s+migration` does in any case.
fn is_mark(line: &str, word: &str) -> bool {
    let dashes = line.trim_start_matches('\u{feff}').trim_start().strip_prefix("--");
    dashes.is_some_and(|text| {
        let text = text.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '-');
        let rest = text.to_ascii_lowercase();
        let rest = rest.strip_prefix(word).filter(|rest| rest.starts_with(char::is_whitespace));
        rest.is_some_and(|rest| rest.trim_start().starts_with("migration"))
    })
}

/// The number by which a file is ordered: 17 digits are a time in UTC, which counts as milliseconds
/// since 1970.
fn time(digits: &str) -> String {
    if digits.len() != 17 {
        return unpadded(digits);
    }
    let part = |begin: usize, end: usize| digits[begin..end].parse::<i64>().unwrap_or_default();
    let (year, month, day) = (part(0, 4), part(4, 6), part(6, 8));
    // Days since 1970 in the Gregorian calendar, whose year begins in March here.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + part(8, 10)) * 60 + part(10, 12)) * 60 + part(12, 14);
    (seconds * 1000 + part(14, 17)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::tool::MigrationTool;

    fn up(contents: &str) -> String {
        let execution = NodePgMigrate.execution(Path::new("1_a.sql"), contents).unwrap();
        execution.requests.unwrap().remove(0).text
    }

    #[test]
    fn marks_are_read_in_any_case_and_order() {
        assert_eq!(up("--- UP\tmigration\na;\n  -- - Down Migration\nb;\n"), "--- UP\tmigration\na;\n");
        assert_eq!(up("--Down migration\nb;\n-- up migrations\na;\n"), "-- up migrations\na;\n");
        assert_eq!(up("a;\n-- upmigration\n"), "a;\n-- upmigration\n");
        let refused = NodePgMigrate.execution(Path::new("1_a.sql"), "a;\n-- Down Migration\nb;").unwrap_err();
        assert_eq!(refused.cause, "it has `-- Down Migration`, but no `-- Up Migration`");
    }

    #[test]
    fn times_in_utc_are_ordered_among_timestamps() {
        assert_eq!(time("20240229123456789"), "1709210096789");
        assert_eq!(time("19700101000000000"), "0");
        let names = ["1709210096790_c.sql", "20240229123456789_b.sql", "3_a.sql"];
        assert_eq!(MigrationTool::NodePgMigrate.order(&names), ["3_a.sql", names[1], names[0]]);
    }

    #[test]
    fn pairs_are_recorded_without_their_suffix() {
        let kept = |names: &[&str]| MigrationTool::NodePgMigrate.migration(names).name;
        assert_eq!(kept(&["1_a.up.sql", "1_a.down.sql"]), "1_a");
        assert_eq!(kept(&["1_a.up.sql"]), "1_a.up");
        let refusal = |names: &[&str]| MigrationTool::NodePgMigrate.refusal(names);
        assert!(refusal(&["1_a.down.sql"]).contains("no `1_a.up.sql` beside it"));
        assert!(refusal(&["1_a.sql", "2_b.js"]).contains("`2_b.js` is no SQL"));
        assert!(refusal(&["a.sql"]).contains("begins with no number"));
    }
}
