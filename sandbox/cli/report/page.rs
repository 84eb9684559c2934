//! Draws a report as one page of HTML that loads no other file.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::census::Census;
use super::figures::Figures;
use super::phase::Phase;
use super::tables;
use super::timeline::{Bar, Status, Timeline};
use super::{histogram, picture};
use crate::units::{counted, duration, printable};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Keeps the page from loading anything, even if it held foreign markup.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";
/// The number of failed or unfinished tests that are shown with their message.
const EXPLAINED: usize = 100;
/// The number of tests in the table: a browser takes a second for some thousand rows.
const LISTED: usize = 2000;

/// Draws the page. `notes` describe the file.
pub(super) fn draw(run: &Timeline<'_>, census: &[Census], figures: &Figures, notes: &[String]) -> Markup {
    let headline = tables::headline(figures);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                link rel="icon" href="data:,";
                title { (headline) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (headline) }
                    p {
                        (run.date())
                        @for command in run.commands() { " · " code { (command) } }
                    }
                    p { (tables::details(run, figures)) }
                }
                main {
                    (tiles(run, figures))
                    (explained(run, Status::Failed, "Failed"))
                    (explained(run, Status::Unfinished, "Unfinished"))
                    figure aria-label="Timeline" {
                        (scrolling("Timeline", &picture::draw(run, census, None)))
                    }
                    div class="columns" {
                        @if let Some(start) = figures.start {
                            section {
                                h2 { "Start times" }
                                (scrolling("Start times", &histogram::draw(run, start)))
                            }
                        }
                        (phases(figures))
                    }
                    (tests(run))
                }
                footer {
                    @for note in notes { p { (note) } }
                    p { "Drawn by sandboxed-db " (env!("CARGO_PKG_VERSION")) "." }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

fn tiles(run: &Timeline<'_>, figures: &Figures) -> Markup {
    let mut tiles = vec![("", figures.sandboxes.to_string(), "sandboxes")];
    for status in Status::ALL {
        let count = run.count(status);
        if count > 0 {
            tiles.push((tone(status), count.to_string(), status.name()));
        }
    }
    tiles.push(("", figures.most_alive.to_string(), "most alive at once"));
    if let Some(start) = figures.start {
        tiles.push(("", duration(start.median_us), "median start"));
        tiles.push(("", duration(start.p99_us), "99 % start within"));
    }
    let rate = figures.sandboxes as f64 / (figures.span_us as f64 / 1e6);
    tiles.push(("", format!("{rate:.1}"), "sandboxes a second"));
    if figures.layers_built > 0 {
        tiles.push(("", figures.layers_built.to_string(), "layers built"));
    }
    html! {
        ul class="tiles" {
            @for (tone, number, label) in tiles {
                li { strong class=(tone) { (number) } span { (label) } }
            }
        }
    }
}

/// Returns the class of texts about an outcome.
fn tone(status: Status) -> &'static str {
    match status {
        Status::Passed => "good",
        Status::Failed => "bad",
        Status::Unfinished => "odd",
        Status::Ended => "",
    }
}

/// Wraps contents that are wider than a phone. A keyboard can scroll only what it can focus.
fn scrolling(label: &str, contents: &Markup) -> Markup {
    html! { div class="scroll" tabindex="0" role="region" aria-label=(label) { (contents) } }
}

/// Draws the tests of that status, each with its message and the command that opens its data.
fn explained(run: &Timeline<'_>, status: Status, title: &str) -> Markup {
    let bars: Vec<_> = run.bars.iter().filter(|bar| bar.status == status).collect();
    let more = bars.len().saturating_sub(EXPLAINED);
    let is_kept = bars.iter().any(|bar| bar.record.reopen.is_some());
    html! {
        @if !bars.is_empty() {
            section {
                h2 { (title) }
                @for bar in bars.iter().take(EXPLAINED) { (explanation(bar)) }
                @if more > 0 { p { "The table below lists " (more) " more." } }
                @if status == Status::Failed && !is_kept {
                    p { "Their data is gone. " code { "SANDBOXED_DB_KEEP=on_failure" } " keeps it in the next run." }
                }
            }
        }
    }
}

