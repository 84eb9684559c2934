//! The migration tools that are understood: a table of them, and the trait that each implements in
//! its own file.

use std::cmp::Ordering;
use std::path::Path;

use crate::engine::Dialect;

use super::{
    dbmate, diesel, flyway, golang_migrate, goose, node_pg_migrate, prisma, refinery, script, sqlx, tern,
};

/// A tool whose directories of migrations are understood; for
/// [`Snapshot::migrations_of`](crate::Snapshot::migrations_of).
///
/// Each file runs as its tool runs it: what the tool sends to the server as one request is sent as
/// one request here. So a file that the tool cannot run fails here too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[non_exhaustive]
pub enum MigrationTool {
    /// No tool: whole `.sql` files in the order of their names, as psql(1) runs them. `.down.sql`
    /// files are left out; a down migration inside a file runs too.
    Plain,
    /// sqlx: `<version>_<name>.sql` or `<version>_<name>.up.sql`, in the order of their versions;
    /// each in a transaction, unless it begins with `-- no-transaction`. Fills `_sqlx_migrations`.
    Sqlx,
    /// Diesel: `<version>_<name>/up.sql`, each in a transaction, unless a `metadata.toml` beside it
    /// says `run_in_transaction = false`. Fills `__diesel_schema_migrations`.
    Diesel,
    /// Prisma: `<name>/migration.sql`, in the order of the directories' names. Fills
    /// `_prisma_migrations`.
    Prisma,
    /// refinery: `V<version>__<name>.sql` and `U<version>__<name>.sql`, each in a transaction.
    /// Fills `refinery_schema_history`, where versions are `int8` if one of them is too large for
    /// an `int4`, as with the feature `int8-versions` of refinery.
    Refinery,
    /// Flyway: `V<version>__<name>.sql` in the order of their versions, where 1.10 comes after 1.9,
    /// then `R__<name>.sql` in the order of their names. Statements run one by one, outside a
    /// transaction, and no history table is filled: Flyway itself takes the database for one that
    /// it has not migrated.
    Flyway,
    /// golang-migrate: `<version>_<name>.up.sql`, in the order of their versions. Fills
    /// `schema_migrations` with the last.
    GolangMigrate,
    /// dbmate: `<version>_<name>.sql` with the sections `-- migrate:up` and `-- migrate:down`,
    /// of which the first is run; in a transaction, unless its line says `transaction:false`. Fills
    /// `schema_migrations`.
    Dbmate,
    /// goose: `<version>_<name>.sql` with the sections `-- +goose Up` and `-- +goose Down`,
    /// of which the first is run, statement by statement; in a transaction, unless `-- +goose NO
    /// TRANSACTION` is in the file. Fills `goose_db_version`.
    Goose,
    /// node-pg-migrate: `<timestamp>_<name>.sql` with the sections `-- Up Migration` and `-- Down
    /// Migration`, or the pair `.up.sql` and `.down.sql`; each in a transaction. Fills
    /// `pgmigrations`.
    NodePgMigrate,
    /// tern: `<number>_<name>.sql`, numbered from 1 without gaps, up to the line `---- create above
    /// / drop below ----`; in a transaction, unless `---- tern: disable-tx ----` is in the file.
    /// Fills `schema_version`. Templates are refused.
    Tern,
}

/// All tools, in the order in which a directory is compared with them.
pub(super) const TOOLS: [(MigrationTool, &dyn Tool); 10] = [
    (MigrationTool::Sqlx, &sqlx::Sqlx),
    (MigrationTool::Diesel, &diesel::Diesel),
    (MigrationTool::Prisma, &prisma::Prisma),
    (MigrationTool::Flyway, &flyway::Flyway),
    (MigrationTool::Refinery, &refinery::Refinery),
    (MigrationTool::GolangMigrate, &golang_migrate::GolangMigrate),
    (MigrationTool::Dbmate, &dbmate::Dbmate),
    (MigrationTool::Goose, &goose::Goose),
    (MigrationTool::NodePgMigrate, &node_pg_migrate::NodePgMigrate),
    (MigrationTool::Tern, &tern::Tern),
];

impl MigrationTool {
    /// Returns the rules of the tool, or `None` for `Plain`.
    pub(crate) fn rules(self) -> Option<&'static dyn Tool> {
        let in_table = || TOOLS.iter().find(|(tool, _)| *tool == self).expect("each tool is in the table").1;
        (self != Self::Plain).then(in_table)
    }

    /// Returns the name that the command line has for the tool.
    fn option(self) -> String {
        let name = format!("{self:?}");
        let mut option = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() && !option.is_empty() {
                option.push('-');
            }
            option.push(letter.to_ascii_lowercase());
        }
        option
    }

    /// Returns how a user chooses the tool, in Rust and on the command line.
    pub(super) fn choice(self) -> String {
        format!("`MigrationTool::{self:?}` (`--tool {}`)", self.option())
    }
}

