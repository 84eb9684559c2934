//! System calls that no safe library offers. The only folder with `unsafe`; it knows nothing of layers or engines.

pub(crate) mod clone;
pub(crate) mod constructor;
pub(crate) mod lock;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod socket;
#[cfg(target_arch = "x86_64")]
pub(crate) mod trace;
#[cfg(target_arch = "x86_64")]
pub(crate) mod trampoline;

use rustix::io::Errno;

/// The error of the system call that failed last in this thread.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).expect("a failed system call sets errno")
}
