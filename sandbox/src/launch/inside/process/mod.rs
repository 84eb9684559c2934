//! Process mode: a server that is a process of the host, in a private directory, and its
//! supervisor.
//!
//! The kernel's work at the death of a container's PID 1 is done here by hand: ending the server's
//! processes, removing its memory and its files. The supervisor does it at the control socket's end
//! of file. If the supervisor is killed, the kernel signals the server, and the next supervisor
//! removes the files.

mod end;
mod private_directory;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;

use rustix::process::{Signal, getpid, set_child_subreaper, set_parent_process_death_signal};
use rustix::thread::set_no_new_privs;

use private_directory::PrivateDirectory;

use super::child::{begin, send};
use super::limits;
use super::paths::HostPaths;
use super::supervisor::{HostProcess, ServerContext, Supervisor};
use crate::cache::copy_tree;
use crate::launch::image::Handles;
use crate::launch::path::SandboxPath;
use crate::launch::plan::{Data, Plan, ProcessMode};
use crate::launch::protocol::{Event, Failure, LaunchStep, StartMethod, Up};
use crate::sys::process::FreshProcess;
use crate::sys::socket;

/// The life of a supervisor. Runs in the child just forked from the launcher.
pub(super) fn main(fresh: FreshProcess, control: &OwnedFd, plan: OwnedFd) {
    if let Err(failure) = live(fresh, control, plan) {
        send(control, &Event::Failed(failure), &[]);
    }
}

fn live(fresh: FreshProcess, control: &OwnedFd, plan: OwnedFd) -> Result<(), Failure> {
    // A stopped supervisor continues when the launcher ends, and sees the end of file.
    let _ = set_parent_process_death_signal(Some(Signal::CONT));
    let mut plan = begin(fresh, control, plan, None)?;
    let Some(mode) = plan.process_mode.take() else {
        return Err(Failure::other(LaunchStep::Receive, "", "the plan is that of a container"));
    };
    // Orphans of a killed server become children of this process, which can then end them.
    set_child_subreaper(Some(getpid())).map_err(|errno| Failure::new(LaunchStep::Execute, "", errno))?;
    set_no_new_privs(true)
        .map_err(|errno| Failure::new(LaunchStep::Capabilities, "further rights", errno))?;
    limits::apply_to_process(&plan.limits)?;
    let directory = PrivateDirectory::make(&mode.parents, &mode.short_parents, longest(&plan))?;
    let (signal, server) = (mode.end_signal.into(), plan.server.take());
    let context = prepare(control, plan, &mode, &directory)?;
    let up = Up { directory: Some(directory.path().to_string_lossy().into_owned()), ..Up::default() };
    let server = server.map(|command| (command, StartMethod::Execute));
    let mut supervisor = Supervisor::start(control, server, &context, up)?;
    supervisor.supervise();
    let (server, ended) = supervisor.remains();
    end::end(server, ended, signal);
    Ok(())
}

/// Returns the length of the longest path below the root that a server binds a socket in.
fn longest(plan: &Plan) -> usize {
    plan.directories.iter().map(|directory| directory.path.as_path().as_os_str().len()).max().unwrap_or(0)
}

/// Makes the planned files and the data directory.
fn prepare(
    control: &OwnedFd,
    plan: Plan,
    mode: &ProcessMode,
    directory: &PrivateDirectory,
) -> Result<ServerContext, Failure> {
    let root = directory.path();
    let tmp = SandboxPath::new("/tmp");
    for path in [&"/run".into(), &tmp] {
        make(&path.below(root), 0o700)?;
    }
    for directory in &plan.directories {
        make(&directory.path.below(root), directory.mode)?;
    }
    for file in &plan.files {
        let path = file.path.below(root);
        make(path.parent().unwrap_or(root), 0o700)?;
        let written = fs::write(&path, file.contents.as_bytes())
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)));
        written.map_err(|error| Failure::io(LaunchStep::Skeleton, &path.to_string_lossy(), &error))?;
    }
    let data = match &plan.data {
        Data::Writable { source } => {
            // Clients outside find the files of a build below the root, too.
            let link = plan.data_dir.below(root);
            make(link.parent().unwrap_or(root), 0o700)?;
            symlink(source, &link)
                .map_err(|error| Failure::io(LaunchStep::Skeleton, &link.to_string_lossy(), &error))?;
            source.clone()
        }
        Data::Overlay { lower, .. } => {
            let data = plan.data_dir.below(root);
            make(data.parent().unwrap_or(root), 0o700)?;
            let mut wanted = || match socket::wait_readable(&[control.as_fd()], Instant::now()) {
                // No request comes before all is prepared, so this is the socket's end.
                Ok(true) => Err(io::Error::other("the test process is gone")),
                _ => Ok(()),
            };
            copy_tree(lower, &data, &mut wanted)
                .map_err(|error| Failure::io(LaunchStep::Copy, &data.to_string_lossy(), &error))?;
            data
        }
    };
    let log = log(root).map_err(|error| Failure::io(LaunchStep::Skeleton, "the log file", &error))?;
    let directories = plan.directories.into_iter().map(|directory| directory.path);
    let below = directories.chain(plan.files.into_iter().map(|file| file.path)).chain([tmp]);
    let host = HostProcess {
        paths: HostPaths::new(root, (plan.data_dir, data), below),
        end_signal: mode.end_signal.into(),
        loopback: mode.loopback,
        note: directory.notes(),
    };
    let notify = root.join("run/notify").to_string_lossy().into_owned();
    let Plan { ready, when_ready, env, .. } = plan;
    Ok(ServerContext { log, notify, ready, when_ready, handles: Handles::default(), env, host: Some(host) })
}

fn make(path: &Path, mode: u32) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|error| Failure::io(LaunchStep::Skeleton, &path.to_string_lossy(), &error))
}

/// Makes a file whose name is removed again, as the log of a container has none.
fn log(root: &Path) -> io::Result<File> {
    let path = root.join("log");
    let file = File::options().read(true).append(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}
