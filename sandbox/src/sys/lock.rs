//! Locks on bytes of a file, which belong to the open file description and end with it.
//!
//! # References
//! "Open file description locks (non-POSIX)" in F_GETLK(2const); Linux 3.15

use std::fs::File;
use std::ops::Range;

use nix::fcntl::{FcntlArg, fcntl};
use rustix::io::Errno;

use super::errno;

/// Locks bytes; `false` if another description has one of them locked.
pub(crate) fn try_lock(file: &File, bytes: Range<u64>) -> Result<bool, Errno> {
    match set(file, libc::F_WRLCK, bytes) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Unlocks bytes, locked or not.
pub(crate) fn unlock(file: &File, bytes: Range<u64>) -> Result<(), Errno> {
    set(file, libc::F_UNLCK, bytes)
}

/// Returns the first bytes in the range that another description has locked. They may begin before
/// it and end after it.
pub(crate) fn locked_by_others(file: &File, range: Range<u64>) -> Result<Option<Range<u64>>, Errno> {
    if range.is_empty() {
        // A length of zero would reach to the end of all files.
        return Ok(None);
    }
    let mut first: Option<Range<u64>> = None;
    // The kernel returns any lock in a range, so the part before it is queried until that has none.
    loop {
        let end = first.as_ref().map_or(range.end, |found| found.start);
        if end <= range.start {
            return Ok(first);
        }
        let mut lock = description(libc::F_WRLCK, range.start..end);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).map_err(errno)?;
        if i32::from(lock.l_type) == libc::F_UNLCK {
            return Ok(first);
        }
        let (start, length) = (lock.l_start.cast_unsigned(), lock.l_len.cast_unsigned());
        first = Some(start..if length == 0 { u64::MAX } else { start + length });
    }
}

fn set(file: &File, kind: i32, bytes: Range<u64>) -> Result<(), Errno> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&description(kind, bytes))).map(drop).map_err(errno)
}

fn description(kind: i32, range: Range<u64>) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: range.start.cast_signed(),
        l_len: (range.end - range.start).cast_signed(),
        // Must be zero for these locks.
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_locked_once_until_its_description_ends() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(place.path()).unwrap();
        let (one, other) = (open(), open());
        assert_eq!(try_lock(&one, 7..8), Ok(true));
        assert_eq!(try_lock(&one, 8..9), Ok(true));
        assert_eq!(try_lock(&other, 7..8), Ok(false));
        assert_eq!(locked_by_others(&other, 0..100), Ok(Some(7..9)));
        assert_eq!(locked_by_others(&other, 0..7), Ok(None));
        assert_eq!(locked_by_others(&other, 7..7), Ok(None));
        assert_eq!(locked_by_others(&one, 0..100), Ok(None));
        unlock(&one, 7..8).unwrap();
        assert_eq!(try_lock(&other, 7..8), Ok(true));
        drop(one);
        assert_eq!(try_lock(&other, 8..9), Ok(true));
    }

    /// The kernel lists locks by owner, in the order of their first locks.
    #[test]
    fn the_first_lock_is_found_in_any_order() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(place.path()).unwrap();
        let (one, other, third) = (open(), open(), open());
        assert_eq!(try_lock(&one, 5..6), Ok(true));
        assert_eq!(try_lock(&other, 2..3), Ok(true));
        assert_eq!(locked_by_others(&third, 0..100), Ok(Some(2..3)));
        assert_eq!(locked_by_others(&third, 3..100), Ok(Some(5..6)));
        assert_eq!(locked_by_others(&one, 0..100), Ok(Some(2..3)));
    }
}
