//! No more sandboxes live at once than may, over all processes; who waits gets one in turn.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use sandboxed_db_tests::{ScratchDirs, TestProcess};

const SUBJECT: &str = env!("CARGO_BIN_EXE_subject");

/// Long enough for a sandbox to start, if it may.
const A_WHILE: Duration = Duration::from_millis(1500);

fn subject(place: &ScratchDirs, bound: &str, args: &[&str]) -> TestProcess {
    TestProcess::start(place.command(SUBJECT).env("SANDBOXED_DB_MAX", bound).arg("keep").args(args))
}

/// A process that obeys. Its layer is there, so that starts are quick.
fn obeying(place: &ScratchDirs, bound: &str) -> TestProcess {
    subject(place, bound, &["obey"])
}

fn report(place: &ScratchDirs, bound: &str, args: &[&str]) -> String {
    let mut command = place.command(SUBJECT);
    let output = command.env("SANDBOXED_DB_MAX", bound).args(args).arg("return").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn who_waits_gets_a_sandbox_in_turn() {
    let place = ScratchDirs::new();
    let mut first = obeying(&place, "2");
    for _ in 0..2 {
        first.order("start").unwrap();
    }
    let (mut second, mut third) = (obeying(&place, "2"), obeying(&place, "2"));
    thread::scope(|scope| {
        let second = scope.spawn(|| second.order("start"));
        thread::sleep(A_WHILE);
        let third = scope.spawn(|| third.order("start"));
        thread::sleep(A_WHILE);
        assert!(!second.is_finished() && !third.is_finished(), "a third lives beside two");
        first.order("stop").unwrap();
        second.join().unwrap().unwrap();
        thread::sleep(A_WHILE);
        assert!(!third.is_finished(), "a third lives beside two");
        first.order("stop").unwrap();
        third.join().unwrap().unwrap();
    });
}

#[test]
fn a_killed_process_gives_its_places_back() {
    let place = ScratchDirs::new();
    let mut first = obeying(&place, "1");
    first.order("start").unwrap();
    let mut second = obeying(&place, "1");
    thread::scope(|scope| {
        let second = scope.spawn(|| second.order("start"));
        thread::sleep(A_WHILE);
        assert!(!second.is_finished());
        first.kill(Signal::KILL, false);
        second.join().unwrap().unwrap();
    });
}

/// One that gives up must not keep those behind it.
#[test]
fn a_killed_waiter_is_passed_over() {
    let place = ScratchDirs::new();
    let mut first = obeying(&place, "1");
    first.order("start").unwrap();
    let waiter = subject(&place, "1", &["sleep"]);
    thread::sleep(A_WHILE);
    let mut third = obeying(&place, "1");
    thread::scope(|scope| {
        let third = scope.spawn(|| third.order("start"));
        thread::sleep(A_WHILE);
        waiter.kill(Signal::KILL, false);
        thread::sleep(A_WHILE);
        assert!(!third.is_finished());
        first.order("stop").unwrap();
        third.join().unwrap().unwrap();
    });
}

#[test]
fn many_processes_share_few_places() {
    let place = ScratchDirs::new();
    let subjects: Vec<_> = (0..12)
        .map(|_| subject(&place, "3", &["--sandboxes", "6", "--threads", "1", "one_by_one"]))
        .collect();
    for subject in subjects {
        let (ended, told) = subject.gone();
        assert_eq!(ended, "code 0", "{told:?}");
        assert_eq!(told.iter().filter(|line| line.starts_with("started ")).count(), 6);
    }
}

/// Each holds one and wants another. One gives up, and the other goes on when that one's is given back.
#[test]
fn of_processes_that_wait_for_each_other_one_is_told_so() {
    let place = ScratchDirs::new();
    let mut subjects = [obeying(&place, "2"), obeying(&place, "2")];
    subjects.iter_mut().for_each(|subject| drop(subject.order("start").unwrap()));
    let told = thread::scope(|scope| {
        let orders = subjects.each_mut().map(|subject| {
            scope.spawn(|| {
                let told = subject.order("start");
                if told.is_err() {
                    subject.order("stop").unwrap();
                }
                told
            })
        });
        orders.map(|order| order.join().unwrap())
    });
    let reports: Vec<_> = told.iter().filter_map(|told| told.as_ref().err()).collect();
    let [report] = reports[..] else { panic!("{told:?}") };
    assert!(report.contains("waits for another"), "{report}");
}

#[test]
fn a_test_that_needs_more_slots_fails() {
    let place = ScratchDirs::new();
    let report = report(&place, "2", &["--sandboxes", "3"]);
    for part in [
        "could not start a sandbox: all 2 slots (SANDBOXED_DB_MAX) are in use",
        "waits for another",
        "raise SANDBOXED_DB_MAX",
    ] {
        assert!(report.contains(part), "`{part}` is not in\n{report}");
    }
}
