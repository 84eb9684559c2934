//! tern: numbered files that a line divides into both ways, and `schema_version`.

use std::path::Path;

use crate::engine::Dialect;

use super::script::{Script, line};
use super::tool::{Applied, Execution, Listing, Migration, Refusal, Request, Tool, numbered, unpadded};

const DIVIDER: &str = "---- create above / drop below ----";
const DISABLE_TRANSACTION: &str = "---- tern: disable-tx ----";

pub(super) struct Tern;

impl Tool for Tern {
    fn name(&self) -> &'static str {
        "tern"
    }

    fn mark<'a>(&self, contents: &'a str) -> Option<&'a str> {
        contents.lines().find(|line| line.contains(DIVIDER) || *line == DISABLE_TRANSACTION)
    }

    fn needs_mark(&self) -> bool {
        false
    }

    fn dialects(&self) -> &'static [Dialect] {
        &[Dialect::Postgres]
    }

    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal> {
        Ok(listing.files().filter_map(migration).collect())
    }

    fn check(&self, all: &[Migration]) -> Result<(), Refusal> {
        let numbers = (1_u32..).map(|number| number.to_string());
        match all.iter().zip(numbers).find(|(migration, number)| migration.version != *number) {
            None => Ok(()),
            Some((Migration { path, .. }, number)) => Err(Refusal::new(
                format!("there is no migration {number} before `{path}`"),
                "tern wants numbers from 1 without gaps",
            )),
        }
    }

    /// tern, `migrate/migrate.go`.
    fn execution(&self, _file: &Path, contents: &str) -> Result<Execution, Refusal> {
        let end = contents.find(DIVIDER).unwrap_or(contents.len());
        let up = &contents[..end];
        if let Some(at) = up.find("{{") {
            return Err(Refusal::new(
                format!("line {} is a template, which only tern fills", line(up, at) + 1),
                "run tern itself in a step, by `Snapshot::run(\"tern\", …)` (`--prepare`)",
            ));
        }
        if up.lines().all(|line| line.trim().is_empty() || line.trim().starts_with("--")) {
            return Err(Refusal::new("it holds no statement to run", "tern wants one before its divider"));
        }
        if !up.lines().any(|line| line == DISABLE_TRANSACTION) {
            return Ok(Execution::request(true, contents, 0..end));
        }
        let statement = |range: std::ops::Range<usize>| Request {
            line: line(up, range.start),
            text: up[range].to_owned(),
        };
        let requests = Script::of(up).statements.into_iter().map(statement).collect();
        Ok(Execution { transaction: false, requests: Some(requests) })
    }

    fn create_table(&self, _dialect: Dialect, _all: &[Migration]) -> String {
        "CREATE TABLE IF NOT EXISTS public.schema_version (version int4 NOT NULL); \
         INSERT INTO public.schema_version (version) SELECT 0 WHERE NOT EXISTS (TABLE public.schema_version)"
            .to_owned()
    }

    fn record(&self, _dialect: Dialect, applied: &Applied<'_>) -> String {
        format!("RESET ALL; UPDATE public.schema_version SET version = {}", applied.migration.version)
    }
}

/// Reads a name as tern does: `\A(\d+)_.+\.sql\z`.
fn migration(file: &str) -> Option<Migration> {
    let (version, rest) = numbered(file)?;
    let name = rest.strip_prefix('_')?.strip_suffix(".sql").filter(|name| !name.is_empty())?;
    Some(Migration { path: file.to_owned(), version: unpadded(version), name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::tool::MigrationTool;

    fn execution(contents: &str) -> Result<Execution, Refusal> {
        Tern.execution(Path::new("1_a.sql"), contents)
    }

    #[test]
    fn the_divider_ends_the_way_up() {
        let file = "create table a ();\n---- create above / drop below ----\ndrop table a;\n";
        let request = Request { line: 0, text: "create table a ();\n".to_owned() };
        assert_eq!(execution(file), Ok(Execution { transaction: true, requests: Some(vec![request]) }));
    }

    #[test]
    fn statements_run_one_by_one_without_a_transaction() {
        let execution = execution("---- tern: disable-tx ----\nvacuum;\n\nselect ';' -- a\n;\n").unwrap();
        let requests = execution.requests.unwrap();
        assert_eq!(requests[0], Request { line: 1, text: "vacuum;".to_owned() });
        assert_eq!(requests[1], Request { line: 3, text: "select ';' -- a\n;".to_owned() });
    }

    #[test]
    fn files_that_tern_refuses_are_refused() {
        assert!(execution("-- a\n").unwrap_err().cause.contains("no statement"));
        assert!(execution("\nselect '{{ .a }}';").unwrap_err().cause.contains("line 2 is a template"));
        let refusal = |names: &[&str]| MigrationTool::Tern.refusal(names);
        assert_eq!(refusal(&["001_a.sql", "003_b.sql"]), "there is no migration 2 before `003_b.sql`");
        assert!(refusal(&["1_a.sql", "01_b.sql"]).contains("same version"));
    }
}
