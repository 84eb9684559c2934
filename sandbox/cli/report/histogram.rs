//! Draws the distribution of start times.

use maud::{Markup, html};

use super::figures::Quantiles;
use super::geometry::px;
use super::timeline::{Bar, Timeline};
use crate::units;

const WIDTH: f64 = 520.0;
const LEFT: f64 = 36.0;
const PLOT: f64 = WIDTH - LEFT - 12.0;
const TOP: f64 = 22.0;
const HEIGHT: f64 = 150.0;
/// The maximum number of bins, without the overflow bin.
const BINS: u64 = 45;

/// Draws how many sandboxes started within each span of time. The last bin counts the outliers.
pub(super) fn draw(run: &Timeline<'_>, start: Quantiles) -> Markup {
    // One start that waited for a layer must not squeeze all others into one bin.
    let reach = start.p99_us.min(start.median_us.saturating_mul(4)).max(1);
    let width = units::step(reach, BINS);
    let last = reach / width + 1;
    let mut bins = vec![0; last as usize + 1];
    for start in run.bars.iter().filter_map(Bar::start) {
        bins[(start / width).min(last) as usize] += 1;
    }
    let highest = bins.iter().copied().max().unwrap_or_default().max(1);
    let bin = PLOT / bins.len() as f64;
    let x = |time: u64| LEFT + time as f64 / width as f64 * bin;
    let y = |count: usize| TOP + HEIGHT - count as f64 / highest as f64 * HEIGHT;
    let (rise, step) = (units::count_step(highest, 4), units::step(width * last, 6).next_multiple_of(width));
    html! {
        svg class="chart" viewBox=(format!("0 0 {WIDTH} {}", px(TOP + HEIGHT + 26.0))) role="img" aria-label="distribution of start times" {
            @for count in (0..=highest / rise).map(|number| number * rise) {
                path class="grid" d=(format!("M{} {}h{}", px(LEFT), px(y(count)), px(PLOT))) {}
                text class="tick end-of-line" x=(px(LEFT - 7.0)) y=(px(y(count) + 4.0)) { (count) }
            }
            @for (number, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
                @let from = number as u64 * width;
                rect class=(if number as u64 == last { "outliers" } else { "bin" })
                    x=(px(LEFT + number as f64 * bin + 0.7)) y=(px(y(*count)))
                    width=(px(bin - 1.4)) height=(px(TOP + HEIGHT - y(*count))) rx="1.5" {
                    title { (tooltip(*count, from, (number as u64 != last).then_some(from + width))) }
                }
            }
            @for time in (0..=width * last / step).map(|number| number * step) {
                text class="tick" x=(px(x(time))) y=(px(TOP + HEIGHT + 16.0)) { (units::tick(time, step)) }
            }
            (mark(start.median_us, "median", x(start.median_us)))
        }
    }
}

fn mark(time: u64, name: &str, x: f64) -> Markup {
    html! {
        path class="mark" d=(format!("M{} {}V{}", px(x), px(TOP - 6.0), px(TOP + HEIGHT))) {}
        text class="label" x=(px(x + 5.0)) y=(px(TOP - 4.0)) { (name) " " (units::duration(time)) }
    }
}

fn tooltip(count: usize, from: u64, to: Option<u64>) -> String {
    let sandboxes = units::counted(count, "sandbox", "sandboxes");
    match to {
        Some(to) => format!("{sandboxes} in {} to {}", units::duration(from), units::duration(to)),
        None => format!("{sandboxes} in {} or more", units::duration(from)),
    }
}
