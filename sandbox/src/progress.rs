//! Progress of long work: one line on a terminal, and an event for each step.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of one piece of work. Its line is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn start(work: &str) -> Self {
        tracing::info!("{work}");
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        bar.set_style(Self::style("{spinner} {prefix} {msg} ({elapsed})"));
        bar.set_prefix(work.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    pub(crate) fn step(&self, step: &str) {
        tracing::info!(step);
        self.0.set_message(step.to_owned());
    }

    /// Starts a bar of `count` files.
    pub(crate) fn files(&self, count: usize) {
        if count == 1 {
            return;
        }
        self.0.set_length(count as u64);
        self.0.set_style(Self::style("{spinner} {prefix} {bar:24} {pos}/{len} {msg} ({elapsed})"));
    }

    pub(crate) fn file(&self, index: usize, name: &str) {
        tracing::debug!(file = name);
        self.0.set_position(index as u64);
        self.0.set_message(name.to_owned());
    }

    fn style(template: &str) -> ProgressStyle {
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Prints a warning for the user.
#[expect(clippy::print_stderr, reason = "libtest captures it and shows it with a failed test")]
pub(crate) fn notice(text: &str) {
    tracing::warn!("{text}");
    eprintln!("sandboxed-db: {text}");
}
