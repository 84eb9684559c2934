//! Runs in the test process: starts the launcher, asks it for containers, and holds them.

pub(super) mod client;
pub(super) mod container;
mod control;
pub(super) mod log;
mod tail;
