//! The arguments of `#[sandboxed_db]`, and the output of its failing tests.

use std::process::Output;

use postgres::NoTls;
use sandboxed_db::{Postgres, Sandbox, Snapshot, sandboxed_db};
use sandboxed_db_tests::{DEADLINE, alone, connect, eventually, is_alone, processes_beside};

pub(crate) fn answer(url: &str, query: &str) -> String {
    connect(url).query_one(query, &[]).unwrap().get(0)
}

pub(crate) async fn answer_async(url: &str, query: &str) -> Result<String, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client.query_one(query, &[]).await?.get(0))
}

pub(crate) const DATABASE: &str = "select current_database()::text";
const NOTES: &str = "select coalesce(string_agg(body, ' | ' order by id), 'none') from notes";

// Outcomes.

#[sandboxed_db]
#[should_panic]
fn should_panic_tests_may_panic(db: Sandbox) {
    connect(db.url()).batch_execute("select * from nowhere").unwrap();
}

// Arguments.

#[sandboxed_db]
#[cfg_attr(all(), ignore = "run by `ignored_tests_run_on_request`")]
fn ignored(db: Sandbox) {
    assert_eq!(answer(db.url(), DATABASE), "postgres");
}

#[sandboxed_db(migrations = "data/notes/migrations")]
fn migrations_are_found_in_the_package(db: Sandbox) {
    assert_eq!(answer(db.url(), NOTES), "none");
}

#[sandboxed_db(migrations = "data/notes/migrations", seed = "data/notes/one.sql")]
fn one_seed_file_is_loaded(db: Sandbox) {
    assert_eq!(answer(db.url(), NOTES), "one");
}

#[sandboxed_db(
    migrations = "data/notes/migrations",
    seed = ["data/notes/one.sql", "data/notes/two.sql"],
)]
fn seed_files_are_loaded_in_order(db: Sandbox) {
    assert_eq!(answer(db.url(), NOTES), "one | one, two");
}

#[sandboxed_db(settings(
    work_mem = "7MB",
    max_connections = 23,
    seq_page_cost = 1.5,
    enable_seqscan = false,
    log_min_duration_statement = -1,
    "my.setting" = "it's \\ here",
    deadlock_timeout = "3s",
))]
fn settings_reach_the_server(db: Sandbox) {
    let mut client = connect(db.url());
    for (name, value) in [
        ("work_mem", "7MB"),
        ("max_connections", "23"),
        ("seq_page_cost", "1.5"),
        ("enable_seqscan", "off"),
        ("log_min_duration_statement", "-1"),
        ("my.setting", "it's \\ here"),
        ("deadlock_timeout", "3s"),
    ] {
        let shown: String = client.query_one(&format!("show {name}"), &[]).unwrap().get(0);
        assert_eq!(shown, value, "{name}");
    }
}

#[sandboxed_db(start_timeout = "2m")]
async fn a_start_timeout_is_accepted(url: String) {
    assert_eq!(answer_async(&url, DATABASE).await.unwrap(), "postgres");
}

#[sandboxed_db(
    migrations = "data/notes/migrations",
    start_timeout = 90,
    seed = "data/notes/one.sql",
    settings(jit = true)
)]
async fn all_arguments_work_together(db: &Sandbox) -> Result<(), tokio_postgres::Error> {
    assert_eq!(answer_async(db.url(), NOTES).await?, "one");
    assert_eq!(answer_async(db.url(), "show jit").await?, "on");
    Ok(())
}

// Failures: a test below runs each of these and reads its output.

#[sandboxed_db]
#[ignore = "fails, run by `a_panic_shows_the_server_log`"]
fn panics(db: Sandbox) {
    if is_alone() {
        connect(db.url()).batch_execute("select 'panicked' from nowhere").unwrap();
    }
}

#[sandboxed_db]
#[ignore = "fails, run by `a_returned_error_shows_the_server_log`"]
fn returns_an_error(url: String) -> Result<(), postgres::Error> {
    if is_alone() {
        connect(&url).batch_execute("select 'returned' from nowhere")?;
    }
    Ok(())
}

#[sandboxed_db]
#[ignore = "fails, run by `an_async_panic_shows_the_server_log`"]
async fn panics_async(db: &Sandbox) {
    if is_alone() {
        answer_async(db.url(), "select 'panicked' from nowhere").await.unwrap();
    }
}

