//! Runs in the launcher, in init, and in the supervisor of process mode, all single-threaded.

mod cgroup;
mod child;
mod file_systems;
mod forwarder;
mod init;
mod launcher;
mod limits;
mod mounts;
mod paths;
mod privileges;
mod prober;
mod process;
mod seccomp;
mod supervisor;

pub(crate) use launcher::become_launcher_if_asked;
