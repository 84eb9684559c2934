//! The state that a process or thread inherits from init, and so must have from there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::launch::image::refused;
use crate::machine::process::stat_fields;

/// Files of a process's directory in /proc that must be those of init, since a restored process
/// inherits from it.
const INHERITED: [&str; 6] =
    ["oom_score_adj", "personality", "timerslack_ns", "coredump_filter", "cgroup", "uid_map"];

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

/// A soft and a hard limit that a process has changed, by their number.
pub(super) type Limit = (u64, [u64; 2]);

/// Returns the limits in which a process differs from init. `proc` is its directory in /proc.
pub(super) fn changed_limits(proc: &Path, init: u32) -> io::Result<Vec<Limit>> {
    let read = |proc: &Path| Ok::<_, io::Error>(parse_limits(&fs::read_to_string(proc.join("limits"))?));
    let (own, of_init) = (read(proc)?, read(Path::new(&format!("/proc/{init}")))?);
    let (Some(own), Some(of_init)) = (own, of_init) else {
        return Err(refused("its limits are not readable"));
    };
    // A process may lower both, and raise the soft one up to the hard one.
    if own.len() != of_init.len() || own.iter().zip(&of_init).any(|(own, of_init)| own[1] > of_init[1]) {
        return Err(refused("it has higher limits than init"));
    }
    let all = (0..).zip(own).zip(of_init);
    Ok(all.filter(|((_, own), of_init)| own != of_init).map(|(limit, _)| limit).collect())
}

/// Parses the soft and hard limits, which are in the order of their numbers, proc_pid_limits(5).
fn parse_limits(text: &str) -> Option<Vec<[u64; 2]>> {
    // Each line begins with a name of that many columns.
    const NAME: usize = 26;
    let parse = |word: &str| match word {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    let lines = text.lines().skip(1);
    lines
        .map(|line| {
            let mut words = line.get(NAME..)?.split_ascii_whitespace();
            Some([parse(words.next()?)?, parse(words.next()?)?])
        })
        .collect()
}

/// Returns the value of a line of a status.
pub(super) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_in_the_order_of_their_numbers() {
        let limits = parse_limits(&fs::read_to_string("/proc/self/limits").unwrap()).unwrap();
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let expected = [files.current, files.maximum].map(|limit| limit.unwrap_or(u64::MAX));
        assert_eq!(limits[libc::RLIMIT_NOFILE as usize], expected);
        assert_eq!(parse_limits("Limit\nMax cpu time"), None);
    }
}
