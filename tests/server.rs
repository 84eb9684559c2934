//! Connections to servers, and tests in processes of their own.

use std::process::{Command, Stdio};

use postgres::{Client, NoTls};

/// Set in the processes of [`alone`].
const ALONE: &str = "SANDBOXED_DB_TESTS_ALONE";

/// A command that runs one `#[ignore]`d test of the calling program in a process of its own: a test
/// that needs another environment, shares nothing with other threads, or has to fail.
///
/// # Panics
/// If the path of the program is unknown.
#[must_use]
pub fn alone(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test program knows its path"));
    command.args(["--ignored", "--exact", test, "--test-threads", "1"]).env(ALONE, "1").stdin(Stdio::null());
    command
}

/// Returns `true` if [`alone`] runs the test, and not a user who runs all ignored tests.
#[must_use]
pub fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// Connects to a sandbox by its URL.
///
/// # Panics
/// If the connection fails.
#[must_use]
pub fn connect(url: &str) -> Client {
    Client::connect(url, NoTls).unwrap_or_else(|error| panic!("connect to `{url}`: {error:?}"))
}
