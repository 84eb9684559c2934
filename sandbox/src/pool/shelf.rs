//! The spares of one kind, and who waits for them.

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

/// Starts one, on whichever thread.
pub(super) type Maker = Arc<dyn Fn(Slot) -> Result<Spare> + Send + Sync>;

/// A prewarmed server: no test has asked for it yet.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) server: ReadyServer,
    /// Declared last, since it is given back once the container has ended.
    pub(crate) slot: Slot,
}

impl Spare {
    pub(super) fn serves(&self) -> bool {
        self.server.container.serves()
    }
}

/// All of one identity.
pub(super) struct Shelf {
    pub(super) number: u64,
    pub(super) identity: PlanKey,
    pub(super) maker: Maker,
    pub(super) demand: Demand,
    pub(super) spares: VecDeque<Spare>,
    /// How many are started right now.
    pub(super) making: usize,
    /// How many of both have somebody who waits for them.
    pub(super) claimed: usize,
    /// Until when it is left alone, since a start failed.
    pub(super) avoided: Option<Instant>,
}

impl Shelf {
    pub(super) fn new(identity: PlanKey, maker: Maker, now: Instant) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            identity,
            maker,
            demand: Demand::new(now),
            spares: VecDeque::new(),
            making: 0,
            claimed: 0,
            avoided: None,
        }
    }

    /// How many there are, or will be, that nobody waits for.
    pub(super) fn to_claim(&self) -> usize {
        (self.spares.len() + self.making).saturating_sub(self.claimed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spares.is_empty() && self.making == 0 && self.claimed == 0
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
            .field("spares", &self.spares)
            .field("making", &self.making)
            .field("claimed", &self.claimed)
            .finish_non_exhaustive()
    }
}
