//! Definitions, as PostgreSQL's catalogues have them, and how two of them differ.

use std::collections::BTreeMap;

use postgres::{Client, SimpleQueryMessage};

use super::{ObjectChange, SequenceChange};

/// Definitions, by kind and name.
pub(super) type Objects = BTreeMap<(String, String), String>;

const OBJECTS: &str = include_str!("objects.sql");
const SERVER: &str = include_str!("server.sql");

/// What the client's database defines.
pub(super) fn objects(client: &mut Client) -> Result<Objects, postgres::Error> {
    read(client, OBJECTS)
}

/// What belongs to the server as a whole.
pub(super) fn of_server(client: &mut Client) -> Result<Objects, postgres::Error> {
    read(client, SERVER)
}

fn read(client: &mut Client, query: &str) -> Result<Objects, postgres::Error> {
    let rows = client.simple_query(query)?;
    let objects = rows.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let text = |column| row.get(column).unwrap_or_default().trim_end().to_owned();
            Some(((text(0), text(1)), text(2)))
        }
        _ => None,
    });
    Ok(objects.collect())
}

/// The last values of all sequences, by name.
pub(super) fn sequences(client: &mut Client) -> Result<BTreeMap<String, Option<i64>>, postgres::Error> {
    const QUERY: &str = "SELECT format('%I.%I', schemaname, sequencename), last_value FROM pg_sequences";
    Ok(client.query(QUERY, &[])?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// What is in only one of both, or defined otherwise.
pub(super) fn changes(mut before: Objects, after: Objects) -> Vec<ObjectChange> {
    let mut changes = Vec::new();
    for ((kind, name), after) in after {
        let key = (kind, name);
        let before = before.remove(&key);
        if before.as_ref() != Some(&after) {
            changes.push(ObjectChange { kind: key.0, name: key.1, before, after: Some(after) });
        }
    }
    let removed = before.into_iter().map(|((kind, name), before)| ObjectChange {
        kind,
        name,
        before: Some(before),
        after: None,
    });
    changes.extend(removed);
    changes.sort_by(|one, other| (&one.name, &one.kind).cmp(&(&other.name, &other.kind)));
    changes
}

/// Sequences of both that gave out other values. Those of one only are told as objects.
pub(super) fn sequence_changes(
    before: &BTreeMap<String, Option<i64>>,
    after: BTreeMap<String, Option<i64>>,
) -> Vec<SequenceChange> {
    let changed = after.into_iter().filter_map(|(name, after)| {
        let before = *before.get(&name)?;
        (before != after).then_some(SequenceChange { name, before, after })
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(list: &[(&str, &str, &str)]) -> Objects {
        list.iter()
            .map(|(kind, name, text)| ((kind.to_string(), name.to_string()), text.to_string()))
            .collect()
    }

    #[test]
    fn objects_are_added_removed_and_changed() {
        let before = objects(&[("table", "a", "x"), ("table", "b", "x"), ("index", "c", "x")]);
        let after = objects(&[("table", "a", "x"), ("table", "b", "y"), ("view", "d", "")]);
        let told: Vec<_> = changes(before, after)
            .into_iter()
            .map(|change| (change.name, change.before.is_some(), change.after.is_some()))
            .collect();
        assert_eq!(told, [("b".into(), true, true), ("c".into(), true, false), ("d".into(), false, true)]);
    }

    #[test]
    fn sequences_are_compared_where_both_are_there() {
        let values = |list: &[(&str, Option<i64>)]| {
            list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<BTreeMap<_, _>>()
        };
        let before = values(&[("a", Some(1)), ("b", None), ("gone", None)]);
        let after = values(&[("a", Some(1)), ("b", Some(3)), ("new", Some(1))]);
        let changes = sequence_changes(&before, after);
        assert_eq!(changes, [SequenceChange { name: "b".into(), before: None, after: Some(3) }]);
    }
}
