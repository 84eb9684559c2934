//! Rows of a table in two states, compared by their hashes.
//!
//! The hashes of the snapshot's rows are held in memory, about 150 bytes a row; the hashes of the
//! other state stream by.

use std::collections::HashMap;

/// The hashes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowHashes {
    /// The hash of the primary key; of the whole row where there is none.
    pub(super) key: u128,
    pub(super) row: u128,
}

/// Compares the rows of two states. `L` locates a row in its state.
#[derive(Debug)]
pub(super) struct RowComparison<L> {
    /// Rows of the snapshot that have no counterpart yet, by the hash of their key.
    unmatched: HashMap<u128, Unmatched<L>>,
    /// The maximum number of rows to show of each kind.
    show: usize,
    pub(super) added: u64,
    pub(super) changed: u64,
    pub(super) rows_added: Vec<L>,
    /// Locations before and after.
    pub(super) rows_changed: Vec<(L, L)>,
}

/// Rows with the same key hash; more than one only where the key is the whole row.
#[derive(Debug)]
struct Unmatched<L> {
    row: u128,
    /// The location of the first of them.
    location: L,
    count: u64,
}

impl<L: Copy + Ord> RowComparison<L> {
    pub(super) fn new(show: usize) -> Self {
        let (rows_added, rows_changed) = (Vec::new(), Vec::new());
        Self { unmatched: HashMap::new(), show, added: 0, changed: 0, rows_added, rows_changed }
    }

    /// Adds a row of the snapshot. All of them come before the first row of the other state.
    pub(super) fn before(&mut self, RowHashes { key, row }: RowHashes, location: L) {
        self.unmatched.entry(key).or_insert(Unmatched { row, location, count: 0 }).count += 1;
    }

    /// Compares a row of the other state.
    pub(super) fn after(&mut self, RowHashes { key, row }: RowHashes, location: L) {
        match self.unmatched.get_mut(&key).filter(|unmatched| unmatched.count > 0) {
            Some(unmatched) => {
                unmatched.count -= 1;
                if unmatched.row != row {
                    self.changed += 1;
                    if self.rows_changed.len() < self.show {
                        self.rows_changed.push((unmatched.location, location));
                    }
                }
            }
            None => {
                self.added += 1;
                if self.rows_added.len() < self.show {
                    self.rows_added.push(location);
                }
            }
        }
    }

    /// Returns the number of removed rows, and the locations of the first of them.
    pub(super) fn removed(&self) -> (u64, Vec<L>) {
        let removed = self.unmatched.values().filter(|unmatched| unmatched.count > 0);
        let mut locations: Vec<_> = removed.clone().map(|unmatched| unmatched.location).collect();
        locations.sort_unstable();
        locations.truncate(self.show);
        (removed.map(|unmatched| unmatched.count).sum(), locations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(before: &[(u128, u128)], after: &[(u128, u128)]) -> RowComparison<usize> {
        let mut comparison = RowComparison::new(2);
        let hashes = |&(key, row): &(u128, u128)| RowHashes { key, row };
        before.iter().enumerate().for_each(|(at, row)| comparison.before(hashes(row), at));
        after.iter().enumerate().for_each(|(at, row)| comparison.after(hashes(row), at));
        comparison
    }

    #[test]
    fn rows_are_matched_by_their_keys() {
        let found = compare(&[(1, 1), (2, 2), (3, 3)], &[(4, 4), (3, 30), (1, 1)]);
        assert_eq!((found.added, &*found.rows_added), (1, &[0][..]));
        assert_eq!((found.changed, &*found.rows_changed), (1, &[(2, 1)][..]));
        assert_eq!(found.removed(), (1, vec![1]));
    }

    #[test]
    fn equal_rows_are_counted() {
        let found = compare(&[(1, 1), (1, 1), (1, 1)], &[(1, 1)]);
        assert_eq!((found.added, found.changed, found.removed()), (0, 0, (2, vec![0])));
        let found = compare(&[(1, 1)], &[(1, 1), (1, 1), (1, 1), (1, 1)]);
        assert_eq!((found.added, &*found.rows_added), (3, &[1, 2][..]));
    }
}
