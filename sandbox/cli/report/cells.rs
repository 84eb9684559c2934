//! Draws the lanes of a large run: cells, coloured by the phases that fill their time.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::figures::Quantiles;
use super::geometry::{LEFT, PLOT, gap, px, rectangle};
use super::timeline::{Bar, Status, Timeline};
use crate::units;

/// The maximum number of cells, and the number in a row: one for every second pixel, or wider cells
/// of several colours.
const MOST_CELLS: usize = 40_000;
const PLAIN_COLUMNS: usize = 568;
const STACKED_COLUMNS: usize = 189;
/// The minimum height of rows whose cells stack several colours.
const LOWEST_STACKED: f64 = 9.0;
/// The number of parts of the run with a tooltip.
const PARTS: usize = 142;
/// The number of failed tests that a tooltip names.
const NAMED: usize = 5;

/// The time of each class in a cell.
type Cell = BTreeMap<&'static str, u64>;
/// The path of each class and opacity, which is in quarters.
type Paths = BTreeMap<(&'static str, u8), String>;

pub(super) fn draw(
    run: &Timeline<'_>,
    lanes: &[usize],
    count: usize,
    rows: usize,
    top: f64,
    height: f64,
) -> Markup {
    let stacked = height >= LOWEST_STACKED;
    let columns = if stacked { STACKED_COLUMNS } else { PLAIN_COLUMNS }.min(MOST_CELLS / rows);
    let cells = fill(run, lanes, count, rows, columns);
    let gap = gap(height);
    // The time of all lanes of a row in a column.
    let whole = run.span as f64 / columns as f64 * (count as f64 / rows as f64);
    let mut paths = Paths::new();
    for (row, cells) in cells.chunks(columns).enumerate() {
        let y = top + row as f64 * height;
        if stacked {
            stack(&mut paths, cells, whole, y, height - gap);
        } else {
            paint(&mut paths, cells, whole, y, height - gap);
        }
    }
    html! {
        @for ((class, strength), d) in paths {
            path class=(class) shape-rendering="crispEdges" fill-opacity=(f64::from(strength) / 4.0) d=(d) {}
        }
        (parts(run, top, rows as f64 * height))
    }
}

/// Draws each cell with all of its colours stacked by their shares of its time, the test at the
/// bottom.
fn stack(paths: &mut Paths, cells: &[Cell], whole: f64, y: f64, height: f64) {
    let width = PLOT / cells.len() as f64;
    for (column, cell) in cells.iter().enumerate() {
        let mut bottom = y + height;
        let mut classes: Vec<_> = cell.iter().collect();
        classes.sort_by_key(|(class, _)| (**class != "failed", **class != "test", **class));
        for (class, time) in classes {
            let share = *time as f64 / whole * height;
            if share >= 0.1 {
                bottom -= share;
                let path = paths.entry((class, 4)).or_default();
                path.push_str(&rectangle(LEFT + column as f64 * width, bottom, width, share));
            }
        }
    }
}

/// Draws each cell in the colour of its largest share, stronger the more of the cell is filled.
fn paint(paths: &mut Paths, cells: &[Cell], whole: f64, y: f64, height: f64) {
    let width = PLOT / cells.len() as f64;
    let looks: Vec<_> = cells.iter().map(|cell| look(cell, whole)).collect();
    let mut column = 0;
    for alike in looks.chunk_by(|a, b| a == b) {
        if let Some(look) = alike[0] {
            let length = alike.len() as f64 * width;
            let path = paths.entry(look).or_default();
            path.push_str(&rectangle(LEFT + column as f64 * width, y, length, height));
        }
        column += alike.len();
    }
}

/// Returns rows of cells. Several lanes share a row where there are more lanes than rows.
fn fill(run: &Timeline<'_>, lanes: &[usize], count: usize, rows: usize, columns: usize) -> Vec<Cell> {
    let mut cells = vec![Cell::new(); rows * columns];
    let begin_of = |column: usize| (column as u128 * u128::from(run.span) / columns as u128) as u64;
    for (bar, lane) in run.bars.iter().zip(lanes) {
        let row = lane * rows / count.max(rows);
        for segment in &bar.segments {
            let class = bar.class(segment.phase);
            let first = (u128::from(segment.begin) * columns as u128 / u128::from(run.span)) as usize;
            for column in first..columns {
                let (begin, end) =
                    (segment.begin.max(begin_of(column)), segment.end.min(begin_of(column + 1)));
                if begin >= segment.end {
                    break;
                }
                *cells[row * columns + column].entry(class).or_default() += end.saturating_sub(begin);
            }
        }
    }
    cells
}

/// Returns the class and the opacity of a cell, in quarters; `None` for a nearly empty cell.
fn look(cell: &Cell, whole: f64) -> Option<(&'static str, u8)> {
    let taken: u64 = cell.values().sum();
    let share = taken as f64 / whole;
    let (class, _) = cell.iter().max_by_key(|(class, time)| {
        // A failure must not be hidden by passed tests.
        (**class == "failed" && **time * 20 > taken, **time)
    })?;
    (share > 0.02).then_some((class, (share * 4.0).ceil().clamp(1.0, 4.0) as u8))
}

/// Draws transparent parts whose tooltips describe the sandboxes requested in that time.
fn parts(run: &Timeline<'_>, top: f64, height: f64) -> Markup {
    let width = PLOT / PARTS as f64;
    let length = run.span.div_ceil(PARTS as u64).max(1);
    let mut parts: Vec<Vec<&Bar<'_>>> = vec![Vec::new(); PARTS];
    for bar in &run.bars {
        parts[((bar.begin / length) as usize).min(PARTS - 1)].push(bar);
    }
    html! {
        @for (number, bars) in parts.iter().enumerate().filter(|(_, bars)| !bars.is_empty()) {
            @let x = LEFT + number as f64 * width;
            rect class="part" x=(px(x)) y=(px(top)) width=(px(width)) height=(px(height)) {
                title { (tooltip(number as u64 * length, length, bars)) }
            }
        }
    }
}

fn tooltip(begin: u64, length: u64, bars: &[&Bar<'_>]) -> String {
    let from = units::duration(begin);
    let mut text = format!(
        "{} requested within {} from {from} on",
        units::counted(bars.len(), "sandbox", "sandboxes"),
        units::duration(length)
    );
    if let Some(start) = Quantiles::of(bars.iter().filter_map(|bar| bar.start())) {
        let (median, longest) = (units::duration(start.median_us), units::duration(start.longest_us));
        text.push_str(&format!("\nstarted in {median} (median), {longest} (slowest)"));
    }
    let failed: Vec<_> = bars.iter().filter(|bar| bar.status == Status::Failed).collect();
    for bar in failed.iter().take(NAMED) {
        text.push_str(&format!("\nfailed: {}", units::printable(bar.name())));
    }
    if failed.len() > NAMED {
        text.push_str(&format!("\nand {} more failed", failed.len() - NAMED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::lanes;
    use super::super::timeline::tests::{record, timeline};
    use super::*;

    #[test]
    fn a_picture_of_thousands_stays_small() {
        for (records, most) in [(3000, 1), (3000, 16), (3000, 3000)] {
            let records: Vec<_> = (0..records).map(|number| record(number / most * 7_000, 7)).collect();
            let run = timeline(&records.iter().collect::<Vec<_>>());
            let (lanes, count) = lanes::pack(run.bars.iter().map(|bar| (bar.begin, bar.end)));
            assert_eq!(count as u64, most);
            for height in [3.0, 20.0] {
                let drawn = draw(&run, &lanes, count, count.min(160), 0.0, height).into_string();
                assert!(drawn.len() < 1_000_000, "{most} at a time: {} bytes", drawn.len());
                assert!(drawn.contains("class=\"test\""), "{most} at a time");
            }
        }
    }

    #[test]
    fn a_failure_shows_among_many_tests() {
        let cell = Cell::from([("failed", 10), ("test", 90)]);
        assert_eq!(look(&cell, 100.0), Some(("failed", 4)));
        assert_eq!(look(&Cell::from([("test", 30)]), 100.0), Some(("test", 2)));
        assert_eq!(look(&Cell::from([("test", 1)]), 100.0), None);
        assert_eq!(look(&Cell::new(), 100.0), None);
    }
}
