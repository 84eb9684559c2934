//! The prewarmed sandboxes of one plan, and the claims to them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::plan_key::PlanKey;
use super::policy::Demand;
use crate::admission::Slot;
use crate::error::Result;
use crate::sandbox::ReadyServer;

/// Starts a sandbox for a slot, on any thread.
pub(super) type Maker = Arc<dyn Fn(Slot) -> Result<Prewarmed> + Send + Sync>;

/// A prewarmed sandbox: a server that no test has requested yet.
#[derive(Debug)]
pub(crate) struct Prewarmed {
    pub(crate) server: ReadyServer,
    /// Declared last: it becomes free once the container has ended.
    pub(crate) slot: Slot,
}

impl Prewarmed {
    pub(super) fn serves(&self) -> bool {
        self.server.container.serves()
    }
}

/// All prewarmed sandboxes of one plan.
pub(super) struct Shelf {
    pub(super) number: u64,
    pub(super) key: PlanKey,
    pub(super) maker: Maker,
    /// Bytes of memory that each of its idle servers holds.
    pub(super) idle_memory: u64,
    pub(super) demand: Demand,
    pub(super) prewarmed: VecDeque<Prewarmed>,
    /// Starts in progress.
    pub(super) making: usize,
    /// Requests that wait for one of both.
    pub(super) claimed: usize,
    /// The end of the pause after a failed start.
    pub(super) avoided: Option<Instant>,
}

impl Shelf {
    pub(super) fn new(key: PlanKey, (maker, idle_memory): (Maker, u64), now: Instant) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            key,
            maker,
            idle_memory,
            demand: Demand::new(now),
            prewarmed: VecDeque::new(),
            making: 0,
            claimed: 0,
            avoided: None,
        }
    }

    /// Returns how many are ready or in the making without a claim.
    pub(super) fn to_claim(&self) -> usize {
        (self.prewarmed.len() + self.making).saturating_sub(self.claimed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.prewarmed.is_empty() && self.making == 0 && self.claimed == 0
    }

    pub(super) fn lacks(&self, now: Instant, most: usize) -> bool {
        let avoided = self.avoided.is_some_and(|until| now < until);
        !avoided && self.to_claim() < self.demand.wants(now, most)
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf")
            .field("number", &self.number)
            .field("demand", &self.demand)
            .field("prewarmed", &self.prewarmed)
            .field("making", &self.making)
            .field("claimed", &self.claimed)
            .finish_non_exhaustive()
    }
}
