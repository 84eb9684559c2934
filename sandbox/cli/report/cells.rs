//! The lanes of a run that is too large to show each sandbox: cells in the colour of what took most of their time.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::bars::class;
use super::figures::Quantiles;
use super::picture::{LEFT, PLOT, px};
use super::run::{Bar, Fate, Run};
use super::units;

/// How many cells there are at most, and how many in a row.
const MOST_CELLS: usize = 40_000;
const MOST_COLUMNS: usize = 568;
/// Into how many parts the run is divided for what shows under the pointer.
const PARTS: usize = 142;
/// How many failed tests such a part names.
const NAMED: usize = 5;

/// The time that each class takes in a cell.
type Cell = BTreeMap<&'static str, u64>;

pub(super) fn draw(
    run: &Run<'_>,
    lanes: &[usize],
    count: usize,
    rows: usize,
    top: f64,
    height: f64,
) -> Markup {
    let columns = (MOST_CELLS / rows).min(MOST_COLUMNS);
    let width = PLOT / columns as f64;
    let cells = fill(run, lanes, count, rows, columns);
    let gap = (height / 8.0).clamp(0.4, 2.0);
    let mut paths = BTreeMap::<(&str, u8), String>::new();
    // How long all lanes of a row last in a column.
    let whole = run.span as f64 / columns as f64 * (count as f64 / rows as f64);
    for (row, cells) in cells.chunks(columns).enumerate() {
        let looks: Vec<_> = cells.iter().map(|cell| look(cell, whole)).collect();
        let mut column = 0;
        for alike in looks.chunk_by(|a, b| a == b) {
            if let Some(look) = alike[0] {
                let (x, y) = (LEFT + column as f64 * width, top + row as f64 * height);
                let (length, height) = (px(alike.len() as f64 * width), px(height - gap));
                let path = paths.entry(look).or_default();
                path.push_str(&format!("M{} {}h{length}v{height}h-{length}z", px(x), px(y)));
            }
            column += alike.len();
        }
    }
    html! {
        @for ((class, strength), d) in paths {
            path class=(class) fill-opacity=(format!("{:.2}", f64::from(strength) / 4.0)) d=(d) {}
        }
        (parts(run, top, rows as f64 * height))
    }
}

/// Rows of cells; several lanes share a row where there are more lanes than rows.
fn fill(run: &Run<'_>, lanes: &[usize], count: usize, rows: usize, columns: usize) -> Vec<Cell> {
    let mut cells = vec![Cell::new(); rows * columns];
    let begin_of = |column: usize| (column as u128 * u128::from(run.span) / columns as u128) as u64;
    for (bar, lane) in run.bars.iter().zip(lanes) {
        let row = lane * rows / count.max(rows);
        for segment in &bar.segments {
            let class = class(bar.fate, segment.phase);
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

/// The class of a cell and how strong it is, in quarters; none where hardly anything is.
fn look(cell: &Cell, whole: f64) -> Option<(&'static str, u8)> {
    let taken: u64 = cell.values().sum();
    let share = taken as f64 / whole;
    let (class, _) = cell.iter().max_by_key(|(class, time)| {
        // Red is what is looked for.
        (**class == "failed" && **time * 20 > taken, **time)
    })?;
    (share > 0.02).then_some((class, (share * 4.0).ceil().clamp(1.0, 4.0) as u8))
}

/// What is shown under the pointer: of those that were asked for in a part of the run.
fn parts(run: &Run<'_>, top: f64, height: f64) -> Markup {
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
                title { (told(number as u64 * length, length, bars)) }
            }
        }
    }
}

fn told(begin: u64, length: u64, bars: &[&Bar<'_>]) -> String {
    let from = units::duration(begin);
    let mut text = format!(
        "{} asked for within {} from {from} on",
        units::counted(bars.len(), "sandbox", "sandboxes"),
        units::duration(length)
    );
    if let Some(start) = Quantiles::of(bars.iter().filter_map(|bar| bar.start())) {
        let (median, longest) = (units::duration(start.median_us), units::duration(start.longest_us));
        text.push_str(&format!("\nstarted in {median} (median), {longest} (slowest)"));
    }
    let failed: Vec<_> = bars.iter().filter(|bar| bar.fate == Fate::Failed).collect();
    for bar in failed.iter().take(NAMED) {
        text.push_str(&format!("\nfailed: {}", units::printable(bar.name())));
    }
    if failed.len() > NAMED {
        text.push_str(&format!("\nand {} more failed", failed.len() - NAMED));
    }
    text
}
