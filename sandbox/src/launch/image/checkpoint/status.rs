//! The state that a process or thread inherits from init, and so must have from there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::launch::image::refused;
use crate::machine::process::stat_fields;

/// Files of a process's directory in /proc that must be those of init, since a restored process
/// inherits from it.
const INHERITED: [&str; 7] =
    ["limits", "oom_score_adj", "personality", "timerslack_ns", "coredump_filter", "cgroup", "uid_map"];

/// Lines of the status that must be those of init, proc_pid_status(5).
const SAME: [&str; 6] = ["Cpus_allowed", "Seccomp", "Seccomp_filters", "Uid", "Gid", "Groups"];

/// Lines of the status that must have these values.
const STATUS: [(&str, &str); 7] = [
    ("NoNewPrivs", "1"),
    ("SigPnd", "0000000000000000"),
    ("ShdPnd", "0000000000000000"),
    ("CapEff", "0000000000000000"),
    ("CapPrm", "0000000000000000"),
    ("CapInh", "0000000000000000"),
    ("TracerPid", "0"),
];

/// Refuses a process or thread that has changed what it inherited. `proc` is its directory in
/// /proc.
pub(super) fn check(proc: &Path, init: u32) -> io::Result<()> {
    let status = fs::read_to_string(proc.join("status"))?;
    for (name, expected) in STATUS {
        match field(&status, name) {
            Some(found) if found == expected => {}
            found => {
                let found = found.unwrap_or_default();
                return Err(refused(&format!("its status has {name} {found} instead of {expected}")));
            }
        }
    }
    if field(&status, "x86_Thread_features").is_some_and(|features| !features.is_empty()) {
        return Err(refused("it has a shadow stack"));
    }
    let of_init = PathBuf::from(format!("/proc/{init}"));
    let init_status = fs::read_to_string(of_init.join("status"))?;
    for name in SAME {
        if field(&status, name) != field(&init_status, name) {
            return Err(refused(&format!("its {name} is not that of init")));
        }
    }
    for name in INHERITED {
        let read = |proc: &Path| fs::read_to_string(proc.join(name)).ok();
        if read(proc) != read(&of_init) {
            return Err(refused(&format!("its {name} is not that of init")));
        }
    }
    // Priority, nice value, real-time priority and policy, proc_pid_stat(5).
    let scheduling = |proc: &Path| {
        let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
        [18, 19, 40, 41].map(|number: usize| stat_fields(&stat).nth(number - 3).map(str::to_owned))
    };
    if scheduling(proc) != scheduling(&of_init) {
        return Err(refused("it has another priority than init"));
    }
    Ok(())
}

/// Returns the value of a line of a status.
pub(super) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
