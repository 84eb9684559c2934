//! `sandboxed-db diff`: the changes that a test made to its snapshot.
//!
//! The types of a difference, its text and the comparison are the same for all engines; each engine
//! has a folder that reads definitions and rows from its servers.

mod definitions;
mod postgres;
mod rows;
mod text;

use std::error::Error;

use clap::Args;
use sandboxed_db::cache::{Kept, KeptState};
use serde::{Serialize, Serializer};

use super::failure::Failure;
use super::{Format, colour, print};

#[derive(Debug, Args)]
pub(super) struct DiffArguments {
    /// The test: its path or a part of it; `sandboxed-db open` lists kept tests.
    test: String,
    /// Show at most this number of added, removed and changed rows of each table.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    rows: usize,
}

impl DiffArguments {
    pub(super) fn perform(self, format: Format) -> Result<(), Box<dyn Error>> {
        let state = Kept::open()?.find(&self.test)?;
        let difference = match state.engine.as_str() {
            "postgres" => postgres::compare(&state, self.rows)?,
            other => {
                let failure = Failure::new(format!("compare `{}` with its snapshot", state.name));
                return Err(failure
                    .because(format!("`diff` supports the engine postgres, not {other}"))
                    .into());
            }
        };
        print(format, &difference, || colour::difference(&text::render(&state, &difference)))?;
        Ok(())
    }
}

/// Everything that a test changed.
#[derive(Debug, Default, Serialize)]
struct Difference {
    /// The test.
    name: String,
    /// Roles, settings, databases as a whole.
    server: Vec<ObjectChange>,
    /// Databases with changes.
    databases: Vec<DatabaseDifference>,
    /// The number of tables that were compared, by rows or by files.
    tables_compared: usize,
}

#[derive(Debug, Serialize)]
struct DatabaseDifference {
    database: String,
    change: Change,
    /// Definitions.
    objects: Vec<ObjectChange>,
    sequences: Vec<SequenceChange>,
    /// Rows.
    tables: Vec<TableDifference>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    Added,
    Removed,
    Changed,
}

/// Something with a definition: a table, an index, a function, a role.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct ObjectChange {
    kind: String,
    name: String,
    before: Option<String>,
    after: Option<String>,
}

/// The last value of a sequence; `None` if it was never used.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct SequenceChange {
    name: String,
    before: Option<i64>,
    after: Option<i64>,
}

#[derive(Debug, Default, Serialize)]
struct TableDifference {
    table: String,
    /// The columns of the primary key, which identify a row. In a table without one, equal rows are
    /// the same row, and a changed row counts as one removed and one added.
    key: Vec<String>,
    added: u64,
    removed: u64,
    changed: u64,
    /// The first of these rows, as of the next two lists.
    rows_added: Vec<Row>,
    rows_removed: Vec<Row>,
    rows_changed: Vec<RowChange>,
}

#[derive(Debug, Serialize)]
struct RowChange {
    before: Row,
    after: Row,
}

/// Columns and their values as text, long values shortened.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row(Vec<(String, Option<String>)>);

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(column, value)| (column, value)))
    }
}

impl Difference {
    fn of(state: &KeptState) -> Self {
        Self { name: state.name.clone(), ..Self::default() }
    }

    fn is_empty(&self) -> bool {
        self.server.is_empty() && self.databases.is_empty()
    }
}

impl DatabaseDifference {
    fn is_empty(&self) -> bool {
        self.change == Change::Changed
            && self.objects.is_empty()
            && self.sequences.is_empty()
            && self.tables.is_empty()
    }
}

impl TableDifference {
    fn is_empty(&self) -> bool {
        self.added + self.removed + self.changed == 0
    }
}
