//! Contents of a large file that a server has open for writing. They are written without their
//! zeroes: for a plain open(2), overlayfs would copy the file in pieces of 1 MB.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::launch::image::checkpoint::runs::Runs;
use crate::sys::call_list::{Calls, StoredLists};

/// The size from which on a file is written: smaller ones are copied as fast.
const FROM: u64 = 64 << 10;
/// The most bytes of a file, and the most of them that are not zero.
const MOST: u64 = 64 << 20;
const MOST_WRITTEN: u64 = 16 << 20;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    size: u64,
    /// Seconds and nanoseconds of the time of the last change.
    modified: [i64; 2],
    runs: Runs,
}

impl Contents {
    /// Reads the file; `None` for one that is opened as it is.
    pub(super) fn look(file: &Path, metadata: &Metadata, flags: u64) -> io::Result<Option<Self>> {
        let is_set = |flag: libc::c_int| flags & u64::from(flag.unsigned_abs()) != 0;
        let is_plain = is_set(libc::O_RDWR | libc::O_WRONLY) && !is_set(libc::O_APPEND | libc::O_DIRECT);
        if !metadata.is_file() || !is_plain || !(FROM + 1..=MOST).contains(&metadata.len()) {
            return Ok(None);
        }
        let runs = Runs::of(&fs::read(file)?);
        let modified = [metadata.mtime(), metadata.mtime_nsec()];
        Ok((runs.length() <= MOST_WRITTEN).then_some(Self { size: metadata.len(), modified, runs }))
    }

    /// Adds the calls that write the contents to a descriptor, whose file is empty.
    pub(super) fn write(
        &self,
        descriptor: u64,
        passing: &mut Vec<u8>,
        lists: &mut StoredLists,
        list: &mut Calls,
    ) {
        self.runs.write(descriptor, passing, list);
        list.call(libc::SYS_ftruncate, &[descriptor, self.size]);
        let unchanged = [0, libc::UTIME_OMIT];
        let times = [unchanged, self.modified].concat();
        let times = lists.lay(&times.into_iter().flat_map(i64::to_ne_bytes).collect::<Vec<_>>());
        list.call(libc::SYS_utimensat, &[descriptor, 0, times, 0]);
    }
}
