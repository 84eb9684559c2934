//! Locks on single bytes of a file, which belong to the open file description and end with it.
//!
//! # References
//! "Open file description locks (non-POSIX)" in F_GETLK(2const); Linux 3.15

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

use super::last_errno;

/// Locks a byte; `false` if another description has it locked.
pub(crate) fn try_lock(file: &File, byte: u64) -> Result<bool, Errno> {
    let mut lock = description(libc::F_WRLCK, byte..byte + 1);
    match control(file, libc::F_OFD_SETLK, &mut lock) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Unlocks a byte, locked or not.
pub(crate) fn unlock(file: &File, byte: u64) -> Result<(), Errno> {
    control(file, libc::F_OFD_SETLK, &mut description(libc::F_UNLCK, byte..byte + 1))
}

/// The first bytes in the range that another description has locked. They may begin before it and end after it.
pub(crate) fn locked_by_others(file: &File, range: Range<u64>) -> Result<Option<Range<u64>>, Errno> {
    if range.is_empty() {
        // A length of zero would reach to the end of all files.
        return Ok(None);
    }
    let mut first: Option<Range<u64>> = None;
    // The kernel answers with any of them, so what is before it is asked for until there is nothing.
    loop {
        let end = first.as_ref().map_or(range.end, |found| found.start);
        if end <= range.start {
            return Ok(first);
        }
        let mut lock = description(libc::F_WRLCK, range.start..end);
        control(file, libc::F_OFD_GETLK, &mut lock)?;
        if i32::from(lock.l_type) == libc::F_UNLCK {
            return Ok(first);
        }
        let (start, length) = (lock.l_start.cast_unsigned(), lock.l_len.cast_unsigned());
        first = Some(start..if length == 0 { u64::MAX } else { start + length });
    }
}

fn description(kind: i32, range: Range<u64>) -> libc::flock {
    // SAFETY: `flock` is plain data for which all zeroes is valid; `l_pid` must be zero for these commands.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = range.start.cast_signed();
    lock.l_len = (range.end - range.start).cast_signed();
    lock
}

fn control(file: &File, command: i32, lock: &mut libc::flock) -> Result<(), Errno> {
    // SAFETY: the descriptor is open as long as `file`, and `lock` is a valid `flock` that outlives the call, which the
    // three commands read and F_OFD_GETLK writes.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) };
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_locked_once_until_its_description_ends() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(place.path()).unwrap();
        let (one, other) = (open(), open());
        assert_eq!(try_lock(&one, 7), Ok(true));
        assert_eq!(try_lock(&one, 8), Ok(true));
        assert_eq!(try_lock(&other, 7), Ok(false));
        assert_eq!(locked_by_others(&other, 0..100), Ok(Some(7..9)));
        assert_eq!(locked_by_others(&other, 0..7), Ok(None));
        assert_eq!(locked_by_others(&other, 7..7), Ok(None));
        assert_eq!(locked_by_others(&one, 0..100), Ok(None));
        unlock(&one, 7).unwrap();
        assert_eq!(try_lock(&other, 7), Ok(true));
        drop(one);
        assert_eq!(try_lock(&other, 8), Ok(true));
    }

    /// The kernel keeps them by their owners, in the order in which these came.
    #[test]
    fn the_first_is_found_whoever_came_first() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(place.path()).unwrap();
        let (one, other, third) = (open(), open(), open());
        assert_eq!(try_lock(&one, 5), Ok(true));
        assert_eq!(try_lock(&other, 2), Ok(true));
        assert_eq!(locked_by_others(&third, 0..100), Ok(Some(2..3)));
        assert_eq!(locked_by_others(&third, 3..100), Ok(Some(5..6)));
        assert_eq!(locked_by_others(&one, 0..100), Ok(Some(2..3)));
    }
}
