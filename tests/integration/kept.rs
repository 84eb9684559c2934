//! The data of a failed test is kept on request, as the test left it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use rustix::process::Signal;
use sandboxed_db::cache::{Kept, KeptState};
use sandboxed_db::{Keep, Sandbox, sandboxed_db};
use sandboxed_db_tests::{
    DEADLINE, alone, assert_says, children, column, connect, failed, fresh, is_alone, is_exhaustive, passed,
    value_at, wait_until,
};

use crate::lifecycle::kill;

/// Leaves a mark that the server has acknowledged, and not yet written.
fn mark(url: &str) {
    connect(url).batch_execute("create unlogged table mark as select 'left' as text").unwrap();
}

// Tests that are run by the tests below, most of which fail.

#[sandboxed_db(keep = "on_failure")]
#[ignore = "run by `the_data_of_a_failed_test_is_kept`"]
fn panics_by_value(db: Sandbox) {
    mark(db.url());
    assert!(!is_alone(), "as expected");
}

#[sandboxed_db(keep = "on_failure")]
#[ignore = "run by `the_data_of_a_failed_test_is_kept`"]
fn returns_an_error_by_value(db: Sandbox) -> Result<(), &'static str> {
    mark(db.url());
    drop(db);
    if is_alone() { Err("as expected") } else { Ok(()) }
}

#[sandboxed_db(keep = "on_failure")]
#[ignore = "run by `the_data_of_a_failed_test_is_kept`"]
async fn panics_by_reference(db: &Sandbox) {
    let url = db.url().to_owned();
    tokio::task::spawn_blocking(move || mark(&url)).await.unwrap();
    assert!(!is_alone(), "as expected");
}

static ELSEWHERE: Mutex<Option<Sandbox>> = Mutex::new(None);

#[sandboxed_db(keep = "on_failure")]
#[ignore = "run by `the_data_of_a_failed_test_is_kept`"]
fn gives_its_handle_away(db: Sandbox) {
    mark(db.url());
    *ELSEWHERE.lock().unwrap() = Some(db);
    assert!(!is_alone(), "as expected");
}

#[sandboxed_db(keep = "on_failure")]
#[ignore = "run by `the_data_of_a_failed_test_is_kept`"]
fn stops_its_server(db: Sandbox) {
    mark(db.url());
    db.stop().unwrap();
    assert!(!is_alone(), "as expected");
}

#[sandboxed_db(audit(keep = "on_failure"))]
#[ignore = "run by `each_database_has_its_own_policy`"]
fn has_two_databases(db: &Sandbox, audit: &Sandbox) {
    mark(audit.url());
    assert_ne!(db.url(), audit.url());
    assert!(!is_alone(), "as expected");
}

#[sandboxed_db(keep = "on_failure")]
#[ignore = "run by `the_data_of_a_crashed_server_is_kept_and_recovers`"]
fn kills_its_server(db: &Sandbox) {
    let mut client = connect(db.url());
    // The kill could lose the commit.
    client.batch_execute("create table mark as select 'left' as text").unwrap();
    client.batch_execute("checkpoint").unwrap();
    if is_alone() {
        // The session may end with or without an error.
        let _ = client.batch_execute("copy (select 1) to program 'kill -9 $(head -1 postmaster.pid)'");
        wait_until(DEADLINE, "the server is gone", || children(db.pid()).is_empty());
        panic!("as expected");
    }
}

#[sandboxed_db(keep = "on_failure")]
#[ignore = "run by `the_data_of_a_hanging_server_is_kept`"]
fn stops_all_processes(db: &Sandbox) {
    let mut client = connect(db.url());
    client.batch_execute("create table mark as select 'left' as text").unwrap();
    client.batch_execute("checkpoint").unwrap();
    if is_alone() {
        for server in children(db.pid()) {
            let all = children(server).into_iter().chain([server]);
            all.for_each(|process| kill(process, Signal::STOP));
        }
        panic!("as expected");
    }
}

#[sandboxed_db(keep = "on_failure")]
#[ignore = "run by `a_failure_to_keep_is_reported_beside_the_panic`"]
fn kills_its_sandbox(db: &Sandbox) {
    if is_alone() {
        kill(db.pid(), Signal::KILL);
        panic!("as expected");
    }
}

#[sandboxed_db(keep = "on_failure")]
#[ignore = "run by `a_test_that_passes_keeps_nothing`"]
fn passes(db: Sandbox) {
    mark(db.url());
}

