//! bubblewrap(1), compared with the container alone: the same namespaces and shell as a sandbox,
//! without an overlay.

use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};

use super::contestant::{Answered, Tests};
use crate::Result;

/// Ends on a message: `--die-with-parent` takes effect only some time after the command has begun,
/// so that the container survives an early kill of bwrap.
const SCRIPT: &str = "echo ready; read -r word";

/// Shows the same root as a sandbox: the host's programs, and private file systems.
const ARGUMENTS: &str = "\
    --unshare-all --die-with-parent --new-session --cap-drop ALL --ro-bind /usr /usr --symlink \
    usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --proc /proc --dev /dev \
    --tmpfs /run --tmpfs /tmp --tmpfs /data --clearenv --setenv PATH /usr/bin /usr/bin/sh -c";

#[derive(Debug)]
pub(super) struct Bubblewrap;

impl Tests for Bubblewrap {
    fn test(&self, _query: &'static str, answered: &Answered) -> Result<()> {
        let mut command = Command::new("bwrap");
        command.args(ARGUMENTS.split(' ')).arg(SCRIPT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut output = BufReader::new(process.stdout.take().ok_or("the pipe is missing")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line != "ready\n" {
            return Err(format!("bwrap: {}", process.wait()?).into());
        }
        answered();
        // Closes its standard input.
        process.wait()?;
        // The pipe ends with the last process inside.
        io::copy(&mut output, &mut io::sink())?;
        Ok(())
    }
}
