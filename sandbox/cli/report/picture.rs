//! Draws a run: legend, axes, the chart of live sandboxes, the lanes.

use maud::{Markup, PreEscaped, html};

use super::census::Census;
use super::geometry::{LEFT, PLOT, Scale, WIDTH, px};
use super::phase::Phase;
use super::timeline::{Status, Timeline};
use super::{bands, bars, cells, lanes};
use crate::units;

/// The number of columns in the chart of live sandboxes.
pub(super) const COLUMNS: usize = 568;
const STYLE: &str = include_str!("picture.css");

/// The height of the chart of live sandboxes.
const AREA: f64 = 84.0;
/// The limits up to which each sandbox is drawn; beyond them a page would be too large to open.
const MOST_LANES: usize = 160;
const MOST_BARS: usize = 2500;
/// The preferred height of all lanes together, and the limits of one.
const LANES: f64 = 480.0;
const HIGHEST_LANE: f64 = 22.0;
const LOWEST_LANE: f64 = 3.0;

/// Draws the whole run, with title and subtitle if the picture stands alone.
pub(super) fn draw(run: &Timeline<'_>, census: &[Census], title: Option<(&str, &str)>) -> Markup {
    let scale = Scale { span: run.span };
    let intervals = run.bars.iter().map(|bar| (bar.machine, (bar.begin, bar.end)));
    let (lanes, firsts) = lanes::pack_machines(intervals, run.machines.len());
    let count = firsts.last().copied().unwrap_or_default();
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
            (draw_chart(census, area))
            (draw_flags(run, scale, flags))
            @if run.machines.len() > 1 {
                (bands::draw(&run.machines, &firsts, top, rows as f64 * height))
            }
            @if aggregated {
                (cells::draw(run, &lanes, count, rows, top, height))
            } @else {
                (bars::draw(run, &lanes, scale, top, height))
            }
        }
    }
}

fn draw_legend(run: &Timeline<'_>, y: f64) -> Markup {
    let has = |phase| run.bars.iter().any(|bar| bar.segments.iter().any(|segment| segment.phase == phase));
    let mut entries: Vec<_> = Phase::ALL
        .into_iter()
        .filter(|phase| has(*phase))
        .map(|phase| (phase.name(), phase.name(), phase.description()))
        .collect();
    if run.count(Status::Failed) > 0 {
        entries.push(("failed", "failed", "the test failed, or its sandbox did not start"));
    }
    if run.count(Status::Unfinished) > 0 {
        let description = "the test process was killed, ended without dropping the sandbox, or still runs";
        entries.push(("unfinished", "unfinished", description));
    }
    let mut x = LEFT;
    let placed = entries.into_iter().map(|entry| {
        let at = x;
        x += 34.0 + entry.1.len() as f64 * 6.6;
        (at, entry)
    });
    html! {
        @for (x, (class, name, description)) in placed {
            g {
                title { (description) }
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
            // The last label has no room to be centred.
            text class=(if x > WIDTH - 40.0 { "tick end-of-line" } else { "tick" }) x=(px(x)) y=(px(bottom + 16.0)) {
                (units::tick(time, step))
            }
        }
    }
}

/// The phases of the chart of live sandboxes, from bottom to top; those above `Launch` wait for a
/// layer or a slot.
const STACK: [Phase; Phase::ALL.len()] =
    [Phase::Test, Phase::End, Phase::Connect, Phase::Server, Phase::Launch, Phase::Queue, Phase::Layer];

/// Draws how many sandboxes are in each phase, stacked.
fn draw_chart(census: &[Census], top: f64) -> Markup {
    let highest = census.iter().map(|census| census.all()).max().unwrap_or_default().max(1);
    let step = units::count_step(highest, 3);
    let y = |count: usize| top + AREA - count as f64 / highest as f64 * AREA;
    // The area below the top of the first phases of the stack.
    let area = |phases: &[Phase]| {
        let width = PLOT / census.len() as f64;
        let mut d = format!("M{} {}", px(LEFT), px(y(0)));
        let mut last = 0;
        for (column, census) in census.iter().enumerate() {
            let height = phases.iter().map(|phase| census.of(*phase)).sum();
            if height != last {
                d.push_str(&format!("H{}V{}", px(LEFT + column as f64 * width), px(y(height))));
                last = height;
            }
        }
        d.push_str(&format!("H{}V{}z", px(LEFT + PLOT), px(y(0))));
        d
    };
    let is_used = |phase| census.iter().any(|census| census.of(phase) > 0);
    html! {
        @for count in (0..=highest / step).map(|number| number * step) {
            path class="grid" d=(format!("M{} {}h{}", px(LEFT), px(y(count)), px(PLOT))) {}
            text class="tick end-of-line" x=(px(LEFT - 8.0)) y=(px(y(count) + 4.0)) { (count) }
        }
        @for (number, phase) in STACK.into_iter().enumerate().rev().filter(|(_, phase)| is_used(*phase)) {
            g {
                title { (phase.name()) ": " (phase.description()) }
                path class=(phase.name()) d=(area(&STACK[..=number])) {}
            }
        }
    }
}

/// Flags the times of failures, which are easily missed among thousands of bars.
fn draw_flags(run: &Timeline<'_>, scale: Scale, y: f64) -> Markup {
    let mut last = f64::MIN;
    let mut failed: Vec<_> = run.bars.iter().filter(|bar| bar.status == Status::Failed).collect();
    failed.sort_by_key(|bar| bar.end);
    // Flags that would hide each other are drawn as one.
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
                title {
                    "failed: " (units::printable(bar.name()))
                    @if let Some(reason) = bar.failure() { "\n" (units::printable(&reason)) }
                }
                path class="failed" d=(format!("M{} {}h8l-4 7z", px(scale.x(bar.end) - 4.0), px(y))) {}
            }
        }
    }
}
