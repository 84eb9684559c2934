//! What there is to know of a migration tool, and the table of those that are known. Each has a file of its own.

use std::cmp::Ordering;
use std::path::Path;

use super::{dbmate, diesel, golang_migrate, refinery, sqlx};

/// A tool whose directories of migrations are understood; for [`Snapshot::migrations_of`](crate::Snapshot::migrations_of).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[non_exhaustive]
pub enum MigrationTool {
    /// No tool: whole `.sql` files in the order of their names, as psql(1) runs them. `.down.sql` files are left out.
    Plain,
    /// sqlx: `<version>_<name>.sql` or `<version>_<name>.up.sql`, in the order of their versions; each in a transaction,
    /// unless it begins with `-- no-transaction`. Fills `_sqlx_migrations`.
    Sqlx,
    /// Diesel: `<version>_<name>/up.sql`, each in a transaction, unless `run_in_transaction = false` is in a
    /// `metadata.toml` beside it. Fills `__diesel_schema_migrations`.
    Diesel,
    /// refinery: `V<version>__<name>.sql` and `U<version>__<name>.sql`, each in a transaction. Fills
    /// `refinery_schema_history`, where versions are `int8` if one of them is too large for an `int4`, as with the feature
    /// `int8-versions` of refinery.
    Refinery,
    /// golang-migrate: `<version>_<name>.up.sql`, in the order of their versions. Fills `schema_migrations` with the last.
    GolangMigrate,
    /// dbmate: `<version>_<name>.sql` with the sections `-- migrate:up` and `-- migrate:down`, of which the first is run; in
    /// a transaction, unless its line says `transaction:false`. Fills `schema_migrations`.
    Dbmate,
}

/// All tools, in the order in which their names are looked for.
pub(super) const TOOLS: [(MigrationTool, &dyn Tool); 5] = [
    (MigrationTool::Sqlx, &sqlx::Sqlx),
    (MigrationTool::Diesel, &diesel::Diesel),
    (MigrationTool::Refinery, &refinery::Refinery),
    (MigrationTool::GolangMigrate, &golang_migrate::GolangMigrate),
    (MigrationTool::Dbmate, &dbmate::Dbmate),
];

impl MigrationTool {
    /// What is known of the tool; nothing of `Plain`, which is none.
    pub(crate) fn known(self) -> Option<&'static dyn Tool> {
        let in_table = || TOOLS.iter().find(|(tool, _)| *tool == self).expect("each tool is in the table").1;
        (self != Self::Plain).then(in_table)
    }
}

/// How a tool names, orders and runs its migrations, and the table in which it keeps what it has applied: statements of
/// PostgreSQL that fill it as the tool does.
pub(crate) trait Tool: Sync {
    /// Whether the names in a directory tell that it is this tool's.
    fn is_named(&self, _listing: &Listing) -> Result<bool, Refusal> {
        Ok(false)
    }

    /// What tells that a file is this tool's.
    fn mark(&self) -> Option<Mark> {
        None
    }

    /// The migrations of a directory. What the tool passes over is passed over, and what it cannot do is refused.
    fn migrations(&self, listing: &Listing) -> Result<Vec<Migration>, Refusal>;

    /// Which of two is run first.
    fn order(&self, one: &Migration, other: &Migration) -> Ordering {
        by_number(&one.version, &other.version)
    }

    /// Refuses what the tool's table cannot hold.
    fn check(&self, Migration { path, version, .. }: &Migration) -> Result<(), Refusal> {
        if version.parse::<i64>().is_ok() {
            return Ok(());
        }
        Err(Refusal::new(
            format!("`{path}` has a version that is too large, {version}"),
            format!("a version is at most {}", i64::MAX),
        ))
    }

    /// The name of a file beside that of a migration which tells how it is run.
    fn beside(&self) -> Option<&'static str> {
        None
    }

    /// How a file is run that holds this.
    fn manner(&self, file: &Path, contents: &str) -> Result<Manner, Refusal>;

    /// Makes the table, before the first of these migrations, which are in their order.
    fn open(&self, all: &[Migration]) -> String;

    /// Notes one of them, whose file holds this.
    fn note(&self, migration: &Migration, contents: &str, all: &[Migration]) -> String;
}

/// What a directory holds, as far as migrations are concerned: no hidden names.
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
}

/// A file to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Migration {
    /// Below the directory of migrations.
    pub(crate) path: String,
    /// As the tool keeps it.
    pub(crate) version: String,
    pub(crate) name: String,
}

/// How a migration is run.
#[derive(Debug)]
pub(crate) struct Manner {
    pub(crate) transaction: bool,
    /// What is run instead of the whole file, at the lines it has there.
    pub(crate) part: Option<String>,
}

impl Manner {
    pub(super) fn whole(transaction: bool) -> Self {
        Self { transaction, part: None }
    }
}

/// What begins a section in a file that holds both ways, after the dashes of a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The tool's name.
    pub(super) tool: &'static str,
    pub(super) text: &'static str,
}

/// Why a directory or file is not run: what was seen in it, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) seen: String,
    pub(crate) hint: String,
}

impl Refusal {
    pub(super) fn new(seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { seen: seen.into(), hint: hint.into() }
    }

    /// Of files that cannot be one tool's.
    pub(super) fn mixed(one: &str, whose: &str, other: &str) -> Self {
        Self::new(
            format!("`{one}` is {whose}, `{other}` is not"),
            "name the tool whose files they are: `Snapshot::migrations_of(MigrationTool::…, directory)`; \
             `MigrationTool::Plain` runs every `.sql` file in the order of names",
        )
    }
}

/// The digits a name begins with, and the rest; none without digits.
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

/// Numbers without leading zeros, of any length.
pub(super) fn by_number(one: &str, other: &str) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

/// A string constant, whatever `standard_conforming_strings` is.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
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
    fn texts_are_quoted() {
        assert_eq!(literal(r"it's \ here"), r"E'it''s \\ here'");
    }
}
