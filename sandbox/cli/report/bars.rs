//! The lanes of a run that is small enough to show each sandbox.

use maud::{Markup, html};

use super::phase::Phase;
use super::picture::{PLOT, Scale, WIDTH, px};
use super::run::{Bar, Fate, Run};
use super::units;

/// What is narrower is not seen, and its time shows with its neighbour.
const NARROWEST: f64 = 0.3;
/// About the width of a letter of a label.
const LETTER: f64 = 5.6;
/// Lanes that are lower have no room for words.
const LOWEST_LABELLED: f64 = 13.0;

pub(super) fn draw(run: &Run<'_>, lanes: &[usize], scale: Scale, top: f64, height: f64) -> Markup {
    let gap = (height / 8.0).clamp(0.4, 2.0);
    // Where the next one of the same lane begins, up to which a label has room.
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
                title { (told(bar)) }
                @for (class, begin, end) in pieces(bar, scale) {
                    path class=(class) d=(rectangle(begin, y, end - begin, height - gap)) {}
                }
                @if bar.fate == Fate::Unfinished {
                    path class="unfinished" d=(arrow(scale.x(bar.end), y, height - gap)) {}
                }
            }
            @if let Some((x, class, label)) = label(bar, next, scale, height) {
                text class=(class) x=(px(x)) y=(px(y + height / 2.0 + 2.8)) { (label) }
            }
        }
    }
}

/// The visible parts of a bar: class, begin and end in pixels.
fn pieces(bar: &Bar<'_>, scale: Scale) -> Vec<(&'static str, f64, f64)> {
    let mut pieces = Vec::<(&'static str, f64, f64)>::new();
    let mut begin = scale.x(bar.begin);
    for segment in &bar.segments {
        let end = scale.x(segment.end);
        if end - begin >= NARROWEST {
            pieces.push((class(bar, segment.phase), begin, end));
            begin = end;
        }
    }
    let end = scale.x(bar.end);
    match pieces.last_mut() {
        // It all is narrower than that; it must be seen nevertheless.
        None => {
            let phase = bar.segments.last().map_or(Phase::Layer, |segment| segment.phase);
            pieces.push((class(bar, phase), begin, end.max(begin + NARROWEST)));
        }
        Some(last) => last.2 = end,
    }
    pieces
}

/// How a phase of a sandbox looks: what failed is the test, or the phase in which the start did.
pub(super) fn class(bar: &Bar<'_>, phase: Phase) -> &'static str {
    let failed_at = bar.last.min(Phase::Test);
    match (bar.fate, phase) {
        (Fate::Failed, phase) if phase == failed_at => "failed",
        (Fate::Unfinished, Phase::Test) => "unfinished",
        _ => phase.name(),
    }
}

pub(super) fn rectangle(x: f64, y: f64, width: f64, height: f64) -> String {
    let (width, height) = (px(width.max(NARROWEST)), px(height));
    format!("M{} {}h{width}v{height}h-{width}z", px(x), px(y))
}

/// Nobody knows how it goes on.
fn arrow(x: f64, y: f64, height: f64) -> String {
    let half = px(height / 2.0);
    format!("M{} {}l{half} {half}l-{half} {half}z", px(x), px(y))
}

/// The test's name, in the bar or beside it, where there is room for enough of it.
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

/// What is shown of a sandbox under the pointer.
fn told(bar: &Bar<'_>) -> String {
    let record = bar.record;
    let mut text = format!("{}\n{}, {}", bar.name(), bar.fate.name(), units::duration(bar.end - bar.begin));
    if let Some(error) = &record.error {
        text.push_str(&format!("\ncould not {error}"));
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
        text.push_str(&format!("\n{} of memory at most", mb(bytes)));
    }
    text.lines().map(units::printable).collect::<Vec<_>>().join("\n")
}
