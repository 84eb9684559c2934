//! A server without a container: a process of the host, in a directory of its own, and a supervisor above it.
//!
//! What the kernel does when PID 1 of a container dies has to be done here by hand: ending what the server started,
//! removing its memory and its files. The supervisor does it when the control socket is at its end; should it be killed
//! itself, the server is signalled by the kernel, and the next supervisor removes the files.

mod end;
mod paths;
mod place;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::panic;
use std::path::Path;
use std::time::Instant;

use rustix::process::{Signal, getpid, set_child_subreaper};
use rustix::thread::set_no_new_privs;

pub(super) use paths::Paths;
use place::Place;

use super::init::{begin, keep_only};
use super::limits;
use super::supervisor::{Grounds, Host, Supervisor, send};
use crate::cache::copy_tree;
use crate::launch::plan::{Data, OnHost, Plan};
use crate::launch::protocol::{Event, Failure, Step};
use crate::sys::process::exit_now;
use crate::sys::socket;

/// The life of a supervisor. Runs in the child just forked from the launcher.
pub(super) fn main(control: OwnedFd, plan: OwnedFd) -> ! {
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(move || {
        let Ok((control, plan, _)) = keep_only(control, plan, None) else { return };
        if let Err(failure) = live(&control, plan) {
            send(&control, &Event::Failed(failure), &[]);
        }
    }));
    exit_now(i32::from(outcome.is_err()))
}

fn live(control: &OwnedFd, plan: OwnedFd) -> Result<(), Failure> {
    let plan = begin(plan)?;
    let Some(host) = &plan.on_host else {
        return Err(Failure::io(Step::Receive, "", &io::Error::other("the plan is that of a container")));
    };
    // What the server leaves behind when it is killed becomes a child of this process, which can end it then.
    set_child_subreaper(Some(getpid())).map_err(|errno| Failure::new(Step::Execute, "", errno))?;
    set_no_new_privs(true).map_err(|errno| Failure::new(Step::Capabilities, "further rights", errno))?;
    limits::apply_to_process(&plan.limits)?;
    let place = Place::make(&host.places, &host.short, longest(&plan))?;
    let grounds = prepare(control, &plan, host, &place)?;
    let signal = grounds.host.as_ref().map_or(Signal::KILL, |host| host.end_signal);
    let mut supervisor = Supervisor::start(control, plan.server.clone(), None, &grounds)?;
    supervisor.supervise();
    let (server, ended) = supervisor.left();
    end::end(server, ended, signal);
    Ok(())
}

/// The longest path below the root that a server binds a socket in.
fn longest(plan: &Plan) -> usize {
    plan.directories.iter().map(|directory| directory.path.as_os_str().len()).max().unwrap_or(0)
}

/// Makes the files that the plan names, and the data directory.
fn prepare(control: &OwnedFd, plan: &Plan, host: &OnHost, place: &Place) -> Result<Grounds, Failure> {
    let root = place.root();
    let at = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for path in ["/run", "/tmp"] {
        make(&at(Path::new(path)), 0o700)?;
    }
    for directory in &plan.directories {
        make(&at(&directory.path), directory.mode)?;
    }
    for file in &plan.files {
        let path = at(&file.path);
        make(path.parent().unwrap_or(root), 0o700)?;
        let written = fs::write(&path, &file.contents)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)));
        written.map_err(|error| Failure::io(Step::Skeleton, &path.to_string_lossy(), &error))?;
    }
    let data = match &plan.data {
        Data::Writable { source } => source.clone(),
        Data::Overlay { lower, .. } => {
            let data = at(&plan.data_dir);
            make(data.parent().unwrap_or(root), 0o700)?;
            let mut wanted = || match socket::wait_readable(&[control.as_fd()], Instant::now()) {
                // Nothing is asked before all is prepared, so this is the socket's end.
                Ok(true) => Err(io::Error::other("the test process is gone")),
                _ => Ok(()),
            };
            copy_tree(lower, &data, &mut wanted)
                .map_err(|error| Failure::io(Step::Copy, &data.to_string_lossy(), &error))?;
            data
        }
    };
    let log = log(place.root()).map_err(|error| Failure::io(Step::Skeleton, "the log file", &error))?;
    let mapped = plan.directories.iter().map(|directory| &directory.path);
    let mapped = mapped.chain(plan.files.iter().map(|file| &file.path)).cloned();
    let host = Host {
        paths: Paths::new(root, (plan.data_dir.clone(), data), mapped),
        end_signal: Signal::from_named_raw(host.end_signal).unwrap_or(Signal::KILL),
        loopback: host.loopback,
        note: place.notes(),
    };
    let notify = root.join("run/notify").to_string_lossy().into_owned();
    let when_ready = plan.when_ready.clone();
    Ok(Grounds { log, outer_proc: false, notify, when_ready, host: Some(host) })
}

fn make(path: &Path, mode: u32) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|error| Failure::io(Step::Skeleton, &path.to_string_lossy(), &error))
}

/// A file that has no name any more, as in a container.
fn log(root: &Path) -> io::Result<File> {
    let path = root.join("log");
    let file = File::options().read(true).append(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}
