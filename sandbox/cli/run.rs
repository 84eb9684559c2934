//! `sandboxed-db run`: a program of any language with its own server.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use bytesize::ByteSize;
use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use sandboxed_db::{MigrationTool, Postgres, Sandbox, Snapshot};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The database server.
    #[arg(long, value_enum, default_value_t = Engine::Postgres)]
    engine: Engine,
    /// The version of the server, such as 15 [default: the newest found].
    #[arg(long)]
    version: Option<String>,
    /// The name of the database.
    #[arg(long, default_value = "postgres")]
    database: String,
    #[command(flatten)]
    steps: Steps,
    /// The tool that the migrations are written for, if their names do not show it.
    #[arg(long, value_enum, requires = "migrations")]
    tool: Option<MigrationTool>,
    /// A setting of the server, as in its configuration file.
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    setting: Vec<(String, String)>,
    /// An argument for initdb, such as --initdb-arg=--data-checksums.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    initdb_arg: Vec<String>,
    /// The time in which the server must be ready [default: 30s].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    start_timeout: Option<Duration>,
    /// The time in which each step must end [default: 30m].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    build_timeout: Option<Duration>,
    /// The size that the server may write to its data directory [default: 1GiB].
    #[arg(long, value_name = "SIZE")]
    disk: Option<ByteSize>,
    /// The memory of the server's processes [default: 4GiB].
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// The number of processes and threads of the server [default: 512, or as max_connections
    /// needs].
    #[arg(long, value_name = "COUNT")]
    pids: Option<u32>,
    /// Let the program reach the server by TCP, on a port of 127.0.0.1 with a password, instead of
    /// its Unix socket.
    #[arg(long)]
    tcp: bool,
    /// Encrypt the connections by TCP, with a certificate for this server. Implies --tcp.
    #[arg(long)]
    tls: bool,
    /// The program and its arguments.
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Engine {
    Postgres,
}

/// A step that prepares the database.
#[derive(Debug, Clone)]
enum Step {
    Migrations(PathBuf),
    Seed(PathBuf),
    Run(String),
    RunTcp(String),
    DependsOn(PathBuf),
}

/// The options that add steps.
#[derive(Debug, Args)]
struct StepOptions {
    /// Run the migrations in a directory.
    #[arg(long, value_name = "DIRECTORY")]
    migrations: Vec<PathBuf>,
    /// Load a file of SQL, rows (.csv) or a dump of pg_dump; SQL and rows may be compressed.
    #[arg(long, value_name = "FILE")]
    seed: Vec<PathBuf>,
    /// Run a shell command that prepares the database, such as a migration tool.
    #[arg(long = "prepare", alias = "run", value_name = "COMMAND")]
    run: Vec<String>,
    /// Run a shell command that prepares the database by TCP.
    ///
    /// As --prepare, for programs that know no Unix sockets.
    #[arg(long = "prepare-tcp", alias = "run-tcp", value_name = "COMMAND")]
    run_tcp: Vec<String>,
    /// Run commands again when this file or directory has changed.
    ///
    /// Counts for the commands directly before this option, and for all later steps.
    #[arg(long, value_name = "PATH")]
    depends_on: Vec<PathBuf>,
}

/// The steps in the order in which they are written.
#[derive(Debug)]
struct Steps(Vec<Step>);

impl Args for Steps {
    fn augment_args(command: clap::Command) -> clap::Command {
        StepOptions::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        StepOptions::augment_args_for_update(command)
    }
}