#[sandboxed_db]
#[ignore = "fails, run by `an_async_error_shows_the_server_log`"]
async fn returns_an_error_async(db: Sandbox) -> Result<(), tokio_postgres::Error> {
    if is_alone() {
        answer_async(db.url(), "select 'returned' from nowhere").await?;
    }
    Ok(())
}

/// Kills the server from within, and fails because of it.
fn kill_the_server(url: &str) {
    if is_alone() {
        let kill = "copy (select where false) to program 'kill -9 $(head -1 postmaster.pid)'";
        // The session may or may not get the message before it ends.
        let _ = connect(url).batch_execute(kill);
        let init = url.split_once("/proc/").and_then(|(_, rest)| rest.split_once('/'));
        let init = init.unwrap_or_else(|| panic!("{url}")).0.parse().unwrap();
        eventually(DEADLINE, "the server is gone", || (processes_beside(init) == [init]).then_some(()));
        panic!("the server was killed");
    }
}

#[sandboxed_db]
#[ignore = "fails, run by `the_death_of_the_server_is_reported`"]
fn kills_a_server_by_its_url(url: String) {
    kill_the_server(&url);
}

#[sandboxed_db]
#[ignore = "fails, run by `the_death_of_the_server_is_reported`"]
fn kills_a_borrowed_server(db: &Sandbox) {
    kill_the_server(db.url());
}

#[sandboxed_db]
#[ignore = "fails, run by `the_death_of_the_server_is_reported`"]
fn kills_an_owned_server(db: Sandbox) {
    kill_the_server(db.url());
}

fn without_migrations() -> Snapshot {
    Snapshot::new(Postgres::new()).migrations("no/such/directory")
}

#[sandboxed_db(snapshot = without_migrations)]
#[ignore = "fails, run by `a_missing_directory_is_reported`"]
fn has_no_migrations(db: Sandbox) {
    drop(db);
}

#[sandboxed_db]
#[ignore = "run by `an_expected_panic_prints_nothing` and `a_failed_start_is_no_expected_panic`"]
#[should_panic]
fn panics_as_expected(db: Sandbox) {
    connect(db.url()).batch_execute("select 'expected' from nowhere").unwrap();
}

#[sandboxed_db]
#[ignore = "run by `a_failed_start_is_no_expected_panic`"]
#[should_panic(expected = "postgres")]
async fn panics_with_text_of_the_report(db: &Sandbox) {
    answer_async(db.url(), "select 'postgres' from nowhere").await.expect("postgres");
}

#[sandboxed_db]
#[ignore = "fails, run by `a_missing_panic_fails_the_test`"]
#[should_panic]
fn does_not_panic_as_expected(db: Sandbox) {
    if is_alone() {
        drop(db);
    } else {
        panic!("as expected");
    }
}

fn run(test: &str) -> (Output, String) {
    run_with(test, &[])
}

fn run_with(test: &str, environment: &[(&str, &str)]) -> (Output, String) {
    let output = alone(&format!("attribute::{test}")).envs(environment.iter().copied()).output().unwrap();
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("running 1 test"), "{test} is not a test:\n{text}");
    (output, text)
}

/// Returns the output of a failed test.
fn failure(test: &str) -> String {
    let (output, text) = run(test);
    assert!(!output.status.success(), "{text}");
    let failed = [" ... FAILED", " - should panic ... FAILED"];
    assert!(failed.iter().any(|failed| text.contains(&format!("test attribute::{test}{failed}"))), "{text}");
    text
}

/// Asserts that the captured output of the test shows the server's log.
fn assert_shows_log(test: &str, statement: &str) {
    let text = failure(test);
    let section = format!("---- attribute::{test} stdout ----");
    let captured = text.split(&section).nth(1).unwrap_or_else(|| panic!("{text}"));
    let captured = captured.split("\nfailures:").next().unwrap();
    let sandbox = format!("sandboxed-db: the sandbox of `integration::attribute::{test}` had the pid ");
    assert!(captured.contains(&sandbox), "{text}");
    let line =
        |ending: &str| captured.lines().any(|line| line.starts_with("    | ") && line.contains(ending));
    assert!(captured.contains("\n  server log, its end:\n"), "{text}");
    assert!(!line("database system is ready to accept connections"), "{text}");
    assert!(line("ERROR:  relation \"nowhere\" does not exist"), "{text}");
    assert!(line(&format!("STATEMENT:  {statement}")), "{text}");
}

