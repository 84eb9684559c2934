//! A process may end in any way: no process, file or mount of it is left.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use postgres::{Client, NoTls};
use rstest::rstest;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use sandboxed_db::ErrorKind;
use sandboxed_db_tests::{
    CLEANUP_DEADLINE, DEADLINE, PidNamespace, ScratchDirs, TestProcess, assert_says, children, pid_namespace,
    processes_beside, processes_in, start, status, wait_until,
};

use crate::requests::dirs_with_base;

pub(crate) const SUBJECT: &str = env!("CARGO_BIN_EXE_subject");

pub(crate) fn subject(dirs: &ScratchDirs, args: &[&str]) -> TestProcess {
    TestProcess::start(dirs.command(SUBJECT).arg("keep").args(args))
}

/// The pid of init and its pid namespace, from the line of a started sandbox.
pub(crate) fn started(line: &str) -> (u32, PidNamespace) {
    let pid = line.split(' ').next().and_then(|pid| pid.parse().ok());
    let pid = pid.expect("a line names the pid first");
    (pid, pid_namespace(pid).expect("it lives"))
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

pub(crate) fn limit_descriptors(process: u32, soft: u64) {
    let limit = Rlimit { current: Some(soft), maximum: Some(1024) };
    prlimit(Pid::from_raw(process.cast_signed()), Resource::Nofile, limit).unwrap();
}

#[test]
fn a_launcher_out_of_descriptors_keeps_its_sandboxes() {
    // Not the shared cache: without descriptors no image of the server is made there.
    let dirs = dirs_with_base();
    let mut process = subject(&dirs, &["obey"]);
    let line = process.order("start").unwrap().remove(0);
    let (init, _) = started(line.strip_prefix("started ").unwrap());
    let launcher = launcher(process.pid());
    limit_descriptors(launcher, 4);
    let report = process.order("start").unwrap_err();
    assert!(report.contains("launch the sandbox") && report.contains("Too many open files"), "{report}");
    assert_eq!(process.order("query").unwrap(), ["answered true"]);
    assert_eq!(status(init, "PPid"), Some(launcher.to_string()), "another launcher's");
    limit_descriptors(launcher, 1024);
    process.order("start").unwrap();
    assert_eq!(process.gone().0, "code 0");
}

#[test]
fn init_works_while_readiness_messages_flood_its_socket() {
    // More than fit in the socket to the test process, which does not read.
    const FLOOD: &str = "(perl -MIO::Socket::UNIX -e ''my $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, \
        Peer => \"/run/notify\") or die; $s->send(\"READY=1\") // die for 1..5000; open my $done, \">\", \"/tmp/done\"'' &) \
        > /dev/null 2>&1";
    let db = start();
    let mut client = Client::connect(db.url(), NoTls).unwrap();
    client.batch_execute(&format!("copy (select where false) to program '{FLOOD}'")).unwrap();
    let programs = || {
        let beside = processes_beside(db.pid()).into_iter();
        beside.filter(|&pid| status(pid, "Name").is_some_and(|name| name == "perl" || name == "sh")).count()
    };
    wait_until(DEADLINE, "init reads all and reaps", || programs() == 0);
    client.batch_execute("select pg_read_file('/tmp/done')").unwrap();
}

#[test]
fn ctrl_c_in_the_terminal_reaches_no_server() {
    let dirs = ScratchDirs::with_shared_cache();
    let mut process = subject(&dirs, &["obey"]);
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
fn drop_kills_a_server_that_is_busy_and_ignores_signals() {
    let sandbox = start();
    let (init, namespace) = started(&sandbox.pid().to_string());
    let mut client = Client::connect(sandbox.url(), NoTls).unwrap();
    // The server starts a program in another session, which ignores all signals that it can.
    client
        .batch_execute(
            "copy (select where false) to program 'setsid sh -c ''trap \"\" INT TERM HUP QUIT PIPE; while :; do sleep 1; done'' \
             > /dev/null 2>&1 &'",
        )
        .unwrap();
    wait_until(DEADLINE, "the deaf program runs", || {
        let names: Vec<_> = processes_beside(init).iter().filter_map(|&pid| status(pid, "Name")).collect();
        names.iter().any(|name| name == "sleep")
    });
    let busy = std::thread::spawn(move || client.batch_execute("select pg_sleep(3600)").is_err());
    let server = postmaster(init);
    drop(sandbox);
    assert_eq!(processes_in(&namespace), [0; 0]);
    assert!(!Path::new(&format!("/proc/{server}")).exists(), "not even a zombie is left");
    assert!(busy.join().unwrap(), "the session has ended");
}

#[test]
fn stop_lets_the_server_shut_down() {
    let sandbox = start();
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
    let dirs = ScratchDirs::with_shared_cache();
    let mut process = subject(&dirs, &["obey"]);
    let answer = process.order("start").expect("it starts");
    let (_, namespace) = started(answer[0].strip_prefix("started ").unwrap());
    let first = launcher(process.pid());
    kill(first, Signal::KILL);
    wait_until(CLEANUP_DEADLINE, "the sandbox dies with its launcher", || {
        processes_in(&namespace).is_empty()
    });
    assert_eq!(process.order("query"), Ok(vec!["answered false".to_owned()]));
    assert!(process.order("log").is_ok(), "the log outlives the sandbox");
    let report = process.order("stop").expect_err("there is nothing to stop");
    assert_says(&report, &["reach the sandbox", "it has ended", "hint:"]);

    process.order("start").expect("a new launcher takes over");
    assert_eq!(process.order("query"), Ok(vec!["answered true".to_owned()]));
    assert_ne!(launcher(process.pid()), first);
    assert_eq!(process.order("stop"), Ok(Vec::new()));
    assert_eq!(process.gone().0, "code 0");
}

#[test]
fn a_killed_init_is_reported_by_later_calls() {
    let sandbox = start();
    let (init, namespace) = started(&sandbox.pid().to_string());
    kill(init, Signal::KILL);
    wait_until(CLEANUP_DEADLINE, "all die with their init", || processes_in(&namespace).is_empty());
    assert!(Client::connect(sandbox.url(), NoTls).is_err());
    assert!(sandbox.log().unwrap().contains("ready to accept connections"));
    let error = sandbox.stop().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exited, "{error:?}");
    let report = format!("{error:?}");
    assert_says(&report, &["could not reach the sandbox: it has ended", "init was killed", "dmesg"]);
    assert!(error.log().is_some(), "the error has no log: {report}");
}

#[rstest]
#[case::killed(Signal::KILL, "ready to accept connections")]
#[case::stopped(Signal::INT, "database system is shut down")]
fn a_sandbox_without_a_server_has_a_log_and_stops(#[case] signal: Signal, #[case] logged: &str) {
    let sandbox = start();
    let (init, namespace) = started(&sandbox.pid().to_string());
    kill(postmaster(init), signal);
    wait_until(CLEANUP_DEADLINE, "only init is left", || processes_in(&namespace) == [init]);
    assert!(Client::connect(sandbox.url(), NoTls).is_err());
    assert_says(&sandbox.log().unwrap(), &[logged]);
    sandbox.stop().unwrap();
    assert_eq!(processes_in(&namespace), [0; 0]);
}
