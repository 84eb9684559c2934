//! Resources that a sandbox holds while it lives, released in a fixed order.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::admission::Slot;
use crate::cache::DirectoryLock;
use crate::launch::Container;
use crate::report;

/// The container of a sandbox, and everything that outlives the container.
///
/// The handle and the keeper of its data share it: the container ends with the last of them. Fields
/// are dropped in the order of their declaration.
#[derive(Debug)]
pub(crate) struct Holdings {
    pub(crate) container: Container,
    /// Records the end of the container in the report of the run.
    pub(super) report: report::Ended,
    /// None for a sandbox that builds a layer.
    tenure: Option<Tenure>,
}

/// Resources that only the sandbox of a test holds.
#[derive(Debug)]
struct Tenure {
    lower: Arc<DirectoryLock>,
    _living: Living,
    _slot: Slot,
}

impl Holdings {
    pub(super) fn for_build(container: Container) -> Self {
        Self { container, report: report::Ended::default(), tenure: None }
    }

    pub(crate) fn for_test(
        container: Container,
        report: report::Recorder,
        lower: Arc<DirectoryLock>,
        slot: Slot,
    ) -> Self {
        let tenure = Tenure { lower, _living: Living::begin(), _slot: slot };
        Self { container, report: report::Ended(report), tenure: Some(tenure) }
    }

    /// Records the command that opens the data that was kept.
    pub(crate) fn kept(&self, reopen: &str) {
        self.report.0.kept(reopen);
    }

    /// Returns `true` if the directory below the sandbox was removed, though it is locked.
    pub(super) fn lower_is_removed(&self) -> bool {
        self.tenure.as_ref().is_some_and(|tenure| tenure.lower.is_removed())
    }
}

/// Counts a sandbox that a test of this process has. Atomics, since a forked child drops it too.
#[derive(Debug)]
struct Living(());

static LIVING: AtomicUsize = AtomicUsize::new(0);
/// Nanoseconds from [`epoch`] to the end of the latest sandbox.
static LAST_END: AtomicU64 = AtomicU64::new(0);

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

impl Living {
    fn begin() -> Self {
        epoch();
        LIVING.fetch_add(1, SeqCst);
        Self(())
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        LAST_END.store(u64::try_from(epoch().elapsed().as_nanos()).unwrap_or(u64::MAX), SeqCst);
        LIVING.fetch_sub(1, SeqCst);
    }
}

/// Since when no test of this process has had a sandbox; none while one has.
pub(crate) fn quiet_since() -> Option<Instant> {
    (LIVING.load(SeqCst) == 0).then(|| epoch() + Duration::from_nanos(LAST_END.load(SeqCst)))
}
