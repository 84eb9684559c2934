//! Memory of a checkpoint that the launcher holds, so that servers inherit it by fork(2) instead of
//! taking it from the image.
//!
//! The launcher reads the memory once, at addresses where no program has any. Its child, init, and
//! init's child, the server, share the pages. Memory that the server copies must be without a file,
//! see `may_be_given_back` of `memory.rs`: the server moves it to the addresses that it knows, and
//! shares the pages until it writes to them. Contents of shared memory and of files are written
//! from the pages at [`PASSING`](crate::sys::call_list::PASSING): to map these takes as long as to
//! copy them.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::format::{Description, Image};
use super::kernel::bytes;
use super::memory::{Copies, Region, Source};
use super::seal::Fingerprint;
use crate::sys::call_list::{self, Calls, HELD, STORED, StoredLists};
use crate::sys::held_memory::{HeldMemory, with_small_pages};

/// The most bytes of each part that a launcher holds.
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

/// Memory of a checkpoint that a process has inherited.
#[derive(Debug, Default)]
pub(in crate::launch) struct InheritedMemory {
    /// Memory that the first process copies otherwise.
    copies: Option<HeldMemory>,
    /// The pages at [`PASSING`](crate::sys::call_list::PASSING).
    passing: Option<HeldMemory>,
}

impl InheritedMemory {
    fn read(file: &File) -> io::Result<Self> {
        // Where the kernel counts what might be written, each fork would need as much again.
        const STRICT: &str = "2";
        if fs::read_to_string("/proc/sys/vm/overcommit_memory")?.trim() == STRICT {
            return Ok(Self::default());
        }
        let image = Image::read(file)?;
        let Description { inheritance, passing, .. } = &image.description;
        let inheritance = inheritance.as_ref();
        let copies = inheritance.map(|memory| with_small_pages(|| memory.read(&image, file)));
        let passing = passing.filter(|(_, length)| *length <= MOST);
        let passing = passing.map(|(offset, length)| {
            let mut memory = HeldMemory::map(&call_list::passing(length))?;
            memory.ask_for_large_pages();
            file.read_exact_at(&mut memory.bytes_mut()[..length as usize], offset)?;
            io::Result::Ok(memory)
        });
        Ok(Self { copies: copies.transpose()?, passing: passing.transpose()? })
    }

    /// Returns the addresses of the two parts.
    pub(super) fn ranges(&self) -> (Option<Range<u64>>, Option<Range<u64>>) {
        let range = |memory: &Option<HeldMemory>| memory.as_ref().map(HeldMemory::range);
        (range(&self.copies), range(&self.passing))
    }

    fn let_inherit(&mut self, inherit: bool) -> Result<(), Errno> {
        [&mut self.copies, &mut self.passing]
            .into_iter()
            .flatten()
            .try_for_each(|memory| memory.let_inherit(inherit))
    }
}

/// The launch after which memory is read. That takes a millisecond, which each further launch saves
/// in part.
const READ_AFTER: u32 = 2;

/// The memory that a launcher holds, of one checkpoint.
#[derive(Debug, Default)]
pub(in crate::launch) struct Held {
    /// The image of the last server that was resumed, and the number of such launches in a row.
    last: Option<(Fingerprint, u32)>,
    /// The image whose memory is held, and whether the next child inherits that.
    memory: Option<(Fingerprint, InheritedMemory)>,
    is_inherited: bool,
}

impl Held {
    /// Prepares a launch: its init inherits the memory of the checkpoint that it resumes, and no
    /// other.
    pub(in crate::launch) fn prepare(&mut self, checkpoint: Option<&File>) {
        let asked = checkpoint.and_then(|image| Fingerprint::of(image).ok());
        if checkpoint.is_some() {
            let before = self.last.filter(|(last, _)| asked == Some(*last));
            self.last =
                asked.map(|asked| (asked, before.map_or(1, |(_, launches)| launches.saturating_add(1))));
        }
        self.is_inherited = self.memory.as_ref().is_some_and(|(of, _)| asked == Some(*of));
        let inherit = self.is_inherited;
        if self.memory.as_mut().is_some_and(|(_, memory)| memory.let_inherit(inherit).is_err()) {
            (self.memory, self.is_inherited) = (None, false);
        }
    }

    /// Returns the memory that this process, a child of the launcher, has inherited.
    pub(in crate::launch) fn take(&mut self) -> Option<InheritedMemory> {
        self.memory.take_if(|_| self.is_inherited).map(|(_, memory)| memory)
    }

    /// Returns `true` if [`read`](Self::read) pays for the checkpoint of the last launch.
    pub(in crate::launch) fn is_due(&self) -> bool {
        matches!(self.last, Some((_, READ_AFTER))) && !self.is_inherited
    }

    /// Reads the memory of the checkpoint of the last launch. Without it a server takes all from
    /// the image.
    pub(in crate::launch) fn read(&mut self, image: &File) {
        self.memory = None;
        let last = self.last.map(|(last, _)| last);
        self.memory = last.and_then(|last| Some((last, InheritedMemory::read(image).ok()?)));
    }
}
