//! Draws the bands of a run of several machines: the lanes of each, below its name.

use maud::{Markup, html};

use super::geometry::{LEFT, PLOT, px};
use crate::units::printable;

/// The letters of a name that the margin holds.
const LETTERS: usize = 7;

/// Draws a line above each machine's lanes, of `height` together, and its name beside them.
/// `firsts` has the first lane of each machine, then the number of lanes.
pub(super) fn draw(machines: &[String], firsts: &[usize], top: f64, height: f64) -> Markup {
    let count = firsts.last().copied().unwrap_or_default().max(1);
    let y = |lane: usize| top + lane as f64 / count as f64 * height;
    html! {
        @for (name, first) in machines.iter().zip(firsts) {
            @let name = printable(name);
            path class="grid" d=(format!("M4 {}h{}", px(y(*first) - 1.0), px(LEFT - 4.0 + PLOT))) {}
            g {
                title { (name) }
                text class="label" x="4" y=(px(y(*first) + 10.0)) { (short(&name)) }
            }
        }
    }
}

fn short(name: &str) -> String {
    match name.char_indices().nth(LETTERS) {
        None => name.to_owned(),
        // Machines of a matrix differ in their ends.
        Some(_) => {
            let last = name.chars().count() - (LETTERS - 1);
            format!("…{}", name.chars().skip(last).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_its_end() {
        assert_eq!(["shard-1", "machine-12", ""].map(short), ["shard-1", "…ine-12", ""]);
    }
}
