//! Processes as the kernel lists them, proc_pid_stat(5).

use std::fs;

/// Returns an identity of a process that no later process has, though its id comes again: the id and
/// the time of the start.
pub(crate) fn identity(pid: u32) -> String {
    const START_TIME: usize = 22;
    format!("process {pid} {}", stat_field(pid, START_TIME).unwrap_or_else(|| "0".to_owned()))
}

/// Returns the parent of a process.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    const PARENT: usize = 4;
    stat_field(pid, PARENT)?.parse().ok()
}

/// Returns a field of a process by its number in the manual, from the third on.
fn stat_field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may itself hold any character.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(number - 3).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_parent_and_an_identity() {
        let own = std::process::id();
        assert_eq!(parent(own), Some(std::os::unix::process::parent_id()));
        assert!(identity(own).starts_with(&format!("process {own} ")) && !identity(own).ends_with(" 0"));
        assert_eq!(identity(u32::MAX), format!("process {} 0", u32::MAX));
    }
}
