//! Images: a server's process from an image of the program as it is when the dynamic linker has
//! done its work and `main` has not begun, or all processes of a ready server from a checkpoint.
//! `README.md` in this folder describes both.

mod cache;
#[cfg(target_arch = "x86_64")]
mod calls;
#[cfg(target_arch = "x86_64")]
mod capture;
#[cfg(target_arch = "x86_64")]
mod checkpoint;
mod checkpoints;
mod difference;
#[cfg(target_arch = "x86_64")]
mod format;
#[cfg(target_arch = "x86_64")]
mod held;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod memory;
mod platform;
#[cfg(target_arch = "x86_64")]
mod prelink;
#[cfg(target_arch = "x86_64")]
mod restore;
mod seal;
#[cfg(not(target_arch = "x86_64"))]
mod unsupported;

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

pub(crate) use cache::{ProcessOrigin, distrust, verify_images};
pub(super) use cache::{give_up, image_of};
#[cfg(target_arch = "x86_64")]
pub(super) use capture::capture;
#[cfg(target_arch = "x86_64")]
pub(super) use checkpoint::take as take_checkpoint;
pub(crate) use checkpoints::{
    Checkpoint, Draft, checkpoint_of, give_up_checkpoint, prune_checkpoints, verify_checkpoints,
};
#[cfg(target_arch = "x86_64")]
pub(super) use held::{Held, InheritedMemory};
#[cfg(target_arch = "x86_64")]
pub(super) use restore::restore;
#[cfg(not(target_arch = "x86_64"))]
pub(super) use unsupported::{Held, InheritedMemory, capture, restore, take_checkpoint};

/// How long a process does without an image or a checkpoint after a failure that may be chance.
/// Another such failure takes some seconds.
const PAUSE: Duration = Duration::from_secs(30);

/// The means of a checkpoint that only init has.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing is resumed"))]
pub(super) struct Handles {
    /// The kernel's setting of the last process id, if it can be written.
    pub(super) last_pid: Option<File>,
    /// The root of a tmpfs for shared memory.
    pub(super) shared_memory: Option<OwnedFd>,
    /// Memory of the checkpoint that init has inherited.
    pub(super) memory: RefCell<Option<InheritedMemory>>,
}

/// The refusal of a program, for a reason in words.
#[cfg(target_arch = "x86_64")]
fn refused(why: &str) -> std::io::Error {
    std::io::Error::other(why)
}
