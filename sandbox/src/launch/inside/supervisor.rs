//! What starts a sandbox's programs and watches them: PID 1 of a container, or the process above a server that has none.
//!
//! It is tied to the test process by the control socket, whose end of file is how it learns that nobody needs it.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use super::forwarder;
use super::init::give_up_last_capability;
use super::process::Paths;
use crate::launch::image;
use crate::launch::plan::{Command, Symlink};
use crate::launch::protocol::{Event, Exit, Failure, LONGEST_MESSAGE, Request, Step, encode};
use crate::sys::process::{Forked, SingleThreaded, child_signals, die_with_parent, fork, move_fd};
use crate::sys::socket;

/// Where a supervisor finds itself when all is prepared.
pub(super) struct Grounds {
    pub(super) log: File,
    /// Whether /proc is the outer one though the sandbox is a container.
    pub(super) outer_proc: bool,
    /// Where servers that speak sd_notify(3) say that they are ready.
    pub(super) notify: String,
    /// Links to make once the server has said so.
    pub(super) when_ready: Vec<Symlink>,
    /// In a container the paths of the sandbox are those of the file system, and there is nothing to be minded.
    pub(super) host: Option<Host>,
}

impl Grounds {
    /// A server's command as it is run here.
    pub(super) fn server(&self, command: Command) -> Command {
        command.env("NOTIFY_SOCKET", &self.notify)
    }
}

/// What is to be minded where a sandbox shares the host's file system, processes and network.
pub(super) struct Host {
    pub(super) paths: Paths,
    /// Ends a server at once; it gets it should this process be killed, too.
    pub(super) end_signal: Signal,
    /// Where the server listens.
    pub(super) loopback: Ipv4Addr,
    /// Is told the server's id.
    pub(super) note: Box<dyn Fn(Pid)>,
}

/// Starts the server and other programs, reaps, and reports.
pub(super) struct Supervisor<'a> {
    control: &'a OwnedFd,
    grounds: &'a Grounds,
    children: OwnedFd,
    notify: OwnedFd,
    server: Option<Pid>,
    /// A program, and its number.
    program: Option<(Pid, u32)>,
    /// Whether it is known that the server is ready: others may say so, too, and again and again.
    ready: bool,
    /// Who has ended, where it must be known.
    ended: Vec<Pid>,
}

impl<'a> Supervisor<'a> {
    /// Starts a planned server, from its image if there is one, and tells the test process that all is prepared.
    pub(super) fn start(
        control: &'a OwnedFd,
        server: Option<Command>,
        image: Option<File>,
        grounds: &'a Grounds,
    ) -> Result<Self, Failure> {
        let failed = |object: &str, errno| Failure::new(Step::Execute, object, errno);
        let notify = notify_socket(&grounds.notify).map_err(|errno| failed(&grounds.notify, errno))?;
        let children = child_signals().map_err(|errno| failed("signalfd", errno))?;
        let mut supervisor = Self {
            control,
            grounds,
            children,
            notify,
            server: None,
            program: None,
            ready: false,
            ended: Vec::new(),
        };
        let mut refused = None;
        if let Some(command) = server {
            if let Some(image) = image {
                refused = supervisor.restore_server(&command, &image)?;
            }
            if supervisor.server.is_none() {
                supervisor.start_server(command)?;
            }
        }
        let root = grounds.host.as_ref().map(|host| host.paths.root().to_string_lossy().into_owned());
        send(control, &Event::Up { outer_proc: grounds.outer_proc, root, refused }, &[&grounds.log]);
        // Nothing of the launcher's is within the server's reach from here on.
        silence();
        Ok(supervisor)
    }

    /// The server, and all that have ended, where it must be known.
    pub(super) fn left(self) -> (Option<Pid>, Vec<Pid>) {
        (self.server, self.ended)
    }

    /// Returns when the test process is gone.
    pub(super) fn supervise(&mut self) {
        let mut buffer = vec![0; LONGEST_MESSAGE];
        loop {
            let mut fds = [
                PollFd::new(self.control, PollFlags::IN),
                PollFd::new(&self.notify, PollFlags::IN),
                PollFd::new(&self.children, PollFlags::IN),
            ];
            if poll(&mut fds, None).is_err() {
                continue;
            }
            let [control, notify, children] = fds.map(|fd| !fd.revents().is_empty());
            if children {
                self.reap();
            }
            if control {
                let Ok(Some((length, fds))) = socket::receive(self.control.as_fd(), &mut buffer) else {
                    return;
                };
                self.serve(&buffer[..length], fds);
            }
            // Later: the test process may have said that it did not wait for this.
            if notify {
                self.read_notification(&mut buffer);
            }
        }
    }

    fn serve(&mut self, message: &[u8], fds: Vec<OwnedFd>) {
        let outcome = match serde_json::from_slice(message) {
            Ok(Request::Start(command)) => self.start_server(command),
            Ok(Request::Run { number, command }) => self.run(number, command, fds),
            Ok(Request::Forward { port }) => self.forward(port, fds),
            Ok(Request::Reached) => {
                self.ready = true;
                Ok(())
            }
            Ok(Request::Signal(number)) => {
                if let (Some(server), Some(signal)) = (self.server, Signal::from_named_raw(number)) {
                    // The server may have ended in this moment; its exit is reported in its turn.
                    let _ = kill_process(server, signal);
                }
                Ok(())
            }
            Err(error) => Err(Failure::io(Step::Receive, "", &error.into())),
        };
        if let Err(failure) = outcome {
            send(self.control, &Event::Failed(failure), &[]);
        }
    }

