//! `sandboxed-db diff`: what a test changed since its snapshot.
//!
//! What a difference is and how it is told is the same for all engines; how it is found out is in the file of the engine's
//! name.

mod catalogue;
mod postgres;
mod rows;
mod text;

use std::error::Error;

use clap::Args;
use sandboxed_db::{Kept, KeptState};
use serde::{Serialize, Serializer};

use super::print;

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The test, by its path or a part of it; `sandboxed-db open` lists those that are kept.
    test: String,
    /// Show at most that many rows that were added to a table, as many that were removed, and as many that changed.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    rows: usize,
}

impl Diff {
    pub(super) fn perform(self, json: bool) -> Result<(), Box<dyn Error>> {
        let state = Kept::open()?.find(&self.test)?;
        let difference = match state.engine.as_str() {
            "postgres" => postgres::compare(&state, self.rows)?,
            other => return Err(format!("databases of `{other}` cannot be compared").into()),
        };
        print(json, &difference, || text::told(&state, &difference))?;
        Ok(())
    }
}

/// All that a test changed.
#[derive(Debug, Default, Serialize)]
struct Difference {
    /// The test.
    name: String,
    /// Roles, settings, databases as a whole.
    server: Vec<ObjectChange>,
    /// Those in which something changed.
    databases: Vec<DatabaseDifference>,
    /// How many tables were compared, row by row or by their files.
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

/// The last value that a sequence gave out, if it gave out any.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct SequenceChange {
    name: String,
    before: Option<i64>,
    after: Option<i64>,
}

#[derive(Debug, Default, Serialize)]
struct TableDifference {
    table: String,
    /// The columns that tell which row is which: those of the primary key. Without, rows are the same if they are equal, and
    /// one that changed is one removed and one added.
    key: Vec<String>,
    added: u64,
    removed: u64,
    changed: u64,
    /// Some of them.
    rows_added: Vec<Row>,
    rows_removed: Vec<Row>,
    rows_changed: Vec<RowChange>,
}

#[derive(Debug, Serialize)]
struct RowChange {
    before: Row,
    after: Row,
}

/// Columns and their values as text, which is cut if it is very long.
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
