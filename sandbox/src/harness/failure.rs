//! What the output of a failed test says of its sandboxes.

use std::time::Duration;

use super::{Test, Witness};
use crate::sandbox::LOG_TAIL;
use crate::timings::Timings;

/// Reports each sandbox of a test that failed, and keeps its data where that is wanted.
pub(super) fn tell(test: Test, witnesses: &[Witness], failed: bool) {
    for witness in witnesses {
        let text = if failed { told(test, witness) } else { header(test, witness) };
        // Not before the log is read: a server that is shut down for it has more to say than what led to the failure.
        let kept = witness.keeper.as_ref().and_then(|keeper| keeper.at_end(failed));
        match (kept, failed) {
            (Some(kept), _) => print(&format!("{text}\n  {kept}")),
            (None, true) if witness.keeper.is_none() => {
                print(&format!(
                    "{text}\n  to keep its data for a look, run the test with SANDBOXED_DB_KEEP=on_failure"
                ));
            }
            (None, true) => print(&text),
            (None, false) => {}
        }
    }
}

fn header(Test { module, name, .. }: Test, witness: &Witness) -> String {
    format!("sandboxed-db: the sandbox of `{module}::{name}` was that of pid {}", witness.pid)
}

fn told(test: Test, witness: &Witness) -> String {
    let last_words = &witness.last_words;
    let mut text = header(test, witness);
    text.push_str(&format!("\n  {}", started(&witness.timings)));
    if let Some(diagnosis) = last_words.diagnosis.get() {
        text.push_str(&format!("\n  {diagnosis}"));
    }
    let log = last_words.log.tail(LOG_TAIL).unwrap_or_default();
    if log.trim().is_empty() {
        text.push_str("\n  its server logged nothing");
    } else {
        text.push_str("\n  server log, its end:");
        for line in log.lines() {
            text.push_str(&format!("\n    | {line}"));
        }
    }
    text
}

/// How long each phase took.
fn started(timings: &Timings) -> String {
    let layer = if timings.layer_built { "layer, built," } else { "layer" };
    let parts = [
        (layer, timings.layer),
        ("queue", timings.queue),
        ("launch", timings.launch),
        ("server", timings.server),
    ];
    let parts: Vec<_> = parts.iter().map(|(name, time)| format!("{name} {}", milliseconds(*time))).collect();
    format!("it started in {}: {}", milliseconds(timings.total()), parts.join(", "))
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

#[expect(clippy::print_stderr, reason = "libtest captures it and shows it with the failed test")]
pub(super) fn print(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_of_a_start_are_told() {
        let ms = Duration::from_millis;
        let timings = Timings {
            layer: ms(500),
            layer_built: true,
            launch: ms(2),
            server: ms(20),
            ..Timings::default()
        };
        assert_eq!(
            started(&timings),
            "it started in 522.0 ms: layer, built, 500.0 ms, queue 0.0 ms, launch 2.0 ms, server 20.0 ms"
        );
    }
}
