//! Programs that run to their end in a container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::client::memory;
use super::container::Container;
use super::error::Result;
use super::lock;
use super::tail::Tail;
use crate::error::{Error, ErrorKind};
use crate::launch::command::Command;
use crate::launch::protocol::{Exit, Request};
use crate::sys::socket;

/// The standard input of a program in a container.
#[derive(Debug)]
pub(crate) enum Stdin<'a> {
    Text(&'a str),
    Descriptor(OwnedFd),
}

/// The end of a program in a container.
#[derive(Debug)]
pub(crate) struct ProgramExit {
    pub(crate) exit: Exit,
    /// The end of its standard output.
    pub(crate) stdout: String,
    /// The end of its standard error.
    pub(crate) stderr: String,
}

impl Container {
    /// Runs a program to its end.
    pub(crate) fn run(&self, command: Command, stdin: Stdin<'_>, timeout: Duration) -> Result<ProgramExit> {
        let name = command.name();
        let failed =
            |error: io::Error| Error::new(ErrorKind::Control, format!("run `{name}`")).caused_by(error);
        let input = match stdin {
            Stdin::Text(text) => {
                memory(c"sandboxed-db stdin", text.as_bytes()).map_err(|errno| failed(errno.into()))?.into()
            }
            Stdin::Descriptor(input) => input,
        };
        let (mut stdout, output) = Tail::new().map_err(failed)?;
        let (mut stderr, errors) = Tail::new().map_err(failed)?;
        let deadline = Instant::now() + timeout;
        let mut control = lock(&self.control);
        control.runs += 1;
        let number = control.runs;
        let request = Request::Run { number, command };
        control.request(&request, &[input.as_fd(), output.as_fd(), errors.as_fd()])?;
        // A writer into a pipe must notice the end of the program, its last reader, and the reader
        // the end of the last writer.
        drop((input, output, errors));
        let exit = loop {
            stdout.take();
            stderr.take();
            let sources = [Some(control.socket.as_fd()), stdout.source(), stderr.source()];
            let sources: Vec<_> = sources.into_iter().flatten().collect();
            socket::wait_readable(&sources, deadline).map_err(|errno| failed(errno.into()))?;
            // An earlier program, whose deadline has passed, may end now.
            match control.take_event(Instant::now())? {
                Some((ended, exit)) if ended == number => break exit,
                _ => {}
            }
            if Instant::now() >= deadline {
                return Err(Error::new(ErrorKind::Timeout, format!("run `{name}` within {timeout:?}"))
                    .with_hint("raise `build_timeout`")
                    .into());
            }
        };
        stdout.take();
        stderr.take();
        Ok(ProgramExit { exit, stdout: stdout.text(), stderr: stderr.text() })
    }
}