/// How a tool names, orders and runs its migrations, and its bookkeeping table: statements of each
/// dialect that fill it as the tool does.
pub(crate) trait Tool: Sync {
    /// The tool's name in messages.
    fn name(&self) -> &'static str;

    /// Returns `true` if the names in a directory show that it is this tool's.
    fn is_named(&self, _listing: &Listing) -> Result<bool, Refusal> {
        Ok(false)
    }

    /// The first line that only this tool's files have, if there is one.
    fn mark<'a>(&self, _contents: &'a str) -> Option<&'a str> {
        None
    }

    /// Returns `true` if each file of the tool has its mark.
    fn needs_mark(&self) -> bool {
        true
    }

    /// The migrations of a directory: without the files that the tool ignores, and refusing those
    /// that it refuses.
    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal>;

    /// Compares two migrations by the order in which they run.
    fn order(&self, one: &Migration, other: &Migration) -> Ordering {
        by_number(&one.version, &other.version)
    }

    /// Returns what must be unique among the migrations of a directory.
    fn key<'a>(&self, migration: &'a Migration) -> &'a str {
        &migration.version
    }

    /// Refuses migrations that the tool refuses for their versions. They are in their order.
    fn check(&self, all: &[Migration]) -> Result<(), Refusal> {
        check_numbers(all)
    }

    /// The dialects that the tool speaks.
    fn dialects(&self) -> &'static [Dialect] {
        &[Dialect::Postgres, Dialect::MySql, Dialect::Sqlite]
    }

    /// Returns `true` if the tool runs each file in a transaction on databases of that dialect,
    /// whatever the [execution](Self::execution) says.
    fn begins_transactions(&self, _dialect: Dialect) -> bool {
        false
    }

    /// Refuses migrations in a dialect that the tool does not speak.
    fn check_dialect(&self, dialect: Dialect) -> Result<(), Refusal> {
        if self.dialects().contains(&dialect) {
            return Ok(());
        }
        let others = TOOLS.iter().filter(|(_, tool)| tool.dialects().contains(&dialect));
        let choices: Vec<_> = others.map(|(tool, _)| tool.choice()).collect();
        let plain = MigrationTool::Plain.choice();
        Err(Refusal::new(
            format!("they are migrations of {}, which does not know this database", self.name()),
            format!("choose {}; {plain} runs every `.sql` file in the order of names", choices.join(", ")),
        ))
    }

    /// The name of a file beside a migration that decides how it runs.
    fn beside(&self) -> Option<&'static str> {
        None
    }

    /// How a file with these contents runs.
    fn execution(&self, file: &Path, contents: &str) -> Result<Execution, Refusal>;

    /// SQL by which each session of the tool begins, if it changes what the files mean.
    fn session(&self, _dialect: Dialect) -> &'static str {
        ""
    }

    /// SQL that makes the bookkeeping table, before the first of these migrations, which are in
    /// their order. Empty for a tool whose table is not filled.
    fn create_table(&self, dialect: Dialect, all: &[Migration]) -> String;

    /// SQL that records one of them.
    fn record(&self, dialect: Dialect, applied: &Applied<'_>) -> String;
}

/// A migration that has been applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applied<'a> {
    pub(crate) migration: &'a Migration,
    /// The contents of its file.
    pub(crate) contents: &'a str,
    /// All migrations of the directory.
    pub(crate) all: &'a [Migration],
}

/// The names in a directory that are not hidden.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) files: Vec<String>,
    /// Directories, with the files in them.
    pub(crate) directories: Vec<(String, Vec<String>)>,
}

impl Listing {
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    pub(super) fn sql(&self) -> impl Iterator<Item = &str> {
        self.files().filter(|name| name.ends_with(".sql"))
    }

    /// The directories that hold a file of that name, with its path.
    pub(super) fn below<'a>(&'a self, file: &'a str) -> impl Iterator<Item = (&'a str, String)> {
        let holding = self.directories.iter().filter(move |(_, files)| files.iter().any(|name| name == file));
        holding.map(move |(directory, _)| (directory.as_str(), format!("{directory}/{file}")))
    }
}

/// A file to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Migration {
    /// Below the directory of migrations.
    pub(crate) path: String,
    /// As the bookkeeping table has it.
    pub(crate) version: String,
    pub(crate) name: String,
}

/// How a migration runs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Execution {
    pub(crate) transaction: bool,
    /// The texts that are sent to the server, each as one request. Without them the client runs the
    /// whole file.
    pub(crate) requests: Option<Vec<Request>>,
}

