//! A running container, held by the test process.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Pid, pidfd_send_signal};

use super::client::{Launcher, memory};
use super::control::{Control, Received, receive};
use super::control_group::{self, Reached};
use super::error::Result;
use super::lock;
use super::log::Log;
use crate::error::{Error, ErrorKind};
use crate::launch::command::Command;
use crate::launch::image::{self, Checkpoint, Draft, ProcessOrigin};
use crate::launch::plan::{Plan, ProcessMode};
use crate::launch::protocol::{
    Event, Exit, Launch, LauncherRequest, NoImage, Request, StartMethod, Up, encode,
};
use crate::launch::signal::Signal;
use crate::sys::socket;

/// The deadline for building a container, which takes about two milliseconds.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(20);
/// The deadline in process mode, where the whole data directory is copied, perhaps to a slow disk.
const COPY_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The deadline for the kernel to end a killed container.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// When a stop signal is sent for the second time, or follows a request without an answer.
const STOP_AGAIN: Duration = Duration::from_secs(1);
/// The deadline for making an image, which takes about thirty milliseconds.
const CAPTURE_TIMEOUT: Duration = Duration::from_secs(10);

/// A running container. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Container {
    /// The process that launched it. A fork of that process must not end it.
    owner: u32,
    pid: Pid,
    pidfd: OwnedFd,
    log: Arc<Log>,
    has_outer_proc: bool,
    origin: ProcessOrigin,
    /// The reason why its server is not from a checkpoint.
    not_resumed: Option<NoImage>,
    /// The checkpoint, whose files the container shows.
    checkpoint: Option<Arc<Checkpoint>>,
    /// The control group, where one is delegated.
    group: Option<PathBuf>,
    pub(super) control: Mutex<Control>,
    /// In process mode, with the private directory.
    pub(super) process_mode: Option<(ProcessMode, PathBuf)>,
}

impl Container {
    /// Launches a container and waits until its root is built and a planned server is started.
    pub(crate) fn launch(plan: &Plan) -> Result<Self> {
        match image::image_of(plan, Self::capture) {
            Ok(image) => {
                let container = Self::launch_with(plan, StartMethod::Restore(&image))?;
                if let ProcessOrigin::Executed(why) = &container.origin {
                    image::give_up(plan, &image, why);
                }
                Ok(container)
            }
            Err(why) => {
                let mut container = Self::launch_with(plan, StartMethod::Execute)?;
                container.origin = ProcessOrigin::Executed(why);
                Ok(container)
            }
        }
    }

    /// Launches a container with the ready server of a checkpoint.
    ///
    /// # Errors
    /// The outer error is about the launch, the inner one about the checkpoint.
    pub(crate) fn resume(plan: &Plan, checkpoint: &Arc<Checkpoint>) -> Result<Result<Self, NoImage>> {
        let resumed = Self::resume_from(&checkpoint.plan(plan), checkpoint.image())?;
        Ok(resumed.map(|mut container| {
            container.checkpoint = Some(checkpoint.clone());
            container
        }))
    }

