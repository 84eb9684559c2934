//! bubblewrap(1), for the container alone: the same namespaces as a sandbox's, the same shell in it, no overlay.

use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};

use super::contestant::{Answered, Tests};
use crate::Outcome;

/// As in `bare.rs`.
const SCRIPT: &str = "echo ready; sleep infinity & wait";

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
        let mut process = Command::new("bwrap").args(ARGUMENTS).arg(SCRIPT).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(process.stdout.take().ok_or("a pipe was asked for")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line != "ready\n" {
            return Err(format!("bwrap: {}", process.wait()?).into());
        }
        answered();
        process.kill()?;
        process.wait()?;
        // The pipe ends when the last process inside has.
        io::copy(&mut output, &mut io::sink())?;
        Ok(())
    }
}
