//! Servers, connections to them, and tests in separate processes.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use postgres::types::FromSqlOwned;
use postgres::{Client, GenericClient, NoTls};
use sandboxed_db::{Engine, ErrorKind, Postgres, Sandbox, Snapshot};

use crate::skip;

/// Set in the processes of [`alone`].
const ALONE: &str = "SANDBOXED_DB_TESTS_ALONE";

/// A command that runs one `#[ignore]`d test of the calling program in a separate process: a test
/// that needs another environment, shares nothing with other threads, or has to fail.
#[must_use]
pub fn alone(test: &str) -> Command {
    this_program(&["--ignored", "--exact", test])
}

/// A command that runs the `#[ignore]`d tests of a module of the calling program, one by one in a
/// separate process.
#[must_use]
pub fn alone_in(module: &str) -> Command {
    this_program(&["--ignored", module])
}

fn this_program(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test program knows its path"));
    command.args(args).args(["--test-threads", "1"]).env(ALONE, "1").stdin(Stdio::null());
    command
}

/// Has the test that calls it, with its own function, continue in a separate process, which
/// `set_up` prepares. Returns `true` in that process, and `false` in the calling one once the test
/// has passed.
#[track_caller]
pub fn continues_alone(test: impl Fn(), set_up: impl FnOnce(&mut Command)) -> bool {
    if is_alone() {
        return true;
    }
    let mut command = this_program(&["--exact", name_of(&test)]);
    set_up(&mut command);
    passed(&mut command);
    false
}

fn name_of<T>(test: &T) -> &'static str {
    std::any::type_name_of_val(test).split_once("::").expect("a test is in a crate").1
}

/// The same in a process with an empty cache.
#[track_caller]
pub fn continues_in_cache(test: impl Fn()) -> bool {
    let cache = tempfile::tempdir().expect("a temporary directory");
    continues_alone(test, |process| {
        process.env("SANDBOXED_DB_CACHE", cache.path());
    })
}

/// The same on a terminal. Returns `None` in that process, and all that the terminal shows in the
/// calling one.
///
/// # Panics
/// If the test fails.
#[track_caller]
pub fn continues_on_terminal(test: impl Fn()) -> Option<String> {
    if is_alone() {
        return None;
    }
    let cache = tempfile::tempdir().expect("a temporary directory");
    let mut command = this_program(&["--exact", name_of(&test), "--nocapture"]);
    Some(on_terminal(command.env("SANDBOXED_DB_CACHE", cache.path())))
}

/// Returns `true` in a process of [`alone`] or [`continues_alone`], and not if a user runs all
/// ignored tests.
#[must_use]
pub fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// Runs a command on a terminal, and returns all that the terminal shows.
///
/// # Panics
/// If the command fails.
#[must_use]
#[track_caller]
pub fn on_terminal(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    // script(1) of util-linux, which every Debian has.
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let output = script.output().expect("script runs");
    let text = printed(&output);
    assert!(output.status.success(), "{command:?}:\n{text}");
    text
}

/// Runs one test in a separate process, and returns its success and all that it printed.
#[track_caller]
pub fn outcome(test: &mut Command) -> (bool, String) {
    let output = test.output().expect("the test program runs");
    let text = printed(&output);
    assert!(text.contains("\nrunning 1 test\n"), "{test:?} is not a test:\n{text}");
    (output.status.success(), text)
}

/// Removes the lines that long work prints each five seconds.
#[must_use]
pub fn without_progress(printed: &str) -> String {
    let is_progress = |line: &str| line.starts_with("sandboxed-db: ") && line.ends_with(" s)\n");
    printed.split_inclusive('\n').filter(|line| !is_progress(line)).collect()
}

/// Runs one test that must pass, and returns all that it printed.
#[track_caller]
pub fn passed(test: &mut Command) -> String {
    let (success, text) = outcome(test);
    assert!(success && text.contains("1 passed"), "{text}");
    text
}

/// Runs one test that must fail, and returns all that it printed.
#[track_caller]
pub fn failed(test: &mut Command) -> String {
    let (success, text) = outcome(test);
    assert!(!success && text.contains("1 failed"), "{text}");
    text
}

/// All that a program printed.
#[must_use]
pub fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Asserts that a report has all parts.
#[track_caller]
pub fn assert_says(report: &str, parts: &[&str]) {
    for part in parts {
        assert!(report.contains(part), "`{part}` is not in\n{report}");
    }
}

/// Describes a PostgreSQL server without steps.
#[must_use]
pub fn fresh() -> Snapshot {
    Snapshot::new(Postgres::new())
}

/// Starts a PostgreSQL server without steps.
#[must_use]
#[track_caller]
pub fn start() -> Sandbox {
    fresh().start().unwrap_or_else(|error| panic!("{error:?}"))
}

/// Returns the report of a description that must be refused.
#[track_caller]
pub fn refused<E: Engine>(snapshot: &Snapshot<E>) -> String {
    let error = snapshot.start().expect_err("the description is refused");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    format!("{error:?}")
}

/// Connects to a sandbox by its URL.
#[must_use]
#[track_caller]
pub fn connect(url: &str) -> Client {
    Client::connect(url, NoTls).unwrap_or_else(|error| panic!("connect to `{url}`: {error:?}"))
}

/// Connects a client whose messages a task of the caller's runtime carries.
pub async fn connect_async(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Returns the first column of the one row of a query.
#[track_caller]
pub fn value<T: FromSqlOwned>(client: &mut impl GenericClient, query: &str) -> T {
    client.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// Returns the first column of the one row of a query, over a separate connection.
#[must_use]
#[track_caller]
pub fn value_at<T: FromSqlOwned>(url: &str, query: &str) -> T {
    value(&mut connect(url), query)
}

/// Returns the first column of all rows of a query.
#[track_caller]
pub fn column<T: FromSqlOwned>(client: &mut Client, query: &str) -> Vec<T> {
    let rows = client.query(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// The directory of the programs beside a server.
#[must_use]
pub fn bin(db: &Sandbox) -> PathBuf {
    value_at::<String>(db.url(), "select setting from pg_config where name = 'BINDIR'").into()
}

/// Returns one of PostgreSQL's programs: beside the server, else in `PATH`. Skips the test if there
/// is none.
#[must_use]
pub fn program(db: &Sandbox, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut paths = [bin(db)].into_iter().chain(std::env::split_paths(&path)).map(|bin| bin.join(name));
    let found = paths.find(|program| program.is_file());
    if found.is_none() {
        skip(&format!("`{name}` is not installed"));
    }
    found
}
