//! The launcher: the test program executed again and caught before `main`, one per test process.
//!
//! It receives requests and clones an init for each, in a control group where one is delegated. A
//! small single-threaded process forks in well under a millisecond, and its children may run
//! ordinary Rust.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::process::{
    PidfdFlags, Signal, WaitOptions, getegid, geteuid, pidfd_open, set_parent_process_death_signal, setsid,
    wait,
};

use super::cgroup::{Controllers, Delegation, Group};
use super::child::send;
use super::init::{self, Inherited};
use super::privileges::HostUser;
use super::process;
use super::seccomp::Filters;
use crate::launch::image::{self, Held};
use crate::launch::protocol::{
    Event, Failure, Launch, LaunchStep, LauncherRequest, MARKER, StartMethod, encode,
};
use crate::sys::clone::into_namespaces;
use crate::sys::process::{
    FreshProcess, SingleThreaded, exit_now, fork, reap_children_automatically, reset_signals,
};
use crate::sys::socket;

/// A request is a few numbers.
const LONGEST_REQUEST: usize = 1 << 10;

/// How long a launcher whose test process is gone waits for its containers, which end by
/// themselves. Those that are stopped are killed by its own end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Called before `main` of every program that links this library; does not return in a launcher.
pub(crate) fn become_launcher_if_asked(fresh: FreshProcess) {
    if std::env::var_os(MARKER).is_none() {
        return;
    }
    let requests = rustix::stdio::stdin();
    // A marker that a user exported by hand must not swallow the user's program.
    if rustix::net::sockopt::socket_type(requests) != Ok(SocketType::SEQPACKET) {
        return;
    }
    let outcome = panic::catch_unwind(|| main(fresh, requests));
    exit_now(i32::from(outcome.is_err()));
}

fn main(fresh: FreshProcess, requests: BorrowedFd<'static>) {
    // The test process may have inherited descriptors; held here, their other ends would see no end
    // of file.
    let _ = fresh.keep_only(&[]);
    // Ctrl-C reaches the foreground process group: the launcher and all its containers are in
    // another session.
    let _ = setsid();
    reset_signals();
    reap_children_automatically();
    // If the launcher is stopped when its test process ends, it continues, sees the end of file and
    // ends as well. The signal also comes when the thread ends that started it, and then changes
    // nothing.
    let _ = set_parent_process_death_signal(Some(Signal::CONT));
    let proof = SingleThreaded::check().unwrap_or_else(|error| panic!("launcher: {error}"));
    let user = HostUser { uid: geteuid().as_raw(), gid: getegid().as_raw() };

    let mut launcher = Launcher {
        proof,
        user,
        filters: Filters::compile(),
        delegation: Delegation::find(),
        groups: Vec::new(),
        held: Held::default(),
    };

    let mut buffer = [0; LONGEST_REQUEST];
    while launcher.wait_for_request(requests) {
        // End of file: the test process closed its end or is dead.
        let (length, fds) = match socket::receive_or(requests, &mut buffer, complain) {
            Ok(Some(request)) => request,
            Ok(None) => break,
            // The sender sees the end of a socket; all other sandboxes stay.
            Err(errno) if is_passing(errno) => continue,
            Err(_) => break,
        };
        let request = serde_json::from_slice(&buffer[..length]);
        let mut fds = fds.into_iter();
        if let (Ok(request), Some(control), Some(file)) = (request, fds.next(), fds.next()) {
            match request {
                LauncherRequest::Launch(launch) => launcher.launch(&launch, &control, file, fds.next()),
                LauncherRequest::Checkpoint { init } => launcher.checkpoint(init, &control, file),
            }
        }
    }
    launcher.wait_for_children();
}

/// Returns `true` if a request was lost and the next need not be.
fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::MSGSIZE)
}

#[expect(clippy::print_stderr, reason = "the test process reads it")]
fn complain(errno: Errno) {
    eprintln!("the launcher could not receive a request: {errno}");
}

struct Launcher {
    proof: SingleThreaded,
    user: HostUser,
    filters: Option<Filters>,
    delegation: Option<Delegation>,
    /// The groups of running sandboxes, each with the pidfd of its init.
    groups: Vec<(OwnedFd, Group)>,
    held: Held,
}