impl FromArgMatches for Steps {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let StepOptions { migrations, seed, run, run_tcp, depends_on } =
            StepOptions::from_arg_matches(matches)?;
        let mut steps: Vec<(usize, Step)> = Vec::new();
        let mut add = |id, values: &mut dyn Iterator<Item = Step>| {
            steps.extend(matches.indices_of(id).into_iter().flatten().zip(values));
        };
        add("migrations", &mut migrations.into_iter().map(Step::Migrations));
        add("seed", &mut seed.into_iter().map(Step::Seed));
        add("run", &mut run.into_iter().map(Step::Run));
        add("run_tcp", &mut run_tcp.into_iter().map(Step::RunTcp));
        add("depends_on", &mut depends_on.into_iter().map(Step::DependsOn));
        steps.sort_by_key(|(index, _)| *index);
        Ok(Self(in_order(steps.into_iter().map(|(_, step)| step))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Moves inputs before the commands that they follow, since an input counts from its place on.
fn in_order(steps: impl Iterator<Item = Step>) -> Vec<Step> {
    let mut ordered: Vec<Step> = Vec::new();
    for step in steps {
        let at = match step {
            Step::DependsOn(_) => ordered
                .iter()
                .rposition(|step| !matches!(step, Step::Run(_) | Step::RunTcp(_)))
                .map_or(0, |last| last + 1),
            _ => ordered.len(),
        };
        ordered.insert(at, step);
    }
    ordered
}

fn setting(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, such as work_mem=64MB")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl RunArguments {
    /// Starts a server and runs the program. Returns the program's exit code.
    pub(super) fn perform(self) -> Result<ExitCode, Box<dyn Error>> {
        let sandbox = self.snapshot()?.start()?;
        let env = if self.tcp || self.tls { sandbox.tcp()?.env() } else { sandbox.env() };
        let status = run(&self.command, &env)?;
        if !status.success() {
            print_log(&sandbox);
        }
        Ok(exit_code(status))
    }

    fn snapshot(&self) -> Result<Snapshot, Failure> {
        let Engine::Postgres = self.engine;
        let mut engine = Postgres::new().database(&self.database);
        if let Some(version) = &self.version {
            engine = engine.version(version);
        }
        let engine = self.initdb_arg.iter().fold(engine, |engine, argument| engine.initdb_arg(argument));
        let directory = std::env::current_dir()
            .map_err(|error| Failure::new("find the working directory").because(error))?;
        let snapshot = Snapshot::new(engine).relative_to(directory);
        let mut snapshot = self.steps.0.iter().fold(snapshot, |snapshot, step| match (step, self.tool) {
            (Step::Migrations(directory), Some(tool)) => snapshot.migrations_of(tool, directory),
            (Step::Migrations(directory), None) => snapshot.migrations(directory),
            (Step::Seed(file), _) => snapshot.seed(file),
            (Step::Run(line), _) => snapshot.run("sh", ["-c", line]),
            (Step::RunTcp(line), _) => snapshot.run_tcp("sh", ["-c", line]),
            (Step::DependsOn(path), _) => snapshot.depends_on([path]),
        });
        if self.tls {
            snapshot = snapshot.tls();
        }
        if let Some(limit) = self.start_timeout {
            snapshot = snapshot.start_timeout(limit);
        }
        if let Some(limit) = self.build_timeout {
            snapshot = snapshot.build_timeout(limit);
        }
        if let Some(size) = self.disk {
            snapshot = snapshot.disk(size.as_u64());
        }
        if let Some(size) = self.memory {
            snapshot = snapshot.memory(size.as_u64());
        }
        if let Some(count) = self.pids {
            snapshot = snapshot.pids(count);
        }
        Ok(snapshot.settings(self.setting.iter().cloned()))
    }
}

/// Runs a program to its end, with the variables of a sandbox.
pub(super) fn run(program: &[OsString], env: &[(String, String)]) -> Result<ExitStatus, Failure> {
    let failed = |error: io::Error| {
        let error = sandboxed_db::harness::not_executed(&program[0], error);
        let failure = Failure::new(format!("run `{}`", program[0].display()));
        match error.kind() {
            io::ErrorKind::NotFound => {
                failure.because(error).hint("check its name, and that its directory is in PATH")
            }
            _ => failure.because(error),
        }
    };
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]);
    // Variables that lead to another server are removed.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PG")) {
            command.env_remove(name);
        }
    }
    command.envs(env.iter().map(|(name, value)| (name, value)));
    // The program handles signals; the server lives until the program has ended.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]).map_err(failed)?;
    let mut child = command.spawn().map_err(failed)?;
    let pid = rustix::process::Pid::from_child(&child);
    let handle = signals.handle();
    let forwarder = std::thread::spawn(move || {
        // A terminal sends SIGINT and SIGQUIT to the program itself.
        for signal in signals.forever().filter(|signal| matches!(*signal, SIGTERM | SIGHUP)) {
            let signal =
                if signal == SIGTERM { rustix::process::Signal::TERM } else { rustix::process::Signal::HUP };
            // The program may have ended.
            let _ = rustix::process::kill_process(pid, signal);
        }
    });
    let status = child.wait();
    handle.close();
    let _ = forwarder.join();
    status.map_err(failed)
}

/// Returns the exit code of a program; 128 + N if signal N killed it, as shells do.
pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Prints the end of the server's log, which may explain why the program failed.
fn print_log(sandbox: &Sandbox) {
    let log = sandbox.log().unwrap_or_default();
    if log.trim().is_empty() {
        return;
    }
    let tail: Vec<_> = log.lines().rev().take(20).collect();
    let mut text = String::from("sandboxed-db: server log, its end:\n");
    tail.iter().rev().for_each(|line| text.push_str(&format!("  | {line}\n")));
    // Standard error may be closed.
    let _ = io::stderr().write_all(text.as_bytes());
}
