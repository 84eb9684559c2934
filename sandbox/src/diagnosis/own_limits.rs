//! Limits of this process, getrlimit(2), that are too low for a server: they hold inside its
//! sandbox too.

use super::host_facts::HostFacts;
use crate::fix::Fix;
use crate::machine::rlimit::{self, Resource, Rlimit};

/// Returns the sentence for a limit that is too low.
type Words = fn(u64) -> String;

/// The least of a resource with which PostgreSQL starts, and the words for a limit below.
const NEEDS: [(Resource, u64, Words); 3] = [
    (Resource::OpenFiles, 64, |files| format!("this process may open {files} files, and a server needs 64")),
    (Resource::FileSize, rlimit::LEAST_FILE_SIZE, |bytes| {
        format!("this process may write files of {} KB, and a server needs 16 MB", bytes >> 10)
    }),
    // A max_stack_depth of 100 KB, and the 512 KB that PostgreSQL keeps besides.
    (Resource::Stack, 612 << 10, |bytes| {
        format!("this process may have a stack of {} KB, and a server needs 612 KB", bytes >> 10)
    }),
];

/// Returns the fix for the first limit that is too low.
pub(crate) fn too_low(facts: &HostFacts) -> Option<Fix> {
    NEEDS.iter().find_map(|(resource, ..)| check(*resource, facts.limit(*resource)))
}

/// Returns the fix for a limit if it is too low.
pub(super) fn check(resource: Resource, limit: Rlimit) -> Option<Fix> {
    let (_, least, words) = NEEDS.iter().find(|(needed, ..)| *needed == resource)?;
    let low = limit.soft.filter(|soft| soft < least)?;
    Some(resource.raise(words(low), limit))
}

/// Returns the fix for EMFILE.
pub(super) fn too_many_files(facts: &HostFacts) -> Fix {
    too_low(facts).unwrap_or_else(|| rlimit::too_many_files(facts.limit(Resource::OpenFiles)))
}

/// Returns the fix for EAGAIN of fork(2) or clone(2).
pub(super) fn too_many_processes(facts: &HostFacts) -> Fix {
    if let Some((group, limit)) = &facts.full_group {
        return Fix::none(format!(
            "the control group `{}` may have {limit} processes and is full: raise its pids.max where it is set, as by \
             TasksMax= of a systemd unit or --pids-limit of a container",
            group.display()
        ));
    }
    let limit = facts.limit(Resource::Processes);
    match limit.soft {
        // The machine's root is exempt from it.
        Some(processes) if facts.euid != 0 || facts.cannot_become_root => Resource::Processes
            .raise(format!("this user has all {processes} processes and threads that it may"), limit),
        _ => Fix::none(
            "the machine has all processes and threads that it may (kernel.threads-max, kernel.pid_max)",
        ),
    }
}
