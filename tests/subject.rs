//! A program that starts sandboxes and ends in a given way, for tests of both.
//!
//! `subject [--engine NAME] [--shop] [OPTION VALUE]… END`. The options describe the sandboxes;
//! [`Plan::parse`] lists them. Standard output has a line for each event. A start that fails is
//! reported on standard error and leads to exit code 2.
//!
//! `subject doctor` prints the doctor's report and ends with 1 if sandboxes do not work here.
//!
//! `--churn-for-ms TIME` starts and drops sandboxes in all threads, and ends the process amid that.
//!
//! `subject keep ARGUMENT…` runs `subject ARGUMENT…` in a process group, reaps all its descendants,
//! and ends when none is left. `subject keep --program PROGRAM ARGUMENT…` does the same with
//! another program.

use std::fmt::Display;
use std::hint::black_box;
use std::io::{self, BufRead};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit, WaitOptions, WaitStatus, getpid, getrlimit, set_child_subreaper, setrlimit, wait,
};
use sandboxed_db::{Error, MariaDb, MySql, Postgres, Redis, Sandbox, Snapshot, Sqlite};
use sandboxed_db_tests::TestedEngine;

/// Prints an event for the test that runs this program.
#[expect(clippy::print_stdout, reason = "the test reads it")]
fn print(event: impl Display) {
    println!("{event}");
}

fn main() -> Result<ExitCode, Error> {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == "keep").is_some() {
        return Ok(keep(&args.collect::<Vec<_>>()));
    }
    // The tests take a core file for a leftover.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).expect("limits may be lowered");
    if args.next_if(|arg| arg == "doctor").is_some() {
        let report = sandboxed_db::doctor();
        print(&report);
        return Ok(ExitCode::from(u8::from(!report.works)));
    }
    let engine = args.next_if(|arg| arg == "--engine").and_then(|_| args.next());
    match engine.as_deref().unwrap_or("postgres") {
        "postgres" => run::<Postgres>(args),
        "redis" => run::<Redis>(args),
        "sqlite" => run::<Sqlite>(args),
        "mariadb" => run::<MariaDb>(args),
        "mysql" => run::<MySql>(args),
        other => panic!("no such engine: {other}"),
    }
}

