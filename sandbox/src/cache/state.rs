//! The state of files, by which a change is seen without reading them.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat};

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Adds the state of each entry of a directory to a hash, which changes when one of them does.
pub(crate) fn add_states(hasher: &mut blake3::Hasher, directory: &Path) -> io::Result<()> {
    let directory = openat(CWD, directory, DIRECTORY, Mode::empty())?;
    add_directory(hasher, directory.as_fd())
}

/// Adds the entries of a directory in the order of their names, each directory followed by its
/// entries.
fn add_directory(hasher: &mut blake3::Hasher, directory: BorrowedFd<'_>) -> io::Result<()> {
    let mut entries: Vec<(CString, Stat)> = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            let stat = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            entries.push((name, stat));
        }
    }
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    for (name, stat) in &entries {
        hasher.update(name.as_bytes_with_nul());
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        add_state(hasher, stat);
        if is_directory {
            let below = openat(directory, name, DIRECTORY, Mode::empty())?;
            add_directory(hasher, below.as_fd())?;
        }
        // Ends the directory, so that a file cannot pass for one in the directory before it.
        hasher.update(b"/");
    }
    Ok(())
}

/// Adds the state of one file to a hash. A directory's size and times depend on the file system,
/// and change with nothing but its entries.
pub(crate) fn add_state(hasher: &mut blake3::Hasher, stat: &Stat) {
    hasher.update(&stat.st_mode.to_le_bytes());
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        let modified = time(stat.st_mtime.into(), stat.st_mtime_nsec.into());
        let changed = time(stat.st_ctime.into(), stat.st_ctime_nsec.into());
        for number in [stat.st_size.into(), modified, changed] {
            hasher.update(&number.to_le_bytes());
        }
    }
}

fn time(seconds: i128, nanoseconds: i128) -> i128 {
    seconds * 1_000_000_000 + nanoseconds
}
