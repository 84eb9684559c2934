//! Locks on files, which belong to a process, fcntl(2).

use std::io;

use crate::launch::image::refused;
use crate::sys::call_list::{Calls, StoredLists};

/// A lock on a part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lock {
    kind: i16,
    start: i64,
    /// Zero for all up to the end.
    length: i64,
}

impl Lock {
    /// Parses the lines of all locks that a process has by a descriptor, proc_locks(5).
    pub(super) fn parse_all(info: &str) -> io::Result<Vec<Self>> {
        info.lines().filter_map(|line| line.strip_prefix("lock:")).map(Self::parse).collect()
    }

    fn parse(line: &str) -> io::Result<Self> {
        let unknown = || refused(&format!("it holds a lock of an unknown kind ({})", line.trim()));
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, "POSIX", "ADVISORY", kind, _, _, start, end] = words[..] else { return Err(unknown()) };
        let kind = match kind {
            "READ" => libc::F_RDLCK,
            "WRITE" => libc::F_WRLCK,
            _ => return Err(unknown()),
        };
        let start: i64 = start.parse().map_err(|_| unknown())?;
        let length = match end {
            "EOF" => 0,
            end => end.parse::<i64>().map_err(|_| unknown())? - start + 1,
        };
        Ok(Self { kind: kind as i16, start, length })
    }

    /// Adds the call that takes the lock by a descriptor.
    pub(super) fn take(&self, descriptor: u64, lists: &mut StoredLists, list: &mut Calls) {
        // A `flock` of asm-generic/fcntl.h: kind, whence, and two numbers; then the owner.
        let mut flock = [0; 32];
        flock[..2].copy_from_slice(&self.kind.to_ne_bytes());
        flock[8..16].copy_from_slice(&self.start.to_ne_bytes());
        flock[16..24].copy_from_slice(&self.length.to_ne_bytes());
        let flock = lists.lay(&flock);
        list.call(libc::SYS_fcntl, &[descriptor, libc::F_SETLK as u64, flock]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_read_and_unknown_kinds_are_refused() {
        let info = "pos:\t0\nlock:\t1: POSIX  ADVISORY  WRITE 27936 00:35:5416267 0 EOF\n\
                    lock:\t2: POSIX  ADVISORY  READ 27936 00:35:5416267 8 11\n";
        let write = Lock { kind: libc::F_WRLCK as i16, start: 0, length: 0 };
        let read = Lock { kind: libc::F_RDLCK as i16, start: 8, length: 4 };
        assert_eq!(Lock::parse_all(info).unwrap(), [write, read]);
        assert!(Lock::parse_all("lock:\t1: FLOCK  ADVISORY  WRITE 1 00:35:1 0 EOF\n").is_err());
    }
}
