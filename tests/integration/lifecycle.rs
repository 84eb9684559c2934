//! A process may end in any way: no process, file or mount of it is left.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use postgres::{Client, NoTls};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use sandboxed_db::{ErrorKind, Postgres, Sandbox, Snapshot};
use sandboxed_db_fixtures::SHOP_MIGRATIONS;
use sandboxed_db_tests::{
    CLEANUP_DEADLINE, DEADLINE, PidNamespace, ScratchDirs, TestProcess, children, eventually, mounts,
    pid_namespace, processes_beside, processes_in, rounds, status,
};

use crate::requests::dirs_with_base;

pub(crate) const SUBJECT: &str = env!("CARGO_BIN_EXE_subject");

pub(crate) fn subject(place: &ScratchDirs, args: &[&str]) -> TestProcess {
    TestProcess::start(place.command(SUBJECT).arg("keep").args(args))
}

/// The pid of init and its pid namespace, from the line of a started sandbox.
pub(crate) fn started(line: &str) -> (u32, PidNamespace) {
    let pid = line.split(' ').next().and_then(|pid| pid.parse().ok());
    let pid = pid.expect("a line names the pid first");
    (pid, pid_namespace(pid).expect("it lives"))
}

fn fresh() -> Sandbox {
    Snapshot::new(Postgres::new()).start().unwrap_or_else(|error| panic!("{error:?}"))
}

pub(crate) fn kill(process: u32, signal: Signal) {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("it is there");
}

/// The pid of the server.
pub(crate) fn postmaster(init: u32) -> u32 {
    let found = processes_beside(init).into_iter().find(|&pid| {
        status(pid, "PPid").is_some_and(|parent| parent == init.to_string())
            && status(pid, "Name").is_some_and(|name| name == "postgres")
    });
    found.expect("the server runs")
}

pub(crate) fn launcher(subject: u32) -> u32 {
    let named = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with(b"sandboxed-db-launcher\0"))
    };
    children(subject).into_iter().find(named).expect("the launcher is a child")
}

#[test]
fn a_launcher_out_of_descriptors_keeps_its_sandboxes() {
    // Not the shared cache: without descriptors no image of the server is made there.
    let place = dirs_with_base();
    let mut process = subject(&place, &["obey"]);
    let line = process.order("start").unwrap().remove(0);
    let (init, _) = started(line.strip_prefix("started ").unwrap());
    let launcher = launcher(process.pid()).to_string();
    let limit = |most: &str| {
        let set =
            Command::new("prlimit").args(["--pid", &launcher, &format!("--nofile={most}:1024")]).status();
        assert!(set.unwrap().success());
    };
    limit("4");
    let report = process.order("start").unwrap_err();
    assert!(report.contains("launch the sandbox") && report.contains("Too many open files"), "{report}");
    assert_eq!(process.order("query").unwrap(), ["answered true"]);
    assert_eq!(status(init, "PPid"), Some(launcher.clone()), "another launcher's");
    limit("1024");
    process.order("start").unwrap();
    assert_eq!(process.gone().0, "code 0");
}

#[test]
fn init_works_while_readiness_messages_flood_its_socket() {
    // More than fit in the socket to the test process, which does not read.
    const FLOOD: &str = "(perl -MIO::Socket::UNIX -e ''my $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, \
        Peer => \"/run/notify\") or die; $s->send(\"READY=1\") // die for 1..5000; open my $done, \">\", \"/tmp/done\"'' &) \
        > /dev/null 2>&1";
    let db = fresh();
    let mut client = Client::connect(db.url(), NoTls).unwrap();
    client.batch_execute(&format!("copy (select where false) to program '{FLOOD}'")).unwrap();
    let programs = || {
        let beside = processes_beside(db.pid()).into_iter();
        beside.filter(|&pid| status(pid, "Name").is_some_and(|name| name == "perl" || name == "sh")).count()
    };
    eventually(DEADLINE, "init reads all and reaps", || (programs() == 0).then_some(()));
    client.batch_execute("select pg_read_file('/tmp/done')").unwrap();
}

