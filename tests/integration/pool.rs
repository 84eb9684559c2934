//! Prewarmed sandboxes are as pristine as others, serve requests for the same plan only, and end
//! when there are none.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use rstest::rstest;
use rustix::process::Signal;
use sandboxed_db::report::Report;
use sandboxed_db_tests::{
    CLEANUP_DEADLINE, DEADLINE, Namespaces, PidNamespace, ScratchDirs, TestProcess, children, connect,
    eventually, processes_in, status, value_at, wait_until,
};

use crate::lifecycle::{SUBJECT, kill, launcher, limit_descriptors, postmaster, started};
use crate::requests::dirs_with_base;

/// A process whose sandboxes are requested or prewarmed: no server is started for a checkpoint.
fn subject(dirs: &ScratchDirs, args: &[&str]) -> TestProcess {
    TestProcess::start(dirs.command(SUBJECT).env("SANDBOXED_DB_START", "linked").arg("keep").args(args))
}

/// A test process, and the inits of the sandboxes that it was ordered to start.
struct Obeying {
    process: TestProcess,
    requested: Vec<u32>,
}

impl Obeying {
    fn new(process: TestProcess) -> Self {
        Self { process, requested: Vec::new() }
    }

    fn of(dirs: &ScratchDirs) -> Self {
        Self::new(subject(dirs, &["obey"]))
    }

    fn order(&mut self, order: &str) -> Vec<String> {
        self.process.order(order).unwrap_or_else(|report| panic!("{order}: {report}"))
    }

    /// Starts a sandbox, and returns its init, its URL, and whether it was prewarmed.
    fn start(&mut self) -> (u32, String, bool) {
        let line = self.order("start").remove(0);
        let (init, url) = line.strip_prefix("started ").unwrap().split_once(' ').unwrap();
        let init = init.parse().unwrap();
        self.requested.push(init);
        (init, url.to_owned(), self.order("pooled") == ["pooled true"])
    }

    /// The inits of prewarmed sandboxes.
    fn spares(&self) -> Vec<u32> {
        let inits = children(launcher(self.process.pid())).into_iter();
        inits.filter(|init| !self.requested.contains(init)).collect()
    }

    /// Requests sandboxes until one is prewarmed and serves, and returns its init. On a busy
    /// machine a prewarmed sandbox may end before it serves, and the pool makes fewer after that
    /// unless requests follow each other.
    fn with_spare(&mut self) -> u32 {
        self.with_spare_within(Duration::from_millis(400))
    }

    /// The same with a longer time between requests, for a process that may have few sandboxes.
    fn with_spare_within(&mut self, time: Duration) -> u32 {
        self.start();
        eventually(DEADLINE, "one is started ahead", || {
            self.start();
            let until = Instant::now() + time;
            loop {
                thread::sleep(Duration::from_millis(20));
                let spare =
                    self.spares().into_iter().find(|init| Client::connect(&url(*init), NoTls).is_ok());
                if spare.is_some() || Instant::now() > until {
                    break spare;
                }
            }
        })
    }
}

fn url(init: u32) -> String {
    format!("postgresql:///postgres?host=/proc/{init}/root/run/postgresql&user=postgres")
}

fn setting(url: &str, name: &str) -> String {
    value_at(url, &format!("show {name}"))
}

fn assert_gone(namespace: &PidNamespace) {
    wait_until(CLEANUP_DEADLINE, "it ends", || processes_in(namespace).is_empty());
}

#[test]
fn a_repeated_request_gets_an_unused_prewarmed_sandbox() {
    let dirs = ScratchDirs::with_shared_cache();
    let mut obeying = Obeying::new(subject(&dirs, &["--setting", "work_mem=7MB", "obey"]));
    let spare = obeying.with_spare();
    for round in 0..5 {
        let (init, url, pooled) = obeying.start();
        assert!(pooled && (round > 0 || init == spare));
        let mut client = connect(&url);
        assert_eq!(setting(&url, "work_mem"), "7MB");
        // The next sandbox must not show these changes.
        for statement in ["create table t (id int)", "create role r", "alter system set work_mem = '9MB'"] {
            client.batch_execute(statement).unwrap();
        }
    }
    assert_eq!(obeying.process.gone().0, "code 0");
}

