//! The test process's end of the control socket: requests go out, events come in.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;

use super::error::Result;
use crate::error::{Error, ErrorKind};
use crate::launch::protocol::{Event, Exit, LONGEST_MESSAGE, NoImage, Request, encode};
use crate::sys::socket;

/// The control socket, and events that arrived while another was awaited.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) socket: OwnedFd,
    pub(super) server_exit: Option<Exit>,
    pub(super) ready: bool,
    /// The number of programs run so far.
    pub(super) runs: u32,
    /// The port that is forwarded.
    pub(super) forwarding: Option<u16>,
    /// The outcome of a capture.
    pub(super) captured: Option<Result<(), NoImage>>,
}

impl Control {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, server_exit: None, ready: false, runs: 0, forwarding: None, captured: None }
    }

    pub(super) fn request(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let failed = || Error::new(ErrorKind::Control, "send the sandbox's init a request");
        let message = encode(request).map_err(|error| failed().caused_by(error))?;
        if message.len() > LONGEST_MESSAGE {
            let length = format!("a command of {} bytes is longer than {LONGEST_MESSAGE}", message.len());
            return Err(failed().caused_by(length).into());
        }
        socket::send(self.socket.as_fd(), &message, fds)
            .map_err(|errno| failed().caused_by(io::Error::from(errno)).into())
    }

    /// Notes the next event, if one comes by `deadline`. Returns the number and exit of a program
    /// that has ended.
    pub(super) fn take_event(&mut self, deadline: Instant) -> Result<Option<(u32, Exit)>> {
        match receive(self.socket.as_fd(), deadline)? {
            Received::Event(event, _) => self.note(event),
            Received::Timeout => Ok(None),
            Received::End => Err(Error::new(ErrorKind::Exited, "reach the sandbox: it has ended")
                .with_hint("its init was killed, by the out-of-memory killer or by hand; look into `dmesg`")
                .into()),
        }
    }

    /// Notes events until they have brought what `find` looks for, or until the deadline, which is
    /// the error `late`.
    pub(super) fn wait_for<T>(
        &mut self,
        deadline: Instant,
        late: impl FnOnce() -> Error,
        mut find: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T> {
        loop {
            if let Some(found) = find(self) {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Err(late().into());
            }
            self.take_event(deadline)?;
        }
    }

    /// Notes an event. Returns the number and exit of a program that has ended.
    pub(super) fn note(&mut self, event: Event) -> Result<Option<(u32, Exit)>> {
        match event {
            Event::Ready => self.ready = true,
            Event::ServerExited(exit) => self.server_exit = Some(exit),
            Event::RunExited { number, exit } => return Ok(Some((number, exit))),
            Event::Forwarding { port } => self.forwarding = Some(port),
            Event::Captured(refused) => self.captured = Some(refused.map_or(Ok(()), Err)),
            Event::Failed(failure) => return Err(failure.into()),
            Event::Spawned { .. } | Event::Up(_) => {}
        }
        Ok(None)
    }
}

pub(super) enum Received {
    Event(Event, Vec<OwnedFd>),
    End,
    Timeout,
}

pub(super) fn receive(socket: BorrowedFd<'_>, deadline: Instant) -> Result<Received> {
    let failed = || Error::new(ErrorKind::Control, "read a report of the sandbox's init");
    let broken = |errno: Errno| failed().caused_by(io::Error::from(errno));
    if !socket::wait_readable(&[socket], deadline).map_err(broken)? {
        return Ok(Received::Timeout);
    }
    // A failure has two texts, and JSON may write a character as six bytes or more.
    let mut buffer = [0; 16 << 10];
    match socket::receive(socket, &mut buffer) {
        Ok(Some((length, fds))) => {
            let event =
                serde_json::from_slice(&buffer[..length]).map_err(|error| failed().caused_by(error))?;
            Ok(Received::Event(event, fds))
        }
        Ok(None) | Err(Errno::CONNRESET) => Ok(Received::End),
        Err(errno) => Err(broken(errno).into()),
    }
}