#[track_caller]
fn assert_no_mount_since(before: &std::collections::BTreeSet<String>) {
    eventually(CLEANUP_DEADLINE, "no mount is left", || mounts().is_subset(before).then_some(()));
}

#[rstest]
#[case::returning("return", "code 0")]
#[case::stopping("stop", "code 0")]
#[case::returning_an_error("error", "code 1")]
#[case::panicking("panic", "code 101")]
#[case::exiting("exit", "code 7")]
#[case::aborting("abort", "signal 6")]
#[case::overflowing_the_stack("overflow", "signal 6")]
fn nothing_is_left_after(#[case] end: &str, #[case] expected: &str) {
    let place = ScratchDirs::with_shared_cache();
    let before = mounts();
    let mut process = subject(&place, &["--sandboxes", "4", "--threads", "2", end]);
    process.wait_for("started ");
    let (ended, told) = process.gone();
    assert_eq!(ended, expected, "{told:?}");
    assert!(told.iter().any(|line| line == "all 4"), "{told:?}");
    assert_eq!(place.leftovers(), Vec::<PathBuf>::new());
    assert_no_mount_since(&before);
}

#[test]
fn ctrl_c_kills_the_servers() {
    let place = ScratchDirs::with_shared_cache();
    let mut process = subject(&place, &["--sandboxes", "3", "sleep"]);
    let (_, namespace) = started(&process.wait_for("started "));
    process.wait_for("all 3");
    assert!(processes_in(&namespace).len() > 2, "the server has processes");
    process.kill(Signal::INT, true);
    let (ended, _) = process.gone();
    assert_eq!(ended, "signal 2");
    assert_eq!(processes_in(&namespace), [0; 0]);
    assert_eq!(place.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn ctrl_c_in_the_terminal_reaches_no_server() {
    let place = ScratchDirs::with_shared_cache();
    let mut process = subject(&place, &["obey"]);
    process.order("start").expect("it starts");
    let subject = process.pid();
    let launcher = launcher(subject);
    let group = |pid| status(pid, "NSpgid").expect("it lives");
    let session = |pid| status(pid, "NSsid").expect("it lives");
    let inits = children(launcher);
    assert_eq!(inits.len(), 1, "one sandbox is alive");
    for init in inits {
        let processes = processes_beside(init);
        assert!(processes.len() > 2, "init, the server and its helpers");
        for process in processes {
            assert_ne!(group(process), group(subject));
            assert_ne!(session(process), session(subject));
        }
    }
    assert_ne!(group(launcher), group(subject));
    process.gone();
}

#[test]
fn a_kill_at_any_moment_of_starting_and_dropping_leaves_nothing() {
    let kills = rounds(6, 30);
    // The kills meet starts, not builds.
    drop(fresh());
    let before = mounts();
    for kill in 0..kills {
        let place = ScratchDirs::with_shared_cache();
        let mut process = subject(&place, &["--threads", "4", "churn"]);
        // The moments are spread evenly. The last meets a server on the busiest machine too.
        std::thread::sleep(Duration::from_millis(210) / kills * kill);
        if kill == kills - 1 {
            process.wait_for("started ");
        }
        process.kill(Signal::KILL, false);
        let (ended, told) = process.gone();
        assert_eq!(ended, "signal 9", "{told:?}");
        assert_eq!(place.leftovers(), Vec::<PathBuf>::new(), "after kill {kill}");
    }
    assert_no_mount_since(&before);
}

#[test]
fn the_next_build_removes_abandoned_builds() {
    let place = ScratchDirs::new();
    let mut process = subject(&place, &["--migrations", SHOP_MIGRATIONS, "return"]);
    let building = || place.leftovers().into_iter().find(|path| path.join("data").exists());
    eventually(DEADLINE, "a build begins", building);
    process.kill(Signal::KILL, false);
    assert_eq!(process.wait_for("ended "), "signal 9");
    let abandoned = building().expect("a killed build leaves its directory");

    // Another layer than the abandoned one.
    let seed = place.path().join("seed.sql");
    fs::write(&seed, "create table t (id int);").unwrap();
    let (ended, told) = subject(&place, &["--seed", seed.to_str().unwrap(), "return"]).gone();
    assert_eq!(ended, "code 0", "{told:?}");
    assert!(!abandoned.exists());
    assert_eq!(place.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn drop_kills_the_server_before_it_returns() {
    let sandbox = fresh();
    let (init, namespace) = started(&sandbox.pid().to_string());
    let server = postmaster(init);
    assert!(processes_in(&namespace).len() > 2, "init, the server and its helpers");
    drop(sandbox);
    assert_eq!(processes_in(&namespace), [0; 0]);
    assert!(!Path::new(&format!("/proc/{server}")).exists(), "not even a zombie");
}

#[test]
fn drop_kills_a_server_that_is_busy_and_ignores_signals() {
    let sandbox = fresh();
    let (init, namespace) = started(&sandbox.pid().to_string());
    let mut client = Client::connect(sandbox.url(), NoTls).unwrap();
    // The server starts a program in another session, which ignores all signals that it can.
    client
        .batch_execute(
            "copy (select where false) to program 'setsid sh -c ''trap \"\" INT TERM HUP QUIT PIPE; while :; do sleep 1; done'' \
             > /dev/null 2>&1 &'",
        )
        .unwrap();
    eventually(DEADLINE, "the deaf program runs", || {
        let names: Vec<_> = processes_beside(init).iter().filter_map(|&pid| status(pid, "Name")).collect();
        names.iter().any(|name| name == "sleep").then_some(())
    });
    let busy = std::thread::spawn(move || client.batch_execute("select pg_sleep(3600)").is_err());
    drop(sandbox);
    assert_eq!(processes_in(&namespace), [0; 0]);
    assert!(busy.join().unwrap(), "the session has ended");
}

#[test]
fn stop_lets_the_server_shut_down() {
    let sandbox = fresh();
    let (init, namespace) = started(&sandbox.pid().to_string());
    // The log has no name, but the server has it open.
    let mut log = File::open(format!("/proc/{}/fd/2", postmaster(init))).unwrap();
    sandbox.stop().unwrap();
    assert_eq!(processes_in(&namespace), [0; 0]);
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert!(text.contains("database system is shut down"), "{text}");
}

#[test]
fn a_killed_launcher_ends_its_sandboxes_and_is_replaced() {
    let place = ScratchDirs::with_shared_cache();
    let mut process = subject(&place, &["obey"]);
    let answer = process.order("start").expect("it starts");
    let (_, namespace) = started(answer[0].strip_prefix("started ").unwrap());
    let first = launcher(process.pid());
    kill(first, Signal::KILL);
    eventually(CLEANUP_DEADLINE, "the sandbox dies with its launcher", || {
        processes_in(&namespace).is_empty().then_some(())
    });
    assert_eq!(process.order("query"), Ok(vec!["answered false".to_owned()]));
    assert!(process.order("log").is_ok(), "the log outlives the sandbox");
    let report = process.order("stop").expect_err("there is nothing to stop");
    for part in ["reach the sandbox", "it has ended", "hint:"] {
        assert!(report.contains(part), "{report}");
    }

    process.order("start").expect("a new launcher takes over");
    assert_eq!(process.order("query"), Ok(vec!["answered true".to_owned()]));
    assert_ne!(launcher(process.pid()), first);
    assert_eq!(process.order("stop"), Ok(Vec::new()));
    assert_eq!(process.gone().0, "code 0");
}

#[test]
fn a_killed_init_is_reported_by_later_calls() {
    let sandbox = fresh();
    let (init, namespace) = started(&sandbox.pid().to_string());
    kill(init, Signal::KILL);
    eventually(CLEANUP_DEADLINE, "all die with their init", || {
        processes_in(&namespace).is_empty().then_some(())
    });
    assert!(Client::connect(sandbox.url(), NoTls).is_err());
    assert!(sandbox.log().unwrap().contains("ready to accept connections"));
    let error = sandbox.stop().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exited, "{error:?}");
    let report = format!("{error:?}");
    for part in ["could not reach the sandbox: it has ended", "init was killed", "dmesg"] {
        assert!(report.contains(part), "{report}");
    }
    assert!(error.log().is_some(), "the error has no log: {report}");
}

#[test]
fn a_sandbox_with_a_killed_server_has_a_log_and_stops() {
    let sandbox = fresh();
    let (init, namespace) = started(&sandbox.pid().to_string());
    kill(postmaster(init), Signal::KILL);
    eventually(CLEANUP_DEADLINE, "only init is left", || (processes_in(&namespace) == [init]).then_some(()));
    assert!(Client::connect(sandbox.url(), NoTls).is_err());
    assert!(sandbox.log().unwrap().contains("ready to accept connections"));
    sandbox.stop().unwrap();
    assert_eq!(processes_in(&namespace), [0; 0]);
}

#[test]
fn a_sandbox_with_a_stopped_server_has_a_log_and_stops() {
    let sandbox = fresh();
    let (init, namespace) = started(&sandbox.pid().to_string());
    kill(postmaster(init), Signal::INT);
    eventually(CLEANUP_DEADLINE, "only init is left", || (processes_in(&namespace) == [init]).then_some(()));
    let log = sandbox.log().unwrap();
    assert!(log.contains("database system is shut down"), "{log}");
    sandbox.stop().unwrap();
}

#[test]
fn a_server_recovers_from_a_crashed_session() {
    let sandbox = fresh();
    let mut client = Client::connect(sandbox.url(), NoTls).unwrap();
    client.batch_execute("create table t as select 1 as x").unwrap();
    assert!(client.batch_execute("select pg_terminate_backend(pg_backend_pid())").is_err());
    let mut client = Client::connect(sandbox.url(), NoTls).unwrap();
    let crash = "copy (select where false) to program 'kill -9 $PPID'";
    assert!(client.batch_execute(crash).is_err());
    // The server accepts sessions until it notices.
    eventually(DEADLINE, "the server notices", || {
        sandbox.log().unwrap().contains("all server processes terminated; reinitializing").then_some(())
    });
    let rows = eventually(DEADLINE, "the server recovers", || {
        let mut client = Client::connect(sandbox.url(), NoTls).ok()?;
        client.query("select x from t", &[]).map(|rows| rows.len()).ok()
    });
    assert_eq!(rows, 1);
    sandbox.stop().unwrap();
}

#[test]
fn a_sandbox_costs_at_most_four_descriptors_and_no_thread() {
    const ALIVE: u32 = 10;
    let place = ScratchDirs::with_shared_cache();
    let alive = ALIVE.to_string();
    // Prewarmed sandboxes would be counted too.
    let mut command = place.command(SUBJECT);
    let command = command.env("SANDBOXED_DB_POOL", "0");
    let process = TestProcess::start(command.args(["keep", "--sandboxes", &alive, "descriptors"]));
    let (ended, told) = process.gone();
    assert_eq!(ended, "code 0", "{told:?}");
    let count = |when: &str| -> [u32; 3] {
        let line = told.iter().find_map(|line| line.strip_prefix(&format!("count {when} ")));
        let numbers = line.expect("it is counted").split(' ').map(|number| number.parse().unwrap());
        numbers.collect::<Vec<_>>().try_into().unwrap()
    };
    let refused = told.iter().filter(|line| *line == "refused true").count();
    assert_eq!(refused, 5, "{told:?}");
    let [_, first, threads] = count("first");
    assert_eq!(count("many"), [0, first, threads], "dropped sandboxes leave descriptors or threads");
    assert_eq!(count("refused"), [0, first, threads], "failed starts leave descriptors or threads");
    let [_, descriptors, alive_threads] = count("alive");
    assert!(descriptors <= first + 4 * ALIVE, "{told:?}");
    assert_eq!(alive_threads, threads);
}
