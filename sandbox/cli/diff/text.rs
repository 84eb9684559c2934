//! Renders a difference as text.

use sandboxed_db::cache::KeptState;
use similar::{ChangeTag, TextDiff};

use super::{
    Change, DatabaseDifference, Difference, ObjectChange, Row, RowChange, SequenceChange, TableDifference,
};

/// The maximum length of a value, in characters.
const WIDEST: usize = 60;

pub(super) fn render(state: &KeptState, difference: &Difference) -> String {
    let mut text = format!("{}, since its snapshot:\n", difference.name);
    if !state.clean {
        text.push_str("the server had died or hung: writes that it had not completed are missing\n");
    }
    if difference.is_empty() {
        text.push_str(&format!("no changes ({} tables compared)\n", difference.tables_compared));
        return text;
    }
    difference.server.iter().for_each(|change| object(change, "", &mut text));
    difference.databases.iter().for_each(|found| database(found, &mut text));
    text
}

fn database(difference: &DatabaseDifference, text: &mut String) {
    let DatabaseDifference { database, change, objects, sequences, tables } = difference;
    text.push_str(&match change {
        Change::Added => format!("+ database {database}\n"),
        Change::Removed => format!("- database {database}\n"),
        Change::Changed => format!("database {database}\n"),
    });
    objects.iter().for_each(|change| object(change, "  ", text));
    for SequenceChange { name, before, after } in sequences {
        let value = |value: &Option<i64>| value.map_or("unused".to_owned(), |value| value.to_string());
        text.push_str(&format!("  ~ sequence {name}: {} -> {}\n", value(before), value(after)));
    }
    tables.iter().for_each(|found| table(found, text));
}

/// Renders an added object with its definition, a removed one by its name, a changed one by its
/// changed lines.
fn object(change: &ObjectChange, margin: &str, text: &mut String) {
    let ObjectChange { kind, name, before, after } = change;
    let mark = match (before, after) {
        (None, _) => '+',
        (_, None) => '-',
        _ => '~',
    };
    text.push_str(&format!("{margin}{mark} {kind} {name}\n"));
    let Some(after) = after else { return };
    let before: Vec<_> = before.iter().flat_map(|before| before.lines()).collect();
    let after: Vec<_> = after.lines().collect();
    for line in TextDiff::from_slices(&before, &after).iter_all_changes() {
        let mark = match line.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => continue,
        };
        if !line.value().trim().is_empty() {
            text.push_str(&format!("{margin}    {mark} {}\n", line.value().trim_end()));
        }
    }
}

fn table(difference: &TableDifference, text: &mut String) {
    let TableDifference { table, key, added, removed, changed, rows_added, rows_removed, rows_changed } =
        difference;
    let counts = [(added, "added"), (removed, "removed"), (changed, "changed")];
    let counts =
        counts.iter().filter(|(count, _)| **count > 0).map(|(count, what)| format!("{count} {what}"));
    text.push_str(&format!("  rows of {table}: {}\n", counts.collect::<Vec<_>>().join(", ")));
    let mut list = |mark, lines: Vec<String>, of: u64| {
        let more = of - lines.len() as u64;
        lines.iter().for_each(|line| text.push_str(&format!("    {mark} {line}\n")));
        if more > 0 && !lines.is_empty() {
            text.push_str(&format!("    {mark} … {more} more\n"));
        }
    };
    list('+', rows_added.iter().map(row).collect(), *added);
    list('-', rows_removed.iter().map(row).collect(), *removed);
    list('~', rows_changed.iter().map(|change| row_change(key, change)).collect(), *changed);
}

fn row(Row(values): &Row) -> String {
    let values = values.iter().map(|(column, value)| format!("{column}={}", shown(value.as_deref())));
    values.collect::<Vec<_>>().join(" ")
}

/// Renders the key and the changed columns.
fn row_change(key: &[String], RowChange { before, after }: &RowChange) -> String {
    let parts = after.0.iter().filter_map(|(column, now)| {
        let then = before.0.iter().find(|(other, _)| other == column).and_then(|(_, value)| value.as_ref());
        let now = now.as_ref();
        if key.contains(column) {
            return Some(format!("{column}={}", shown(now.map(String::as_str))));
        }
        let (then, now) = (then.map(String::as_str), now.map(String::as_str));
        (then != now).then(|| format!("{column}: {} -> {}", shown(then), shown(now)))
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// Shortens a value and puts it on one line.
fn shown(value: Option<&str>) -> String {
    let Some(value) = value else { return "null".to_owned() };
    let cut = match value.char_indices().nth(WIDEST) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value.to_owned(),
    };
    let plain =
        !cut.is_empty() && cut != "null" && !cut.contains(|c: char| c.is_whitespace() || c.is_control());
    if plain { cut } else { format!("{cut:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(values: &[(&str, Option<&str>)]) -> Row {
        Row(values.iter().map(|(column, value)| ((*column).to_owned(), value.map(str::to_owned))).collect())
    }

    #[test]
    fn a_changed_row_shows_its_key_and_changed_columns() {
        let before = row_of(&[("id", Some("3")), ("name", Some("a")), ("note", None)]);
        let after = row_of(&[("id", Some("3")), ("name", Some("a")), ("note", Some("to be  read"))]);
        let text = row_change(&["id".to_owned()], &RowChange { before, after });
        assert_eq!(text, "id=3 note: null -> \"to be  read\"");
    }

    #[test]
    fn a_value_is_shortened_to_one_line() {
        assert_eq!(shown(Some("a\nb")), "\"a\\nb\"");
        assert_eq!(shown(Some("null")), "\"null\"");
        assert_eq!(shown(None), "null");
        assert_eq!(shown(Some(&"x".repeat(100))).chars().count(), WIDEST + 1);
    }

    #[test]
    fn a_changed_definition_shows_its_changed_lines() {
        let change = ObjectChange {
            kind: "table".into(),
            name: "t".into(),
            before: Some("id integer\nowner postgres".into()),
            after: Some("id bigint\nowner postgres".into()),
        };
        let mut text = String::new();
        object(&change, "", &mut text);
        assert_eq!(text, "~ table t\n    - id integer\n    + id bigint\n");
    }

    #[test]
    fn omitted_rows_are_counted() {
        let rows_added = vec![row_of(&[("id", Some("1"))])];
        let difference =
            TableDifference { table: "t".into(), added: 3, removed: 1, rows_added, ..Default::default() };
        let mut text = String::new();
        table(&difference, &mut text);
        assert_eq!(text, "  rows of t: 3 added, 1 removed\n    + id=1\n    + … 2 more\n");
    }
}
