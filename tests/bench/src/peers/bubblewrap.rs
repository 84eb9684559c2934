//! bubblewrap(1), for the container alone: the same namespaces as a sandbox's, the same shell in it, no overlay.

use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};

use super::contestant::{Answered, Tests};
use crate::Outcome;

/// As in `bare.rs`, but told to end: `--die-with-parent` takes effect only some time after the command has begun, so that
/// who kills bwrap early leaves the container alive.
const SCRIPT: &str = "echo ready; read -r word";

/// As in a sandbox's root: programs, and file systems of its own for the rest.
const ARGUMENTS: &[&str] = &[
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--cap-drop",
    "ALL",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--tmpfs",
    "/run",
    "--tmpfs",
    "/tmp",
    "--tmpfs",
    "/data",
    "--clearenv",
    "--setenv",
    "PATH",
    "/usr/bin",
    "/usr/bin/sh",
    "-c",
];

#[derive(Debug)]
pub(super) struct Bubblewrap;

impl Tests for Bubblewrap {
    fn test(&self, _query: &'static str, answered: &Answered) -> Outcome<()> {
        let mut command = Command::new("bwrap");
        command.args(ARGUMENTS).arg(SCRIPT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut output = BufReader::new(process.stdout.take().ok_or("a pipe was asked for")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line != "ready\n" {
            return Err(format!("bwrap: {}", process.wait()?).into());
        }
        answered();
        // Closes its standard input.
        process.wait()?;
        // The pipe ends when the last process inside has.
        io::copy(&mut output, &mut io::sink())?;
        Ok(())
    }
}
