//! The launcher: the test program executed again and caught before `main`, one per test process.
//!
//! It does nothing but receive requests and clone an init for each, in a control group where there is one to have. Being small and single-threaded it forks in well
//! under a millisecond, and its children may run ordinary Rust.

use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::process::{PidfdFlags, WaitOptions, getegid, geteuid, pidfd_open, setsid, wait};

use super::cgroup::{Delegation, Group};
use super::init::{self, Given, Outer};
use super::process;
use super::seccomp::Filters;
use crate::launch::protocol::{Event, Failure, Launch, Step, encode};
use crate::sys::clone::{Cloned, into_namespaces};
use crate::sys::process::{
    Forked, SingleThreaded, close_from, exit_now, fork, reap_children_automatically, reset_signals, take_fd,
};
use crate::sys::socket;

/// Set in the environment of a launcher, and of nothing else.
pub(in crate::launch) const MARKER: &str = "SANDBOXED_DB_LAUNCHER";

/// A request is a few numbers.
const LONGEST_REQUEST: usize = 1 << 10;

/// How long a launcher whose test process is gone waits for its containers, which end by themselves.
const FAREWELL: Duration = Duration::from_secs(1);

/// Called before `main` of every program that links this library; does not return in a launcher.
pub(crate) fn become_launcher_if_asked() {
    if std::env::var_os(MARKER).is_none() {
        return;
    }
    let Some(requests) = take_fd(0) else { return };
    // A marker that a user exported by hand must not swallow their program.
    if rustix::net::sockopt::socket_type(&requests) != Ok(SocketType::SEQPACKET) {
        std::mem::forget(requests);
        return;
    }
    let outcome = panic::catch_unwind(|| main(&requests));
    exit_now(i32::from(outcome.is_err()));
}

fn main(requests: &OwnedFd) {
    // Descriptors that the test process was given and passes on; held here, their other ends would see no end of file.
    let _ = close_from(3);
    // Ctrl-C goes to the foreground process group: the launcher and all its containers are in another session.
    let _ = setsid();
    reset_signals();
    reap_children_automatically();
    let proof = SingleThreaded::check().unwrap_or_else(|error| panic!("launcher: {error}"));
    let outer = Outer { uid: geteuid().as_raw(), gid: getegid().as_raw() };

    let mut launcher = Launcher {
        proof,
        outer,
        filters: Filters::compile(),
        delegation: Delegation::find(),
        groups: Vec::new(),
    };

    let mut buffer = [0; LONGEST_REQUEST];
    while launcher.wait_for_request(requests) {
        // End of file: the test process closed its end or is dead.
        let (length, fds) = match socket::receive_or(requests.as_fd(), &mut buffer, complain) {
            Ok(Some(request)) => request,
            Ok(None) => break,
            // Who asked sees the end of a socket; all others keep their sandboxes.
            Err(errno) if is_passing(errno) => continue,
            Err(_) => break,
        };
        let launch = serde_json::from_slice(&buffer[..length]);
        let mut fds = fds.into_iter();
        if let (Ok(launch), Some(control), Some(plan)) = (launch, fds.next(), fds.next()) {
            launcher.launch(&launch, control, plan, fds.next());
        }
    }
    launcher.wait_for_children();
}

/// Whether a request was lost and the next need not be.
fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::MSGSIZE)
}

#[expect(clippy::print_stderr, reason = "the test process reads it")]
fn complain(errno: Errno) {
    eprintln!("the launcher could not receive a request: {errno}");
}

struct Launcher {
    proof: SingleThreaded,
    outer: Outer,
    filters: Option<Filters>,
    delegation: Option<Delegation>,
    /// The groups of running sandboxes, each with what tells of the end of its init.
    groups: Vec<(OwnedFd, Group)>,
}

impl Launcher {
    /// Waits for the next request, and removes groups of sandboxes that end meanwhile. `false` when no more can come.
    fn wait_for_request(&mut self, requests: &OwnedFd) -> bool {
        loop {
            let mut fds = vec![PollFd::new(requests, PollFlags::IN)];
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
            // The kernel takes a moment to let go of a group whose last process has ended.
            if busy {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Clones one init. Everything said of it from here on goes over `control`.
    fn launch(&mut self, launch: &Launch, control: OwnedFd, plan: OwnedFd, image: Option<OwnedFd>) {
        if launch.on_host {
            return self.launch_on_host(control, plan);
        }
        let group = self.delegation.as_mut().and_then(|all| all.make(&launch.limits, launch.files).ok());
        let born_in_group = group.and_then(|group| {
            let cloned = into_namespaces(&self.proof, Some(group.as_fd()?)).ok()?;
            Some((cloned, group))
        });
        let (cloned, group) = match born_in_group {
            Some((cloned, group)) => (Ok(cloned), Some(group)),
            // The sandbox then has the limits that a process can set for itself.
            None => (into_namespaces(&self.proof, None), None),
        };
        let event = match cloned {
            Ok(Cloned::Child) => {
                let limited = group.as_ref().map(Group::controllers).unwrap_or_default();
                let given = Given { filters: self.filters.as_ref(), group: limited };
                init::main(control, plan, image, self.outer, given)
            }
            Ok(Cloned::Parent { pid, pidfd }) => {
                let pid = pid.as_raw_nonzero().get();
                let path = group.as_ref().map(|group| group.path().to_string_lossy().into_owned());
                let message = encode(&Event::Spawned { pid, group: path }).expect("an event holds no path");
                // If the test process is gone, init learns so by itself.
                let _ = socket::send(control.as_fd(), &message, &[pidfd.as_fd()]);
                self.groups.extend(group.map(|group| (pidfd, group)));
                return;
            }
            Err(errno) => Event::Failed(Failure {
                step: Step::Clone,
                object: "user, mount, pid, net, ipc, uts and cgroup".into(),
                errno: errno.raw_os_error(),
                detail: String::new(),
            }),
        };
        let _ = socket::send(control.as_fd(), &encode(&event).expect("an event holds no path"), &[]);
    }

    /// Forks one supervisor of a server that has no container.
    fn launch_on_host(&self, control: OwnedFd, plan: OwnedFd) {
        let pid = match fork(&self.proof) {
            Ok(Forked::Child) => process::main(control, plan),
            Ok(Forked::Parent(pid)) => Ok(pid),
            Err(errno) => Err(errno),
        };
        let opened = pid.and_then(|pid| Ok((pid, pidfd_open(pid, PidfdFlags::empty())?)));
        let (event, pidfd) = match opened {
            Ok((pid, pidfd)) => {
                (Event::Spawned { pid: pid.as_raw_nonzero().get(), group: None }, Some(pidfd))
            }
            // It has failed, and said why, before it could be named.
            Err(Errno::SRCH) => return,
            Err(errno) => (Event::Failed(Failure::new(Step::Launcher, "", errno)), None),
        };
        let message = encode(&event).expect("an event holds no path");
        let fds: Vec<_> = pidfd.iter().map(AsFd::as_fd).collect();
        let _ = socket::send(control.as_fd(), &message, &fds);
    }

    /// Stays until the containers are gone, so that they are reaped here and not left to a PID 1 that may not reap.
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