    /// Those that the plan asks for. They save the server work that it does otherwise, so one that cannot be made is no failure.
    fn make_links(&self) {
        for Symlink { path, target } in &self.grounds.when_ready {
            let path = match &self.grounds.host {
                Some(host) => host.paths.of(path),
                None => path.clone(),
            };
            let _ = symlink(target, path);
        }
    }

    fn start_server(&mut self, command: Command) -> Result<(), Failure> {
        let command = self.grounds.server(command);
        let log = || self.grounds.log.try_clone().map(Stdio::from);
        let stdio = log().and_then(|out| Ok([Stdio::null(), out, log()?]));
        let stdio = stdio.map_err(|error| Failure::io(Step::Execute, &command.name(), &error))?;
        let end = self.grounds.host.as_ref().map(|host| host.end_signal);
        let server = self.spawn(command, stdio, end)?;
        (self.server, self.ready) = (Some(server), false);
        if let Some(host) = &self.grounds.host {
            (host.note)(server);
        }
        Ok(())
    }

    /// The same from an image, or says why not. It takes this process's last capability.
    fn restore_server(&mut self, command: &Command, image: &File) -> Result<Option<String>, Failure> {
        let command = self.grounds.server(command.clone());
        let log = || self.grounds.log.try_clone().map(OwnedFd::from);
        let stdio = || Ok([File::open("/dev/null")?.into(), log()?, log()?]);
        let restored = stdio().and_then(|stdio| image::restore(image, &command, stdio));
        give_up_last_capability()?;
        match restored {
            Ok(server) => {
                self.server = Some(server);
                Ok(None)
            }
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    fn run(&mut self, number: u32, command: Command, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let stdio = <[OwnedFd; 3]>::try_from(fds)
            .map_err(|fds| Failure {
                step: Step::Receive,
                object: command.name(),
                errno: 0,
                detail: format!("{} descriptors came where 3 were expected", fds.len()),
            })?
            .map(Stdio::from);
        let end = self.grounds.host.as_ref().map(|_| Signal::KILL);
        self.program = Some((self.spawn(command, stdio, end)?, number));
        Ok(())
    }

    /// A process of its own forwards, so that nothing there can keep init from its socket. It lives as long as init.
    fn forward(&self, port: u16, listeners: Vec<OwnedFd>) -> Result<(), Failure> {
        let failed = |error: &io::Error| Failure::io(Step::Forward, &format!("port {port}"), error);
        let proof = SingleThreaded::check().map_err(|error| failed(&error))?;
        let loopback = self.grounds.host.as_ref().map_or(Ipv4Addr::LOCALHOST, |host| host.loopback);
        match fork(&proof).map_err(|errno| failed(&errno.into()))? {
            Forked::Child => forwarder::main(listeners, (loopback, port).into()),
            Forked::Parent(_) => send(self.control, &Event::Forwarding { port }, &[]),
        }
        Ok(())
    }

    /// Reaps every child that has ended, adopted orphans included, and reports the two that are known.
    fn reap(&mut self) {
        // Several ends may have come as one signal, so the signal's own record says nothing of use.
        let _ = rustix::io::read(&self.children, &mut [0; 128]);
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(exit) = exit_of(status) else { continue };
            if self.grounds.host.is_some() {
                self.ended.push(pid);
            }
            if self.server == Some(pid) {
                self.server = None;
                send(self.control, &Event::ServerExited(exit), &[]);
            } else if let Some((_, number)) = self.program.take_if(|(program, _)| *program == pid) {
                send(self.control, &Event::RunExited { number, exit }, &[]);
            }
        }
    }

    /// `end` is the signal that the program gets should this process be killed, which in a container ends all by itself.
    fn spawn(&self, command: Command, stdio: [Stdio; 3], end: Option<Signal>) -> Result<Pid, Failure> {
        let command = match &self.grounds.host {
            Some(host) => host.paths.translate(command),
            None => command,
        };
        let mut process = command.process(stdio);
        if let Some(signal) = end {
            die_with_parent(&mut process, signal);
        }
        let child = process
            .spawn()
            .map_err(|error| Failure::io(Step::Execute, &command.program.to_string_lossy(), &error))?;
        Ok(Pid::from_raw(child.id().cast_signed()).expect("a child has a positive pid"))
    }

    /// sd_notify(3): lines of assignments, of which only one matters here.
    fn read_notification(&mut self, buffer: &mut [u8]) {
        if let Ok(length) = rustix::io::read(&self.notify, &mut *buffer)
            && buffer[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1")
            && !std::mem::replace(&mut self.ready, true)
        {
            self.make_links();
            send(self.control, &Event::Ready, &[]);
        }
    }
}

/// Turns this process's standard output and error, which are the launcher's, to /dev/null.
fn silence() {
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        for number in [1, 2] {
            // Kept open under its number by not being dropped.
            let moved = null.try_clone().map(OwnedFd::from).ok().and_then(|null| move_fd(null, number).ok());
            std::mem::forget(moved);
        }
    }
}

fn notify_socket(path: &str) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn exit_of(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// A message that cannot be sent has no reader left: end of file follows.
pub(super) fn send(control: &OwnedFd, event: &Event, fds: &[&File]) {
    let fds: Vec<_> = fds.iter().map(|file| file.as_fd()).collect();
    let _ = socket::send(control.as_fd(), &encode(event).expect("an event holds no path"), &fds);
}
