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
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use super::child::send;
use super::forwarder;
use super::paths::HostPaths;
use super::privileges::drop_last_capability;
use super::prober::{self, Probe, ProbeAddress};
use crate::launch::command::{Command, ResolvedCommand};
use crate::launch::image::{self, Handles};
use crate::launch::plan::Symlink;
use crate::launch::protocol::{
    Event, Exit, Failure, LONGEST_MESSAGE, LaunchStep, NoImage, Request, StartMethod, Up,
};
use crate::launch::ready::{Endpoint, Ready};
use crate::sys::process::{SingleThreaded, child_signals, die_with_parent, fork};
use crate::sys::socket;

/// How long a server that reports its readiness may be silent until it is probed as well.
const SILENCE: Duration = Duration::from_secs(2);

/// The surroundings of a server, prepared by init or the supervisor of process mode.
pub(super) struct ServerContext {
    pub(super) log: File,
    /// The socket for readiness by sd_notify(3).
    pub(super) notify: String,
    /// The sign by which the server counts as ready.
    pub(super) ready: Ready,
    /// Links to make when the server reports readiness.
    pub(super) when_ready: Vec<Symlink>,
    /// For a server that is resumed.
    pub(super) handles: Handles,
    /// Variables of an image.
    pub(super) env: Vec<(String, String)>,
    /// Absent in a container.
    pub(super) host: Option<HostProcess>,
}

impl ServerContext {
    /// Adds the variable for sd_notify(3) to a server's command.
    pub(super) fn server(&self, command: Command) -> Command {
        command.env("NOTIFY_SOCKET", &self.notify)
    }

    /// Returns the sign as a process here looks for it; `None` for the server's own report.
    fn probe(&self, ready: &Ready) -> Option<Probe> {
        let place = |endpoint: &Endpoint| match endpoint {
            Endpoint::Unix(path) => ProbeAddress::Unix(match &self.host {
                Some(host) => host.paths.on_host(path),
                None => path.as_path().to_owned(),
            }),
            Endpoint::Tcp(port) => ProbeAddress::Tcp(self.loopback(), *port),
        };
        Some(match ready {
            Ready::Notify => return None,
            Ready::NotifyOr(other) => return self.probe(other),
            Ready::Connect(at) => Probe::Connect(place(at)),
            Ready::Answer { at, send, expect, end } => {
                Probe::Answer { at: place(at), send: send.clone(), expect: expect.clone(), end: end.clone() }
            }
            Ready::Http { at, path, status } => {
                Probe::Http { at: place(at), path: path.clone(), status: *status }
            }
            Ready::Command(command) => Probe::Command(self.resolve(command)),
        })
    }

    fn loopback(&self) -> Ipv4Addr {
        self.host.as_ref().map_or(Ipv4Addr::LOCALHOST, |host| host.loopback)
    }

