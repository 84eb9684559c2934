//! Reaching a server, and tests that run alone.

use std::process::{Command, Stdio};

use postgres::{Client, NoTls};

/// Says to a test that it runs in a process of its own, see [`alone`].
const ALONE: &str = "SANDBOXED_DB_TESTS_ALONE";

/// A command that runs one `#[ignore]`d test of the calling test program in a process of its own: for tests that need
/// another environment, that share nothing with other threads, or whose failure is the point.
///
/// # Panics
/// When the test program cannot be found.
#[must_use]
pub fn alone(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test program knows its path"));
    command.args(["--ignored", "--exact", test, "--test-threads", "1"]).env(ALONE, "1").stdin(Stdio::null());
    command
}

/// Whether the test was run by [`alone`], and not by somebody who runs ignored tests.
#[must_use]
pub fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// A connection to a sandbox by its URL.
///
/// # Panics
/// When there is none to be had.
#[must_use]
pub fn connect(url: &str) -> Client {
    Client::connect(url, NoTls).unwrap_or_else(|error| panic!("connect to `{url}`: {error:?}"))
}