    /// Launches a container with the ready server of a checkpoint that is not published yet.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub(crate) fn try_draft(plan: &Plan, draft: &Draft) -> Result<Result<Self, NoImage>> {
        Self::resume_from(&draft.plan(plan), &draft.image)
    }

    fn resume_from(plan: &Plan, image: &File) -> Result<Result<Self, NoImage>> {
        let mut container = Self::launch_with(plan, StartMethod::Resume(image))?;
        Ok(match std::mem::replace(&mut container.origin, ProcessOrigin::Resumed) {
            ProcessOrigin::Executed(why) => Err(why),
            _ => Ok(container),
        })
    }

    /// Stops the server for ever and takes its checkpoint, together with its data directory, which
    /// is `data` here.
    ///
    /// # Errors
    /// The outer error is about the launcher, the inner one about the server.
    pub(crate) fn take_checkpoint(
        &self,
        plan: &Plan,
        draft: &Draft,
        data: &Path,
    ) -> Result<Result<(), NoImage>> {
        let failed = |errno: Errno| {
            Error::new(ErrorKind::Launch, "ask the launcher for a checkpoint")
                .caused_by(io::Error::from(errno))
        };
        let (ours, theirs) = socket::pair().map_err(failed)?;
        let request = LauncherRequest::Checkpoint { init: self.pid() };
        Launcher::get()?.request(&request, &theirs, &draft.image, None).map_err(failed)?;
        drop(theirs);
        let late = || Error::new(ErrorKind::Launch, format!("take a checkpoint within {CAPTURE_TIMEOUT:?}"));
        let deadline = Instant::now() + CAPTURE_TIMEOUT;
        let taken = Control::new(ours).wait_for(deadline, late, |control| control.captured.take())?;
        Ok(taken.and_then(|()| draft.take_changes(plan, data)))
    }

    /// Makes the image of a plan's server.
    ///
    /// # Errors
    /// The outer error is about the launch, the inner one about the program.
    fn capture(plan: &Plan, into: &File) -> Result<Result<(), NoImage>> {
        let container = Self::launch_with(plan, StartMethod::Capture(into))?;
        let late = || Error::new(ErrorKind::Launch, format!("link the server within {CAPTURE_TIMEOUT:?}"));
        let deadline = Instant::now() + CAPTURE_TIMEOUT;
        lock(&container.control).wait_for(deadline, late, |control| control.captured.take())
    }

    fn launch_with(plan: &Plan, start: StartMethod<&File>) -> Result<Self> {
        let launcher = Launcher::get()?;
        match Self::launch_by(&launcher, plan, start) {
            // The launcher died since its last use, and may be replaced once.
            Err(Errno::PIPE | Errno::CONNRESET) => {
                launcher.reap();
                let launcher = Launcher::get()?;
                Self::launch_by(&launcher, plan, start).map_err(|_| launcher.ended("the launcher"))?
            }
            result => result.map_err(|errno| {
                Error::new(ErrorKind::Launch, "send the plan to the launcher")
                    .caused_by(io::Error::from(errno))
            })?,
        }
    }

    /// # Errors
    /// The outer error is about reaching the launcher, the inner one about the launch.
    fn launch_by(launcher: &Launcher, plan: &Plan, start: StartMethod<&File>) -> Result<Result<Self>, Errno> {
        let bytes = match encode(plan) {
            Ok(bytes) => bytes,
            Err(error) => {
                return Ok(Err(Error::new(ErrorKind::InvalidConfig, "describe the sandbox's root")
                    .caused_by(error)
                    .with_hint("the paths of layers and of the server's programs must be UTF-8")
                    .into()));
            }
        };
        let launch = LauncherRequest::Launch(Launch {
            limits: plan.limits,
            files: plan.files_size(),
            process_mode: plan.process_mode.is_some(),
            start: start.map(|_| ()),
        });
        let mode = plan.process_mode.as_ref();
        let plan = memory(c"sandboxed-db plan", &bytes)?;
        let (ours, theirs) = socket::pair()?;
        launcher.request(&launch, &theirs, &plan, start.image().copied())?;
        drop((theirs, plan));
        Ok(Self::await_launch(launcher, ours, mode))
    }

    fn await_launch(launcher: &Launcher, socket: OwnedFd, mode: Option<&ProcessMode>) -> Result<Self> {
        let limit = if mode.is_some() { COPY_TIMEOUT } else { LAUNCH_TIMEOUT };
        let deadline = Instant::now() + limit;
        let mut control = Control::new(socket);
        // The launcher sends one report, init the other, in either order: init may be done, and its
        // server ready or dead, before a busy launcher runs again.
        let (mut spawned, mut up) = (None, None);
        loop {
            (spawned, up) = match (spawned, up) {
                (Some((pid, pidfd, group)), Some((up, log))) => {
                    return Ok(Self::new(control, (pid, pidfd, group), up, log, mode));
                }
                incomplete => incomplete,
            };
            match receive(control.socket.as_fd(), deadline)? {
                Received::Event(Event::Spawned { pid, group }, fds) => {
                    let process = Pid::from_raw(pid).zip(fds.into_iter().next());
                    spawned = process.map(|(pid, pidfd)| (pid, pidfd, group.map(PathBuf::from)));
                }
                Received::Event(Event::Up(report), fds) => {
                    up = fds.into_iter().next().map(|log| (report, log))
                }
                Received::Event(event, _) => drop(control.note(event)?),
                Received::End => {
                    let process = if spawned.is_some() { "init" } else { "the launcher" };
                    return Err(launcher.ended(process).into());
                }
                Received::Timeout => {
                    // A supervisor sees the socket's end, and removes its files.
                    if let Some((_, pidfd, _)) = spawned.filter(|_| mode.is_none()) {
                        let _ = pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
                    }
                    return Err(Error::new(
                        ErrorKind::Launch,
                        format!("launch the sandbox within {limit:?}"),
                    )
                    .with_hint("the machine is overloaded: run fewer tests at a time")
                    .into());
                }
            }
        }
    }

    fn new(
        control: Control,
        (pid, pidfd, group): (Pid, OwnedFd, Option<PathBuf>),
        up: Up,
        log: OwnedFd,
        mode: Option<&ProcessMode>,
    ) -> Self {
        if mode.is_none() && !up.filtered {
            tracing::warn!("no filter of system calls is known for this architecture");
        }
        if up.outer_proc {
            tracing::warn!("/proc of the sandbox shows outer processes: this machine hides parts of /proc");
        }
        Self {
            owner: std::process::id(),
            pid,
            pidfd,
            log: Arc::new(Log::new(File::from(log))),
            has_outer_proc: up.outer_proc,
            origin: up.not_restored.map_or(ProcessOrigin::Linked, ProcessOrigin::Executed),
            not_resumed: None,
            checkpoint: None,
            group,
            process_mode: mode.cloned().zip(up.directory.map(PathBuf::from)),
            control: Mutex::new(control),
        }
    }

    /// Returns the id of the container's init in the test process's pid namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Returns the host's path of the container's root, proc_pid_root(5).
    pub(crate) fn root(&self) -> PathBuf {
        match &self.process_mode {
            None => PathBuf::from(format!("/proc/{}/root", self.pid())),
            Some((_, directory)) => directory.clone(),
        }
    }

    /// Returns `true` if this process launched it, and is no fork of the process that did.
    pub(crate) fn is_own(&self) -> bool {
        self.owner == std::process::id()
    }

    /// Returns `true` if it is a process of the host instead of a container.
    pub(crate) fn is_on_host(&self) -> bool {
        self.process_mode.is_some()
    }

    /// Returns `true` if its /proc is the outer one, because the kernel refused a new one.
    pub(crate) fn has_outer_proc(&self) -> bool {
        self.has_outer_proc
    }

    /// Returns how its server was started.
    pub(crate) fn origin(&self) -> &ProcessOrigin {
        &self.origin
    }

    /// Notes why its server is not from a checkpoint.
    pub(crate) fn not_resumed_since(mut self, why: NoImage) -> Self {
        self.not_resumed = Some(why);
        self
    }

    /// Returns why its server is not from a checkpoint.
    pub(crate) fn not_resumed(&self) -> Option<&NoImage> {
        self.not_resumed.as_ref()
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Returns the limit of its control group that it reached, if any.
    pub(crate) fn reached(&self) -> Option<Reached> {
        self.group.as_deref().and_then(control_group::reached)
    }

    /// Returns the most memory that it has taken at a time, where its control group counts it.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        self.group.as_deref().and_then(control_group::memory_peak)
    }

    /// Starts the server in a container that was planned without one.
    pub(crate) fn start_server(&self, command: Command) -> Result<()> {
        let mut control = lock(&self.control);
        (control.ready, control.server_exit) = (false, None);
        control.request(&Request::Start(command), &[])
    }

    /// Has init look once more for the sign of readiness, and waits until it is seen. A server
    /// that only reports its readiness has none.
    pub(crate) fn wait_for_sign(&self, timeout: Duration) -> Result<()> {
        // The report of the start may be unread yet, and would pass for the sign.
        self.wait_ready(timeout)?;
        {
            let mut control = lock(&self.control);
            control.ready = false;
            control.request(&Request::Probe, &[])?;
        }
        self.wait_ready(timeout)
    }

    /// Waits until the server is ready.
    pub(crate) fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut control = lock(&self.control);
        loop {
            if control.ready {
                return Ok(());
            }
            if let Some(exit) = control.server_exit {
                let ended = format!("start the server: it ended with {exit}");
                return Err(Error::new(ErrorKind::Exited, ended).into());
            }
            if Instant::now() >= deadline {
                let within = format!("start the server within {timeout:?}");
                return Err(Error::new(ErrorKind::Timeout, within).into());
            }
            control.take_event(deadline)?;
        }
    }

    /// Sends the server a signal and waits for its end.
    ///
    /// The signal is sent again after a second, and after twice as long each time: a server loses
    /// one that arrives before its main loop runs. A server that was `requested` to end gets the
    /// first signal when it answers, and after a second otherwise.
    pub(crate) fn stop_server(
        &self,
        signal: Signal,
        mut requested: Option<UnixStream>,
        timeout: Duration,
    ) -> Result<Exit> {
        let mut control = lock(&self.control);
        let begin = Instant::now();
        let deadline = begin + timeout;
        let mut again = if requested.is_some() { begin + STOP_AGAIN } else { begin };
        control.take_event(begin)?;
        loop {
            if let Some(exit) = control.server_exit {
                return Ok(exit);
            }
            if Instant::now() >= deadline {
                let within = format!("stop the server within {timeout:?}");
                return Err(Error::new(ErrorKind::Timeout, within).into());
            }
            if Instant::now() >= again {
                // A late answer must not bring the next signal forward.
                requested = None;
                control.request(&Request::Signal(signal), &[])?;
                again = Instant::now() + (begin.elapsed() * 2).max(STOP_AGAIN);
            }
            if let Some(stream) = &requested {
                let both = [control.socket.as_fd(), stream.as_fd()];
                socket::wait_readable(&both, again.min(deadline)).map_err(|errno| {
                    Error::new(ErrorKind::Control, "wait for the end of the server")
                        .caused_by(io::Error::from(errno))
                })?;
                if is_readable(stream) {
                    // The server refuses, or ends in this moment, when a signal does nothing.
                    (requested, again) = (None, Instant::now());
                }
                control.take_event(Instant::now())?;
            } else {
                control.take_event(again.min(deadline))?;
            }
        }
    }

    /// Returns the server's exit, if it has ended. Waits up to `patience` for the report.
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

    /// Returns `true` if init and server live, as far as reports have arrived.
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
    pub(crate) fn kill(&self) -> Result<(), Error> {
        let failed = |errno: Errno| {
            Error::new(ErrorKind::Control, format!("end the sandbox of pid {}", self.pid()))
                .caused_by(io::Error::from(errno))
        };
        let ended = match &self.process_mode {
            None => pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL),
            // The supervisor has to remove its files.
            Some(_) => shutdown(&lock(&self.control).socket, Shutdown::Both),
        };
        match ended {
            Ok(()) | Err(Errno::SRCH | Errno::NOTCONN) => {}
            Err(errno) => return Err(failed(errno)),
        }
        match socket::wait_readable(&[self.pidfd.as_fd()], Instant::now() + KILL_TIMEOUT) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let _ = pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
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