#[sandboxed_db(keep = "on_failure")]
#[ignore = "run by `a_test_that_passes_keeps_nothing`"]
#[should_panic = "as expected"]
fn panics_as_it_must(db: Sandbox) {
    mark(db.url());
    panic!("as expected");
}

#[sandboxed_db]
#[ignore = "run by `the_environment_has_precedence`"]
fn passes_without_a_word(db: Sandbox) {
    mark(db.url());
}

#[test]
#[ignore = "run by `the_data_of_a_handle_dropped_by_a_panic_is_kept`"]
fn panics_without_the_attribute() {
    let snapshot = fresh().keep(Keep::OnFailure);
    let passed = snapshot.clone().keep_as("kept::passed").start().unwrap();
    mark(passed.url());
    drop(passed);
    let (one, other) = (snapshot.start().unwrap(), snapshot.keep_as("kept::as it is named").start().unwrap());
    mark(one.url());
    mark(other.url());
    assert!(!is_alone(), "as expected");
}

fn test(name: &str) -> Command {
    let mut command = alone(&format!("kept::{name}"));
    // nextest names the outer test.
    command.arg("--nocapture").env_remove("NEXTEST_TEST_NAME").env_remove("SANDBOXED_DB_KEEP");
    command
}

fn find(name: &str) -> Option<KeptState> {
    let states = Kept::open().unwrap().list().unwrap();
    states.into_iter().find(|state| state.name == name)
}

/// Looks for the mark in what is kept under that name, and removes it.
fn assert_kept(name: &str, text: &str) -> KeptState {
    let state = find(name).unwrap_or_else(|| panic!("{name} is not kept:\n{text}"));
    let db = state.start().unwrap();
    assert_eq!(value_at::<String>(db.url(), "select text from mark"), "left");
    drop(db);
    // A child that another test forks inherits the lock until its execve(2).
    wait_until(DEADLINE, "no process uses it", || Kept::open().unwrap().remove(&state).unwrap());
    assert!(find(name).is_none());
    state
}

