//! Memory of a checkpoint that the launcher holds, so that servers inherit it by fork(2) instead of
//! copying it out of the image.
//!
//! Copied memory must be without a file, see `may_be_given_back` of `memory.rs`. The launcher reads
//! it once, at addresses where no program has memory. Its child, init, and init's child, the
//! server, share the pages until they write to them; the server moves them to the addresses that it
//! knows.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::fstat;
use serde::{Deserialize, Serialize};

use super::format::Image;
use super::kernel::bytes;
use super::memory::{Copies, Region, Source};
use crate::sys::call_list::{Calls, HELD, STORED, StoredLists};
use crate::sys::held_memory::{HeldMemory, with_small_pages};

/// The most bytes of pages that a launcher holds.
const MOST: u64 = 64 << 20;

/// Part of an image's description: the memory that a process can inherit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Inheritance {
    /// The address of the first list of a process that inherits.
    pub(super) entry: u64,
    /// The length of the launcher's memory.
    length: u64,
    /// The address in the lists of the place of each run in that memory, with its length.
    runs: u64,
    count: usize,
    /// The offset of the pages of all runs in the image.
    pages: u64,
}

/// The places of regions in the launcher's memory.
#[derive(Debug)]
pub(super) struct Places {
    /// The launcher's address, that of the region, and the length.
    all: Vec<[u64; 3]>,
}

impl Places {
    /// Chooses a place for each region that is copied. `None` if there is no room or no need.
    pub(super) fn choose(regions: &[Region], copies: &Copies) -> Option<Self> {
        // The kernel moves whole page tables if they begin alike.
        const TABLE: u64 = 2 << 20;
        let (mut all, mut end) = (Vec::new(), HELD.start);
        for region in regions.iter().filter(|region| region.source == Source::Copied) {
            let start = end + (region.start % TABLE + TABLE - end % TABLE) % TABLE;
            let length = region.end - region.start;
            end = start.checked_add(length).filter(|end| *end <= HELD.end)?;
            all.push([start, region.start, length]);
        }
        (!all.is_empty() && copies.length() <= MOST).then_some(Self { all })
    }

    /// Adds the calls that move the memory of a region to its address.
    pub(super) fn take(&self, region: &Region, list: &mut Calls) {
        const MOVE: u64 = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
        const WRITABLE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let place = self.all.iter().find(|[_, start, _]| *start == region.start);
        let [held, start, length] = *place.expect("each region that is copied has a place");
        list.call_for(libc::SYS_mremap, &[held, length, length, MOVE, start], start);
        region.advise(list);
        if region.protection != WRITABLE {
            list.call(libc::SYS_mprotect, &[start, length, region.protection]);
        }
    }

    /// Adds the call that unmaps what is left.
    pub(super) fn leave(&self, list: &mut Calls) {
        list.call(libc::SYS_munmap, &[HELD.start, self.length()]);
    }

    fn length(&self) -> u64 {
        self.all.last().map_or(0, |[start, _, length]| start + length - HELD.start)
    }

    /// Describes the memory. `pages` is the offset of the copies in the image.
    pub(super) fn describe(
        &self,
        copies: &Copies,
        pages: u64,
        entry: u64,
        lists: &mut StoredLists,
    ) -> Inheritance {
        let place = |&[at, length]: &[u64; 2]| {
            let is_there = |[_, start, length]: &&[u64; 3]| (*start..start + length).contains(&at);
            let [held, start, _] = self.all.iter().find(is_there).expect("a run is part of a region");
            [held + (at - start) - HELD.start, length]
        };
        let runs: Vec<_> = copies.runs().iter().map(place).collect();
        let (count, runs) = (runs.len(), lists.lay(&bytes(runs.as_flattened())));
        Inheritance { entry, length: self.length(), runs, count, pages }
    }
}

impl Inheritance {
    /// Reads the memory.
    fn read(&self, image: &Image, file: &File) -> io::Result<HeldMemory> {
        let beyond = || io::Error::other("its memory lies beyond its bounds");
        let length = self.length.min(HELD.end - HELD.start);
        let mut memory = HeldMemory::map(&(HELD.start..HELD.start + length))?;
        let mut runs = vec![0; self.count * 16];
        file.read_exact_at(&mut runs, image.lists.0 + self.runs.checked_sub(STORED).ok_or_else(beyond)?)?;
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
        let mut offset = self.pages;
        for run in runs.chunks_exact(16) {
            let (at, length) = (word(&run[..8]), word(&run[8..]));
            let place = at as usize..at.saturating_add(length) as usize;
            file.read_exact_at(memory.bytes_mut().get_mut(place).ok_or_else(beyond)?, offset)?;
            offset += length;
        }
        Ok(memory)
    }
}

/// The memory that a launcher holds, of one checkpoint.
#[derive(Debug, Default)]
pub(in crate::launch) struct Held {
    /// The image of the last server that was resumed.
    last: Option<Identity>,
    /// The image whose memory is held, or could not be.
    of: Option<Identity>,
    memory: Option<HeldMemory>,
}

impl Held {
    /// Prepares a launch: its init inherits the memory of the checkpoint that it resumes, and no
    /// other. The second of two launches in a row with one checkpoint reads its memory.
    pub(in crate::launch) fn prepare(&mut self, checkpoint: Option<&OwnedFd>) {
        let asked = checkpoint.and_then(|image| Identity::of(image).ok());
        if let Some(image) = checkpoint {
            if asked.is_some() && asked == self.last && asked != self.of {
                self.memory = None;
                self.memory = hold(image).ok().flatten();
                self.of = asked;
            }
            self.last = asked;
        }
        let inherits = asked.is_some() && asked == self.of;
        if self.memory.as_mut().is_some_and(|memory| memory.let_inherit(inherits).is_err()) {
            self.memory = None;
        }
    }

    /// Returns the memory that this process, a child of the launcher, has inherited.
    pub(in crate::launch) fn take(&mut self) -> Option<HeldMemory> {
        self.memory.take_if(|memory| memory.is_inherited())
    }
}

fn hold(image: &OwnedFd) -> io::Result<Option<HeldMemory>> {
    // Where the kernel counts what might be written, each fork would need as much again.
    const STRICT: &str = "2";
    if fs::read_to_string("/proc/sys/vm/overcommit_memory")?.trim() == STRICT {
        return Ok(None);
    }
    let file = File::from(image.try_clone()?);
    let image = Image::read(&file)?;
    let Some(inheritance) = &image.description.inheritance else { return Ok(None) };
    with_small_pages(|| inheritance.read(&image, &file)).map(Some)
}

/// The marks of an image, which is never written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: i64,
    changed: (i64, u64),
}

impl Identity {
    fn of(image: &OwnedFd) -> io::Result<Self> {
        let status = fstat(image)?;
        Ok(Self {
            device: status.st_dev,
            inode: status.st_ino,
            size: status.st_size,
            changed: (status.st_ctime, status.st_ctime_nsec),
        })
    }
}
