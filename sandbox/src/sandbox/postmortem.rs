//! Facts about a sandbox that are still needed once it is gone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::LOG_TAIL;
use crate::launch::Log;
use crate::timings::Timings;

/// Log, diagnosis and connection time of a sandbox; outlives it.
#[derive(Debug)]
pub(crate) struct Postmortem {
    log: Arc<Log>,
    /// The length of the log when the server was ready.
    begin: u64,
    diagnosis: OnceLock<String>,
    /// Nanoseconds of [`Timings::connect`] so far.
    connect: AtomicU64,
}

impl Postmortem {
    pub(super) fn new(log: Arc<Log>) -> Self {
        let begin = log.len().unwrap_or_default();
        Self { log, begin, diagnosis: OnceLock::new(), connect: AtomicU64::new(0) }
    }

    /// Returns the end of the log, without the lines of the start.
    pub(crate) fn log(&self) -> String {
        self.log.tail_after(self.begin, LOG_TAIL).unwrap_or_default()
    }

    /// The cause of the failure besides the log, if one was found.
    pub(crate) fn diagnosis(&self) -> Option<&str> {
        self.diagnosis.get().map(String::as_str)
    }

    /// Notes a diagnosis. Later ones are ignored: the first is nearest to the failure.
    pub(crate) fn diagnosed(&self, diagnosis: String) {
        let _ = self.diagnosis.set(diagnosis);
    }

    pub(super) fn connected(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.connect.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Adds the time of all connections so far to the timings of the start.
    pub(crate) fn timings(&self, start: Timings) -> Timings {
        Timings { connect: Duration::from_nanos(self.connect.load(Ordering::Relaxed)), ..start }
    }
}
