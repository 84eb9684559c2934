//! The record of a sandbox.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The version of the records that this library writes, and the only one that it reads.
///
/// It changes when a field is removed or changes its meaning. A new field does not change it:
/// readers ignore unknown fields.
pub const VERSION: u32 = 1;

/// One sandbox of a run, in one line of JSON with these names.
///
/// A value that is unknown, or not known yet, is `null`. Times are in microseconds since 1970-01-01
/// UTC. Those of one sandbox come from a monotonic clock that starts at `asked_at_us`, so their
/// differences are right even if the machine's clock is set meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// Names the sandbox, in this file and any other.
    pub id: String,
    /// Names the run: nextest's `NEXTEST_RUN_ID`, else the process that started the test program,
    /// such as cargo.
    pub run: String,
    /// The command that started the run, such as `cargo test orders`: that of the cargo process
    /// above the test program, else the test program's. `null` if /proc hides it.
    pub command: Option<String>,
    /// The test's path as libtest prints it, such as `orders::can_be_dropped`, if known: from
    /// `#[sandboxed_db]`, the thread's name or nextest.
    pub test: Option<String>,
    /// The name of the requesting thread.
    pub thread: Option<String>,
    /// The package, if cargo or nextest names it.
    pub package: Option<String>,
    /// The test program's name, without the hash that cargo appends.
    pub program: String,
    /// The test process.
    pub process: u32,
    /// The sandbox's init, as [`Sandbox::pid`](crate::Sandbox::pid).
    pub pid: Option<u32>,
    /// The engine's name, such as `postgres`.
    pub engine: String,
    /// The version that the server's program prints, such as `postgres (PostgreSQL) 15.18`.
    pub engine_version: Option<String>,
    /// The digest of the layer from which the sandbox started.
    pub layer: Option<String>,
    /// `true` if this start built the layer.
    pub layer_built: bool,
    /// The time of the request.
    pub asked_at_us: u64,
    /// The time when its layer was available.
    pub layer_at_us: Option<u64>,
    /// The time when it got a slot.
    pub admitted_at_us: Option<u64>,
    /// The time when its server was executed: before the request if it was prewarmed.
    pub executed_at_us: Option<u64>,
    /// The time when its server was ready; or when it was handed over, if it was prewarmed.
    pub ready_at_us: Option<u64>,
    /// `true` if it was prewarmed by the [pool](crate::Snapshot::start).
    #[serde(default)]
    pub pooled: bool,
    /// The time when the last parameter of the test was made, such as a pool. `null` if the test
    /// takes none, or only the [`Sandbox`](crate::Sandbox).
    pub connected_at_us: Option<u64>,
    /// The time when its end began: the handle was dropped or stopped, or the start failed.
    pub ended_at_us: Option<u64>,
    /// The time when all of its processes had ended.
    pub gone_at_us: Option<u64>,
    /// The outcome of its test.
    pub outcome: Outcome,
    /// The reason why the sandbox could not be started.
    pub error: Option<String>,
    /// The reason why the test failed: the panic's message or the returned error, on one line of at
    /// most 1,000 characters. `null` for a test that passed, and for one that runs without the
    /// attribute.
    pub failure: Option<String>,
    /// The command that starts a server on its data, if the data was [kept](crate::Keep).
    pub reopen: Option<String>,
    /// Bytes written in its data directory when its end began, without deleted files. `null` in
    /// process mode.
    pub disk_bytes: Option<u64>,
    /// The peak of the memory of its processes and written files, in bytes, as the kernel counted
    /// it. `null` without a control group, or with one of Linux before 5.19.
    pub memory_peak_bytes: Option<u64>,
}

/// The outcome of the test of a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// The test passed.
    Passed,
    /// The test failed, or its sandbox could not be started.
    Failed,
    /// Unknown: the test has not ended, or it has no `#[sandboxed_db]` and did not panic while it
    /// held the sandbox.
    #[default]
    Unknown,
}

impl Record {
    /// Returns the duration of the start, from the request to a ready server; `None` if it never
    /// was ready.
    #[must_use]
    pub fn started(&self) -> Option<Duration> {
        Some(Duration::from_micros(self.ready_at_us?.saturating_sub(self.asked_at_us)))
    }

    /// Returns the time for which the sandbox was in use, from the last parameter to the beginning
    /// of its end; `None` if either is unknown.
    #[must_use]
    pub fn used(&self) -> Option<Duration> {
        let begin = self.connected_at_us.or(self.ready_at_us)?;
        Some(Duration::from_micros(self.ended_at_us?.saturating_sub(begin)))
    }
}
