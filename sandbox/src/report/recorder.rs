//! Records a sandbox while it lives.

use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::file;
use super::record::{Outcome, Record, VERSION};
use crate::error::Error;
use crate::test_id::{self, Function};

/// The maximum length of a recorded reason, in characters.
const LONGEST_REASON: usize = 1000;

/// The recorder of a sandbox; empty if no report is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(Option<Arc<RecorderState>>);

#[derive(Debug)]
struct RecorderState {
    asked: Instant,
    record: Mutex<Record>,
}

impl Recorder {
    /// Begins with the request, by the test of that function, if known.
    pub(crate) fn asked(engine: &str, function: Option<Function>) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        if !file::is_wanted() {
            return Self(None);
        }
        let process = std::process::id();
        let origin = test_id::of_process();
        let (thread, test) = test_id::of_thread(function);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let asked_at_us = microseconds(now);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let record = Record {
            version: VERSION,
            // Process ids are reused, but not within a microsecond.
            id: format!("{asked_at_us:x}-{process:x}-{number:x}"),
            run: origin.run.clone(),
            command: origin.command.clone(),
            test,
            thread,
            package: origin.package.clone(),
            program: origin.program.clone(),
            process,
            engine: engine.to_owned(),
            asked_at_us,
            ..Record::default()
        };
        let entry = Self(Some(Arc::new(RecorderState { asked: Instant::now(), record: Mutex::new(record) })));
        entry.write();
        entry
    }

    /// Notes that the layer is available. Version and digest are evaluated only for a report.
    pub(crate) fn found(
        &self,
        version: impl FnOnce() -> String,
        digest: impl FnOnce() -> String,
        built: bool,
    ) {
        self.note(|record, now| {
            record.engine_version = Some(version());
            record.layer = Some(digest());
            record.layer_built = built;
            record.layer_at_us = Some(now);
        });
    }

    /// Notes that a slot was obtained. The planning before it counts as part of the launch.
    pub(crate) fn admitted(&self, planned: Duration) {
        self.note(|record, now| {
            let admitted = now.saturating_sub(microseconds(planned));
            record.admitted_at_us = record.layer_at_us.max(Some(admitted));
        });
    }

    /// Notes that the server is ready; `executed` is its age.
    pub(crate) fn ready(&self, pid: u32, executed: Duration) {
        self.note(|record, now| {
            record.pid = Some(pid);
            record.executed_at_us = Some(now.saturating_sub(microseconds(executed)));
            record.ready_at_us = Some(now);
        });
        self.write();
    }

    /// Notes that a prewarmed sandbox was handed over; `executed` is the age of its server.
    pub(crate) fn handed_over(&self, pid: u32, executed: Duration) {
        self.note(|record, _| record.pooled = true);
        self.ready(pid, executed);
    }

    /// Notes that a parameter of the test was made.
    pub(crate) fn connected(&self) {
        self.note(|record, now| record.connected_at_us = Some(now));
    }

    /// Notes that the sandbox could not be started.
    pub(crate) fn failed(&self, error: &Error) {
        self.note(|record, now| {
            record.outcome = Outcome::Failed;
            record.error = Some(one_line(&with_causes(error)));
            record.ended_at_us = Some(now);
            record.gone_at_us = Some(now);
        });
        self.write();
    }

    /// Notes that the test has passed, or failed for a reason.
    pub(crate) fn judged(&self, failure: Option<&str>) {
        let mut is_gone = false;
        self.note(|record, _| {
            record.outcome = if failure.is_some() { Outcome::Failed } else { Outcome::Passed };
            record.failure = failure.map(one_line);
            is_gone = record.gone_at_us.is_some();
        });
        // Otherwise the record is written when the sandbox is gone.
        if is_gone {
            self.write();
        }
    }

    /// Notes the command that starts a server on the kept data.
    pub(crate) fn kept(&self, reopen: &str) {
        self.note(|record, _| record.reopen = Some(reopen.to_owned()));
    }

    /// Notes that the end begins, once; `usage` returns the disk and the memory in use.
    pub(crate) fn ending(&self, usage: impl FnOnce() -> (Option<u64>, Option<u64>)) {
        self.note(|record, now| {
            if record.ended_at_us.is_some() {
                return;
            }
            record.ended_at_us = Some(now);
            (record.disk_bytes, record.memory_peak_bytes) = usage();
            if std::thread::panicking() && record.outcome == Outcome::Unknown {
                record.outcome = Outcome::Failed;
            }
        });
    }

    fn gone(&self) {
        self.note(|record, now| record.gone_at_us = Some(now));
        self.write();
    }

    fn note(&self, change: impl FnOnce(&mut Record, u64)) {
        if let Some(state) = &self.0 {
            let mut record = state.lock();
            let now = record.asked_at_us + microseconds(state.asked.elapsed());
            change(&mut record, now);
        }
    }

    fn write(&self) {
        let Some(state) = &self.0 else { return };
        let record = state.lock();
        // A forked copy of the process holds no sandbox.
        if record.process != std::process::id() {
            return;
        }
        if let Ok(mut line) = serde_json::to_vec(&*record) {
            line.push(b'\n');
            file::append(&line);
        }
    }
}

impl RecorderState {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records on drop that the sandbox is gone.
#[derive(Debug, Default)]
pub(crate) struct Ended(pub(crate) Recorder);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.gone();
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Returns the step that failed and its causes.
pub(crate) fn with_causes(error: &Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Puts a message on one line of at most [`LONGEST_REASON`] characters, without control characters
/// and the colours of terminals.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    let (mut characters, mut length) = (text.chars().peekable(), 0);
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // An escape sequence begins with `ESC [` and ends with a letter or one of a few signs.
            if characters.next_if_eq(&'[').is_some() {
                characters.find(|character| ('@'..='~').contains(character));
            }
            continue;
        }
        let is_space = character.is_whitespace();
        let is_dropped =
            if is_space { line.is_empty() || line.ends_with(' ') } else { character.is_control() };
        if is_dropped {
            continue;
        }
        if length == LONGEST_REASON {
            line.push('…');
            break;
        }
        line.push(if is_space { ' ' } else { character });
        length += 1;
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        let colours = "assertion failed:\n  \u{1b}[1mleft\u{1b}[0m: \u{7}1\r\n right:\t2\u{0}\n";
        assert_eq!(one_line(colours), "assertion failed: left: 1 right: 2");
        assert_eq!(one_line("\u{1b}[31"), "");
        assert_eq!(one_line("\u{1b}"), "");
    }

    #[test]
    fn a_long_message_is_cut() {
        let long = one_line(&"é ".repeat(LONGEST_REASON));
        assert_eq!(long.chars().count(), LONGEST_REASON + 1);
        assert!(long.ends_with('…'));
        assert_eq!(one_line(&"é".repeat(LONGEST_REASON)).chars().count(), LONGEST_REASON);
    }
}
