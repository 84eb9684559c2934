//! Marks threads that run an `async` test, on which a blocking client must not be made.

use std::cell::Cell;

thread_local!(static ASYNC: Cell<bool> = const { Cell::new(false) });

/// Marks this thread until it is dropped.
#[cfg(feature = "tokio")]
pub(crate) struct AsyncTest(());

#[cfg(feature = "tokio")]
impl AsyncTest {
    pub(crate) fn begin() -> Self {
        ASYNC.set(true);
        Self(())
    }
}

#[cfg(feature = "tokio")]
impl Drop for AsyncTest {
    fn drop(&mut self) {
        ASYNC.set(false);
    }
}

pub(super) fn runs_async_test() -> bool {
    ASYNC.get()
}
