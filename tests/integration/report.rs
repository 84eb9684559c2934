//! The report of a run: each process records its sandboxes, in whatever way they end.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::thread;
use std::time::Duration;

use rstest::rstest;
use sandboxed_db::cache::Kept;
use sandboxed_db::report::{Outcome, Record, Report, VERSION};
use sandboxed_db::{FromSandbox, Sandbox, sandboxed_db};
use sandboxed_db_tests::{ScratchDirs, TestProcess, alone, is_alone};

use crate::lifecycle::SUBJECT;

const VARIABLE: &str = "SANDBOXED_DB_REPORT";

fn records(file: &Path) -> Vec<Record> {
    let report = Report::read(file).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(report.skipped, 0, "{}", fs::read_to_string(file).unwrap());
    report.records
}

fn only(file: &Path) -> Record {
    let [record] = <[Record; 1]>::try_from(records(file)).unwrap();
    record
}

/// The times of a sandbox that has ended, in order. A prewarmed sandbox was executed before the
/// first of them.
fn times(record: &Record) -> Vec<u64> {
    let mut record = record.clone();
    if record.pooled {
        assert!(record.executed_at_us < record.ready_at_us, "{record:?}");
        record.executed_at_us = record.admitted_at_us;
    }
    let later = [
        record.layer_at_us, record.admitted_at_us, record.executed_at_us, record.ready_at_us,
        record.ended_at_us, record.gone_at_us,
    ];
    let later = later.map(|time| time.unwrap_or_else(|| panic!("{record:?}")));
    [&[record.asked_at_us], &later[..]].concat()
}

#[test]
fn every_process_of_a_run_records_its_sandboxes() {
    let dirs = ScratchDirs::with_shared_cache();
    // cargo runs tests in another directory than the user's shell.
    let run = |_| {
        let mut command = dirs.command(SUBJECT);
        command.env(VARIABLE, "run.jsonl").env("PWD", dirs.path()).stdout(Stdio::null());
        command.args(["--sandboxes", "3", "--threads", "2", "return"]).spawn().unwrap()
    };
    let mut subjects = [0, 1].map(run);
    let processes = subjects.each_ref().map(|subject| subject.id());
    assert!(subjects.iter_mut().all(|subject| subject.wait().unwrap().success()));
    let records = records(&dirs.path().join("run.jsonl"));
    for process in processes {
        assert_eq!(records.iter().filter(|record| record.process == process).count(), 3, "{records:#?}");
    }
    for record in &records {
        assert!(times(record).is_sorted(), "{record:?}");
        assert_eq!(
            (record.version, record.engine.as_str(), record.program.as_str()),
            (VERSION, "postgres", "subject")
        );
        assert!(
            record.engine_version.as_ref().is_some_and(|version| version.contains("PostgreSQL")),
            "{record:?}"
        );
        assert!(
            record.pid.is_some() && record.layer.as_ref().is_some_and(|layer| layer.len() == 64),
            "{record:?}"
        );
        // A resumed server has written nothing yet.
        assert!(record.disk_bytes.is_some_and(|bytes| bytes < 100 << 20), "{record:?}");
        assert_eq!((record.outcome, &record.run), (Outcome::Unknown, &records[0].run), "{record:?}");
    }
}

#[test]
fn a_killed_process_leaves_its_records() {
    let dirs = ScratchDirs::with_shared_cache();
    let file = dirs.path().join("run.jsonl");
    let mut process = TestProcess::start(dirs.command(SUBJECT).env(VARIABLE, &file).args(["keep", "sleep"]));
    process.wait_for("all ");
    process.killed();
    let record = only(&file);
    assert!(record.ready_at_us.is_some() && record.started().is_some(), "{record:?}");
    assert_eq!((record.ended_at_us, record.gone_at_us, record.outcome), (None, None, Outcome::Unknown));
}

