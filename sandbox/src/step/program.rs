//! A step that is a program of the user, which runs outside the sandbox with the database's address
//! in its environment.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, ExitStatus, Stdio};
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::Base;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::search::not_executed;
use crate::sandbox::{Sandbox, run_task};
use crate::sys::process::die_with_parent;
use crate::sys::socket::wait_readable;

/// The number of lines of a failed program's output that an error shows.
const TAIL: usize = 30;

#[derive(Debug, Clone)]
pub(crate) struct ProgramStep {
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    /// The program runs in its directory.
    base: Base,
    address: Address,
}

/// How a program reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address {
    Socket,
    Tcp,
}

impl ProgramStep {
    pub(crate) fn new(program: String, args: Vec<String>, base: Base, address: Address) -> Self {
        Self { program, args, base, address }
    }

    /// Its name in digests: the outcome may depend on the address.
    pub(crate) fn kind(&self) -> &'static str {
        match self.address {
            Address::Socket => "command",
            Address::Tcp => "command by TCP",
        }
    }

    pub(super) fn run<E: Engine>(&self, sandbox: &Sandbox<E>, deadline: Instant) -> Result<()> {
        match self.address {
            Address::Socket => self.run_with(sandbox, sandbox.env(), deadline),
            Address::Tcp => {
                let tcp = sandbox.tcp()?;
                self.run_with(sandbox, tcp.env(), deadline)?;
                let left = deadline.saturating_duration_since(Instant::now());
                let Some(task) = &tcp.reset else { return Ok(()) };
                match run_task(sandbox.container(), task, left)? {
                    None => Ok(()),
                    Some(message) => {
                        Err(Error::new(ErrorKind::Layer, "remove the password for TCP").caused_by(message))
                    }
                }
            }
        }
    }

    fn run_with<E: Engine>(
        &self,
        sandbox: &Sandbox<E>,
        env: Vec<(String, String)>,
        deadline: Instant,
    ) -> Result<()> {
        let failed = || Error::new(ErrorKind::InvalidConfig, format!("run {self}"));
        let broken = |error: io::Error| failed().caused_by(error);
        let mut output = tempfile::tempfile().map_err(broken)?;
        let mut command = self.prepare(sandbox, env, &output).map_err(broken)?;
        let mut child = command.spawn().map_err(|error| {
            let error = not_executed(command.get_program(), error);
            let missing = error.kind() == io::ErrorKind::NotFound;
            broken(error).or_hint(|| {
                missing.then(|| {
                    format!("install it, or correct its name: names are looked up in PATH, and paths are relative to {}", self.base)
                })
            })
        })?;
        match wait(&mut child, deadline).map_err(broken)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(failed()
                .caused_by(format!("it ended with {status}\n{}", tail(&mut output)))
                .with_hint(format!("it ran in {}, and finds the server by `DATABASE_URL`", self.base))),
            None => Err(Error::new(
                ErrorKind::Timeout,
                format!("run {self} within the time that a step may take"),
            )
            .caused_by(tail(&mut output))
            .with_hint("raise `build_timeout`")),
        }
    }

    fn prepare<E: Engine>(
        &self,
        sandbox: &Sandbox<E>,
        env: Vec<(String, String)>,
        output: &File,
    ) -> io::Result<process::Command> {
        // A path is the caller's, and not relative to the directory where the program runs.
        let program = match self.program.contains('/') {
            true => self.base.directory.join(&self.program),
            false => PathBuf::from(&self.program),
        };
        let mut command = process::Command::new(program);
        command.args(&self.args).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        command.current_dir(&self.base.directory);
        // The variables of the user's own database would lead elsewhere.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| sandbox.engine().is_client_variable(name)) {
                command.env_remove(name);
            }
        }
        command.envs(env).process_group(0);
        die_with_parent(&mut command, Signal::KILL);
        Ok(command)
    }
}

/// Returns the child's exit status, or `None` if it was killed at the deadline. All of its group
/// ends with it.
fn wait(child: &mut process::Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let ended =
        pidfd_open(pid, PidfdFlags::empty()).and_then(|pidfd| wait_readable(&[pidfd.as_fd()], deadline));
    // Until the child is waited for, no other process has its number.
    let _ = kill_process_group(pid, Signal::KILL);
    let status = child.wait()?;
    Ok(ended?.then_some(status))
}

fn tail(output: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = output.rewind().and_then(|()| output.read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

impl fmt::Display for ProgramStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = [&self.program].into_iter().chain(&self.args).map(String::as_str).collect();
        write!(f, "`{}`", words.join(" "))
    }
}
