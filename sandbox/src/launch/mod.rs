//! From a plan to a running container, and what keeps it in hand.
//!
//! A test process is threaded and may be large, so it neither forks nor unshares. It executes its own program once
//! more as the *launcher* (single-threaded, small), which clones an *init* for each container; init builds the root,
//! starts the server and watches the socket that ties it to the test process.

mod cgroup;
mod client;
mod container;
mod control;
mod forwarder;
mod init;
mod launcher;
mod limits;
mod linked;
mod log;
mod mounts;
pub(crate) mod plan;
mod process;
mod protocol;
mod seccomp;
mod supervisor;
mod tail;

pub(crate) use cgroup::{Reached, own as own_group};
pub(crate) use client::memory;
pub(crate) use container::{Container, Readiness, Stdin};
pub(crate) use launcher::become_launcher_if_asked;
pub(crate) use limits::Limits;
pub(crate) use linked::{Origin, distrust};
pub(crate) use log::Log;
pub use plan::Command;
pub(crate) use protocol::{Exit, Failure, Step};
