//! A running container as the test process holds it.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::client::{Launcher, lock, memory};
use super::control::{Control, Received, receive};
use super::log::Log;
use super::tail::Tail;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::image::{self, Origin};
use crate::launch::inside::cgroup::{self, Reached};
use crate::launch::inside::seccomp;
use crate::launch::plan::{Birth, Command, OnHost, Plan};
use crate::launch::protocol::{Event, Exit, Launch, Request, encode};
use crate::sys::socket;

/// How long a container may take to be built; it takes about two milliseconds.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(20);
/// How long that may take where the whole data directory is copied, perhaps to a slow disk.
const COPY_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long the kernel may take to end a container that was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an image may take to be made; it takes about thirty milliseconds.
const CAPTURE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long init may take to start a process; it takes less than a millisecond.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

/// When a server counts as ready.
#[derive(Clone, Copy)]
pub(crate) enum Readiness<'a> {
    /// When it says so through `NOTIFY_SOCKET`; should it stay silent for two seconds, the probe is asked as well.
    Notify(&'a dyn Fn() -> bool),
    /// When the probe answers `true`.
    Probe(&'a dyn Fn() -> bool),
}

/// What a program in a container reads.
#[derive(Debug)]
pub(crate) enum Stdin<'a> {
    Text(&'a str),
    Descriptor(OwnedFd),
}

/// A program that ran to its end in a container.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) exit: Exit,
    /// The end of its standard error.
    pub(crate) stderr: String,
}

/// A running container. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Container {
    /// The process that launched it. A copy that it forks must not end what is not its own.
    owner: u32,
    pid: Pid,
    pidfd: OwnedFd,
    log: Arc<Log>,
    /// Whether its /proc is the outer one.
    outer_proc: bool,
    /// How its server came to be.
    origin: Origin,
    /// Its control group, if it has one.
    group: Option<PathBuf>,
    control: Mutex<Control>,
    /// What there is instead of a container: no namespaces, and a private directory.
    on_host: Option<(OnHost, PathBuf)>,
}

impl Container {
    /// Launches a container and waits until its root is built and a planned server is executed.
    pub(crate) fn launch(plan: &Plan) -> Result<Self> {
        match image::image_of(plan) {
            Ok(found) => {
                let container = Self::launch_with(plan, Some(&found))?;
                if let Origin::Executed(why) = &container.origin {
                    image::give_up(plan, &found, why);
                }
                Ok(container)
            }
            Err(why) => {
                let plan = Plan { birth: Birth::Execute, ..plan.clone() };
                let mut container = Self::launch_with(&plan, None)?;
                container.origin = Origin::Executed(why);
                Ok(container)
            }
        }
    }

    /// Makes the image of a plan's server.
    ///
    /// # Errors
    /// The outer error is about the launch, the inner one about the program.
    pub(in crate::launch) fn capture(plan: &Plan, into: &File) -> Result<Result<(), String>> {
        let plan = Plan { birth: Birth::Capture, ..plan.clone() };
        let container = Self::launch_with(&plan, Some(into))?;
        let deadline = Instant::now() + CAPTURE_TIMEOUT;
        let mut control = lock(&container.control);
        loop {
            if let Some(captured) = control.captured.take() {
                return Ok(captured);
            }
            if Instant::now() >= deadline {
                let within = format!("link the server within {CAPTURE_TIMEOUT:?}");
                return Err(Error::new(ErrorKind::Launch, within));
            }
            control.take_event(deadline)?;
        }
    }

    fn launch_with(plan: &Plan, image: Option<&File>) -> Result<Self> {
        let launcher = Launcher::get()?;
        match Self::launch_by(&launcher, plan, image) {
            // The launcher died since it was last used; it is not at fault for what happens to the next.
            Err(Errno::PIPE | Errno::CONNRESET) => {
                launcher.reap();
                let launcher = Launcher::get()?;
                Self::launch_by(&launcher, plan, image).map_err(|_| launcher.ended("the launcher"))?
            }
            result => result.map_err(|errno| {
                Error::new(ErrorKind::Launch, "send the plan to the launcher")
                    .caused_by(io::Error::from(errno))
            })?,
        }
    }

