//! Link once: a server's process made from an image of the program as it is when the dynamic linker has done its work and
//! `main` has not begun.
//!
//! Half of a server's start is dynamic linking: for PostgreSQL forty libraries, and tens of thousands of addresses to write
//! into memory that each process then has to itself. By an image it is done once a boot, and its pages are shared.
//!
//! The image is made by running the server under ptrace(2) in a container of its own up to its entry point
//! (`capture.rs`). A server is restored from it by a child of init that replaces its own memory (`restore.rs`): so all
//! that is inherited over execve(2) is as ever, namespaces, limits, descriptors, filter and parent among it.

mod cache;
#[cfg(target_arch = "x86_64")]
mod calls;
#[cfg(target_arch = "x86_64")]
mod capture;
#[cfg(target_arch = "x86_64")]
mod format;
#[cfg(target_arch = "x86_64")]
mod prelink;
#[cfg(target_arch = "x86_64")]
mod restore;
#[cfg(not(target_arch = "x86_64"))]
mod unsupported;

pub(crate) use cache::{ProcessOrigin, distrust};
pub(super) use cache::{give_up, image_of};
#[cfg(target_arch = "x86_64")]
pub(super) use capture::capture;
#[cfg(target_arch = "x86_64")]
pub(super) use restore::restore;
#[cfg(not(target_arch = "x86_64"))]
pub(super) use unsupported::{capture, restore};
