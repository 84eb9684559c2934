//! Runs in the launcher, in init, and in the supervisor of process mode, all single-threaded.

pub(super) mod cgroup;
mod forwarder;
mod init;
mod launcher;
mod limits;
mod mounts;
mod process;
pub(super) mod seccomp;
mod supervisor;

pub(super) use launcher::MARKER;
pub(crate) use launcher::become_launcher_if_asked;
