//! `sandboxed-db run`: a program of any language, with a server of its own as long as it runs.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};

use clap::{Args, ValueEnum};
use sandboxed_db::{MigrationTool, Postgres, Sandbox, Snapshot};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The database server.
    #[arg(long, value_enum, default_value_t = Kind::Postgres)]
    engine: Kind,
    /// Its version, such as 15 [default: the newest found].
    #[arg(long)]
    version: Option<String>,
    /// The name of the database.
    #[arg(long, default_value = "postgres")]
    database: String,
    /// A directory of migrations, as `Snapshot::migrations` takes it; several run in their order.
    #[arg(long, value_name = "DIRECTORY")]
    migrations: Vec<PathBuf>,
    /// The tool that the migrations are written for, where their names do not tell.
    #[arg(long, value_enum, requires = "migrations")]
    tool: Option<MigrationTool>,
    /// A file that fills the database after the migrations, as `Snapshot::seed` takes it; several run in their order.
    #[arg(long, value_name = "FILE")]
    seed: Vec<PathBuf>,
    /// A setting of the server.
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    setting: Vec<(String, String)>,
    /// Let the program reach the server by TCP, on a port of 127.0.0.1 with a password, instead of its Unix socket.
    #[arg(long)]
    tcp: bool,
    /// The program and its arguments.
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Postgres,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it has no `=`")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl RunArguments {
    /// Ends as the program does: with its code, or as shells tell a signal.
    pub(super) fn perform(self, json: bool) -> Result<ExitCode, Box<dyn Error>> {
        if json {
            return Err("`run` prints nothing of its own, so it knows no --json".into());
        }
        let sandbox = self.snapshot().start()?;
        let env = if self.tcp { sandbox.tcp()?.env() } else { sandbox.env() };
        let status = run(&self.command, &env);
        match &status {
            Ok(status) if !status.success() => tell_end(&sandbox),
            _ => {}
        }
        Ok(exit_as(status?))
    }

    fn snapshot(&self) -> Snapshot {
        let Kind::Postgres = self.engine;
        let engine = Postgres::new().database(&self.database);
        let engine = match &self.version {
            Some(version) => engine.version(version),
            None => engine,
        };
        let working_directory = std::env::current_dir().unwrap_or_default();
        let snapshot = Snapshot::new(engine).relative_to(working_directory);
        let snapshot = self.migrations.iter().fold(snapshot, |snapshot, directory| match self.tool {
            Some(tool) => snapshot.migrations_of(tool, directory),
            None => snapshot.migrations(directory),
        });
        let snapshot = self.seed.iter().fold(snapshot, |snapshot, file| snapshot.seed(file));
        snapshot.settings(self.setting.iter().cloned())
    }
}

/// Runs a program with the variables of a sandbox, to its end.
pub(super) fn run(program: &[OsString], env: &[(String, String)]) -> io::Result<ExitStatus> {
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]);
    // The user's own server is not the one that is meant.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PG")) {
            command.env_remove(name);
        }
    }
    command.envs(env.iter().map(|(name, value)| (name, value)));
    // The program decides what a signal means; the server is there until it has ended.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    let mut child = command
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("run `{}`: {error}", program[0].display())))?;
    let pid = rustix::process::Pid::from_child(&child);
    let handle = signals.handle();
    let forwarder = std::thread::spawn(move || {
        // A terminal sends the others to the program itself.
        for signal in signals.forever().filter(|signal| matches!(*signal, SIGTERM | SIGHUP)) {
            let signal =
                if signal == SIGTERM { rustix::process::Signal::TERM } else { rustix::process::Signal::HUP };
            // It may end by itself in between.
            let _ = rustix::process::kill_process(pid, signal);
        }
    });
    let status = child.wait();
    handle.close();
    let _ = forwarder.join();
    status
}

/// The exit code of a program, or what shells make of a signal.
pub(super) fn exit_as(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// A server that is gone explains a program that failed.
fn tell_end(sandbox: &Sandbox) {
    let log = sandbox.log().unwrap_or_default();
    if log.trim().is_empty() {
        return;
    }
    let tail: Vec<_> = log.lines().rev().take(20).collect();
    let mut text = String::from("sandboxed-db: the server's log, its end:\n");
    tail.iter().rev().for_each(|line| text.push_str(&format!("  | {line}\n")));
    // There is nobody left to tell if this fails.
    let _ = io::stderr().write_all(text.as_bytes());
}