#[test]
fn ignored_tests_run_on_request() {
    let (output, text) = run("ignored");
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
fn a_panic_shows_the_server_log() {
    assert_shows_log("panics", "select 'panicked' from nowhere");
}

#[test]
fn a_returned_error_shows_the_server_log() {
    assert_shows_log("returns_an_error", "select 'returned' from nowhere");
}

#[test]
fn an_async_panic_shows_the_server_log() {
    assert_shows_log("panics_async", "select 'panicked' from nowhere");
}

#[test]
fn an_async_error_shows_the_server_log() {
    assert_shows_log("returns_an_error_async", "select 'returned' from nowhere");
}

#[test]
fn a_passing_test_prints_nothing() {
    // With `--nocapture`, since libtest hides the output of a passing test.
    let output = alone("attribute::ignored").arg("--nocapture").output().unwrap();
    let text = String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).unwrap();
    assert!(text.contains("1 passed"), "{text}");
    assert!(!text.contains("sandboxed-db") && !text.contains("LOG:"), "{text}");
}

#[test]
fn an_expected_panic_prints_nothing() {
    let output = alone("attribute::panics_as_expected").arg("--nocapture").output().unwrap();
    let text = String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).unwrap();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(!text.contains("server log") && !text.contains("STATEMENT"), "{text}");
}

#[test]
fn a_missing_panic_fails_the_test() {
    failure("does_not_panic_as_expected");
}

#[test]
fn the_death_of_the_server_is_reported() {
    for test in ["kills_a_server_by_its_url", "kills_a_borrowed_server", "kills_an_owned_server"] {
        let text = failure(test);
        assert!(text.contains("the server was killed"), "{text}");
        assert!(text.contains("\n  the server has ended with "), "{text}");
    }
}

#[test]
fn a_missing_directory_is_reported() {
    let text = failure("has_no_migrations");
    let expected = format!(": could not read `{}/no/such/directory`", env!("CARGO_MANIFEST_DIR"));
    let line = text.lines().find(|line| line.ends_with(&expected)).unwrap_or_else(|| panic!("{text}"));
    // The place of the test, and no backtrace, which would lead into the library.
    assert!(line.starts_with(concat!(file!(), ":")), "{line}");
    assert!(!text.contains("backtrace") && !text.contains("sandbox/src"), "{text}");
    assert!(text.contains("\n  cause: No such file or directory"), "{text}");
    let hint = format!("\n  hint: `no/such/directory` is relative to `{}`", env!("CARGO_MANIFEST_DIR"));
    assert!(text.contains(&hint), "{text}");
}

/// A `#[should_panic]` test must not pass because its sandbox did not start.
#[test]
fn a_failed_start_is_no_expected_panic() {
    for test in ["panics_as_expected", "panics_with_text_of_the_report"] {
        let (output, text) = run_with(test, &[("SANDBOXED_DB_POSTGRES", "/nonexistent")]);
        assert!(!output.status.success(), "{text}");
        assert!(text.contains(&format!("test attribute::{test} - should panic ... FAILED")), "{text}");
        assert!(text.contains("note: test did not panic as expected"), "{text}");
        assert!(text.contains("could not use SANDBOXED_DB_POSTGRES=/nonexistent"), "{text}");
        assert!(text.contains("\n  hint: SANDBOXED_DB_POSTGRES takes `packages`, or directories"), "{text}");
    }
}

// Steps of every kind, on a shared description.

fn notes() -> Snapshot {
    Snapshot::new(Postgres::new()).migrations("data/notes/migrations")
}

async fn one_more(db: &Sandbox) -> Result<(), tokio_postgres::Error> {
    crate::requests::batch(db.url(), "insert into notes (body) values ('by code')").await
}

#[sandboxed_db(
    snapshot = notes,
    depends_on = "data/notes",
    run("psql", "-c", "insert into notes (body) values ('by a program')"),
    prepare("attribute-one-more", one_more),
)]
fn a_test_extends_a_shared_description(db: Sandbox) {
    let bodies = "select string_agg(body, ', ' order by body) from notes where body like 'by %'";
    let bodies: String = connect(db.url()).query_one(bodies, &[]).unwrap().get(0);
    assert_eq!(bodies, "by a program, by code");
}

#[sandboxed_db(migrations_of(Sqlx, "data/conventions/sqlx"))]
fn a_test_names_its_migration_tool(db: Sandbox) {
    let noted: i64 =
        connect(db.url()).query_one("select count(*) from _sqlx_migrations", &[]).unwrap().get(0);
    assert!(noted > 0);
}
