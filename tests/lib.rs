//! What the tests share.

mod chance;
mod leftovers;
mod namespaces;
mod server;

pub use chance::*;
pub use leftovers::*;
pub use namespaces::*;
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

/// Says that a test is left to root. No failure even where [`MUST_RUN`] is set: CI runs the same tests as root and as a user
/// who cannot do what they need.
#[expect(clippy::print_stderr, reason = "tests report to their runner")]
pub fn leave_to_root(reason: &str) {
    eprintln!("left to root: {reason}");
}