#[test]
fn a_request_for_another_plan_gets_no_prewarmed_sandbox() {
    let dirs = ScratchDirs::with_shared_cache();
    let mut obeying = Obeying::of(&dirs);
    let spare = obeying.with_spare();
    obeying.order("disk 67108864");
    let (init, _, pooled) = obeying.start();
    assert!(!pooled && init != spare);
    obeying.order("set work_mem=7MB");
    let (init, url, pooled) = obeying.start();
    assert!(!pooled && init != spare);
    assert_eq!(setting(&url, "work_mem"), "7MB");
}

#[test]
fn a_changed_migration_is_noticed() {
    let dirs = ScratchDirs::new();
    let migrations = dirs.path().join("migrations");
    fs::create_dir(&migrations).unwrap();
    let write = |name: &str, sql: &str| fs::write(migrations.join(name), sql).unwrap();
    write("1_a.sql", "create table a (id int);");
    let mut obeying = Obeying::new(subject(&dirs, &["--migrations", migrations.to_str().unwrap(), "obey"]));
    let spare = obeying.with_spare();
    write("1_a.sql", "create table b (id int);");
    let (init, url, pooled) = obeying.start();
    assert!(!pooled && init != spare);
    connect(&url).simple_query("select from b").unwrap();
}

/// The process that is killed.
#[derive(Debug, Clone, Copy)]
enum Death {
    Init,
    Server,
    Launcher,
}

#[rstest]
fn a_dead_prewarmed_sandbox_is_not_handed_over(
    #[values(Death::Init, Death::Server, Death::Launcher)] death: Death,
) {
    let dirs = ScratchDirs::with_shared_cache();
    let mut obeying = Obeying::of(&dirs);
    let spare = obeying.with_spare();
    let (_, namespace) = started(&spare.to_string());
    let subject = match death {
        Death::Init => spare,
        Death::Server => postmaster(spare),
        Death::Launcher => launcher(obeying.process.pid()),
    };
    kill(subject, Signal::KILL);
    match death {
        // Init outlives its server.
        Death::Server => {
            wait_until(CLEANUP_DEADLINE, "it ends", || !Path::new(&format!("/proc/{subject}")).exists());
        }
        _ => assert_gone(&namespace),
    }
    let (init, url, _) = obeying.start();
    assert_ne!(init, spare);
    connect(&url).simple_query("select 1").unwrap();
    assert_gone(&namespace);
}

#[test]
fn a_failed_prewarming_fails_no_test() {
    let dirs = dirs_with_base();
    let mut obeying = Obeying::of(&dirs);
    obeying.with_spare();
    let launcher = launcher(obeying.process.pid());
    limit_descriptors(launcher, 4);
    assert!(obeying.start().2, "what was started before is handed over");
    let report = obeying.process.order("start").unwrap_err();
    assert!(report.contains("launch the sandbox") && report.contains("Too many open files"), "{report}");
    limit_descriptors(launcher, 1024);
    let (_, url, _) = obeying.start();
    connect(&url).simple_query("select 1").unwrap();
}

#[test]
fn unused_prewarmed_sandboxes_and_their_threads_end() {
    let dirs = ScratchDirs::with_shared_cache();
    let mut obeying = Obeying::of(&dirs);
    let open =
        |obeying: &Obeying| fs::read_dir(format!("/proc/{}/fd", obeying.process.pid())).unwrap().count();
    obeying.start();
    let with_one = open(&obeying);
    let spare = obeying.with_spare();
    let (_, namespace) = started(&spare.to_string());
    let threads = || status(obeying.process.pid(), "Threads").unwrap();
    assert_ne!(threads(), "1");
    wait_until(DEADLINE, "it ends while others live", || processes_in(&namespace).is_empty());
    wait_until(DEADLINE, "its threads end", || threads() == "1");
    assert_eq!(obeying.spares(), [0; 0]);
    for _ in 0..2 {
        obeying.order("stop");
    }
    assert_eq!(open(&obeying), with_one);
    obeying.order("stop");
    assert_eq!(children(launcher(obeying.process.pid())), [0; 0]);
}

