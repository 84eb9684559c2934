//! PID 1 of a container: builds its root, starts the server, reaps, and dies with the test process.
//!
//! When PID 1 dies the kernel kills every process of the pid namespace and frees the mounts, the tmpfs and the network
//! with it: no clean-up code can be forgotten.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::process::{Command as Process, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process, set_parent_process_death_signal, setsid, umask, wait,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use super::cgroup::Controllers;
use super::mounts::{self, Root};
use super::plan::{Command, INNER_ID, Plan};
use super::protocol::{Event, Exit, Failure, LONGEST_MESSAGE, Request, Step, encode};
use super::seccomp::Filters;
use super::{forwarder, limits};
use crate::sys::process::{
    Forked, SingleThreaded, child_signals, close_from, exit_now, fork, loopback_up, move_fd, reset_signals,
    take_fd,
};
use crate::sys::socket;

/// The user outside, as whom the test process runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outer {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What an init is given by its launcher, besides the plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) filters: Option<&'a Filters>,
    /// What the control group limits that this process is in.
    pub(super) group: Controllers,
}

/// Where servers that speak sd_notify(3) say that they are ready.
const NOTIFY_SOCKET: &str = "/run/notify";

/// The life of an init. Runs in the child just cloned.
pub(super) fn main(control: OwnedFd, plan: OwnedFd, outer: Outer, launcher: Given<'_>) -> ! {
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(move || {
        // The launcher's socket is descriptor 0 here too; keeping it open would hide the test process's death from
        // the launcher. From here on descriptors 3 and 4 are all there is besides standard output and error.
        drop(take_fd(0));
        let control = move_fd(control, 3).and_then(|control| Ok((control, move_fd(plan, 4)?)));
        let Ok((control, plan)) = control else { return };
        let failure = match prepare(plan, outer, launcher) {
            Ok((plan, root)) => match Init::start(&control, plan, root) {
                Ok(mut init) => return init.supervise(),
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        send(&control, &Event::Failed(failure), &[]);
    }));
    exit_now(i32::from(outcome.is_err()))
}

/// Everything that needs the capabilities of a fresh user namespace; they are given up at the end, and with them the system
/// calls that nothing in a container needs.
fn prepare(plan: OwnedFd, outer: Outer, launcher: Given<'_>) -> Result<(Plan, Root), Failure> {
    close_from(5).map_err(|errno| Failure::new(Step::Descriptors, "", errno))?;
    reset_signals();
    // The second line of defence; the first is the control socket's end of file.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let _ = setsid();
    umask(rustix::fs::Mode::from_raw_mode(0o022));

    let mut bytes = Vec::new();
    File::from(plan).read_to_end(&mut bytes).map_err(|error| Failure::io(Step::Receive, "", &error))?;
    let plan: Plan =
        serde_json::from_slice(&bytes).map_err(|error| Failure::io(Step::Receive, "", &error.into()))?;

    map_ids(outer)?;
    loopback_up().map_err(|errno| Failure::new(Step::Loopback, "lo", errno))?;
    rustix::system::sethostname(b"sandbox")
        .map_err(|errno| Failure::new(Step::Hostname, "sandbox", errno))?;
    limits::apply(&plan.limits, outer, launcher.group)?;
    let root = mounts::build(&plan)?;
    drop_capabilities()?;
    if let Some(filters) = launcher.filters {
        filters.install(plan.io_uring).map_err(|error| filter_refused(&error))?;
    }
    Ok((plan, root))
}

/// One id, mapped to the user outside. setgroups(2) must be given up first, user_namespaces(7).
fn map_ids(outer: Outer) -> Result<(), Failure> {
    for (file, line) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{INNER_ID} {} 1", outer.uid)),
        ("/proc/self/gid_map", format!("{INNER_ID} {} 1", outer.gid)),
    ] {
        std::fs::write(file, line).map_err(|error| Failure::io(Step::MapIds, file, &error))?;
    }
    Ok(())
}

/// Empties all five capability sets and forbids gaining any by execve(2), capabilities(7).
fn drop_capabilities() -> Result<(), Failure> {
    let drop_all = || {
        for capability in CapabilitySet::all().iter() {
            match remove_capability_from_bounding_set(capability) {
                // A capability that this kernel does not know yet.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        clear_ambient_capability_set()?;
        set_no_new_privs(true)?;
        let empty = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: empty, permitted: empty, inheritable: empty })
    };
    drop_all().map_err(|errno| Failure::new(Step::Capabilities, "all capabilities", errno))
}

fn filter_refused(error: &seccompiler::Error) -> Failure {
    match error {
        seccompiler::Error::Seccomp(cause) | seccompiler::Error::Prctl(cause) => {
            Failure::io(Step::Filter, "", cause)
        }
        other => Failure { step: Step::Filter, object: String::new(), errno: 0, detail: other.to_string() },
    }
}

