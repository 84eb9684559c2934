//! Facts that the kernel and the distribution give in files: one parser for each.

pub(crate) mod mountinfo;
pub(crate) mod os_release;
pub(crate) mod process;
pub(crate) mod release;
pub(crate) mod rlimit;
