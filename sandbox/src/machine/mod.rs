//! Facts that the kernel and the distribution give in files: one parser for each. The search for
//! programs.

pub(crate) mod maps;
pub(crate) mod mountinfo;
pub(crate) mod os_release;
pub(crate) mod process;
pub(crate) mod release;
pub(crate) mod rlimit;
pub(crate) mod search;

/// Returns the id of the boot: ids of processes and addresses mean nothing after it.
pub(crate) fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
