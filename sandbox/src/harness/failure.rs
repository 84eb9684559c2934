//! The part of a failed test's output that is about its sandboxes.

use super::{Test, Witness};

pub(super) const TO_KEEP: &str = "to keep its data, run the test with SANDBOXED_DB_KEEP=on_failure";

/// Prints a report of each sandbox of a failed test, and keeps the data if the policy says so.
pub(super) fn print_reports(test: Test, witnesses: &[Witness], failed: bool) {
    for witness in witnesses {
        let name = format!("{}::{}", test.module, test.name);
        let text = if failed { full(&name, witness) } else { header(&name, witness) };
        // After the log is read, since keeping shuts the server down, which adds lines.
        let kept = witness.keeper.as_ref().and_then(|keeper| keeper.at_end(failed));
        match (kept, failed) {
            (Some(kept), _) => print(&format!("{text}\n  {kept}")),
            (None, true) if witness.keeper.is_none() => {
                print(&format!("{text}\n  {TO_KEEP}"));
            }
            (None, true) => print(&text),
            (None, false) => {}
        }
    }
}

fn header(test: &str, witness: &Witness) -> String {
    format!("sandboxed-db: the sandbox of `{test}` had the pid {}", witness.pid)
}

pub(super) fn full(test: &str, witness: &Witness) -> String {
    let postmortem = &witness.postmortem;
    let mut text = header(test, witness);
    text.push_str(&format!("\n  it started in {}", postmortem.timings(witness.timings)));
    if let Some(diagnosis) = postmortem.diagnosis() {
        text.push_str(&format!("\n  {diagnosis}"));
    }
    let log = postmortem.log();
    if log.trim().is_empty() {
        text.push_str("\n  its server logged nothing after its start");
    } else {
        text.push_str("\n  server log, its end:");
        for line in log.lines() {
            text.push_str(&format!("\n    | {line}"));
        }
    }
    text
}

#[expect(clippy::print_stderr, reason = "libtest captures it and shows it with the failed test")]
pub(super) fn print(text: &str) {
    eprintln!("{text}");
}
