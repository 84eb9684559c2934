//! Definitions and sequences of two states, compared.

use std::collections::BTreeMap;

use super::{ObjectChange, SequenceChange};

/// Definitions by kind and name.
pub(super) type Objects = BTreeMap<(String, String), String>;
/// Last values by the sequence's name.
pub(super) type Sequences = BTreeMap<String, Option<i64>>;

/// Returns the definitions that are in one state only, or differ.
pub(super) fn object_changes(mut before: Objects, after: Objects) -> Vec<ObjectChange> {
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

/// Returns the sequences of both states whose last values differ. A sequence of one state only is
/// an object change.
pub(super) fn sequence_changes(before: &Sequences, after: Sequences) -> Vec<SequenceChange> {
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
        let found: Vec<_> = object_changes(before, after)
            .into_iter()
            .map(|change| (change.name, change.before.is_some(), change.after.is_some()))
            .collect();
        assert_eq!(found, [("b".into(), true, true), ("c".into(), true, false), ("d".into(), false, true)]);
    }

    #[test]
    fn sequences_of_both_states_are_compared() {
        let values = |list: &[(&str, Option<i64>)]| {
            list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<Sequences>()
        };
        let before = values(&[("a", Some(1)), ("b", None), ("gone", None)]);
        let after = values(&[("a", Some(1)), ("b", Some(3)), ("new", Some(1))]);
        let changes = sequence_changes(&before, after);
        assert_eq!(changes, [SequenceChange { name: "b".into(), before: None, after: Some(3) }]);
    }
}