    pub(super) fn resolve(&self, command: &Command) -> ResolvedCommand {
        match &self.host {
            Some(host) => command.resolve(|path| host.paths.on_host(path)),
            None => command.in_container().with_image_env(&self.env),
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
    /// The process that looks for the sign of readiness.
    prober: Option<Pid>,
    /// When a server that has not reported is probed instead.
    probe_at: Option<Instant>,
    /// The ids of ended children, in process mode.
    ended: Vec<Pid>,
}

impl<'a> Supervisor<'a> {
    /// Starts a planned server and reports that all is prepared.
    pub(super) fn start(
        control: &'a OwnedFd,
        server: Option<(Command, StartMethod<File>)>,
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
            prober: None,
            probe_at: None,
            ended: Vec::new(),
        };
        let mut not_restored = None;
        match server {
            Some((command, StartMethod::Restore(image))) => {
                not_restored = supervisor.restore_server(&command, &image)?;
                if not_restored.is_some() {
                    supervisor.start_server(command)?;
                }
            }
            Some((command, StartMethod::Resume(image))) => {
                not_restored = supervisor.resume_server(&command, &image)?;
            }
            Some((command, _)) => supervisor.start_server(command)?,
            None => {}
        }
        send(control, &Event::Up(Up { not_restored, ..up }), &[&context.log]);
        if supervisor.ready {
            send(control, &Event::Ready, &[]);
        }
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
            let left = self.probe_at.map(|at| at.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            if poll(&mut fds, left.as_ref()).is_err() {
                continue;
            }
            let [control, notify, children] = fds.map(|fd| !fd.revents().is_empty());
            if self.probe_at.is_some_and(|at| at <= Instant::now()) {
                self.report(Self::probe);
            }
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
        self.report(|supervisor| match serde_json::from_slice(message) {
            Ok(Request::Start(command)) => supervisor.start_server(command),
            Ok(Request::Run { number, command }) => supervisor.run(number, &command, fds),
            Ok(Request::Probe) => {
                supervisor.ready = false;
                supervisor.probe()
            }
            Ok(Request::Forward { port }) => supervisor.forward(port, fds),
            Ok(Request::Signal(signal)) => {
                if let Some(server) = supervisor.server {
                    // The server may have ended in this moment; its exit is reported later.
                    let _ = kill_process(server, signal.into());
                }
                Ok(())
            }
            Err(error) => Err(Failure::io(LaunchStep::Receive, "", &error.into())),
        });
    }

    /// Reports a failure of some work to the test process.
    fn report(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Failure>) {
        if let Err(failure) = work(self) {
            send(self.control, &Event::Failed(failure), &[]);
        }
    }

    /// Begins to look for the sign of readiness; of a server that reports by itself only if it has
    /// been silent.
    fn begin_probing(&mut self) -> Result<(), Failure> {
        self.ready = false;
        match &self.context.ready {
            Ready::Notify => Ok(()),
            Ready::NotifyOr(_) => {
                self.probe_at = Some(Instant::now() + SILENCE);
                Ok(())
            }
            _ => self.probe(),
        }
    }

    /// Forks the process that looks for the sign.
    fn probe(&mut self) -> Result<(), Failure> {
        self.probe_at = None;
        let Some(probe) = self.context.probe(&self.context.ready) else { return Ok(()) };
        let failed = |error: &io::Error| Failure::io(LaunchStep::Execute, "prober", error);
        let proof = SingleThreaded::check().map_err(|error| failed(&error))?;
        let prober =
            fork(&proof, |fresh| prober::main(fresh, &probe)).map_err(|errno| failed(&errno.into()))?;
        self.prober = Some(prober);
        Ok(())
    }

    fn end_probing(&mut self) {
        self.probe_at = None;
        // It is reaped as a child without a purpose.
        if let Some(prober) = self.prober.take() {
            let _ = kill_process(prober, Signal::KILL);
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
        self.server = Some(server);
        if let Some(host) = &self.context.host {
            (host.note)(server);
        }
        self.begin_probing()
    }

    /// Restores the server from an image, or returns the reason why it cannot be. Drops this
    /// process's last capability.
    fn restore_server(&mut self, command: &Command, image: &File) -> Result<Option<NoImage>, Failure> {
        let not_restored = self.restore(command, image)?;
        if not_restored.is_none() {
            self.begin_probing()?;
        }
        Ok(not_restored)
    }

    /// Restores the ready server of a checkpoint, or returns the reason why it cannot be. Drops
    /// this process's last capability.
    fn resume_server(&mut self, command: &Command, image: &File) -> Result<Option<NoImage>, Failure> {
        let not_restored = self.restore(command, image)?;
        self.ready = not_restored.is_none();
        Ok(not_restored)
    }

    fn restore(&mut self, command: &Command, image: &File) -> Result<Option<NoImage>, Failure> {
        let command = self.context.resolve(&self.context.server(command.clone()));
        let log = || self.context.log.try_clone().map(OwnedFd::from);
        let stdio = || io::Result::Ok([File::open("/dev/null")?.into(), log()?, log()?]);
        let handles = &self.context.handles;
        let restored =
            stdio().map_err(NoImage::from).and_then(|stdio| image::restore(image, &command, stdio, handles));
        drop_last_capability()?;
        Ok(match restored {
            Ok(server) => {
                self.server = Some(server);
                None
            }
            Err(why) => Some(why),
        })
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
        let loopback = self.context.loopback();
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
                self.end_probing();
                send(self.control, &Event::ServerExited(exit), &[]);
            } else if self.prober == Some(pid) {
                self.prober = None;
                // A prober that was killed has seen nothing.
                if exit.success() && !std::mem::replace(&mut self.ready, true) {
                    send(self.control, &Event::Ready, &[]);
                }
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
            && matches!(self.context.ready, Ready::Notify | Ready::NotifyOr(_))
            && !std::mem::replace(&mut self.ready, true)
        {
            self.end_probing();
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
