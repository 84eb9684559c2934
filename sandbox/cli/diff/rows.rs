//! Rows of a table on two servers.
//!
//! Each server hashes its rows, and only the hashes come here: about 150 bytes of memory a row of the snapshot's table. Rows are then
//! fetched by their places, as many as are shown.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};

use postgres::{Client, SimpleQueryMessage};

use super::{Row, RowChange, TableDifference};

/// A value as text that is longer is cut.
const WIDEST: usize = 1000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A table as one of the servers has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// With its schema, quoted.
    pub(super) name: String,
    /// Names and types, in their order.
    pub(super) columns: Vec<(String, String)>,
    /// Those of the primary key.
    pub(super) key: Vec<String>,
    /// Where its rows are, in the data directory.
    pub(super) file: Option<String>,
}

/// The hashes of a row's key and of all of it.
type Hashes = (u128, u128);
/// Where a row is in its table: block and number.
type Place = (u32, u16);

/// Rows of the snapshot that have a key, of which there are several only where the key is the whole row.
struct Known {
    row: u128,
    /// That of the first.
    place: Place,
    count: u64,
}

/// The rows that differ, of columns that both tables have; at most `show` of each kind are told in full.
pub(super) fn compare(
    (before, old): (&mut Client, &Table),
    (after, new): (&mut Client, &Table),
    show: usize,
) -> Result<TableDifference> {
    let names = |table: &Table| table.columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let shared: Vec<_> = names(new).into_iter().filter(|name| names(old).contains(name)).collect();
    let key = match old.key == new.key && new.key.iter().all(|column| shared.contains(column)) {
        true => new.key.clone(),
        false => Vec::new(),
    };
    let mut known: HashMap<u128, Known> = HashMap::new();
    hashes(before, &old.name, &key, &shared, |(key, row), place| {
        known.entry(key).or_insert(Known { row, place, count: 0 }).count += 1;
    })?;
    let mut difference = TableDifference { table: new.name.clone(), key, ..TableDifference::default() };
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    hashes(after, &new.name, &difference.key, &shared, |(key, row), place| {
        match known.get_mut(&key).filter(|known| known.count > 0) {
            Some(known) => {
                known.count -= 1;
                if known.row != row {
                    difference.changed += 1;
                    push(&mut changed, (known.place, place), show);
                }
            }
            None => {
                difference.added += 1;
                push(&mut added, place, show);
            }
        }
    })?;
    let removed = known.values().filter(|known| known.count > 0);
    difference.removed = removed.clone().map(|known| known.count).sum();
    let mut removed: Vec<_> = removed.map(|known| known.place).collect();
    removed.sort_unstable();
    removed.truncate(show);
    difference.rows_added = fetch(after, &new.name, &names(new), &added)?;
    difference.rows_removed = fetch(before, &old.name, &names(old), &removed)?;
    let (places, now): (Vec<_>, Vec<_>) = changed.into_iter().unzip();
    let pairs =
        fetch(before, &old.name, &shared, &places)?.into_iter().zip(fetch(after, &new.name, &shared, &now)?);
    difference.rows_changed = pairs.map(|(before, after)| RowChange { before, after }).collect();
    Ok(difference)
}

/// How many rows there are.
pub(super) fn count(client: &mut Client, table: &str) -> Result<u64> {
    let count: i64 = client.query_one(&format!("SELECT count(*) FROM ONLY {table}"), &[])?.get(0);
    Ok(count.unsigned_abs())
}

fn push<T>(list: &mut Vec<T>, item: T, limit: usize) {
    if list.len() < limit {
        list.push(item);
    }
}

/// Tells the hashes of each row. Without a key the row is its own.
fn hashes(
    client: &mut Client,
    table: &str,
    key: &[String],
    columns: &[String],
    mut tell: impl FnMut(Hashes, Place),
) -> Result<()> {
    let key = if key.is_empty() { columns } else { key };
    let query = format!(
        "COPY (
            SELECT place, hashtextextended(k, 0), hashtextextended(k, 1), hashtextextended(r, 0), hashtextextended(r, 1)
            FROM (SELECT ctid AS place, ROW({})::text AS k, ROW({})::text AS r FROM ONLY {table}) AS rows
        ) TO STDOUT",
        quoted(key),
        quoted(columns)
    );
    for line in BufReader::with_capacity(1 << 20, client.copy_out(&query)?).lines() {
        let line = line?;
        let (hashes, place) =
            parse(&line).ok_or_else(|| format!("`{line}` is no place of a row and its hashes"))?;
        tell(hashes, place);
    }
    Ok(())
}

/// `(block,number)`, and four numbers of 64 bits.
fn parse(line: &str) -> Option<(Hashes, Place)> {
    let mut fields = line.split('\t');
    let (block, number) = fields.next()?.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let mut hash = || {
        let half = |text: &str| text.parse::<i64>().ok().map(|half| u128::from(half.cast_unsigned()));
        Some(half(fields.next()?)? << 64 | half(fields.next()?)?)
    };
    Some(((hash()?, hash()?), (block.parse().ok()?, number.parse().ok()?)))
}

/// Those rows, in that order.
fn fetch(client: &mut Client, table: &str, columns: &[String], places: &[Place]) -> Result<Vec<Row>> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let list: Vec<_> = places.iter().map(|(block, number)| format!("\"({block},{number})\"")).collect();
    let columns_after = columns.iter().map(|column| format!(", {}", identifier(column))).collect::<String>();
    let query = format!(
        "SELECT ctid{columns_after} FROM ONLY {table} WHERE ctid = ANY ('{{{}}}'::tid[])",
        list.join(",")
    );
    let mut found: HashMap<String, Row> = HashMap::new();
    for message in client.simple_query(&query)? {
        if let SimpleQueryMessage::Row(row) = message {
            let values = columns.iter().enumerate();
            let values = values.map(|(index, column)| (column.clone(), row.get(index + 1).map(cut)));
            found.insert(row.get(0).unwrap_or_default().to_owned(), Row(values.collect()));
        }
    }
    let rows = places.iter().filter_map(|(block, number)| found.remove(&format!("({block},{number})")));
    Ok(rows.collect())
}

fn cut(value: &str) -> String {
    match value.char_indices().nth(WIDEST) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value.to_owned(),
    }
}

fn quoted(columns: &[String]) -> String {
    columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ")
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_hashes_is_read() {
        let (hashes, place) = parse("(7,12)\t-1\t2\t0\t3").unwrap();
        assert_eq!(place, (7, 12));
        assert_eq!(hashes, (u128::from(u64::MAX) << 64 | 2, 3));
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
