//! What the tests share.

mod leftovers;
mod server;

pub use leftovers::*;
pub use server::*;

/// Set in CI: a test that this machine cannot run fails instead of being skipped.
pub const MUST_RUN: &str = "SANDBOXED_DB_TESTS_MUST_RUN";

/// Says why a test is skipped; fails it where [`MUST_RUN`] is set. libtest knows no skipping at run time, so the test
/// returns after it.
///
/// # Panics
/// When `SANDBOXED_DB_TESTS_MUST_RUN` is set.
#[expect(clippy::print_stderr, reason = "tests report to their runner")]
pub fn skip(reason: &str) {
    assert!(std::env::var_os(MUST_RUN).is_none(), "{MUST_RUN} is set, but: {reason}");
    eprintln!("skipped: {reason}");
}
