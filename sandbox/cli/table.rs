//! A table of text.

use std::ops::Range;

/// A table whose columns in `numbers` are aligned to the right.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) head: Vec<&'static str>,
    pub(super) numbers: Range<usize>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const N: usize>(
        head: [&'static str; N],
        numbers: Range<usize>,
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Self {
        Self { head: head.into(), numbers, rows: rows.into_iter().collect() }
    }

    pub(super) fn drop_column(&mut self, name: &str) {
        if let Some(column) = self.head.iter().position(|head| *head == name) {
            self.head.remove(column);
            self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
        }
    }

    pub(super) fn drop_empty_columns(&mut self) {
        for column in (0..self.head.len()).rev() {
            if self.rows.iter().all(|row| row[column].is_empty()) {
                self.drop_column(self.head[column]);
            }
        }
    }

    /// Renders the table with aligned columns and a margin on the left.
    pub(super) fn text(&self, margin: &str) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.head[column].chars().count()]).max().unwrap_or_default()
        };
        let widths: Vec<_> = (0..self.head.len()).map(width).collect();
        let line = |cells: Vec<&str>| {
            let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if self.numbers.contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
            format!("{margin}{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        let rows = self.rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
        [line(self.head.clone())].into_iter().chain(rows).collect()
    }
}
