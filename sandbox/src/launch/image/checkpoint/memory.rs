//! The memory of a tree of processes: all of the first one's, and how each child differs from it.

use std::io;
use std::ops::Range;

use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};

use super::frozen::Frozen;
use super::restless;
use super::segments::{Segment, SharedMemory};
use crate::launch::image::format::{ImageWriter, PAGE};
use crate::launch::image::kernel::{Layout, page_of};
use crate::launch::image::memory::{
    Copies, Files, Region, Source, check_mapping, may_be_given_back, merge, special,
};
use crate::launch::image::refused;
use crate::machine::maps::Mapping;
use crate::sys::call_list::{Calls, HELD, PASSING, RANGE, StoredLists};

/// The most private memory of a process, in bytes.
const MOST: u64 = 512 << 20;

/// The memory of the first process.
#[derive(Debug)]
pub(super) struct FirstMemory {
    pub(super) regions: Vec<Region>,
    pub(super) copies: Copies,
    /// The kernel's own mappings.
    pub(super) system: Vec<(String, u64, u64)>,
    pub(super) shared: Vec<(Mapping, Shared)>,
    /// Private mappings with their contents; none for those that are as in their files.
    private: Vec<(Mapping, Option<Vec<u8>>)>,
}

/// Memory that processes share.
#[derive(Debug)]
pub(super) enum Shared {
    /// Memory without a name.
    Anonymous(SharedMemory),
    /// A file of the sandbox, by its path.
    Named(String),
    /// A segment of System V.
    Segment(Segment),
}

impl FirstMemory {
    pub(super) fn look(
        stopped: &Stopped<'_>,
        files: &mut Files,
        image: &mut ImageWriter<'_>,
    ) -> io::Result<Self> {
        let mut memory = Self {
            regions: Vec::new(),
            copies: Copies::default(),
            system: Vec::new(),
            shared: Vec::new(),
            private: Vec::new(),
        };
        let process = stopped.process;
        for (mapping, before) in stopped.mappings() {
            if mapping.name == "[vsyscall]" {
                continue;
            }
            if mapping.is_system() {
                memory.system.push((mapping.name.clone(), mapping.start, mapping.end));
                continue;
            }
            check(mapping)?;
            let offset = mapping.offset;
            if mapping.permissions.ends_with('s') {
                match Self::shared(process, mapping)? {
                    Some(shared) => memory.shared.push((mapping.clone(), shared)),
                    None => {
                        let file = files.number(&mapping.name)?;
                        memory.regions.push(Region::of(mapping, Source::SharedFile { file, offset }));
                    }
                }
                continue;
            }
            let (source, contents) = if mapping.inode != 0
                && mapping.written == 0
                && is_of_programs(process, &mapping.name)
            {
                (Source::File { file: files.number(&mapping.name)?, offset }, None)
            } else if mapping.may('x') {
                return Err(refused("it has made instructions"));
            } else if mapping.inode == 0 && mapping.written == 0 {
                (if mapping.permissions.starts_with("---") { Source::Reserved } else { Source::Zeroes }, None)
            } else {
                let contents = stopped.contents(mapping)?;
                (stopped.add((mapping, before), &contents, image, &mut memory.copies)?, Some(contents))
            };
            memory.regions.push(Region::of(mapping, source));
            memory.private.push((mapping.clone(), contents));
        }
        memory.regions = merge(memory.regions);
        Ok(memory)
    }

    /// Recognises shared memory; `None` for a file of the programs.
    fn shared(process: &Frozen, mapping: &Mapping) -> io::Result<Option<Shared>> {
        let is_read_only = !mapping.may('w') && !mapping.flags.iter().any(|flag| flag == "mw");
        if mapping.name.starts_with("/usr/") && is_read_only {
            return Ok(None);
        }
        if mapping.offset != 0 {
            return Err(special(mapping));
        }
        Ok(Some(if mapping.name == "/dev/zero (deleted)" || mapping.name.starts_with("/memfd:") {
            Shared::Anonymous(SharedMemory::look(process, mapping)?)
        } else if let Some(key) = mapping.name.strip_prefix("/SYSV") {
            Shared::Segment(Segment::look(process, mapping, key)?)
        } else if mapping.name.starts_with("/dev/shm/") && !mapping.name.ends_with(" (deleted)") {
            Shared::Named(mapping.name.clone())
        } else {
            return Err(special(mapping));
        }))
    }

