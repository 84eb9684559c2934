//! Processes as the kernel lists them, proc_pid_stat(5).

use std::fs;
#[cfg(any(test, target_arch = "x86_64"))]
use std::io;

/// Returns an identity of a process that no later process has, though its id comes again: the id
/// and the time of the start.
pub(crate) fn identity(pid: u32) -> String {
    const START_TIME: usize = 22;
    format!("process {pid} {}", stat_field(pid, START_TIME).unwrap_or_else(|| "0".to_owned()))
}

/// Returns the parent of a process.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    const PARENT: usize = 4;
    stat_field(pid, PARENT)?.parse().ok()
}

/// Returns the program and the arguments of a process.
///
/// # References
/// proc_pid_cmdline(5)
pub(crate) fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.strip_suffix(b"\0").unwrap_or(&bytes).split(|byte| *byte == 0);
    (!bytes.is_empty()).then(|| words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// Returns the children of a process, by their ids in /proc. `process` is such an id, or `self`.
///
/// # References
/// proc_pid_task_children(5), which a kernel with CONFIG_PROC_CHILDREN has
pub(crate) fn children(process: &str) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists: Option<Vec<_>> =
        threads.map(|thread| fs::read_to_string(thread.path().join("children")).ok()).collect();
    match lists {
        Some(lists) if !lists.is_empty() => {
            lists.iter().flat_map(|list| list.split_ascii_whitespace()).flat_map(str::parse).collect()
        }
        _ => children_by_parent(process),
    }
}

/// Returns the ids of a process's threads.
///
/// # Errors
/// There is no such process.
#[cfg(any(test, target_arch = "x86_64"))]
pub(crate) fn threads(process: u32) -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        ids.extend(entry?.file_name().to_str().and_then(|id| id.parse::<u32>().ok()));
    }
    Ok(ids)
}

/// Returns the children of a process by a look at all processes.
fn children_by_parent(process: &str) -> Vec<u32> {
    let own = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let Some(own) = own.split(' ').next().and_then(|id| id.parse().ok()) else { return Vec::new() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(|&process| parent(process) == Some(own)).collect()
}

/// Returns a field of a process by its number in the manual, from the third on.
fn stat_field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat_fields(&stat).nth(number - 3).map(str::to_owned)
}

/// Returns the fields of a `stat` file after the second: that is the program's name in parentheses,
/// and may itself hold any character.
pub(crate) fn stat_fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn children_are_found_in_both_ways() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        for children in [children("self"), children_by_parent("self")] {
            assert!(children.contains(&child.id()), "{children:?}");
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!children("self").contains(&child.id()));
    }

    #[test]
    fn the_threads_of_a_process_are_listed() {
        let own = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        assert!(threads(std::process::id()).unwrap().contains(&own));
        assert!(threads(u32::MAX).is_err());
    }

    #[test]
    fn a_process_has_a_parent_and_an_identity() {
        let own = std::process::id();
        assert_eq!(parent(own), Some(std::os::unix::process::parent_id()));
        assert_eq!(command_line(own), Some(std::env::args().collect()));
        assert_eq!(command_line(u32::MAX), None);
        assert!(identity(own).starts_with(&format!("process {own} ")) && !identity(own).ends_with(" 0"));
        assert_eq!(identity(u32::MAX), format!("process {} 0", u32::MAX));
    }
}
