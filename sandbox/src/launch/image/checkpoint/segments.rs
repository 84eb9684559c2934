//! Shared memory without a name, and segments of System V.

use std::io;

use super::frozen::{Frozen, Room};
use super::memory::pages;
use super::runs::Runs;
use crate::launch::image::format::{IMAGE, ImageWriter, PAGE, SHARED_MEMORY, is_zero};
use crate::launch::image::refused;
use crate::machine::maps::Mapping;
use crate::sys::call_list::{Calls, StoredLists};

/// Memory without a name, by its pages that are not zero.
#[derive(Debug)]
pub(super) struct SharedMemory {
    runs: Runs,
}

impl SharedMemory {
    pub(super) fn look(process: &Frozen, mapping: &Mapping) -> io::Result<Self> {
        let mut runs = Runs::default();
        // Reading a page that no process has touched would make it.
        for number in present(process, mapping)? {
            let start = mapping.start + number * PAGE;
            let page = process.read(start, start + PAGE)?;
            if !is_zero(&page) {
                runs.add(number * PAGE, &page);
            }
        }
        Ok(Self { runs })
    }

    /// Adds the calls that make and map the memory, and its pages to those at [`PASSING`]. The new
    /// descriptor gets the number `free`, and is closed again.
    pub(super) fn make(
        &self,
        region: (&Mapping, u64),
        free: u64,
        passing: &mut Vec<u8>,
        lists: &mut StoredLists,
        list: &mut Calls,
    ) {
        let (mapping, protection) = region;
        // A file of a tmpfs, unlike memfd_create(2), has folios as large as what is written.
        const FLAGS: u64 = (libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC) as u64;
        let here = lists.lay(b".\0");
        list.call_for(libc::SYS_openat, &[SHARED_MEMORY, here, FLAGS, 0o600], free);
        self.runs.write(free, passing, list);
        let length = mapping.end - mapping.start;
        list.call(libc::SYS_ftruncate, &[free, length]);
        map_shared(mapping, protection, free, list);
        // Pages that are still missing appear one by one. Kernels without large pages refuse that.
        list.attempt(libc::SYS_madvise, &[mapping.start, length, libc::MADV_NOHUGEPAGE as u64]);
        list.call(libc::SYS_close, &[free]);
    }
}

/// Maps a descriptor as shared memory.
pub(super) fn map_shared(mapping: &Mapping, protection: u64, descriptor: u64, list: &mut Calls) {
    let flags = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;
    let length = mapping.end - mapping.start;
    let arguments = [mapping.start, length, protection, flags, descriptor, 0];
    list.call_for(libc::SYS_mmap, &arguments, mapping.start);
}

/// The numbers of the pages that are in memory, whichever process has touched them, mincore(2).
fn present(process: &Frozen, mapping: &Mapping) -> io::Result<Vec<u64>> {
    const AT_A_TIME: u64 = 4 * PAGE;
    let (all, mut found) = (pages(mapping), Vec::new());
    for first in (0..all).step_by(AT_A_TIME as usize) {
        let count = AT_A_TIME.min(all - first);
        let Room(room) = process.room();
        process.call(libc::SYS_mincore, &[mapping.start + first * PAGE, count * PAGE, room])?;
        let flags = process.read(room, room + count)?;
        let here = flags.iter().zip(first..).filter(|(flag, _)| *flag & 1 == 1);
        found.extend(here.map(|(_, number)| number));
    }
    Ok(found)
}

/// A segment of System V shared memory.
#[derive(Debug)]
pub(super) struct Segment {
    id: u64,
    key: u64,
    size: u64,
    mode: u64,
    contents: Vec<u8>,
}

impl Segment {
    /// `key` is the rest of the mapping's name. The mapping's inode is the segment's id.
    pub(super) fn look(process: &Frozen, mapping: &Mapping, key: &str) -> io::Result<Self> {
        let unknown = || refused("its System V shared memory is not understood");
        let key = key.get(..8).and_then(|key| u64::from_str_radix(key, 16).ok()).ok_or_else(unknown)?;
        let Room(room) = process.room();
        const STAT: u64 = libc::IPC_STAT as u64;
        process.call(libc::SYS_shmctl, &[mapping.inode, STAT, room])?;
        // `shmid64_ds` of linux/shm.h: the mode at byte 20, the size at byte 48.
        let bytes = process.read(room, room + 56)?;
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let (mode, size) = (word(20) & 0o777, word(48));
        const MOST: u64 = 1 << 20;
        if key == 0 || size > MOST || size.next_multiple_of(PAGE) != mapping.end - mapping.start {
            return Err(unknown());
        }
        let contents = process.read(mapping.start, mapping.start + size)?;
        Ok(Self { id: mapping.inode, key, size, mode, contents })
    }

    pub(super) fn make(
        &self,
        mapping: &Mapping,
        image: &mut ImageWriter<'_>,
        list: &mut Calls,
    ) -> io::Result<()> {
        let flags = self.mode | (libc::IPC_CREAT | libc::IPC_EXCL) as u64;
        list.call_for(libc::SYS_shmget, &[self.key, self.size, flags], self.id);
        list.call_for(libc::SYS_shmat, &[self.id, mapping.start, 0], mapping.start);
        let offset = image.add_pages(&self.contents)?;
        list.call_for(libc::SYS_pread64, &[IMAGE, mapping.start, self.size, offset], self.size);
        Ok(())
    }
}

/// Refuses a namespace with objects of System V beside `segments` segments of shared memory.
pub(super) fn check_namespace(process: &Frozen, segments: usize) -> io::Result<()> {
    const SHM_INFO: u64 = 14;
    const SEM_INFO: u64 = 19;
    const MSG_INFO: u64 = 12;
    let Room(room) = process.room();
    // The number of sets is the eighth number of a `seminfo`, that of queues the first of a
    // `msginfo`, and that of segments the first of a `shm_info`.
    let count = |at: u64| -> io::Result<u32> {
        let bytes = process.read(room + at, room + at + 4)?;
        Ok(u32::from_ne_bytes(bytes.try_into().expect("4 bytes")))
    };
    process.call(libc::SYS_shmctl, &[0, SHM_INFO, room])?;
    let found = count(0)?;
    process.call(libc::SYS_semctl, &[0, 0, SEM_INFO, room])?;
    let sets = count(4 * 7)?;
    process.call(libc::SYS_msgctl, &[0, MSG_INFO, room])?;
    let queues = count(0)?;
    if (found as usize, sets, queues) != (segments, 0, 0) {
        return Err(refused(&format!(
            "it has System V objects that are not understood: {found} segments, {sets} sets, {queues} queues"
        )));
    }
    Ok(())
}
