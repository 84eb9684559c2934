//! No more sandboxes live at once than there are slots, over all processes. Requests wait in turn.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;

use rustix::process::Signal;
use sandboxed_db_tests::{DEADLINE, ScratchDirs, TestProcess, wait_until, without_progress};

use crate::lifecycle::SUBJECT;
use crate::requests::dirs_with_base;

fn subject(dirs: &ScratchDirs, slots: &str, args: &[&str]) -> TestProcess {
    TestProcess::start(dirs.command(SUBJECT).env("SANDBOXED_DB_MAX", slots).arg("keep").args(args))
}

fn obeying(dirs: &ScratchDirs, slots: &str) -> TestProcess {
    subject(dirs, slots, &["obey"])
}

fn report(dirs: &ScratchDirs, slots: &str, args: &[&str]) -> String {
    let mut command = dirs.command(SUBJECT);
    let output = command.env("SANDBOXED_DB_MAX", slots).args(args).arg("return").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    without_progress(&String::from_utf8(output.stderr).unwrap())
}

/// Waits until that many bytes of the cache's lock file are locked, by sandboxes and by waiting
/// processes.
#[track_caller]
fn wait_for_locks(dirs: &ScratchDirs, count: u64) {
    let file = fs::metadata(dirs.cache().join("live")).unwrap().ino().to_string();
    wait_until(DEADLINE, "sandboxes live and processes wait", || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let bytes = locks.lines().filter_map(|line| {
            let (lock, range) = line.rsplit_once(&format!(":{file} "))?;
            let (start, end) = range.split_once(' ')?;
            assert!(lock.contains("OFDLCK"), "{line}");
            Some(end.parse::<u64>().ok()? - start.parse::<u64>().ok()? + 1)
        });
        bytes.sum::<u64>() == count
    });
}

#[test]
fn waiting_processes_get_slots_in_turn() {
    let dirs = dirs_with_base();
    let mut first = obeying(&dirs, "2");
    for _ in 0..2 {
        first.order("start").unwrap();
    }
    let (mut second, mut third) = (obeying(&dirs, "2"), obeying(&dirs, "2"));
    thread::scope(|scope| {
        let second = scope.spawn(|| second.order("start"));
        wait_for_locks(&dirs, 3);
        let third = scope.spawn(|| third.order("start"));
        wait_for_locks(&dirs, 4);
        assert!(!second.is_finished() && !third.is_finished(), "a third sandbox lives");
        first.order("stop").unwrap();
        second.join().unwrap().unwrap();
        wait_for_locks(&dirs, 3);
        assert!(!third.is_finished(), "a third sandbox lives");
        first.order("stop").unwrap();
        third.join().unwrap().unwrap();
    });
}

#[test]
fn a_killed_process_gives_its_slots_back() {
    let dirs = dirs_with_base();
    let mut first = obeying(&dirs, "1");
    first.order("start").unwrap();
    let mut second = obeying(&dirs, "1");
    thread::scope(|scope| {
        let second = scope.spawn(|| second.order("start"));
        wait_for_locks(&dirs, 2);
        assert!(!second.is_finished());
        first.kill(Signal::KILL, false);
        second.join().unwrap().unwrap();
    });
}

#[test]
fn a_killed_waiter_is_passed_over() {
    let dirs = dirs_with_base();
    let mut first = obeying(&dirs, "1");
    first.order("start").unwrap();
    let waiter = subject(&dirs, "1", &["sleep"]);
    wait_for_locks(&dirs, 2);
    let mut third = obeying(&dirs, "1");
    thread::scope(|scope| {
        let third = scope.spawn(|| third.order("start"));
        wait_for_locks(&dirs, 3);
        waiter.kill(Signal::KILL, false);
        wait_for_locks(&dirs, 2);
        assert!(!third.is_finished());
        first.order("stop").unwrap();
        third.join().unwrap().unwrap();
    });
}

#[test]
fn many_processes_share_few_slots() {
    let dirs = dirs_with_base();
    let subjects: Vec<_> =
        (0..12).map(|_| subject(&dirs, "3", &["--sandboxes", "6", "--threads", "1", "one_by_one"])).collect();
    for subject in subjects {
        let (ended, lines) = subject.gone();
        assert_eq!(ended, "code 0", "{lines:?}");
        assert_eq!(lines.iter().filter(|line| line.starts_with("started ")).count(), 6);
    }
}

/// Each process holds one slot and waits for another. One gives up, and its slot serves the other.
#[test]
fn one_of_two_processes_in_a_deadlock_gets_an_error() {
    let dirs = dirs_with_base();
    let mut subjects = [obeying(&dirs, "2"), obeying(&dirs, "2")];
    subjects.iter_mut().for_each(|subject| drop(subject.order("start").unwrap()));
    let answers = thread::scope(|scope| {
        let orders = subjects.each_mut().map(|subject| {
            scope.spawn(|| {
                let answer = subject.order("start");
                if answer.is_err() {
                    subject.order("stop").unwrap();
                }
                answer
            })
        });
        orders.map(|order| order.join().unwrap())
    });
    let reports: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    let [report] = reports[..] else { panic!("{answers:?}") };
    assert!(report.contains("waits for another"), "{report}");
}

#[test]
fn a_test_that_needs_more_slots_fails() {
    let dirs = dirs_with_base();
    let report = report(&dirs, "2", &["--sandboxes", "3"]);
    for part in [
        "could not start a sandbox: all 2 slots (SANDBOXED_DB_MAX) are in use",
        "waits for another",
        "raise SANDBOXED_DB_MAX",
    ] {
        assert!(report.contains(part), "`{part}` is not in\n{report}");
    }
}