    /// The outer error is about reaching the launcher, the inner one about the launch.
    fn launch_by(launcher: &Launcher, plan: &Plan, image: Option<&File>) -> Result<Result<Self>, Errno> {
        let bytes = match encode(plan) {
            Ok(bytes) => bytes,
            Err(error) => {
                return Ok(Err(Error::new(ErrorKind::InvalidConfig, "describe the sandbox's root")
                    .caused_by(error)
                    .with_hint("the paths of layers and of the server's programs must be UTF-8")));
            }
        };
        let launch =
            Launch { limits: plan.limits, files: plan.files_size(), on_host: plan.on_host.is_some() };
        let on_host = plan.on_host.as_ref();
        let plan = memory(c"sandboxed-db plan", &bytes)?;
        let (ours, theirs) = socket::pair()?;
        launcher.request(&launch, &theirs, &plan, image)?;
        drop((theirs, plan));
        Ok(Self::await_launch(launcher, ours, on_host))
    }

    fn await_launch(launcher: &Launcher, socket: OwnedFd, on_host: Option<&OnHost>) -> Result<Self> {
        let limit = if on_host.is_some() { COPY_TIMEOUT } else { LAUNCH_TIMEOUT };
        let deadline = Instant::now() + limit;
        let mut control = Control::new(socket);
        // The launcher reports the one, init the other, and either may be first: init may be done, and its server ready
        // or dead, before a busy launcher gets to speak.
        let (mut process, mut log, mut in_group) = (None, None, None);
        let (mut has_outer_proc, mut place, mut refusal) = (false, None, None);
        loop {
            (process, log) = match (process, log) {
                (Some((pid, pidfd)), Some(log)) => {
                    let log = Arc::new(Log::new(File::from(log)));
                    return Ok(Self {
                        owner: std::process::id(),
                        pid,
                        pidfd,
                        log,
                        outer_proc: has_outer_proc,
                        origin: refusal.map_or(Origin::Restored, Origin::Executed),
                        group: in_group,
                        on_host: on_host.cloned().zip(place),
                        control: Mutex::new(control),
                    });
                }
                incomplete => incomplete,
            };
            match receive(control.socket.as_fd(), deadline)? {
                Received::Event(Event::Spawned { pid, group }, fds) => {
                    in_group = group.map(PathBuf::from);
                    process = Pid::from_raw(pid).zip(fds.into_iter().next());
                }
                Received::Event(Event::Up { outer_proc, root, refused }, fds) => {
                    refusal = refused;
                    place = root.map(PathBuf::from);
                    log = fds.into_iter().next();
                    has_outer_proc = outer_proc;
                    if on_host.is_none() && !seccomp::is_supported() {
                        tracing::warn!("no filter of system calls is known for this architecture");
                    }
                    if outer_proc {
                        tracing::warn!(
                            "/proc of the sandbox shows outer processes: this machine hides parts of its own"
                        );
                    }
                }
                Received::Event(event, _) => drop(control.note(event)?),
                Received::End => {
                    return Err(launcher.ended(if process.is_some() { "init" } else { "the launcher" }));
                }
                Received::Timeout => {
                    // A supervisor on the host sees the socket's end, and clears away.
                    if let Some((_, pidfd)) = process.filter(|_| on_host.is_none()) {
                        let _ = pidfd_send_signal(pidfd, Signal::KILL);
                    }
                    return Err(Error::new(
                        ErrorKind::Launch,
                        format!("launch the sandbox within {limit:?}"),
                    )
                    .with_hint("the machine is overloaded: run fewer tests at a time"));
                }
            }
        }
    }

    /// The id of the container's init in the test process's pid namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The container's root as the test process reaches it, proc_pid_root(5).
    pub(crate) fn root(&self) -> PathBuf {
        match &self.on_host {
            None => PathBuf::from(format!("/proc/{}/root", self.pid())),
            Some((_, place)) => place.clone(),
        }
    }

    /// Whether it is this process's, and not that of one which this process is a fork of.
    pub(crate) fn is_own(&self) -> bool {
        self.owner == std::process::id()
    }

    /// Whether it is no container, but a process of the host.
    pub(crate) fn is_on_host(&self) -> bool {
        self.on_host.is_some()
    }

    /// Whether its /proc is the outer one, because the kernel refused a new one.
    pub(crate) fn has_outer_proc(&self) -> bool {
        self.outer_proc
    }

