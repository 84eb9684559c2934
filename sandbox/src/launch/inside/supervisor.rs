//! Starts a sandbox's programs and watches them: PID 1 of a container, or the supervisor of process
//! mode.
//!
//! End of file on the control socket ends it: the test process is gone, or needs the sandbox no
//! longer.

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

use super::child::send;
use super::forwarder;
use super::paths::HostPaths;
use super::privileges::drop_last_capability;
use crate::launch::command::{Command, ResolvedCommand};
use crate::launch::image;
use crate::launch::plan::Symlink;
use crate::launch::protocol::{
    Event, Exit, Failure, LONGEST_MESSAGE, LaunchStep, NoImage, Request, StartMethod, Up,
};
use crate::sys::process::{SingleThreaded, child_signals, die_with_parent, fork};
use crate::sys::socket;

/// The surroundings of a server, prepared by init or the supervisor of process mode.
pub(super) struct ServerContext {
    pub(super) log: File,
    /// The socket for readiness by sd_notify(3).
    pub(super) notify: String,
    /// Links to make when the server reports readiness.
    pub(super) when_ready: Vec<Symlink>,
    /// Absent in a container.
    pub(super) host: Option<HostProcess>,
}

impl ServerContext {
    /// Adds the variable for sd_notify(3) to a server's command.
    pub(super) fn server(&self, command: Command) -> Command {
        command.env("NOTIFY_SOCKET", &self.notify)
    }

    fn resolve(&self, command: &Command) -> ResolvedCommand {
        match &self.host {
            Some(host) => command.resolve(|path| host.paths.on_host(path)),
            None => command.in_container(),
        }
    }
}

/// The additional duties where a sandbox shares the host's file system, processes and network.
pub(super) struct HostProcess {
    pub(super) paths: HostPaths,
    /// Ends a server at once. The kernel sends it if this process is killed.
    pub(super) end_signal: Signal,
    /// The server's address.
    pub(super) loopback: Ipv4Addr,
    /// Called with the server's id.
    pub(super) note: Box<dyn Fn(Pid)>,
}

/// Starts the server and other programs, reaps, and reports.
pub(super) struct Supervisor<'a> {
    control: &'a OwnedFd,
    context: &'a ServerContext,
    children: OwnedFd,
    notify: OwnedFd,
    server: Option<Pid>,
    /// A program and its number.
    program: Option<(Pid, u32)>,
    /// `true` if readiness was reported: a server may repeat it, and other programs may send it.
    ready: bool,
    /// The ids of ended children, in process mode.
    ended: Vec<Pid>,
}

impl<'a> Supervisor<'a> {
    /// Starts a planned server and reports that all is prepared.
    pub(super) fn start(
        control: &'a OwnedFd,
        server: Option<(Command, StartMethod<OwnedFd>)>,
        context: &'a ServerContext,
        up: Up,
    ) -> Result<Self, Failure> {
        let failed = |object: &str, errno| Failure::new(LaunchStep::Execute, object, errno);
        let notify = notify_socket(&context.notify).map_err(|errno| failed(&context.notify, errno))?;
        let children = child_signals().map_err(|errno| failed("signalfd", errno))?;
        let mut supervisor = Self {
            control,
            context,
            children,
            notify,
            server: None,
            program: None,
            ready: false,
            ended: Vec::new(),
        };
        let mut not_restored = None;
        match server {
            Some((command, StartMethod::Restore(image))) => {
                not_restored = supervisor.restore_server(&command, &image.into())?;
                if not_restored.is_some() {
                    supervisor.start_server(command)?;
                }
            }
            Some((command, _)) => supervisor.start_server(command)?,
            None => {}
        }
        send(control, &Event::Up(Up { not_restored, ..up }), &[&context.log]);
        // From here on nothing of the launcher's is within the server's reach.
        silence();
        Ok(supervisor)
    }

    /// Returns the server and all children that have ended, in process mode.
    pub(super) fn remains(self) -> (Option<Pid>, Vec<Pid>) {
        (self.server, self.ended)
    }

