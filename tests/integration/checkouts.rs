//! Two checkouts test themselves at once, by one user or by two, with one cache or with two: neither notices.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use sandboxed_db_tests::{
    Place, Watched, assert_nothing_kept_since, kept_by_the_kernel, leave_to_root, pid_namespace, processes_in,
};

use crate::lifecycle::VICTIM;

/// Users who have no account are users all the same.
const OTHER_USER: u32 = 61_234;

const THREADS: [&str; 2] = ["--threads", "4"];

/// Runs a checkout's tests for as long as it is not ended. Both have the same migrations, each at a path of its own.
fn run(mut command: Command, place: &Place, program: &Path) -> Watched {
    let migrations = place.path().join("migrations");
    if fs::create_dir(&migrations).is_ok() {
        fs::write(migrations.join("1.sql"), "create table t as select generate_series(1, 1000) i;").unwrap();
    }
    command.args(["keep", "--program"]).arg(program).args(THREADS);
    Watched::start(command.arg("--migrations").arg(migrations).args(["--churn-for-ms", "600000", "return"]))
}

/// Waits for so many of its sandboxes more.
fn starts(watched: &mut Watched, count: usize) {
    for _ in 0..count {
        watched.wait_for("started ");
    }
}

/// Both run, one is killed, the other runs on and is killed as well.
fn neither_notices(places: [&Place; 2], mut both: [Watched; 2]) {
    // The layers are built meanwhile, by the one, the other or both.
    both.iter_mut().for_each(|watched| starts(watched, 60));
    let [one, mut other] = both;
    one.kill(Signal::KILL, false);
    let told = [one.gone(), {
        starts(&mut other, 60);
        // Its sandboxes live while it does.
        let namespace = loop {
            let line = other.wait_for("started ");
            let init = line.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
            // One that is read of late may be gone.
            if let Some(namespace) = pid_namespace(init) {
                break namespace;
            }
        };
        other.kill(Signal::INT, true);
        let gone = other.gone();
        assert_eq!(processes_in(&namespace), [0; 0]);
        gone
    }];
    for ((ended, told), expected) in told.into_iter().zip(["signal 9", "signal 2"]) {
        assert_eq!(ended, expected, "{told:?}");
        let failed: Vec<_> = told.iter().filter(|line| line.starts_with("failed ")).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
    for place in places {
        assert_eq!(place.leftovers(), Vec::<PathBuf>::new());
    }
}

#[test]
fn two_checkouts_of_one_user_with_one_cache_do_not_meet() {
    let before = kept_by_the_kernel();
    let (one, other) = (Place::new(), Place::new());
    let place = [&one, &other];
    let both = place.map(|place| {
        let mut command = place.command(VICTIM);
        command.env("SANDBOXED_DB_CACHE", one.cache());
        run(command, place, VICTIM.as_ref())
    });
    neither_notices(place, both);
    assert_nothing_kept_since(&before);
}

#[test]
fn two_checkouts_of_one_user_with_two_caches_do_not_meet() {
    let before = kept_by_the_kernel();
    let (one, other) = (Place::new(), Place::new());
    let place = [&one, &other];
    neither_notices(place, place.map(|place| run(place.command(VICTIM), place, VICTIM.as_ref())));
    assert_nothing_kept_since(&before);
}

#[test]
fn two_checkouts_of_two_users_do_not_meet() {
    if !rustix::process::geteuid().is_root() {
        return leave_to_root("only root can be two users");
    }
    let before = kept_by_the_kernel();
    let (one, other) = (Place::new(), Place::new());
    let program = other.give_to(OTHER_USER, VICTIM.as_ref());
    let as_other = || {
        let mut command = other.command(&program);
        command.uid(OTHER_USER).gid(OTHER_USER);
        command
    };
    let both = [run(one.command(VICTIM), &one, VICTIM.as_ref()), run(as_other(), &other, &program)];
    neither_notices([&one, &other], both);
    assert_nothing_kept_since(&before);
}