fn explanation(bar: &Bar<'_>) -> Markup {
    let place = [tables::program(bar), format!("failed after {}", duration(bar.end - bar.begin))];
    let [program, time] = place;
    let time = if bar.status == Status::Failed { time } else { time.replace("failed", "not ended") };
    let class = if bar.status == Status::Unfinished { "unfinished-test" } else { "" };
    html! {
        article class=(class) {
            h3 { (printable(bar.name())) }
            p { (program) " · " (time) ", requested at " (duration(bar.begin)) }
            @if let Some(reason) = bar.failure() { pre { (printable(&reason)) } }
            @if let Some(command) = &bar.record.reopen {
                p { "Open its data: " code class="command" { (printable(command)) } }
            }
        }
    }
}

/// Draws the table of phases, with the colours of the timeline.
fn phases(figures: &Figures) -> Markup {
    let phases = tables::phases(figures);
    let head = &phases.table.head;
    let colour = |name: &str| Phase::ALL.into_iter().map(Phase::name).find(|phase| *phase == name);
    let table = html! {
        table {
            thead { tr {
                th scope="col" { "phase" }
                @for name in &head[1..] { th scope="col" class="number" { (name) } }
            } }
            tbody { @for row in &phases.table.rows { tr {
                th scope="row" {
                    svg class="swatch" viewBox="0 0 12 10" aria-hidden="true" {
                        @if let Some(class) = colour(&row[0]) { rect class=(class) width="12" height="10" {} }
                    }
                    (row[0])
                }
                @for cell in &row[1..] { td class="number" { (cell) } }
            } } }
        }
    };
    html! { section { h2 { (phases.title) } (scrolling(&phases.title, &table)) } }
}

/// Draws the table of all tests, which the script sorts and filters.
fn tests(run: &Timeline<'_>) -> Markup {
    let mut bars: Vec<_> = run.bars.iter().collect();
    // Of too many tests those that failed and the longest are of interest.
    bars.sort_by_key(|bar| (bar.status, std::cmp::Reverse(bar.end - bar.begin)));
    let left_out = bars.len().saturating_sub(LISTED);
    bars.truncate(LISTED);
    bars.sort_by_key(|bar| bar.begin);
    let statuses = Status::ALL.into_iter().filter(|status| run.count(*status) > 0);
    let time = |time: Option<u64>| {
        html! {
            td class="number" data-us=(time.map(|time| time.to_string()).unwrap_or_default()) {
                (time.map(duration).unwrap_or_default())
            }
        }
    };
    let table = html! {
        table {
            thead { tr {
                th scope="col" class="number" aria-sort="ascending" { "at" }
                th scope="col" class="number" { "start" }
                th scope="col" class="number" { "test" }
                th scope="col" { "name" }
                th scope="col" { "program" }
                th scope="col" { "outcome" }
            } }
            tbody { @for bar in bars {
                tr data-outcome=(bar.status.name()) {
                    (time(Some(bar.begin)))
                    (time(bar.start()))
                    (time(bar.length(Phase::Test)))
                    td class="name" { (printable(bar.name())) }
                    td { (tables::program(bar)) }
                    td { span class=(tone(bar.status)) { (bar.status.name()) } }
                }
            } }
        }
    };
    html! {
        section id="tests" {
            h2 { "Tests" }
            div class="controls" hidden {
                label { "Filter " input id="text" type="search" placeholder="name, program" autocomplete="off"; }
                label { "Outcome " select id="outcome" {
                    option value="" { "all" }
                    @for status in statuses { option { (status.name()) } }
                } }
                output id="shown" aria-live="polite" {}
            }
            (scrolling("Tests", &table))
            @if left_out > 0 {
                p { "Left out: " (counted(left_out, "test that passed", "tests that passed")) ", the shortest." }
            }
        }
    }
}
