//! Draws the lanes of a small run: a bar for each sandbox.

use maud::{Markup, html};

use super::geometry::{NARROWEST, PLOT, Scale, WIDTH, gap, px, rectangle};
use super::phase::Phase;
use super::timeline::{Bar, Status, Timeline};
use crate::units;

/// The approximate width of a letter of a label.
const LETTER: f64 = 5.6;
/// The minimum height of lanes with labels.
const LOWEST_LABELLED: f64 = 13.0;

pub(super) fn draw(run: &Timeline<'_>, lanes: &[usize], scale: Scale, top: f64, height: f64) -> Markup {
    let gap = gap(height);
    // The begin of the next bar in each lane, which limits the room for a label.
    let mut following = vec![run.span + run.span / 50; lanes.iter().max().map_or(0, |last| last + 1)];
    let mut bars: Vec<_> = run
        .bars
        .iter()
        .zip(lanes)
        .rev()
        .map(|(bar, lane)| (bar, *lane, std::mem::replace(&mut following[*lane], bar.begin)))
        .collect();
    bars.reverse();
    html! {
        @for (bar, lane, next) in bars {
            @let y = top + lane as f64 * height;
            g class="bar" {
                title { (tooltip(bar)) }
                @for (class, begin, end) in pieces(bar, scale) {
                    path class=(class) d=(rectangle(begin, y, end - begin, height - gap)) {}
                }
                @if bar.status == Status::Unfinished {
                    path class="unfinished" d=(arrow(scale.x(bar.end), y, height - gap)) {}
                }
            }
            @if let Some((x, class, label)) = label(bar, next, scale, height) {
                text class=(class) x=(px(x)) y=(px(y + height / 2.0 + 2.8)) { (label) }
            }
        }
    }
}

/// Returns the visible parts of a bar as class, begin and end in pixels. A part that is too narrow
/// is joined to its neighbour.
fn pieces(bar: &Bar<'_>, scale: Scale) -> Vec<(&'static str, f64, f64)> {
    let mut pieces = Vec::<(&'static str, f64, f64)>::new();
    let mut begin = scale.x(bar.begin);
    for segment in &bar.segments {
        let end = scale.x(segment.end);
        if end - begin >= NARROWEST {
            pieces.push((bar.class(segment.phase), begin, end));
            begin = end;
        }
    }
    let end = scale.x(bar.end);
    match pieces.last_mut() {
        // All parts are too narrow; the bar is shown nevertheless.
        None => {
            let phase = bar.segments.last().map_or(Phase::Layer, |segment| segment.phase);
            pieces.push((bar.class(phase), begin, end.max(begin + NARROWEST)));
        }
        Some(last) => last.2 = end,
    }
    pieces
}

/// Returns the path of the arrow at the end of an unfinished bar.
fn arrow(x: f64, y: f64, height: f64) -> String {
    let half = px(height / 2.0);
    format!("M{} {}l{half} {half}l-{half} {half}z", px(x), px(y))
}

/// Returns position, class and text of a label inside or beside the bar: the test's path or, if too
/// long, its name.
fn label(bar: &Bar<'_>, next: u64, scale: Scale, height: f64) -> Option<(f64, &'static str, String)> {
    if height < LOWEST_LABELLED {
        return None;
    }
    let name = units::printable(bar.name());
    let short = name.rsplit("::").next().unwrap_or(&name);
    let test = bar.segments.iter().find(|segment| segment.phase == Phase::Test);
    let inside = test.map_or(0.0, |test| scale.x(test.end) - scale.x(test.begin) - 8.0);
    let beside = (scale.x(next).min(WIDTH) - scale.x(bar.end) - 8.0).min(PLOT);
    let fits = |text: &str, room: f64| text.chars().count() as f64 * LETTER <= room;
    for text in [&*name, short] {
        if fits(text, inside) {
            return Some((scale.x(test?.begin) + 4.0, "inside", text.to_owned()));
        }
        if fits(text, beside) {
            return Some((scale.x(bar.end) + 4.0, "beside", text.to_owned()));
        }
    }
    None
}

/// Returns the text that is shown under the pointer.
fn tooltip(bar: &Bar<'_>) -> String {
    let record = bar.record;
    let mut text = format!("{}\n{}, {}", bar.name(), bar.status.name(), units::duration(bar.end - bar.begin));
    if let Some(reason) = bar.failure() {
        text.push_str(&format!("\n{reason}"));
    }
    let phases = bar.segments.iter().map(|segment| {
        let built = if segment.phase == Phase::Layer && record.layer_built { " (built)" } else { "" };
        format!("{}{built} {}", segment.phase.name(), units::duration(segment.length()))
    });
    text.push_str(&format!("\n{}", phases.collect::<Vec<_>>().join(", ")));
    text.push_str(&format!("\n{}, process {}", record.program, record.process));
    if let Some(pid) = record.pid {
        text.push_str(&format!(", sandbox {pid}"));
    }
    let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    if let Some(bytes) = record.disk_bytes {
        text.push_str(&format!("\n{} written", mb(bytes)));
    }
    if let Some(bytes) = record.memory_peak_bytes {
        text.push_str(&format!("\n{} of memory at the peak", mb(bytes)));
    }
    text.lines().map(units::printable).collect::<Vec<_>>().join("\n")
}
