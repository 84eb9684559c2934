//! System calls that no safe library offers. The only folder with `unsafe`; it has no notion of
//! layers or engines.

#[cfg(target_arch = "x86_64")]
pub(crate) mod call_list;
pub(crate) mod clone;
pub(crate) mod constructor;
#[cfg(target_arch = "x86_64")]
pub(crate) mod held_memory;
pub(crate) mod lock;
pub(crate) mod mount;
pub(crate) mod process;
#[cfg(target_arch = "x86_64")]
pub(crate) mod seize;
pub(crate) mod socket;
#[cfg(target_arch = "x86_64")]
pub(crate) mod trace;
#[cfg(target_arch = "x86_64")]
pub(crate) mod trampoline;

use rustix::io::Errno;

/// Returns the error of the last failed system call of this thread.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).expect("a failed system call sets errno")
}

/// Converts nix's error to rustix's.
fn errno(error: nix::Error) -> Errno {
    Errno::from_raw_os_error(error as i32)
}
