//! Draws a report as one page of HTML without scripts or other files.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::census::Census;
use super::figures::Figures;
use super::tables::{self, TitledTable};
use super::timeline::Timeline;
use super::{histogram, picture};
use crate::units::duration;

const STYLE: &str = include_str!("page.css");

/// Draws the page. `notes` describe the file.
pub(super) fn draw(run: &Timeline<'_>, census: &[Census], figures: &Figures, notes: &[String]) -> Markup {
    let headline = tables::headline(figures);
    let phases = tables::phases(figures);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (headline) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (headline) }
                    p { (tables::details(run, figures)) }
                }
                (tiles(figures))
                figure { (picture::draw(run, census, None)) }
                div class="columns" {
                    @if let Some(start) = figures.start {
                        section {
                            h2 { "Start times" }
                            (histogram::draw(run, start))
                        }
                    }
                    (table(&phases))
                }
                @for list in tables::lists(run) { (table(&list)) }
                footer {
                    @for note in notes { p { (note) } }
                    p { "Drawn by sandboxed-db " (env!("CARGO_PKG_VERSION")) "." }
                }
            }
        }
    }
}

fn tiles(figures: &Figures) -> Markup {
    let mut tiles = vec![
        ("", figures.sandboxes.to_string(), "sandboxes"),
        ("", figures.most_alive.to_string(), "most alive at once"),
    ];
    if let Some(start) = figures.start {
        tiles.push(("", duration(start.median_us), "median start"));
        tiles.push(("", duration(start.p99_us), "99 % start within"));
    }
    let rate = figures.sandboxes as f64 / (figures.span_us as f64 / 1e6);
    tiles.push(("", format!("{rate:.1}"), "sandboxes a second"));
    if figures.layers_built > 0 {
        tiles.push(("", figures.layers_built.to_string(), "layers built"));
    }
    if figures.failed > 0 {
        tiles.push(("bad", figures.failed.to_string(), "failed"));
    }
    if figures.unfinished > 0 {
        tiles.push(("odd", figures.unfinished.to_string(), "unfinished"));
    }
    html! {
        ul class="tiles" {
            @for (class, number, label) in tiles {
                li class=(class) { strong { (number) } span { (label) } }
            }
        }
    }
}

fn table(TitledTable { title, table }: &TitledTable) -> Markup {
    let class = |column| if table.numbers.contains(&column) { "number" } else { "" };
    html! {
        section {
            h2 { (title) }
            div class="scroll" {
                table {
                    thead { tr { @for (column, name) in table.head.iter().enumerate() {
                        th class=(class(column)) { (name) }
                    } } }
                    tbody { @for row in &table.rows {
                        tr { @for (column, cell) in row.iter().enumerate() {
                            td class=(class(column)) { (cell) }
                        } }
                    } }
                }
            }
        }
    }
}