    /// How its server came to be.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The limit of its control group that it ran into, if any.
    pub(crate) fn reached(&self) -> Option<Reached> {
        self.group.as_deref().and_then(cgroup::reached)
    }

    /// The most memory that it has taken at a time, where its control group counts it.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        self.group.as_deref().and_then(cgroup::memory_peak)
    }

    /// Starts the server in a container that was planned without one.
    pub(crate) fn start_server(&self, command: Command) -> Result<()> {
        let mut control = lock(&self.control);
        (control.ready, control.server_exit) = (false, None);
        control.request(&Request::Start(command), &[])
    }

    /// Waits until the server is ready.
    pub(crate) fn wait_ready(&self, readiness: Readiness<'_>, timeout: Duration) -> Result<()> {
        const SILENCE: Duration = Duration::from_secs(2);
        const LONGEST_PAUSE: Duration = Duration::from_millis(20);
        let begin = Instant::now();
        let deadline = begin + timeout;
        let mut pause = Duration::from_millis(1);
        let mut control = lock(&self.control);
        loop {
            if control.ready {
                return Ok(());
            }
            if let Some(exit) = control.server_exit {
                return Err(Error::new(ErrorKind::Exited, format!("start the server: it ended with {exit}")));
            }
            if Instant::now() >= deadline {
                return Err(Error::new(ErrorKind::Timeout, format!("start the server within {timeout:?}")));
            }
            let next = match readiness {
                Readiness::Notify(_) if begin.elapsed() < SILENCE => deadline.min(begin + SILENCE),
                Readiness::Notify(probe) | Readiness::Probe(probe) => {
                    if probe() {
                        return control.request(&Request::Reached, &[]);
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    deadline.min(Instant::now() + pause)
                }
            };
            control.take_event(next)?;
        }
    }

    /// Runs a program to its end. What it prints is dropped, but for its standard error.
    pub(crate) fn run(&self, command: Command, stdin: Stdin<'_>, timeout: Duration) -> Result<Run> {
        let name = command.name();
        let failed =
            |error: io::Error| Error::new(ErrorKind::Control, format!("run `{name}`")).caused_by(error);
        let input = match stdin {
            Stdin::Text(text) => {
                memory(c"sandboxed-db stdin", text.as_bytes()).map_err(|errno| failed(errno.into()))?.into()
            }
            Stdin::Descriptor(input) => input,
        };
        let output = File::options().write(true).open("/dev/null").map_err(failed)?;
        let (mut stderr, errors) = Tail::new().map_err(failed)?;
        let deadline = Instant::now() + timeout;
        let mut control = lock(&self.control);
        control.runs += 1;
        let number = control.runs;
        let request = Request::Run { number, command };
        control.request(&request, &[input.as_fd(), output.as_fd(), errors.as_fd()])?;
        // Whoever writes into a pipe must notice when the program, its last reader, ends; and so must its reader.
        drop((input, errors));
        let exit = loop {
            stderr.take();
            stderr.wait_beside(control.socket.as_fd(), deadline).map_err(|errno| failed(errno.into()))?;
            // An earlier program, which was given up, may end now.
            match control.take_event(Instant::now())? {
                Some((ended, exit)) if ended == number => break exit,
                _ => {}
            }
            if Instant::now() >= deadline {
                return Err(Error::new(ErrorKind::Timeout, format!("run `{name}` within {timeout:?}"))
                    .with_hint("raise `build_timeout`"));
            }
        };
        stderr.take();
        Ok(Run { exit, stderr: stderr.text() })
    }

    /// Has connections that come to these listeners forwarded to a port of the container's loopback, as long as it lives.
    ///
    /// They are the container's from then on: once closed here they end with it.
    pub(crate) fn forward(&self, listeners: &[TcpListener], port: u16) -> Result<()> {
        let failed = || Error::new(ErrorKind::Control, "start a process that forwards TCP in the sandbox");
        let listeners: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        let deadline = Instant::now() + FORWARD_TIMEOUT;
        let mut control = lock(&self.control);
        control.forwarding = None;
        control.request(&Request::Forward { port }, &listeners)?;
        while control.forwarding != Some(port) {
            if Instant::now() >= deadline {
                return Err(failed().caused_by(format!("init did not answer within {FORWARD_TIMEOUT:?}")));
            }
            control.take_event(deadline).map_err(|error| match error.kind() {
                ErrorKind::Exited => error,
                _ => failed().caused_by(error),
            })?;
        }
        Ok(())
    }

    /// Whether anything listens on that port of the container's loopback, proc_pid_net(5). Unknown passes for yes.
    pub(crate) fn listens(&self, port: u16) -> bool {
        if let Some((host, _)) = &self.on_host {
            return host.listens;
        }
        let tables = ["tcp", "tcp6"].map(|name| format!("/proc/{}/net/{name}", self.pid()));
        let listens = |table: &str| table.lines().any(|line| listening_port(line) == Some(port));
        tables.iter().filter_map(|table| fs::read_to_string(table).ok()).any(|table| listens(&table))
            || tables.iter().all(|table| fs::read_to_string(table).is_err())
    }

    /// Sends the server a signal and waits for its end.
    pub(crate) fn stop_server(&self, signal: i32, timeout: Duration) -> Result<Exit> {
        let mut control = lock(&self.control);
        let deadline = Instant::now() + timeout;
        control.take_event(Instant::now())?;
        if control.server_exit.is_none() {
            control.request(&Request::Signal(signal), &[])?;
        }
        loop {
            if let Some(exit) = control.server_exit {
                return Ok(exit);
            }
            if Instant::now() >= deadline {
                return Err(Error::new(ErrorKind::Timeout, format!("stop the server within {timeout:?}")));
            }
            control.take_event(deadline)?;
        }
    }

    /// How the server ended, if it did; its report is waited for that long.
    pub(crate) fn server_exit(&self, patience: Duration) -> Option<Exit> {
        let mut control = lock(&self.control);
        let deadline = Instant::now() + patience;
        // Other reports may come before it; a socket at its end has none.
        while control.server_exit.is_none()
            && socket::wait_readable(&[control.socket.as_fd()], deadline) == Ok(true)
        {
            control.take_event(deadline).ok()?;
        }
        control.server_exit
    }

    /// Whether its init and its server live, as far as can be known at once.
    pub(crate) fn serves(&self) -> bool {
        let mut control = lock(&self.control);
        // A socket at its end is readable as well, and has no event.
        while is_readable(&control.socket) {
            if control.take_event(Instant::now()).is_err() {
                return false;
            }
        }
        control.server_exit.is_none() && !is_readable(&self.pidfd)
    }

    /// Kills every process of the container and waits for its end. Repeating it does nothing.
    pub(crate) fn kill(&self) -> Result<()> {
        let failed = |errno: Errno| {
            Error::new(ErrorKind::Control, format!("end the sandbox of pid {}", self.pid()))
                .caused_by(io::Error::from(errno))
        };
        let asked = match &self.on_host {
            None => pidfd_send_signal(&self.pidfd, Signal::KILL),
            // Its supervisor has to clear away.
            Some(_) => shutdown(&lock(&self.control).socket, Shutdown::Both),
        };
        match asked {
            Ok(()) | Err(Errno::SRCH | Errno::NOTCONN) => {}
            Err(errno) => return Err(failed(errno)),
        }
        match socket::wait_readable(&[self.pidfd.as_fd()], Instant::now() + KILL_TIMEOUT) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
                Err(failed(Errno::TIMEDOUT))
            }
            Err(errno) => Err(failed(errno)),
        }
    }
}

fn is_readable(fd: impl AsFd) -> bool {
    socket::wait_readable(&[fd.as_fd()], Instant::now()) != Ok(false)
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.is_own() {
            return;
        }
        if let Err(error) = self.kill() {
            tracing::error!(?error, "a sandbox did not end");
        }
    }
}

/// The port of a line that tells of a socket which listens: number, `address:port` in hexadecimal, the peer's, state.
fn listening_port(line: &str) -> Option<u16> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    (fields.nth(1)? == LISTEN).then(|| u16::from_str_radix(port, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_listened_on_are_told_from_others() {
        let listening =
            "   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 1 1";
        assert_eq!(listening_port(listening), Some(5432));
        assert_eq!(listening_port(&listening.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening_port("  sl  local_address rem_address   st tx_queue rx_queue"), None);
    }
}
