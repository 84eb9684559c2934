//! `sandboxed-db run`: a program of any language with its own server.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

use clap::Args;
use sandboxed_db::{Engine, Sandbox, Snapshot};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::description::Description;
use super::engine::OnSnapshot;
use super::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    description: Description,
    /// Let the program reach the server by TCP, on a port of 127.0.0.1 with a password, instead of
    /// its Unix socket.
    #[arg(long)]
    tcp: bool,
    /// The program and its arguments.
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl RunArguments {
    /// Starts a server and runs the program. Returns the program's exit code.
    pub(super) fn perform(self) -> Result<ExitCode, Box<dyn Error>> {
        let directory = std::env::current_dir()
            .map_err(|error| Failure::new("find the working directory").because(error))?;
        self.description.engine.run_on(&self.description, directory, &self)?
    }
}

impl OnSnapshot for &RunArguments {
    type Output = Result<ExitCode, Box<dyn Error>>;

    fn run<E: Engine>(self, snapshot: Snapshot<E>) -> Self::Output {
        let sandbox = snapshot.start()?;
        let by_tcp = self.tcp || self.description.tls;
        let env = if by_tcp { sandbox.tcp()?.env() } else { sandbox.env() };
        let status = run(&self.command, &env, sandbox.engine())?;
        if !status.success() {
            print_log(&sandbox);
        }
        Ok(exit_code(status))
    }
}

/// Runs a program to its end, with the variables of a sandbox.
pub(super) fn run(
    program: &[OsString],
    env: &[(String, String)],
    engine: &impl Engine,
) -> Result<ExitStatus, Failure> {
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
        if name.to_str().is_some_and(|name| engine.is_client_variable(name)) {
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
fn print_log<E: Engine>(sandbox: &Sandbox<E>) {
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