    /// Adds the calls that turn a copy of this memory into that of a child.
    pub(super) fn turn_into(
        &self,
        stopped: &Stopped<'_>,
        image: &mut ImageWriter<'_>,
        lists: &mut StoredLists,
        list: &mut Calls,
    ) -> io::Result<()> {
        let child = stopped.process;
        let (mut regions, mut copies) = (Vec::new(), Copies::default());
        for (mapping, before) in stopped.mappings() {
            if mapping.is_system() || mapping.name == "[vsyscall]" {
                continue;
            }
            check(mapping)?;
            if mapping.permissions.ends_with('s') {
                let of_first = self.shared.iter().any(|(first, _)| is_same(first, mapping))
                    || self.regions.iter().any(|region| {
                        matches!(region.source, Source::SharedFile { .. })
                            && region.start <= mapping.start
                            && region.end >= mapping.end
                    });
                if !of_first {
                    return Err(refused("one of its processes has separate shared memory"));
                }
                continue;
            }
            let first = self.private.iter().find(|(first, _)| is_same(first, mapping));
            let is_empty = mapping.inode == 0 && mapping.written == 0;
            let is_file = mapping.inode != 0 && mapping.written == 0 && is_of_programs(child, &mapping.name);
            if (is_file || is_empty) && matches!(first, Some((of, None)) if of.written == 0) {
                continue;
            }
            if mapping.may('x') {
                return Err(refused("one of its processes has loaded further instructions"));
            }
            let source = if is_empty {
                if mapping.permissions.starts_with("---") { Source::Reserved } else { Source::Zeroes }
            } else {
                let contents = stopped.contents(mapping)?;
                if first.is_some_and(|(_, of_first)| of_first.as_ref() == Some(&contents)) {
                    continue;
                }
                stopped.add((mapping, before), &contents, image, &mut copies)?
            };
            regions.push(Region::of(mapping, source));
        }
        regions.iter().for_each(|region| region.map(list));
        copies.make(image, lists, list)?;
        // Last, and never memory that is mapped again: the kernel may write to a thread's data at
        // any time.
        let firsts = self.private.iter().map(|(mapping, _)| mapping);
        for mapping in firsts.chain(self.shared.iter().map(|(mapping, _)| mapping)) {
            for gone in without(mapping.range(), &child.mappings) {
                list.call(libc::SYS_munmap, &[gone.start, gone.end - gone.start]);
            }
        }
        Ok(())
    }
}

fn check(mapping: &Mapping) -> io::Result<()> {
    check_mapping(mapping)?;
    if mapping.swapped != 0 {
        return Err(restless("a part of its memory is swapped out"));
    }
    let overlaps = |range: &Range<u64>| mapping.start < range.end && range.start < mapping.end;
    if overlaps(&RANGE) || overlaps(&PASSING) || overlaps(&HELD) {
        return Err(refused("its memory lies where a restore needs room"));
    }
    Ok(())
}

fn is_same(one: &Mapping, other: &Mapping) -> bool {
    one.range() == other.range()
        && one.permissions == other.permissions
        && one.inode == other.inode
        && one.offset == other.offset
}

/// Returns `true` if a path leads to a file of the programs: those cannot be written, and every
/// sandbox shows them.
fn is_of_programs(process: &Frozen, path: &str) -> bool {
    let below = process.proc.join("root").join(path.trim_start_matches('/'));
    let is_read_only = |mount: StatVfs| mount.f_flag.contains(StatVfsMountFlags::RDONLY);
    path.starts_with('/') && below.is_file() && statvfs(&below).is_ok_and(is_read_only)
}

/// A stopped process whose memory is looked at.
pub(super) struct Stopped<'a> {
    pub(super) process: &'a Frozen,
    pub(super) layout: Layout,
    /// The lowest address of the first thread's stack that is in use.
    pub(super) stack: u64,
}

impl<'a> Stopped<'a> {
    /// Returns each mapping with the one before it.
    fn mappings(&self) -> impl Iterator<Item = (&'a Mapping, Option<&'a Mapping>)> {
        let mappings = &self.process.mappings;
        let before = [None].into_iter().chain(mappings.iter().map(Some));
        mappings.iter().zip(before)
    }

    /// Reads the contents of a mapping; of a stack only the part in use.
    fn contents(&self, mapping: &Mapping) -> io::Result<Vec<u8>> {
        if mapping.end - mapping.start > MOST {
            return Err(refused("it has too much memory"));
        }
        match mapping.inode {
            0 => self.process.read_touched(self.begin(mapping), mapping.end),
            _ => self.process.read(mapping.start, mapping.end),
        }
    }

    fn begin(&self, mapping: &Mapping) -> u64 {
        match mapping.name.as_str() {
            "[stack]" => page_of(self.stack).max(mapping.start),
            _ => mapping.start,
        }
    }

    /// Adds contents of a mapping to an image, and returns how they are mapped.
    fn add(
        &self,
        (mapping, before): (&Mapping, Option<&Mapping>),
        contents: &[u8],
        image: &mut ImageWriter<'_>,
        copies: &mut Copies,
    ) -> io::Result<Source> {
        if mapping.name == "[stack]" {
            let used = self.begin(mapping) - mapping.start;
            return Ok(Source::Stack { used, offset: image.add_pages(contents)? });
        }
        // Where there are threads, the kernel has joined more of what it mapped side by side.
        let before = before.filter(|_| self.process.others.is_empty());
        match may_be_given_back(mapping, before, &self.layout) {
            true => Ok(copies.add(mapping, contents)),
            false => Ok(Source::Pages { offset: image.add_pages(contents)? }),
        }
    }
}

/// The parts of a range that no mapping covers.
fn without(range: Range<u64>, mappings: &[Mapping]) -> Vec<Range<u64>> {
    let (mut left, mut from) = (Vec::new(), range.start);
    // They are in ascending order.
    for mapping in mappings.iter().filter(|mapping| mapping.end > range.start && mapping.start < range.end) {
        if mapping.start > from {
            left.push(from..mapping.start);
        }
        from = from.max(mapping.end);
    }
    if from < range.end {
        left.push(from..range.end);
    }
    left
}

/// The number of whole pages.
pub(super) fn pages(mapping: &Mapping) -> u64 {
    (mapping.end - mapping.start) / PAGE
}
