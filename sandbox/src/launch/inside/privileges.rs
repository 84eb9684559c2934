//! The ids of a container and the privileges of its processes: one mapped id, no capability.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use crate::launch::plan::INNER_ID;
use crate::launch::protocol::{Failure, LaunchStep};

/// The user outside, which the test process runs as.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Maps one id to the user outside. setgroups(2) must be denied first, user_namespaces(7).
pub(super) fn map_ids(user: HostUser) -> Result<(), Failure> {
    for (file, line) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{INNER_ID} {} 1", user.uid)),
        ("/proc/self/gid_map", format!("{INNER_ID} {} 1", user.gid)),
    ] {
        std::fs::write(file, line).map_err(|error| Failure::io(LaunchStep::MapIds, file, &error))?;
    }
    Ok(())
}

/// Permits a process to set its own executable, PR_SET_MM_EXE_FILE(2const), which a restore needs.
pub(super) const RESTORE: CapabilitySet = CapabilitySet::CHECKPOINT_RESTORE;

/// Empties all five capability sets but for `kept`, and forbids to gain any by execve(2),
/// capabilities(7).
pub(super) fn drop_capabilities(kept: CapabilitySet) -> Result<(), Failure> {
    let drop_all = || {
        for capability in CapabilitySet::all().iter() {
            match remove_capability_from_bounding_set(capability) {
                // EINVAL: this kernel does not know the capability.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        clear_ambient_capability_set()?;
        set_no_new_privs(true)?;
        hold(kept)
    };
    drop_all().map_err(refused)
}

/// Drops the capabilities that [`drop_capabilities`] has kept.
pub(super) fn drop_last_capability() -> Result<(), Failure> {
    hold(CapabilitySet::empty()).map_err(refused)
}

fn refused(errno: Errno) -> Failure {
    Failure::new(LaunchStep::Capabilities, "all capabilities", errno)
}

fn hold(capabilities: CapabilitySet) -> Result<(), Errno> {
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: capabilities, permitted: capabilities, inheritable })
}