#[test]
fn the_data_of_a_failed_test_is_kept() {
    let tests = [
        "panics_by_value", "returns_an_error_by_value", "panics_by_reference", "gives_its_handle_away",
        "stops_its_server",
    ];
    for test in tests {
        let text = failed(&mut self::test(test));
        let name = format!("integration::kept::{test}");
        let open = format!("sandboxed-db open {name}\n");
        let kept = ["as expected", "\n  its data is kept; to look into it: ", &open];
        assert_says(&text, &[&kept[..], &["\n  it started in ", " ms, server "]].concat());
        let state = assert_kept(&name, &text);
        assert!(state.failed && state.clean && state.engine == "postgres", "{state:?}");
        assert_eq!(state.package, PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        let by_itself = test == "stops_its_server";
        assert_eq!(text.contains("shutting down"), by_itself, "the log ends before it is kept:\n{text}");
    }
}

#[test]
fn each_database_has_its_own_policy() {
    let text = failed(&mut test("has_two_databases"));
    assert_eq!(text.matches("its data is kept; ").count(), 1, "{text}");
    assert_eq!(text.matches("to keep its data, run the test with SANDBOXED_DB_KEEP").count(), 1, "{text}");
    assert_kept("integration::kept::has_two_databases", &text);
}

#[test]
fn the_data_of_a_crashed_server_is_kept_and_recovers() {
    let text = failed(&mut test("kills_its_server"));
    assert!(text.contains("the server has ended with ") && text.contains("its data is kept; "), "{text}");
    let state = find("integration::kept::kills_its_server").unwrap_or_else(|| panic!("{text}"));
    assert!(!state.clean);
    let db = state.start().unwrap();
    let texts: Vec<String> = column(&mut connect(db.url()), "select text from mark");
    assert!(texts.contains(&"left".to_owned()), "{texts:?}");
    drop(db);
    Kept::open().unwrap().remove(&state).unwrap();
}

#[test]
fn the_data_of_a_hanging_server_is_kept() {
    if !is_exhaustive("waits for ten seconds") {
        return;
    }
    let text = failed(&mut test("stops_all_processes"));
    assert!(text.contains("as expected"), "{text}");
    assert!(!assert_kept("integration::kept::stops_all_processes", &text).clean);
}

#[test]
fn a_failure_to_keep_is_reported_beside_the_panic() {
    let text = failed(&mut test("kills_its_sandbox"));
    assert!(text.contains("as expected"), "{text}");
    let line = text.lines().find(|line| line.contains("its data could not be kept: "));
    assert!(line.is_some_and(|line| line.contains("reach the sandbox")), "{text}");
}

#[test]
fn a_test_that_passes_keeps_nothing() {
    for test in ["passes", "panics_as_it_must"] {
        let text = passed(&mut self::test(test));
        assert!(!text.contains("sandboxed-db:"), "{text}");
        assert!(find(&format!("integration::kept::{test}")).is_none());
    }
}

#[test]
fn the_environment_has_precedence() {
    let with = |name: &str, value: &str| {
        let mut command = test(name);
        command.env("SANDBOXED_DB_KEEP", value);
        command
    };
    passed(&mut with("passes_without_a_word", "always"));
    let earlier = find("integration::kept::passes_without_a_word").unwrap();
    let text = passed(&mut with("passes_without_a_word", "always"));
    assert!(text.contains("its data is kept; "), "{text}");
    assert!(!earlier.data().exists(), "a further one takes its place");
    assert!(!assert_kept("integration::kept::passes_without_a_word", &text).failed);

    let text = failed(&mut with("panics_by_value", "never"));
    assert!(!text.contains("its data is kept"), "{text}");
}

#[test]
fn the_data_of_a_handle_dropped_by_a_panic_is_kept() {
    let text = failed(&mut test("panics_without_the_attribute"));
    let line = "sandboxed-db: the sandbox of `kept::as it is named`: its data is kept; to look into it: ";
    assert!(text.contains(line) && text.contains("sandboxed-db open 'kept::as it is named'\n"), "{text}");
    assert_kept("kept::as it is named", &text);
    assert_kept("integration::kept::panics_without_the_attribute", &text);
    assert!(find("kept::passed").is_none());
}

#[test]
fn kept_data_shares_files_and_never_changes() {
    let snapshot = fresh().keep(Keep::Always).keep_as("kept::is never changed");
    drop(snapshot.start().unwrap());
    let state = find("kept::is never changed").unwrap();
    assert!(state.is_untouched("PG_VERSION".as_ref()) && !state.is_untouched("global/pg_control".as_ref()));
    assert!(state.size < 8 << 20, "{} bytes were copied", state.size);

    let (one, before) = (state.start().unwrap(), state.start_before().unwrap());
    mark(one.url());
    mark(before.url());
    let kept = Kept::open().unwrap();
    assert!(!kept.remove(&state).unwrap(), "it is in use");
    let other = state.start().unwrap();
    let there = |db: &Sandbox| value_at::<bool>(db.url(), "select to_regclass('mark') is not null");
    assert!(there(&one) && !there(&other));
    drop((one, other, before));

    drop(snapshot.start().unwrap());
    let states = kept.list().unwrap();
    let further: Vec<_> =
        states.iter().filter(|state| state.name.starts_with("kept::is never changed")).collect();
    assert_eq!(further.len(), 2, "a test may have several: {further:?}");
    further.into_iter().for_each(|state| assert!(kept.remove(state).unwrap()));
    let gone = state.start().unwrap_err();
    assert!(format!("{gone:?}").contains("it was removed"), "{gone:?}");
}

#[test]
fn a_unique_part_of_a_name_finds_a_kept_state() {
    let keep = |name: &str| drop(fresh().keep(Keep::Always).keep_as(name).start().unwrap());
    keep("kept::find::orders");
    keep("kept::find::orders_again");
    let kept = Kept::open().unwrap();
    let found = |part: &str| kept.find(part).map(|state| state.name);
    assert_eq!(found("find::orders_a").unwrap(), "kept::find::orders_again");
    assert_eq!(found("kept::find::orders").unwrap(), "kept::find::orders", "a whole name counts for more");
    let several = format!("{:?}", found("find::ord").unwrap_err());
    assert!(several.contains("kept::find::orders\n") && several.contains("orders_again"), "{several}");
    let none = format!("{:?}", found("kept::no such test").unwrap_err());
    assert!(none.contains("`sandboxed-db open` lists the kept states"), "{none}");
    for name in ["kept::find::orders", "kept::find::orders_again"] {
        kept.remove(&kept.find(name).unwrap()).unwrap();
    }
}
