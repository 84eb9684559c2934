//! The launcher: the test program executed again and caught before `main`, one per test process.
//!
//! It does nothing but receive requests and clone an init for each. Being small and single-threaded it forks in well
//! under a millisecond, and its children may run ordinary Rust.

use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::process::{WaitOptions, getegid, geteuid, setsid, wait};

use super::init::{self, Outer};
use super::protocol::{Event, Failure, Step, encode};
use crate::sys::clone::{Cloned, into_namespaces};
use crate::sys::process::{
    SingleThreaded, close_from, exit_now, reap_children_automatically, reset_signals, take_fd,
};
use crate::sys::socket;

/// Set in the environment of a launcher, and of nothing else.
pub(super) const MARKER: &str = "SANDBOXED_DB_LAUNCHER";

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

    let mut buffer = [0; 64];
    // End of file: the test process closed its end or is dead.
    while let Ok(Some((_, fds))) = socket::receive(requests.as_fd(), &mut buffer) {
        if let Ok([control, plan]) = <[OwnedFd; 2]>::try_from(fds) {
            launch(&proof, outer, control, plan);
        }
    }
    wait_for_children();
}

/// Clones one init. Everything said of it from here on goes over `control`.
fn launch(proof: &SingleThreaded, outer: Outer, control: OwnedFd, plan: OwnedFd) {
    let event = match into_namespaces(proof) {
        Ok(Cloned::Child) => init::main(control, plan, outer),
        Ok(Cloned::Parent { pid, pidfd }) => {
            let event = Event::Spawned { pid: pid.as_raw_nonzero().get() };
            let message = encode(&event).expect("an event holds no path");
            // If the test process is gone, init learns so by itself.
            let _ = socket::send(control.as_fd(), &message, &[pidfd.as_fd()]);
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

/// Stays until the containers are gone, so that they are reaped here and not left to a PID 1 that may not reap.
fn wait_for_children() {
    let deadline = Instant::now() + FAREWELL;
    while Instant::now() < deadline && !matches!(wait(WaitOptions::NOHANG), Err(Errno::CHILD)) {
        std::thread::sleep(Duration::from_millis(1));
    }
}
