//! Prelinking: a server's process from an image of the program as it is when the dynamic linker has
//! done its work and `main` has not begun. `README.md` in this folder describes images and
//! restoring.

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
mod seal;
#[cfg(not(target_arch = "x86_64"))]
mod unsupported;

pub(crate) use cache::{ProcessOrigin, distrust, verify_images};
pub(super) use cache::{give_up, image_of};
#[cfg(target_arch = "x86_64")]
pub(super) use capture::capture;
#[cfg(target_arch = "x86_64")]
pub(super) use restore::restore;
#[cfg(not(target_arch = "x86_64"))]
pub(super) use unsupported::{capture, restore};