#[test]
fn a_failed_start_is_recorded_with_its_cause() {
    let dirs = ScratchDirs::with_shared_cache();
    let file = dirs.path().join("run.jsonl");
    let mut command = dirs.command(SUBJECT);
    let output =
        command.env(VARIABLE, &file).args(["--migrations", "no/such/place", "return"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let record = only(&file);
    assert_eq!((record.outcome, record.ready_at_us, record.layer_at_us), (Outcome::Failed, None, None));
    assert!(
        record
            .error
            .as_ref()
            .is_some_and(|error| error.contains("no/such/place") && error.contains("No such file")),
        "{record:?}"
    );
    assert!(record.ended_at_us >= Some(record.asked_at_us));
}

/// A parameter that takes some time.
struct Slow(Duration);

impl FromSandbox for Slow {
    type Error = sandboxed_db::Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error> {
        let before = sandbox.timings();
        assert_eq!(before.connect, Duration::ZERO);
        thread::sleep(Duration::from_millis(2));
        Ok(Self(before.total()))
    }
}

#[sandboxed_db]
fn timings_include_the_parameters(slow: Slow, db: &Sandbox) {
    let timings = db.timings();
    assert!(timings.connect >= Duration::from_millis(2), "{timings}");
    assert_eq!(timings.total(), slow.0 + timings.connect);
    assert!(timings.to_string().contains(", connect "), "{timings}");
}

#[sandboxed_db]
fn a_test_that_takes_the_handle_only_is_not_connected(db: Sandbox) {
    assert_eq!(db.timings().connect, Duration::ZERO);
}

#[sandboxed_db]
#[ignore = "run by `the_outcome_of_a_test_is_recorded`"]
fn passes(slow: Slow) {
    assert!(slow.0 > Duration::ZERO);
}

#[sandboxed_db]
#[ignore = "run by `the_outcome_of_a_test_is_recorded`"]
fn passes_without_its_sandbox(db: Sandbox) {
    drop(db);
}

#[sandboxed_db]
#[ignore = "run by `the_outcome_of_a_test_is_recorded`"]
#[should_panic = "as expected"]
fn panics_as_it_must(_db: Sandbox) {
    panic!("as expected");
}

#[sandboxed_db]
#[ignore = "fails, run by `the_outcome_of_a_test_is_recorded`"]
fn fails(_db: Sandbox) -> Result<(), String> {
    if is_alone() { Err("as requested".to_owned()) } else { Ok(()) }
}

#[test]
#[ignore = "fails, run by `the_outcome_of_a_test_is_recorded`"]
fn panics_without_the_attribute() {
    let _db = sandboxed_db::Snapshot::new(sandboxed_db::Postgres::new()).start().unwrap();
    assert!(!is_alone(), "as requested");
}

#[sandboxed_db]
#[ignore = "fails, run by `the_outcome_of_a_test_is_recorded`"]
async fn fails_async(_db: &Sandbox) -> std::io::Result<()> {
    if is_alone() { Err(std::io::Error::other("no such order")) } else { Ok(()) }
}

#[sandboxed_db]
#[ignore = "fails, run by `the_outcome_of_a_test_is_recorded`"]
fn panics(_db: Sandbox) {
    assert_eq!(u8::from(is_alone()), 0, "\u{1b}[31mred\u{1b}[0m");
}

#[sandboxed_db]
#[ignore = "fails, run by `the_outcome_of_a_test_is_recorded`"]
#[should_panic]
fn does_not_panic(_db: Sandbox) {
    assert!(is_alone());
}

#[rstest]
#[case("passes", Outcome::Passed, None)]
#[case("passes_without_its_sandbox", Outcome::Passed, None)]
#[case("panics_as_it_must", Outcome::Passed, None)]
#[case("fails", Outcome::Failed, Some("\"as requested\""))]
#[case("fails_async", Outcome::Failed, Some("Custom { kind: Other, error: \"no such order\" }"))]
#[case("panics", Outcome::Failed, Some("assertion `left == right` failed: red left: 1 right: 0"))]
#[case("does_not_panic", Outcome::Failed, Some("the test did not panic as expected"))]
#[case("panics_without_the_attribute", Outcome::Failed, None)]
fn the_outcome_of_a_test_is_recorded(
    #[case] test: &str,
    #[case] outcome: Outcome,
    #[case] failure: Option<&str>,
) {
    let dirs = ScratchDirs::with_shared_cache();
    let file = dirs.path().join("run.jsonl");
    let test = format!("report::{test}");
    // The name from nextest counts for tests without the attribute.
    let named = if test.ends_with("without_the_attribute") { &test } else { "of_another" };
    let output = alone(&test).env(VARIABLE, &file).env("NEXTEST_TEST_NAME", named).output().unwrap();
    assert_ran(&output, outcome);
    let record = only(&file);
    assert_eq!((record.test.as_deref(), record.outcome), (Some(&*test), outcome), "{record:?}");
    assert_eq!((record.failure.as_deref(), &record.reopen), (failure, &None), "{record:?}");
    assert!(record.command.as_ref().is_some_and(|command| !command.is_empty()), "{record:?}");
    assert_eq!(record.program, "integration");
    assert!(times(&record).is_sorted(), "{record:?}");
    let connected = record.connected_at_us.is_some_and(|time| Some(time) > record.ready_at_us);
    assert_eq!(connected, test == "report::passes", "{record:?}");
}

#[test]
fn the_command_that_opens_kept_data_is_recorded() {
    let dirs = ScratchDirs::with_shared_cache();
    let file = dirs.path().join("run.jsonl");
    let name = "integration::report::panics";
    let output = alone("report::panics").env(VARIABLE, &file).env("SANDBOXED_DB_KEEP", "on_failure").output();
    assert_ran(&output.unwrap(), Outcome::Failed);
    let reopen = only(&file).reopen.unwrap();
    assert!(reopen.ends_with(&format!("sandboxed-db open {name}")), "{reopen}");
    let kept = Kept::open().unwrap();
    kept.remove(&kept.find(name).unwrap()).unwrap();
}

fn assert_ran(output: &Output, outcome: Outcome) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{text}");
    assert_eq!(output.status.success(), outcome == Outcome::Passed, "{text}");
}

#[test]
fn no_report_is_written_by_default() {
    let dirs = ScratchDirs::with_shared_cache();
    let output = dirs.command(SUBJECT).env(VARIABLE, "").args(["return"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    dirs.assert_no_leftovers();
}
