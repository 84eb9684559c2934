//! From a plan to a running container, in three kinds of processes.
//!
//! A test process is threaded and may be large, so it neither forks nor unshares. It executes its
//! own program once more as the *launcher*, small and single-threaded, which clones an *init* for
//! each container. Init builds the root, starts the server and watches the socket that ties it to
//! the test process.

mod command;
mod host;
mod image;
mod inside;
mod limits;
mod path;
pub(crate) mod plan;
mod protocol;
mod ready;
mod signal;

pub use command::Command;
pub(crate) use host::client::memory;
pub(crate) use host::container::Container;
pub(crate) use host::control_group::Reached;
pub(crate) use host::error::LaunchError;
pub(crate) use host::log::Log;
pub(crate) use host::program::{ProgramExit, Stdin};
pub(crate) use image::{
    Draft, ProcessOrigin, checkpoint_of, distrust, give_up_checkpoint, prune_checkpoints, verify_checkpoints,
    verify_images,
};
pub(crate) use inside::become_launcher_if_asked;
pub(crate) use limits::Limits;
pub use path::SandboxPath;
pub(crate) use plan::FORWARDED_FROM;
pub(crate) use protocol::{Exit, Failure, Holds, LaunchStep, NoImage};
pub use ready::{Endpoint, Ready};
pub use signal::Signal;
