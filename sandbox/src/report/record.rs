//! What is written of a sandbox.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The version of the records that this library writes, and the only one that it reads.
///
/// It changes when a field goes or changes its meaning. New fields come without: readers pass over what they do not know.
pub const VERSION: u32 = 1;

/// One sandbox of a run, in one line of JSON with these names.
///
/// What is not known (yet) is `null`. Times are in microseconds since 1970-01-01 UTC; those of one sandbox are taken from a
/// monotonic clock that starts at `asked_at_us`, so that their differences hold even if the machine's clock is set meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// Names the sandbox, in this file and any other.
    pub id: String,
    /// Names the run: nextest's `NEXTEST_RUN_ID`, else the process that started the test program, such as cargo.
    pub run: String,
    /// The test's path as libtest prints it, such as `orders::can_be_dropped`, where it is known: from `#[sandboxed_db]`, the
    /// thread's name or nextest.
    pub test: Option<String>,
    /// The name of the thread that asked.
    pub thread: Option<String>,
    /// The package, where cargo or nextest names it.
    pub package: Option<String>,
    /// The test program's name, without the hash that cargo appends.
    pub program: String,
    /// The test process.
    pub process: u32,
    /// The sandbox's init, as [`Sandbox::pid`](crate::Sandbox::pid).
    pub pid: Option<u32>,
    /// The engine's name, such as `postgres`.
    pub engine: String,
    /// What the server's program prints as its version, such as `postgres (PostgreSQL) 15.18`.
    pub engine_version: Option<String>,
    /// The digest of the layer it started from.
    pub layer: Option<String>,
    /// Whether this start had to build the layer.
    pub layer_built: bool,
    /// When it was asked for.
    pub asked_at_us: u64,
    /// When its layer was there.
    pub layer_at_us: Option<u64>,
    /// When so few sandboxes lived that it might.
    pub admitted_at_us: Option<u64>,
    /// When its server was executed: before it was asked for, if it was started ahead.
    pub executed_at_us: Option<u64>,
    /// When its server was ready; or, if it was started ahead, when it was handed over.
    pub ready_at_us: Option<u64>,
    /// Whether it was started ahead, by the [pool](crate::Snapshot::start).
    #[serde(default)]
    pub pooled: bool,
    /// When the last parameter of the test was made of it, such as a pool. `null` where the test takes none, or only the
    /// [`Sandbox`](crate::Sandbox).
    pub connected_at_us: Option<u64>,
    /// When its end began: the handle was dropped or stopped, or the start had failed.
    pub ended_at_us: Option<u64>,
    /// When the kernel had ended all of its processes.
    pub gone_at_us: Option<u64>,
    /// How its test came out.
    pub outcome: Outcome,
    /// Why it could not be started.
    pub error: Option<String>,
    /// Why its test failed: the panic's message or the returned error, on one line of at most 1,000 characters. `null` for
    /// a test that passed, and for one that runs without the attribute.
    pub failure: Option<String>,
    /// Bytes in its data directory that were written, deleted files not counted, when its end began. `null` where there is
    /// no container.
    pub disk_bytes: Option<u64>,
    /// The most memory that its processes and written files took at a time, in bytes, as the kernel counted it. `null`
    /// where there is no control group to use, or one of Linux before 5.19.
    pub memory_peak_bytes: Option<u64>,
}

/// How the test of a sandbox came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed, or its sandbox could not be started.
    Failed,
    /// Nobody knows: it has not ended, or it is no test of `#[sandboxed_db]` and did not panic while it held the sandbox.
    #[default]
    Unknown,
}

impl Record {
    /// How long the start took, from the request to a server that is ready; `None` if it never was.
    #[must_use]
    pub fn started(&self) -> Option<Duration> {
        Some(Duration::from_micros(self.ready_at_us?.saturating_sub(self.asked_at_us)))
    }

    /// How long the sandbox was in use, from the last parameter made to the begin of its end; `None` if either is not known.
    #[must_use]
    pub fn used(&self) -> Option<Duration> {
        let begin = self.connected_at_us.or(self.ready_at_us)?;
        Some(Duration::from_micros(self.ended_at_us?.saturating_sub(begin)))
    }
}
