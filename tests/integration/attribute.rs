//! The arguments of `#[sandboxed_db]`, and the output of its failing tests.

use std::process::Command;

use rstest::rstest;
use sandboxed_db::{Sandbox, Snapshot, sandboxed_db};
use sandboxed_db_tests::{
    DEADLINE, alone, assert_says, connect, connect_async, failed, fresh, is_alone, passed, processes_beside,
    value, value_at, wait_until,
};

pub(crate) async fn answer_async(url: &str, query: &str) -> Result<String, tokio_postgres::Error> {
    Ok(connect_async(url).await?.query_one(query, &[]).await?.get(0))
}

pub(crate) const DATABASE: &str = "select current_database()::text";
const NOTES: &str = "select coalesce(string_agg(body, ' | ' order by id), 'none') from notes";

// Arguments.

#[sandboxed_db]
#[cfg_attr(all(), ignore = "run by `a_passing_test_prints_nothing`")]
fn ignored(db: Sandbox) {
    assert_eq!(value_at::<String>(db.url(), DATABASE), "postgres");
}

#[sandboxed_db(
    migrations = "data/notes/migrations",
    seed = ["data/notes/one.sql", "data/notes/two.sql"],
)]
fn seed_files_are_loaded_in_order(db: Sandbox) {
    assert_eq!(value_at::<String>(db.url(), NOTES), "one | one, two");
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
    for (name, expected) in [
        ("work_mem", "7MB"),
        ("max_connections", "23"),
        ("seq_page_cost", "1.5"),
        ("enable_seqscan", "off"),
        ("log_min_duration_statement", "-1"),
        ("my.setting", "it's \\ here"),
        ("deadlock_timeout", "3s"),
    ] {
        assert_eq!(value::<String>(&mut client, &format!("show {name}")), expected, "{name}");
    }
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
#[ignore = "fails, run by `a_failure_shows_the_server_log`"]
fn panics(db: Sandbox) {
    if is_alone() {
        connect(db.url()).batch_execute("select 'panicked' from nowhere").unwrap();
    }
}

#[sandboxed_db]
#[ignore = "fails, run by `a_failure_shows_the_server_log`"]
fn returns_an_error(url: String) -> Result<(), postgres::Error> {
    if is_alone() {
        connect(&url).batch_execute("select 'returned' from nowhere")?;
    }
    Ok(())
}

#[sandboxed_db]
#[ignore = "fails, run by `a_failure_shows_the_server_log`"]
async fn panics_async(db: &Sandbox) {
    if is_alone() {
        answer_async(db.url(), "select 'panicked' from nowhere").await.unwrap();
    }
}

#[sandboxed_db]
#[ignore = "fails, run by `a_failure_shows_the_server_log`"]
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
        wait_until(DEADLINE, "the server is gone", || processes_beside(init) == [init]);
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
    fresh().migrations("no/such/directory")
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

fn test(name: &str) -> Command {
    alone(&format!("attribute::{name}"))
}

#[rstest]
#[case::by_a_panic("panics", "panicked")]
#[case::by_an_error("returns_an_error", "returned")]
#[case::by_an_async_panic("panics_async", "panicked")]
#[case::by_an_async_error("returns_an_error_async", "returned")]
fn a_failure_shows_the_server_log(#[case] name: &str, #[case] word: &str) {
    let text = failed(&mut test(name));
    let section = format!("---- attribute::{name} stdout ----");
    let captured = text.split(&section).nth(1).unwrap_or_else(|| panic!("{text}"));
    let captured = captured.split("\nfailures:").next().unwrap();
    let sandbox = format!("sandboxed-db: the sandbox of `integration::attribute::{name}` had the pid ");
    assert_says(captured, &[&sandbox, "\n  server log, its end:\n"]);
    let line =
        |ending: &str| captured.lines().any(|line| line.starts_with("    | ") && line.contains(ending));
    assert!(!line("database system is ready to accept connections"), "{text}");
    assert!(line("ERROR:  relation \"nowhere\" does not exist"), "{text}");
    assert!(line(&format!("STATEMENT:  select '{word}' from nowhere")), "{text}");
}

#[test]
fn a_passing_test_prints_nothing() {
    // With `--nocapture`, since libtest hides the output of a passing test.
    let text = passed(test("ignored").arg("--nocapture"));
    assert!(!text.contains("sandboxed-db") && !text.contains("LOG:"), "{text}");
}

#[test]
fn an_expected_panic_prints_nothing() {
    let text = passed(test("panics_as_expected").arg("--nocapture"));
    assert!(!text.contains("server log") && !text.contains("STATEMENT"), "{text}");
}

#[test]
fn a_missing_panic_fails_the_test() {
    failed(&mut test("does_not_panic_as_expected"));
}

#[rstest]
fn the_death_of_the_server_is_reported(
    #[values("kills_a_server_by_its_url", "kills_a_borrowed_server", "kills_an_owned_server")] name: &str,
) {
    let parts = ["the server was killed", "\n  the server has ended with "];
    assert_says(&failed(&mut test(name)), &parts);
}

#[test]
fn a_missing_directory_is_reported() {
    let text = failed(test("has_no_migrations").env("RUST_BACKTRACE", "1"));
    let expected = format!(": could not read `{}/no/such/directory`", env!("CARGO_MANIFEST_DIR"));
    let line = text.lines().find(|line| line.ends_with(&expected)).unwrap_or_else(|| panic!("{text}"));
    // The place of the test, and no backtrace, which would lead into the library.
    assert!(line.starts_with(concat!(file!(), ":")), "{line}");
    assert!(!text.contains("backtrace") && !text.contains("sandbox/src"), "{text}");
    let hint = concat!("\n  hint: `no/such/directory` is relative to `", env!("CARGO_MANIFEST_DIR"), "`");
    assert_says(&text, &["\n  cause: No such file or directory", hint]);
}

/// A `#[should_panic]` test must not pass because its sandbox did not start.
#[test]
fn a_failed_start_is_no_expected_panic() {
    for name in ["panics_as_expected", "panics_with_text_of_the_report"] {
        let text = failed(test(name).env("SANDBOXED_DB_POSTGRES", "/nonexistent"));
        let parts = [
            &format!("test attribute::{name} - should panic ... FAILED"),
            "note: test did not panic as expected",
            "could not use SANDBOXED_DB_POSTGRES=/nonexistent",
            "\n  hint: SANDBOXED_DB_POSTGRES takes `packages`, an image such",
        ];
        assert_says(&text, &parts);
    }
}

// Steps of every kind, on a shared description.

fn notes() -> Snapshot {
    fresh().migrations("data/notes/migrations")
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
    assert_eq!(value_at::<String>(db.url(), bodies), "by a program, by code");
}

#[sandboxed_db(migrations_of(Sqlx, "data/conventions/sqlx"))]
fn a_test_names_its_migration_tool(db: Sandbox) {
    assert!(value_at::<i64>(db.url(), "select count(*) from _sqlx_migrations") > 0);
}
