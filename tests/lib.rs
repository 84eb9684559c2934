//! Helpers that the tests share.
#![expect(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "a helper fails the test with its reason"
)]

mod apt_repository;
mod mariadb_client;
mod namespaces;
#[cfg(feature = "images")]
mod oci_layout;
mod processes;
mod random;
mod repository;
mod scratch_dirs;
mod server;
mod test_process;
mod tested_engine;

pub use apt_repository::*;
pub use mariadb_client::*;
pub use namespaces::*;
#[cfg(feature = "images")]
pub use oci_layout::*;
pub use processes::*;
pub use random::*;
pub use repository::*;
pub use scratch_dirs::*;
pub use server::*;
pub use test_process::*;
pub use tested_engine::*;

/// Set in CI: a test that this machine cannot run fails instead of being skipped.
pub const MUST_RUN: &str = "SANDBOXED_DB_TESTS_MUST_RUN";

/// `all` runs every test with the largest number of rounds. Otherwise the tests take minutes, and
/// cover every promise with few rounds.
pub const TESTS: &str = "SANDBOXED_DB_TESTS";

/// Says why a test is skipped, or fails it if [`MUST_RUN`] is set. libtest cannot skip a test at
/// run time, so the test returns after this call.
pub fn skip(reason: &str) {
    assert!(std::env::var_os(MUST_RUN).is_none(), "{MUST_RUN} is set, but: {reason}");
    note(&format!("skipped: {reason}"));
}

/// Says that a test is skipped because it needs root. This is no failure even if [`MUST_RUN`] is
/// set: CI runs the tests as root too.
pub fn skip_without_root(reason: &str) {
    note(&format!("skipped, needs root: {reason}"));
}

/// Says that a test is skipped because root may do what it expects to be refused. This is no
/// failure even if [`MUST_RUN`] is set: CI runs the tests as an unprivileged user too.
pub fn skip_as_root(reason: &str) {
    note(&format!("skipped, needs an unprivileged user: {reason}"));
}

/// Says that a test is skipped because CI has no server for it. This is no failure even if
/// [`MUST_RUN`] is set.
pub fn skip_untested(reason: &str) {
    note(&format!("skipped, not in CI: {reason}"));
}

/// Returns `true` if the exhaustive run is asked for; if not, says that the test is left to it.
#[must_use]
pub fn is_exhaustive(reason: &str) -> bool {
    let all = all();
    if !all {
        note(&format!("skipped, {reason}: {TESTS}=all runs it"));
    }
    all
}

/// Returns `few`, or `all` in the exhaustive run.
#[must_use]
pub fn rounds<T>(few: T, all: T) -> T {
    if self::all() { all } else { few }
}

fn all() -> bool {
    match std::env::var(TESTS).unwrap_or_default().as_str() {
        "all" => true,
        "" => false,
        other => panic!("could not use {TESTS}={other}: `all` is its only value"),
    }
}

#[expect(clippy::print_stderr, reason = "tests report to their runner")]
fn note(text: &str) {
    eprintln!("{text}");
}