/// A text of a file that is sent to the server as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The number of lines before it in the file.
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Execution {
    /// Sends a text at once, which begins after that many bytes of the file.
    pub(super) fn request(transaction: bool, contents: &str, range: std::ops::Range<usize>) -> Self {
        let request = Request { line: script::line(contents, range.start), text: contents[range].to_owned() };
        Self { transaction, requests: Some(vec![request]) }
    }

    /// Sends a whole file at once.
    pub(super) fn whole(transaction: bool, contents: &str) -> Self {
        Self::request(transaction, contents, 0..contents.len())
    }

    /// Refuses what the server would understand otherwise than it is meant, or not at all.
    pub(crate) fn check(&self, tool: &dyn Tool) -> Result<(), Refusal> {
        for Request { line, text } in self.requests.iter().flatten() {
            if text.starts_with('\u{feff}') {
                return Err(Refusal::new(
                    "it begins with a byte order mark",
                    format!(
                        "{} sends the mark to the server, which refuses it: save the file without it",
                        tool.name()
                    ),
                ));
            }
            // Scanning takes time for large files, which seldom read rows.
            if !text.to_ascii_lowercase().contains("stdin") {
                continue;
            }
            let statements = script::Script::of(text).statements;
            if let Some(copy) = statements.into_iter().find(|range| script::reads_input(&text[range.clone()]))
            {
                return Err(Refusal::new(
                    format!(
                        "line {} is `{}`, and {} sends no rows",
                        line + 1 + script::line(text, copy.start),
                        text[copy].lines().next().unwrap_or_default(),
                        tool.name()
                    ),
                    "load the rows by a seed, which psql runs",
                ));
            }
        }
        Ok(())
    }
}

/// Why a directory or file is not run, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) cause: String,
    pub(crate) hint: String,
}

impl Refusal {
    pub(super) fn new(cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { cause: cause.into(), hint: hint.into() }
    }

    /// Refuses files that cannot all be one tool's.
    pub(super) fn mixed(one: &str, tool: &str, other: &str) -> Self {
        Self::undecided(format!("`{one}` is a migration of {tool}, `{other}` is not"))
    }

    /// Refuses files that may be those of several tools.
    pub(super) fn undecided(cause: String) -> Self {
        Self::new(
            cause,
            format!(
                "name the tool: `Snapshot::migrations_of(MigrationTool::…, directory)` (`--tool`); {} runs \
                 every `.sql` file in the order of names",
                MigrationTool::Plain.choice()
            ),
        )
    }
}

/// Refuses versions that are no `bigint`.
pub(super) fn check_numbers(all: &[Migration]) -> Result<(), Refusal> {
    match all.iter().find(|migration| migration.version.parse::<i64>().is_err()) {
        None => Ok(()),
        Some(Migration { path, version, .. }) => Err(Refusal::new(
            format!("`{path}` has a version that is too large, {version}"),
            format!("a version is at most {}", i64::MAX),
        )),
    }
}

/// The digits that a name begins with, and the rest; `None` without digits.
pub(super) fn numbered(name: &str) -> Option<(&str, &str)> {
    let end = name.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(name.len());
    (end > 0).then(|| name.split_at(end))
}

pub(super) fn unpadded(digits: &str) -> String {
    match digits.trim_start_matches('0') {
        "" if !digits.is_empty() => "0".to_owned(),
        number => number.to_owned(),
    }
}

/// Compares numbers of any length without leading zeros.
pub(super) fn by_number(one: &str, other: &str) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
impl Listing {
    pub(super) fn of(names: &[&str]) -> Self {
        let mut listing = Self::default();
        for name in names {
            match name.split_once('/') {
                None => listing.files.push((*name).to_owned()),
                Some((directory, file)) => {
                    listing.directories.push((directory.to_owned(), vec![file.to_owned()]));
                }
            }
        }
        listing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_chosen_by_both_of_its_names() {
        let choice = "`MigrationTool::NodePgMigrate` (`--tool node-pg-migrate`)";
        assert_eq!(MigrationTool::NodePgMigrate.choice(), choice);
    }

    #[test]
    fn requests_that_the_server_refuses_are_refused() {
        let refusal = |text: &str| Execution::whole(true, text).check(&sqlx::Sqlx).unwrap_err();
        assert!(refusal("\u{feff}select 1;").hint.contains("save the file without it"));
        let rows = "create table t (a text);\ncopy t from stdin;\n1\n\\.\n";
        assert_eq!(refusal(rows).cause, "line 2 is `copy t from stdin;`, and sqlx sends no rows");
    }
}
