//! Two checkouts run their tests at once, by one user or by two, with one cache or two, and do not
//! affect each other.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use sandboxed_db_tests::{ScratchDirs, TestProcess, pid_namespace, processes_in, rounds, skip_without_root};

use crate::lifecycle::SUBJECT;

/// A user id needs no account.
const OTHER_USER: u32 = 61_234;

const THREADS: [&str; 2] = ["--threads", "4"];

/// Runs a checkout's tests until they are killed. Both have the same migrations, in different
/// directories.
fn run(mut command: Command, dirs: &ScratchDirs, program: &Path) -> TestProcess {
    let migrations = dirs.path().join("migrations");
    if fs::create_dir(&migrations).is_ok() {
        fs::write(migrations.join("1.sql"), "create table t as select generate_series(1, 1000) i;").unwrap();
    }
    command.args(["keep", "--program"]).arg(program).args(THREADS);
    TestProcess::start(
        command.arg("--migrations").arg(migrations).args(["--churn-for-ms", "600000", "return"]),
    )
}

/// Waits for that many further sandboxes.
fn starts(process: &mut TestProcess, count: usize) {
    for _ in 0..count {
        process.wait_for("started ");
    }
}

/// Kills one of two running processes, and later the other.
fn neither_notices(both_dirs: [&ScratchDirs; 2], mut both: [TestProcess; 2]) {
    // Either process may build the layers.
    let count = rounds(6, 60);
    both.iter_mut().for_each(|process| starts(process, count));
    let [one, mut other] = both;
    one.kill(Signal::KILL, false);
    let ends = [one.gone(), {
        starts(&mut other, count);
        // Its sandboxes live while it does.
        let namespace = loop {
            let line = other.wait_for("started ");
            let init = line.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
            // The sandbox of an old line may be gone.
            if let Some(namespace) = pid_namespace(init) {
                break namespace;
            }
        };
        other.kill(Signal::INT, true);
        let gone = other.gone();
        assert_eq!(processes_in(&namespace), [0; 0]);
        gone
    }];
    for ((ended, lines), expected) in ends.into_iter().zip(["signal 9", "signal 2"]) {
        assert_eq!(ended, expected, "{lines:?}");
        let failed: Vec<_> = lines.iter().filter(|line| line.starts_with("failed ")).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
    for dirs in both_dirs {
        dirs.assert_nothing_left();
    }
}

#[test]
fn two_checkouts_of_one_user_with_one_cache_do_not_meet() {
    let (one, other) = (ScratchDirs::new(), ScratchDirs::new());
    let dirs = [&one, &other];
    let both = dirs.map(|dirs| {
        let mut command = dirs.command(SUBJECT);
        command.env("SANDBOXED_DB_CACHE", one.cache());
        run(command, dirs, SUBJECT.as_ref())
    });
    neither_notices(dirs, both);
}

#[test]
fn two_checkouts_of_one_user_with_two_caches_do_not_meet() {
    let (one, other) = (ScratchDirs::new(), ScratchDirs::new());
    let dirs = [&one, &other];
    neither_notices(dirs, dirs.map(|dirs| run(dirs.command(SUBJECT), dirs, SUBJECT.as_ref())));
}

#[test]
fn two_checkouts_of_two_users_do_not_meet() {
    if !rustix::process::geteuid().is_root() {
        return skip_without_root("runs as two users");
    }
    let (one, other) = (ScratchDirs::new(), ScratchDirs::new());
    let program = other.give_to(OTHER_USER, SUBJECT.as_ref());
    let as_other = || {
        let mut command = other.command(&program);
        command.uid(OTHER_USER).gid(OTHER_USER);
        command
    };
    let both = [run(one.command(SUBJECT), &one, SUBJECT.as_ref()), run(as_other(), &other, &program)];
    neither_notices([&one, &other], both);
}