/// The supervisor that PID 1 is once the root is built.
struct Init<'a> {
    control: &'a OwnedFd,
    children: OwnedFd,
    notify: OwnedFd,
    log: File,
    server: Option<Pid>,
    program: Option<Pid>,
}

impl<'a> Init<'a> {
    fn start(control: &'a OwnedFd, plan: Plan, root: Root) -> Result<Self, Failure> {
        let Root { log, outer_proc } = root;
        let notify = notify_socket().map_err(|errno| Failure::new(Step::Execute, NOTIFY_SOCKET, errno))?;
        let children = child_signals().map_err(|errno| Failure::new(Step::Execute, "signalfd", errno))?;
        let mut init = Self { control, children, notify, log, server: None, program: None };
        if let Some(command) = plan.server {
            init.start_server(command)?;
        }
        send(control, &Event::Up { outer_proc }, &[&init.log]);
        // Nothing of the launcher's is within the server's reach from here on.
        silence();
        Ok(init)
    }

    /// Returns when the test process is gone.
    fn supervise(&mut self) {
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
            if notify {
                self.read_notification(&mut buffer);
            }
            if control {
                let Ok(Some((length, fds))) = socket::receive(self.control.as_fd(), &mut buffer) else {
                    return;
                };
                self.serve(&buffer[..length], fds);
            }
        }
    }

    fn serve(&mut self, message: &[u8], fds: Vec<OwnedFd>) {
        let outcome = match serde_json::from_slice(message) {
            Ok(Request::Start(command)) => self.start_server(command),
            Ok(Request::Run(command)) => self.run(&command, fds),
            Ok(Request::Forward { port }) => self.forward(port, fds),
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

    fn start_server(&mut self, command: Command) -> Result<(), Failure> {
        let command = command.env("NOTIFY_SOCKET", NOTIFY_SOCKET);
        let log = || self.log.try_clone().map(Stdio::from);
        let stdio = log().and_then(|out| Ok([Stdio::null(), out, log()?]));
        let stdio = stdio.map_err(|error| Failure::io(Step::Execute, &command.name(), &error))?;
        self.server = Some(spawn(&command, stdio)?);
        Ok(())
    }

    fn run(&mut self, command: &Command, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let stdio = <[OwnedFd; 3]>::try_from(fds)
            .map_err(|fds| Failure {
                step: Step::Receive,
                object: command.name(),
                errno: 0,
                detail: format!("{} descriptors came where 3 were expected", fds.len()),
            })?
            .map(Stdio::from);
        self.program = Some(spawn(command, stdio)?);
        Ok(())
    }

    /// A process of its own forwards, so that nothing there can keep init from its socket. It lives as long as init.
    fn forward(&self, port: u16, listeners: Vec<OwnedFd>) -> Result<(), Failure> {
        let failed = |error: &io::Error| Failure::io(Step::Forward, &format!("port {port}"), error);
        let proof = SingleThreaded::check().map_err(|error| failed(&error))?;
        match fork(&proof).map_err(|errno| failed(&errno.into()))? {
            Forked::Child => forwarder::main(listeners, port),
            Forked::Parent => send(self.control, &Event::Forwarding, &[]),
        }
        Ok(())
    }

    /// Reaps every child that has ended, adopted orphans included, and reports the two that are known.
    fn reap(&mut self) {
        // Several ends may have come as one signal, so the signal's own record says nothing of use.
        let _ = rustix::io::read(&self.children, &mut [0; 128]);
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(exit) = exit_of(status) else { continue };
            if self.server == Some(pid) {
                self.server = None;
                send(self.control, &Event::ServerExited(exit), &[]);
            } else if self.program == Some(pid) {
                self.program = None;
                send(self.control, &Event::RunExited(exit), &[]);
            }
        }
    }

    /// sd_notify(3): lines of assignments, of which only one matters here.
    fn read_notification(&self, buffer: &mut [u8]) {
        if let Ok(length) = rustix::io::read(&self.notify, &mut *buffer)
            && buffer[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1")
        {
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

fn notify_socket() -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(NOTIFY_SOCKET)?)?;
    Ok(socket)
}

fn spawn(command: &Command, [stdin, stdout, stderr]: [Stdio; 3]) -> Result<Pid, Failure> {
    let child = Process::new(&command.program)
        .args(&command.args)
        .env_clear()
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&command.current_dir)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(|error| Failure::io(Step::Execute, &command.program.to_string_lossy(), &error))?;
    Ok(Pid::from_raw(child.id().cast_signed()).expect("a child has a positive pid"))
}

fn exit_of(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// A message that cannot be sent has no reader left: end of file follows.
fn send(control: &OwnedFd, event: &Event, fds: &[&File]) {
    let fds: Vec<_> = fds.iter().map(|file| file.as_fd()).collect();
    let _ = socket::send(control.as_fd(), &encode(event).expect("an event holds no path"), &fds);
}