    /// Serves requests until the test process is gone.
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
            // After requests: one may say that the test process did not wait for readiness.
            if notify {
                self.read_notification(&mut buffer);
            }
        }
    }

    fn serve(&mut self, message: &[u8], fds: Vec<OwnedFd>) {
        let outcome = match serde_json::from_slice(message) {
            Ok(Request::Start(command)) => self.start_server(command),
            Ok(Request::Run { number, command }) => self.run(number, &command, fds),
            Ok(Request::Forward { port }) => self.forward(port, fds),
            Ok(Request::Reached) => {
                self.ready = true;
                Ok(())
            }
            Ok(Request::Signal(signal)) => {
                if let Some(server) = self.server {
                    // The server may have ended in this moment; its exit is reported later.
                    let _ = kill_process(server, signal.into());
                }
                Ok(())
            }
            Err(error) => Err(Failure::io(LaunchStep::Receive, "", &error.into())),
        };
        if let Err(failure) = outcome {
            send(self.control, &Event::Failed(failure), &[]);
        }
    }

    /// Makes the planned links. They save the server work, so a link that cannot be made is no
    /// failure.
    fn make_links(&self) {
        for Symlink { path, target } in &self.context.when_ready {
            let path = match &self.context.host {
                Some(host) => host.paths.on_host(path),
                None => path.as_path().to_owned(),
            };
            let _ = symlink(target, path);
        }
    }

    fn start_server(&mut self, command: Command) -> Result<(), Failure> {
        let command = self.context.server(command);
        let log = || self.context.log.try_clone().map(Stdio::from);
        let stdio = log().and_then(|out| Ok([Stdio::null(), out, log()?]));
        let stdio = stdio.map_err(|error| Failure::io(LaunchStep::Execute, &command.name(), &error))?;
        let end = self.context.host.as_ref().map(|host| host.end_signal);
        let server = self.spawn(&command, stdio, end)?;
        (self.server, self.ready) = (Some(server), false);
        if let Some(host) = &self.context.host {
            (host.note)(server);
        }
        Ok(())
    }

    /// Restores the server from an image, or returns the reason why it cannot be. Drops this
    /// process's last capability.
    fn restore_server(&mut self, command: &Command, image: &File) -> Result<Option<NoImage>, Failure> {
        let command = self.context.server(command.clone()).in_container();
        let log = || self.context.log.try_clone().map(OwnedFd::from);
        let stdio = || io::Result::Ok([File::open("/dev/null")?.into(), log()?, log()?]);
        let restored =
            stdio().map_err(NoImage::from).and_then(|stdio| image::restore(image, &command, stdio));
        drop_last_capability()?;
        match restored {
            Ok(server) => {
                self.server = Some(server);
                Ok(None)
            }
            Err(why) => Ok(Some(why)),
        }
    }

    fn run(&mut self, number: u32, command: &Command, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let stdio = <[OwnedFd; 3]>::try_from(fds)
            .map_err(|fds| {
                let reason = format!("{} descriptors came where 3 were expected", fds.len());
                Failure::other(LaunchStep::Receive, &command.name(), &reason)
            })?
            .map(Stdio::from);
        let end = self.context.host.as_ref().map(|_| Signal::KILL);
        self.program = Some((self.spawn(command, stdio, end)?, number));
        Ok(())
    }

    /// Forks a process that forwards, so that no connection can keep this one from its control
    /// socket.
    fn forward(&self, port: u16, listeners: Vec<OwnedFd>) -> Result<(), Failure> {
        let failed = |error: &io::Error| Failure::io(LaunchStep::Forward, &format!("port {port}"), error);
        let proof = SingleThreaded::check().map_err(|error| failed(&error))?;
        let loopback = self.context.host.as_ref().map_or(Ipv4Addr::LOCALHOST, |host| host.loopback);
        fork(&proof, |fresh| forwarder::main(fresh, listeners, (loopback, port).into()))
            .map_err(|errno| failed(&errno.into()))?;
        send(self.control, &Event::Forwarding { port }, &[]);
        Ok(())
    }

    /// Reaps every child that has ended, adopted orphans included, and reports the server and the
    /// program.
    fn reap(&mut self) {
        // One signal may stand for several ends, so its record is of no use.
        let _ = rustix::io::read(&self.children, &mut [0; 128]);
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(exit) = exit_of(status) else { continue };
            if self.context.host.is_some() {
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

    /// Spawns a program. It gets the signal `end` if this process is killed; in a container the
    /// kernel kills it anyway.
    fn spawn(&self, command: &Command, stdio: [Stdio; 3], end: Option<Signal>) -> Result<Pid, Failure> {
        let command = self.context.resolve(command);
        let mut process = command.process(stdio);
        if let Some(signal) = end {
            die_with_parent(&mut process, signal);
        }
        let child = process
            .spawn()
            .map_err(|error| Failure::io(LaunchStep::Execute, &command.program.to_string_lossy(), &error))?;
        Ok(Pid::from_raw(child.id().cast_signed()).expect("a child has a positive pid"))
    }

    /// Reads assignments, one a line, of which only `READY=1` matters here. sd_notify(3).
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
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
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
