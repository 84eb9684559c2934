//! Runs in the test process: starts the launcher, asks it for containers, and holds them.

pub(super) mod client;
pub(super) mod container;
mod control;
pub(super) mod control_group;
pub(super) mod error;
pub(super) mod log;
mod network;
pub(super) mod program;
mod tail;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. A thread that panicked while it held one of this folder's locks left nothing
/// half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