fn run<E: Options>(args: impl Iterator<Item = String>) -> Result<ExitCode, Error> {
    let plan = Arc::new(Plan::<E>::parse(args));
    match plan.end.as_str() {
        "churn" => churn(&plan, |error| panic!("{error:?}")),
        "obey" => obey(&plan),
        "one_by_one" => {
            for _ in 0..plan.sandboxes {
                drop(plan.start()?);
            }
            return Ok(ExitCode::SUCCESS);
        }
        "verify" => {
            for damage in sandboxed_db::cache::Layers::open()?.verify()? {
                print(format!("{} {:?}", damage.digest, damage.differences));
            }
            return Ok(ExitCode::SUCCESS);
        }
        "prune" => {
            let limit = sandboxed_db::cache::Limit { size: u64::MAX, age: None };
            sandboxed_db::cache::Layers::open()?.prune(limit)?;
            return Ok(ExitCode::SUCCESS);
        }
        "descriptors" => return descriptors(&plan).map(|()| ExitCode::SUCCESS),
        _ => {}
    }
    let sandboxes = match plan.churn_for {
        Some(time) => {
            let plan = plan.clone();
            std::thread::spawn(move || churn(&plan, |error| print(format!("failed {}", in_a_line(&error)))));
            std::thread::sleep(time);
            Ok(Vec::new())
        }
        None => start_all(&plan),
    };
    let sandboxes = match sandboxes {
        Ok(sandboxes) => sandboxes,
        Err(error) => {
            report(&error);
            return Ok(ExitCode::from(2));
        }
    };
    print(format!("all {}", sandboxes.len()));
    match plan.end.as_str() {
        "error" => {
            return Err(Error::new(sandboxed_db::ErrorKind::Launch, "go on").with_hint("as requested"));
        }
        "panic" => panic!("as requested"),
        "exit" => exit(),
        "abort" => std::process::abort(),
        "overflow" => print(overflow(0)),
        "sleep" => loop {
            std::thread::park();
        },
        "stop" => {
            for sandbox in sandboxes {
                sandbox.stop()?;
            }
        }
        "return" | "obey" => {}
        other => panic!("no such end: {other}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The sandboxes to start, and the end after them.
struct Plan<E: Options> {
    sandboxes: usize,
    threads: usize,
    churn_for: Option<Duration>,
    snapshot: Snapshot<E>,
    end: String,
}

/// Options that not all engines have.
trait Options: TestedEngine {
    fn shop() -> Snapshot<Self> {
        panic!("only PostgreSQL has the shop");
    }

    fn migrations(_snapshot: Snapshot<Self>, _directory: String) -> Snapshot<Self> {
        panic!("the engine has no migrations");
    }
}

impl Options for Postgres {
    fn shop() -> Snapshot {
        sandboxed_db_fixtures::shop_snapshot()
    }

    fn migrations(snapshot: Snapshot, directory: String) -> Snapshot {
        snapshot.migrations(directory)
    }
}

impl Options for Redis {}

impl Options for MySql {}

impl Options for Sqlite {}

impl Options for MariaDb {
    fn migrations(snapshot: Snapshot<Self>, directory: String) -> Snapshot<Self> {
        snapshot.migrations(directory)
    }
}

impl<E: Options> Plan<E> {
    fn parse(mut args: impl Iterator<Item = String>) -> Self {
        let (mut sandboxes, mut threads, mut churn_for) = (1, 1, None);
        let mut snapshot = Snapshot::new(E::engine());
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
            let number = |text: String| text.parse::<u64>().expect("a number");
            match arg.as_str() {
                "--sandboxes" => sandboxes = number(value()) as usize,
                "--threads" => threads = number(value()) as usize,
                "--churn-for-ms" => churn_for = Some(Duration::from_millis(number(value()))),
                "--version" => snapshot = snapshot.version(value()),
                "--tls" => snapshot = snapshot.tls(),
                "--shop" => snapshot = E::shop(),
                "--migrations" => snapshot = E::migrations(snapshot, value()),
                "--seed" => snapshot = snapshot.seed(value()),
                "--setting" => snapshot = with_setting(snapshot, &value()),
                "--start-timeout-ms" => {
                    snapshot = snapshot.start_timeout(Duration::from_millis(number(value())));
                }
                "--disk" => snapshot = snapshot.disk(number(value())),
                end => return Self { sandboxes, threads, churn_for, snapshot, end: end.to_owned() },
            }
        }
        panic!("no end is given");
    }

    fn start(&self) -> Result<Sandbox<E>, Error> {
        start(&self.snapshot)
    }
}

fn with_setting<E: Options>(snapshot: Snapshot<E>, setting: &str) -> Snapshot<E> {
    let (name, value) = setting.split_once('=').expect("NAME=VALUE");
    snapshot.setting(name, value)
}

fn start<E: Options>(snapshot: &Snapshot<E>) -> Result<Sandbox<E>, Error> {
    let sandbox = snapshot.start()?;
    print(format!("started {} {}", sandbox.pid(), sandbox.url()));
    Ok(sandbox)
}

/// Starts the sandboxes in the threads of the plan. Returns the first error.
fn start_all<E: Options>(plan: &Plan<E>) -> Result<Vec<Sandbox<E>>, Error> {
    let next = AtomicUsize::new(0);
    let sandboxes = Mutex::new(Vec::new());
    let worker = || {
        while next.fetch_add(1, Ordering::Relaxed) < plan.sandboxes {
            let sandbox = plan.start()?;
            sandboxes.lock().unwrap().push(sandbox);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap())
    })?;
    Ok(sandboxes.into_inner().unwrap())
}

/// Starts and drops sandboxes without end, so that a kill meets every phase of both.
fn churn<E: Options>(plan: &Plan<E>, failed: impl Fn(Error) + Sync) -> ! {
    let worker = || -> ! {
        let mut alive = std::collections::VecDeque::new();
        loop {
            match plan.start() {
                Ok(sandbox) => alive.push_back(sandbox),
                Err(error) => failed(error),
            }
            if alive.len() > 2 {
                alive.pop_front();
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..plan.threads {
            scope.spawn(worker);
        }
        worker()
    })
}

/// Executes commands from standard input on the last sandbox. `set` and `disk` concern later ones.
fn obey<E: Options>(plan: &Plan<E>) {
    let mut sandboxes = Vec::new();
    let mut snapshot = plan.snapshot.clone();
    for line in io::stdin().lock().lines() {
        let line = line.expect("a line");
        let (verb, value) = line.split_once(' ').unwrap_or((&line, ""));
        let outcome = match verb {
            "start" => start(&snapshot).map(|sandbox| sandboxes.push(sandbox)),
            "set" => {
                snapshot = with_setting(snapshot, value);
                Ok(())
            }
            "disk" => {
                snapshot = snapshot.disk(value.parse().expect("a number"));
                Ok(())
            }
            "pooled" => {
                print(format!("pooled {}", last(&sandboxes).timings().pooled.is_some()));
                Ok(())
            }
            "log" => last(&sandboxes).log().map(|log| print(format!("log {}", log.len()))),
            "stop" => sandboxes.pop().expect("a sandbox").stop(),
            "query" => {
                print(format!("answered {}", E::answers(last(&sandboxes))));
                Ok(())
            }
            other => panic!("no such command: {other}"),
        };
        match outcome {
            Ok(()) => print("done"),
            Err(error) => print(format!("failed {}", in_a_line(&error))),
        }
    }
}

fn in_a_line(error: &Error) -> String {
    format!("{error:?}").replace('\n', "\\n")
}

fn last<E: Options>(sandboxes: &[Sandbox<E>]) -> &Sandbox<E> {
    sandboxes.last().expect("a sandbox")
}

/// Prints the number of descriptors and threads of this process: after the first sandbox, after
/// many more and after failed starts, with some alive, and after their end.
fn descriptors<E: Options>(plan: &Plan<E>) -> Result<(), Error> {
    let count = |what| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let tell_counts = |when: &str, alive: usize| {
        print(format!("count {when} {alive} {} {}", count("fd"), count("task")));
    };
    // The usual soft limit is too low for some hundred sandboxes.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("limits may be raised so far");
    drop(plan.start()?);
    tell_counts("first", 0);
    for _ in 0..30 {
        drop(plan.start()?);
    }
    tell_counts("many", 0);
    let wrong = plan.snapshot.clone().setting("no_such_setting", 1);
    for _ in 0..5 {
        print(format!("refused {}", wrong.start().is_err()));
    }
    tell_counts("refused", 0);
    let alive = (0..plan.sandboxes).map(|_| plan.start()).collect::<Result<Vec<_>, _>>()?;
    tell_counts("alive", alive.len());
    drop(alive);
    tell_counts("gone", 0);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the test reads it")]
fn report(error: &Error) {
    eprintln!("{error:?}");
}

#[expect(clippy::disallowed_methods, reason = "the exit must skip destructors")]
fn exit() -> ! {
    std::process::exit(7)
}

#[expect(unconditional_recursion, reason = "the stack must overflow")]
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 512]);
    overflow(depth + 1) + frame[7]
}

/// Orphaned descendants become children of this process, so that it knows when the last is gone.
fn keep(args: &[String]) -> ExitCode {
    set_child_subreaper(Some(getpid())).expect("every Linux can");
    let (program, args) = match args {
        [option, program, args @ ..] if option == "--program" => (program.into(), args),
        args => (std::env::current_exe().expect("/proc is mounted"), args),
    };
    // The caller may ignore the signals that tests send, as a shell does for its background jobs.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,QUIT,TERM"]).arg(program).args(args);
    // A process group that can be signalled as a terminal does it.
    #[expect(clippy::zombie_processes, reason = "waited for below, with all the others")]
    let child = command.process_group(0).spawn().expect("env starts");
    let subject = Pid::from_child(&child);
    print(format!("subject {}", subject.as_raw_nonzero()));
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == subject => print(format!("ended {}", how(status))),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return ExitCode::SUCCESS,
            Err(error) => panic!("{error}"),
        }
    }
}

fn how(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "otherwise".to_owned(),
    }
}