impl Launcher {
    /// Waits for the next request, and removes groups of sandboxes that end meanwhile. `false` when
    /// no more can come.
    fn wait_for_request(&mut self, requests: BorrowedFd<'_>) -> bool {
        loop {
            let mut fds = vec![PollFd::from_borrowed_fd(requests, PollFlags::IN)];
            fds.extend(self.groups.iter().map(|(init, _)| PollFd::new(init, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR | Errno::NOMEM | Errno::AGAIN) => continue,
                Err(_) => return false,
            }
            let ended: Vec<_> = fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
            let asked = !fds[0].revents().is_empty();
            let mut ended = ended.into_iter();
            let mut busy = false;
            self.groups.retain(|(_, group)| {
                let keep = !ended.next().unwrap_or(false) || !group.remove();
                busy |= keep;
                keep
            });
            if asked {
                return true;
            }
            // The kernel takes a moment to release a group whose last process has ended.
            if busy {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Starts one init, or a supervisor in process mode. Everything about it is reported over
    /// `control`.
    fn launch(&mut self, launch: &Launch, control: &OwnedFd, plan: OwnedFd, image: Option<OwnedFd>) {
        let mut due = None;
        let launched = match launch.start.with_image(image.map(File::from)) {
            None => Err(Failure::other(LaunchStep::Receive, "", "the image is missing")),
            Some(_) if launch.process_mode => self.start_supervisor(control, plan),
            Some(start) => {
                let checkpoint = match &start {
                    StartMethod::Resume(checkpoint) => Some(checkpoint),
                    _ => None,
                };
                self.held.prepare(checkpoint);
                due = checkpoint.filter(|_| self.held.is_due()).map(File::try_clone);
                self.start_init(launch, control, plan, start)
            }
        };
        let (event, pidfd) = match launched {
            Ok(Some((spawned, pidfd))) => (spawned, Some(pidfd)),
            Ok(None) => return,
            Err(failure) => (Event::Failed(failure), None),
        };
        let message = encode(&event).expect("an event holds no path");
        let fds: Vec<_> = pidfd.iter().map(AsFd::as_fd).collect();
        // If the test process is gone, init learns it by itself.
        let _ = socket::send(control.as_fd(), &message, &fds);
        // The test waits for init now, and not for this.
        if let Some(Ok(image)) = due {
            self.held.read(&image);
        }
    }

    fn start_init(
        &mut self,
        launch: &Launch,
        control: &OwnedFd,
        plan: OwnedFd,
        start: StartMethod<File>,
    ) -> Result<Option<(Event, OwnedFd)>, Failure> {
        let group = self.delegation.as_mut().and_then(|all| all.make(&launch.limits, launch.files).ok());
        let (user, filters, held) = (self.user, self.filters.as_ref(), &mut self.held);
        // The child takes its copies of the descriptors; the parent's are closed at the end.
        let mut request = Some((plan, start));
        let mut child = |fresh, group: Controllers| {
            if let Some((plan, start)) = request.take() {
                let memory = held.take();
                init::main(fresh, control, plan, start, Inherited { user, filters, group, memory });
            }
        };
        let in_group = group.and_then(|group| {
            let controllers = group.controllers();
            let cloned =
                into_namespaces(&self.proof, Some(group.as_fd()?), |fresh| child(fresh, controllers));
            Some((cloned.ok()?, group))
        });
        let ((pid, pidfd), group) = match in_group {
            Some((cloned, group)) => (cloned, Some(group)),
            // The sandbox then has the limits that a process can set for itself.
            None => {
                let cloned = into_namespaces(&self.proof, None, |fresh| child(fresh, Controllers::default()));
                let failed = |errno| {
                    Failure::new(LaunchStep::Clone, "user, mount, pid, net, ipc, uts and cgroup", errno)
                };
                (cloned.map_err(failed)?, None)
            }
        };
        let path = group.as_ref().map(|group| group.path().to_string_lossy().into_owned());
        if let Some((group, own)) = group.zip(pidfd.try_clone().ok()) {
            self.groups.push((own, group));
        }
        Ok(Some((Event::Spawned { pid: pid.as_raw_nonzero().get(), group: path }, pidfd)))
    }

    /// Forks the supervisor of a server in process mode. Nothing is returned for one that has ended
    /// already.
    fn start_supervisor(
        &self,
        control: &OwnedFd,
        plan: OwnedFd,
    ) -> Result<Option<(Event, OwnedFd)>, Failure> {
        let failed = |errno| Failure::new(LaunchStep::Launcher, "", errno);
        let mut plan = Some(plan);
        let child = |fresh| {
            if let Some(plan) = plan.take() {
                process::main(fresh, control, plan);
            }
        };
        let pid = fork(&self.proof, child).map_err(failed)?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Some((Event::Spawned { pid: pid.as_raw_nonzero().get(), group: None }, pidfd))),
            // It has failed, and reported why.
            Err(Errno::SRCH) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Forks a process that takes the checkpoint of a container's server: from outside, since the
    /// filter inside forbids ptrace(2). It reports over `control`.
    fn checkpoint(&self, init: u32, control: &OwnedFd, file: OwnedFd) {
        let mut file = Some(file);
        let child = |fresh: FreshProcess| {
            let Some(file) = file.take() else { return };
            if fresh.keep_only(&[control.as_fd(), file.as_fd()]).is_err() {
                return;
            }
            reset_signals();
            // It must not outlive a launcher whose test process is gone.
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            let refused = image::take_checkpoint(init, &file.into()).err().map(Into::into);
            send(control, &Event::Captured(refused), &[]);
        };
        // Without the process the socket is at its end, which the test process sees.
        let _ = fork(&self.proof, child);
    }

    /// Stays until the containers are gone, so that they are reaped here and not left to a PID 1
    /// that may not reap.
    fn wait_for_children(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        let alive = || !matches!(wait(WaitOptions::NOHANG), Err(Errno::CHILD));
        while Instant::now() < deadline && (alive() || !self.groups.is_empty()) {
            std::thread::sleep(Duration::from_millis(1));
            if !alive() {
                self.groups.retain(|(_, group)| !group.remove());
            }
        }
    }
}