#[test]
fn without_a_pool_nothing_is_prewarmed() {
    let dirs = ScratchDirs::with_shared_cache();
    let mut command = dirs.command(SUBJECT);
    let command = command.env("SANDBOXED_DB_POOL", "0").args(["keep", "obey"]);
    let mut obeying = Obeying::new(TestProcess::start(command));
    for _ in 0..6 {
        assert!(!obeying.start().2);
        assert_eq!(obeying.spares(), [0; 0]);
        assert_eq!(status(obeying.process.pid(), "Threads").unwrap(), "1");
    }
}

/// A process that may have three sandboxes, prewarmed ones included.
fn full(dirs: &ScratchDirs) -> Obeying {
    let mut command = dirs.command(SUBJECT);
    let command = command.env("SANDBOXED_DB_MAX", "3").args(["keep", "obey"]);
    Obeying::new(TestProcess::start(command))
}

#[test]
fn a_slot_goes_to_another_request_of_the_process() {
    let dirs = ScratchDirs::new();
    let mut obeying = full(&dirs);
    let spare = obeying.with_spare_within(DEADLINE);
    let (_, namespace) = started(&spare.to_string());
    obeying.order("disk 67108864");
    assert!(!obeying.start().2);
    assert_gone(&namespace);
    assert_eq!(children(launcher(obeying.process.pid())).len(), 3);
}

#[test]
fn a_slot_goes_to_another_process() {
    let dirs = ScratchDirs::new();
    let (mut obeying, mut other) = (full(&dirs), full(&dirs));
    let spare = obeying.with_spare_within(DEADLINE);
    let (_, namespace) = started(&spare.to_string());
    other.start();
    assert_gone(&namespace);
    assert_eq!(children(launcher(obeying.process.pid())).len(), 2);
}

#[rstest]
#[case::returning(None, "code 0")]
#[case::killed(Some(Signal::KILL), "signal 9")]
#[case::interrupted(Some(Signal::INT), "signal 2")]
fn prewarmed_sandboxes_end_with_their_process(#[case] signal: Option<Signal>, #[case] expected: &str) {
    let dirs = ScratchDirs::with_shared_cache();
    let mut obeying = Obeying::of(&dirs);
    obeying.with_spare();
    let namespaces = Namespaces::of(&obeying.process.processes());
    assert_eq!(namespaces.count(), 3 * 7);
    if let Some(signal) = signal {
        obeying.process.kill(signal, false);
    }
    assert_eq!(obeying.process.gone().0, expected);
    dirs.assert_no_leftovers();
    wait_until(CLEANUP_DEADLINE, "nobody uses them", || namespaces.users().is_empty());
}

#[test]
fn the_report_marks_prewarmed_sandboxes() {
    let dirs = ScratchDirs::with_shared_cache();
    let file = dirs.path().join("run.jsonl");
    let mut command = dirs.command(SUBJECT);
    let command = command.env("SANDBOXED_DB_REPORT", &file).args(["keep", "obey"]);
    let mut obeying = Obeying::new(TestProcess::start(command));
    let spare = obeying.with_spare();
    assert!(obeying.start().2);
    for _ in 0..3 {
        obeying.order("stop");
    }
    let records = Report::read(&file).unwrap().records;
    assert_eq!(
        records.iter().map(|record| record.pooled).collect::<Vec<_>>(),
        [false, false, true],
        "{records:#?}"
    );
    let record = &records[2];
    assert_eq!(record.pid, Some(spare));
    assert!(record.executed_at_us.unwrap() < record.asked_at_us, "{record:?}");
    assert!(record.ready_at_us >= record.admitted_at_us && record.gone_at_us.is_some(), "{record:?}");
}
