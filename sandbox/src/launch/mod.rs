//! From a plan to a running container, and what keeps it in hand.
//!
//! A test process is threaded and may be large, so it neither forks nor unshares. It executes its own program once
//! more as the *launcher* (single-threaded, small), which clones an *init* for each container; init builds the root,
//! starts the server and watches the socket that ties it to the test process.

mod host;
mod image;
mod inside;
mod limits;
pub(crate) mod plan;
mod protocol;

pub(crate) use host::client::memory;
pub(crate) use host::container::{Container, Readiness, Stdin};
pub(crate) use host::log::Log;
pub(crate) use image::{Origin, distrust};
pub(crate) use inside::become_launcher_if_asked;
pub(crate) use inside::cgroup::{Reached, own as own_group};
pub(crate) use limits::Limits;
pub use plan::Command;
pub(crate) use plan::FORWARDED_FROM;
pub(crate) use protocol::{Exit, Failure, Step};
