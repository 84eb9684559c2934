//! The rows of a table on two PostgreSQL servers.
//!
//! Each server hashes its own rows; the rows to show are then fetched by their tuple ids.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};

use postgres::{Client, SimpleQueryMessage};

use super::super::rows::{RowComparison, RowHashes};
use super::super::{Row, RowChange, TableDifference};
use super::Result;

/// The maximum length of a value's text, in characters.
const WIDEST: usize = 1000;

/// A table of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Qualified and quoted.
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    /// The names of the primary key's columns.
    pub(super) key: Vec<String>,
    /// The path of its first file in the data directory.
    pub(super) file: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// The name as an SQL identifier.
    pub(super) identifier: String,
    /// Position and type.
    pub(super) definition: String,
}

/// A row's tuple id: block and number.
type TupleId = (u32, u16);

/// Compares the columns that both tables have, and fetches at most `show` rows of each kind.
pub(super) fn compare(
    (before, old): (&mut Client, &Table),
    (after, new): (&mut Client, &Table),
    show: usize,
) -> Result<TableDifference> {
    let old_columns: Vec<_> = old.columns.iter().collect();
    let new_columns: Vec<_> = new.columns.iter().collect();
    let is_shared = |name: &String| old_columns.iter().any(|column| column.name == *name);
    let shared: Vec<_> = new_columns.iter().copied().filter(|column| is_shared(&column.name)).collect();
    let key = match old.key == new.key && new.key.iter().all(is_shared) {
        true => new.key.clone(),
        false => Vec::new(),
    };
    let mut rows = RowComparison::new(show);
    hash_rows(before, &old.name, &key, &shared, |hashes, id| rows.before(hashes, id))?;
    hash_rows(after, &new.name, &key, &shared, |hashes, id| rows.after(hashes, id))?;
    let (removed, rows_removed) = rows.removed();
    let (ids_before, ids_after): (Vec<_>, Vec<_>) = rows.rows_changed.into_iter().unzip();
    let rows_before = fetch(before, &old.name, &shared, &ids_before)?;
    let rows_after = fetch(after, &new.name, &shared, &ids_after)?;
    let pairs = rows_before.into_iter().zip(rows_after);
    Ok(TableDifference {
        table: new.name.clone(),
        key,
        added: rows.added,
        removed,
        changed: rows.changed,
        rows_added: fetch(after, &new.name, &new_columns, &rows.rows_added)?,
        rows_removed: fetch(before, &old.name, &old_columns, &rows_removed)?,
        rows_changed: pairs.map(|(before, after)| RowChange { before, after }).collect(),
    })
}

/// Counts the rows of a table.
pub(super) fn count(client: &mut Client, table: &str) -> Result<u64> {
    let count: i64 = client.query_one(&format!("SELECT count(*) FROM ONLY {table}"), &[])?.get(0);
    Ok(count.unsigned_abs())
}

/// Passes the hashes of each row to `visit`. Without a key the whole row is the key.
fn hash_rows(
    client: &mut Client,
    table: &str,
    key: &[String],
    columns: &[&Column],
    mut visit: impl FnMut(RowHashes, TupleId),
) -> Result<()> {
    let list = |columns: Vec<&&Column>| {
        columns.into_iter().map(|column| column.identifier.as_str()).collect::<Vec<_>>().join(", ")
    };
    let is_key = |column: &&&Column| key.is_empty() || key.contains(&column.name);
    let query = format!(
        "COPY (
            SELECT id, hashtextextended(k, 0), hashtextextended(k, 1), hashtextextended(r, 0), hashtextextended(r, 1)
            FROM (SELECT ctid AS id, ROW({})::text AS k, ROW({})::text AS r FROM ONLY {table}) AS rows
        ) TO STDOUT",
        list(columns.iter().filter(is_key).collect()),
        list(columns.iter().collect())
    );
    for line in BufReader::with_capacity(1 << 20, client.copy_out(&query)?).lines() {
        let line = line?;
        let (hashes, id) = parse(&line).ok_or_else(|| {
            format!("could not compare the rows of {table}: the server returned `{line}`, not a tuple id and hashes")
        })?;
        visit(hashes, id);
    }
    Ok(())
}

/// Parses `(block,number)` and four numbers of 64 bits.
fn parse(line: &str) -> Option<(RowHashes, TupleId)> {
    let mut fields = line.split('\t');
    let (block, number) = fields.next()?.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let mut hash = || {
        let half = |text: &str| text.parse::<i64>().ok().map(|half| u128::from(half.cast_unsigned()));
        Some(half(fields.next()?)? << 64 | half(fields.next()?)?)
    };
    Some((RowHashes { key: hash()?, row: hash()? }, (block.parse().ok()?, number.parse().ok()?)))
}

/// Fetches rows in the order of `ids`.
fn fetch(client: &mut Client, table: &str, columns: &[&Column], ids: &[TupleId]) -> Result<Vec<Row>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let list: Vec<_> = ids.iter().map(|(block, number)| format!("\"({block},{number})\"")).collect();
    let identifiers: String = columns.iter().map(|column| format!(", {}", column.identifier)).collect();
    let query = format!(
        "SELECT ctid{identifiers} FROM ONLY {table} WHERE ctid = ANY ('{{{}}}'::tid[])",
        list.join(",")
    );
    let mut found: HashMap<String, Row> = HashMap::new();
    for message in client.simple_query(&query)? {
        if let SimpleQueryMessage::Row(row) = message {
            let values = columns.iter().enumerate();
            let values = values.map(|(index, column)| (column.name.clone(), row.get(index + 1).map(cut)));
            found.insert(row.get(0).unwrap_or_default().to_owned(), Row(values.collect()));
        }
    }
    let rows = ids.iter().filter_map(|(block, number)| found.remove(&format!("({block},{number})")));
    Ok(rows.collect())
}

fn cut(value: &str) -> String {
    match value.char_indices().nth(WIDEST) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_hashes_is_parsed() {
        let (hashes, id) = parse("(7,12)\t-1\t2\t0\t3").unwrap();
        assert_eq!(id, (7, 12));
        assert_eq!(hashes, RowHashes { key: u128::from(u64::MAX) << 64 | 2, row: 3 });
        for wrong in ["", "(7,12)\t1\t2\t3", "7,12\t1\t2\t3\t4", "(7,12)\t1\t2\t3\tx"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"é".repeat(2000)).chars().count(), WIDEST + 1);
    }
}
