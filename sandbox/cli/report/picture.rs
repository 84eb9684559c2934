//! The frame of a picture: where times and lanes lie, the axes, the legend.

use maud::{Markup, PreEscaped, html};

use super::census::Census;
use super::phase::Phase;
use super::run::{Fate, Run};
use super::{bars, cells, lanes, units};

/// In pixels of the picture, which is scaled to its place.
pub(super) const WIDTH: f64 = 1200.0;
pub(super) const LEFT: f64 = 48.0;
pub(super) const RIGHT: f64 = 16.0;
pub(super) const PLOT: f64 = WIDTH - LEFT - RIGHT;
/// The parts of the chart of living sandboxes.
pub(super) const COLUMNS: usize = 568;
pub(super) const STYLE: &str = include_str!("picture.css");

const AREA: f64 = 84.0;
/// More lanes than that are drawn as a whole, as are more sandboxes: a page must stay one that can be opened.
const MOST_LANES: usize = 160;
const MOST_BARS: usize = 2500;
/// How high all lanes are to be together, and each at most and at least.
const LANES: f64 = 480.0;
const HIGHEST_LANE: f64 = 22.0;
const LOWEST_LANE: f64 = 3.0;

/// From times to pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    span: u64,
}

impl Scale {
    pub(super) fn x(self, time: u64) -> f64 {
        LEFT + time as f64 / self.span as f64 * PLOT
    }
}

/// The whole timeline; `title` stands above it where nothing else tells what it is.
pub(super) fn timeline(run: &Run<'_>, census: &[Census], title: Option<(&str, &str)>) -> Markup {
    let scale = Scale { span: run.span };
    let (lanes, count) = lanes::pack(run.bars.iter().map(|bar| (bar.begin, bar.end)));
    let aggregated = count > MOST_LANES || run.bars.len() > MOST_BARS;
    let rows = count.clamp(1, MOST_LANES);
    let height = (LANES / rows as f64).clamp(LOWEST_LANE, HIGHEST_LANE);
    let legend = if title.is_some() { 78.0 } else { 14.0 };
    let area = legend + 26.0;
    let flags = area + AREA + 14.0;
    let top = flags + 12.0;
    let bottom = top + rows as f64 * height + 4.0;
    let total = bottom + 28.0;
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {}", px(total)))
            role="img" aria-label="timeline of the run's sandboxes" {
            style { (PreEscaped(STYLE)) }
            rect class="paper" width=(WIDTH) height=(px(total)) {}
            @if let Some((title, subtitle)) = title {
                text class="title" x="16" y="32" { (title) }
                text class="subtitle" x="16" y="53" { (subtitle) }
            }
            (draw_legend(run, legend))
            (time_axis(scale, area, bottom))
            (draw_area(census, area))
            (draw_flags(run, scale, flags))
            @if aggregated {
                (cells::draw(run, &lanes, count, rows, top, height))
            } @else {
                (bars::draw(run, &lanes, scale, top, height))
            }
        }
    }
}

fn draw_legend(run: &Run<'_>, y: f64) -> Markup {
    let has = |phase| run.bars.iter().any(|bar| bar.segments.iter().any(|segment| segment.phase == phase));
    let mut entries: Vec<_> = Phase::ALL
        .into_iter()
        .filter(|phase| has(*phase))
        .map(|phase| (phase.name(), phase.name(), phase.meaning()))
        .collect();
    if run.count(Fate::Failed) > 0 {
        entries.push(("failed", "failed", "the test failed, or its sandbox did not start"));
    }
    if run.count(Fate::Unfinished) > 0 {
        let meaning = "its process was killed, ended without dropping it, or still runs";
        entries.push(("unfinished", "unfinished", meaning));
    }
    let mut x = LEFT;
    let placed = entries.into_iter().map(|entry| {
        let at = x;
        x += 34.0 + entry.1.len() as f64 * 6.6;
        (at, entry)
    });
    html! {
        @for (x, (class, name, meaning)) in placed {
            g {
                title { (meaning) }
                rect class=(class) x=(px(x)) y=(px(y - 9.0)) width="12" height="10" rx="2" {}
                text class="label" x=(px(x + 17.0)) y=(px(y)) { (name) }
            }
        }
    }
}

fn time_axis(scale: Scale, top: f64, bottom: f64) -> Markup {
    let step = units::step(scale.span, 10);
    let ticks = (0..=scale.span / step).map(|number| number * step);
    html! {
        @for time in ticks {
            @let x = scale.x(time);
            path class="grid" d=(format!("M{} {}V{}", px(x), px(top - 6.0), px(bottom))) {}
            // The last has no room to be centred.
            text class=(if x > WIDTH - 40.0 { "tick end-of-line" } else { "tick" }) x=(px(x)) y=(px(bottom + 16.0)) {
                (units::tick(time, step))
            }
        }
    }
}

/// How many lived, of these how many were still starting, and how many waited, on top of each other.
fn draw_area(census: &[Census], top: f64) -> Markup {
    let highest = census.iter().map(|census| census.all()).max().unwrap_or_default().max(1);
    let step = units::count_step(highest, 3);
    let y = |count: usize| top + AREA - count as f64 / highest as f64 * AREA;
    let outline = |height: fn(Census) -> usize| {
        let width = PLOT / census.len() as f64;
        let mut d = format!("M{} {}", px(LEFT), px(y(0)));
        let mut last = 0;
        for (column, census) in census.iter().enumerate() {
            let height = height(*census);
            if height != last {
                d.push_str(&format!("H{}V{}", px(LEFT + column as f64 * width), px(y(height))));
                last = height;
            }
        }
        d.push_str(&format!("H{}V{}z", px(LEFT + PLOT), px(y(0))));
        d
    };
    html! {
        @for count in (0..=highest / step).map(|number| number * step) {
            path class="grid" d=(format!("M{} {}h{}", px(LEFT), px(y(count)), px(PLOT))) {}
            text class="tick end-of-line" x=(px(LEFT - 8.0)) y=(px(y(count) + 4.0)) { (count) }
        }
        g { title { "waiting: for a layer, or for others to end" } path class="queue" d=(outline(Census::all)) {} }
        g { title { "starting" } path class="server" d=(outline(Census::alive)) {} }
        g { title { "running" } path class="test" d=(outline(|census| census.running)) {} }
    }
}

/// Where tests failed, to be found among thousands.
fn draw_flags(run: &Run<'_>, scale: Scale, y: f64) -> Markup {
    let mut last = f64::MIN;
    let mut failed: Vec<_> = run.bars.iter().filter(|bar| bar.fate == Fate::Failed).collect();
    failed.sort_by_key(|bar| bar.end);
    // Those that would hide each other are one flag.
    failed.retain(|bar| {
        let apart = scale.x(bar.end) - last >= 3.0;
        if apart {
            last = scale.x(bar.end);
        }
        apart
    });
    html! {
        @for bar in failed {
            g {
                title { "failed: " (units::printable(bar.name())) }
                path class="failed" d=(format!("M{} {}h8l-4 7z", px(scale.x(bar.end) - 4.0), px(y))) {}
            }
        }
    }
}

/// A length in pixels, to the tenth.
pub(super) fn px(length: f64) -> String {
    let text = format!("{length:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}
