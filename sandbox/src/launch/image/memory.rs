//! Regions of a process's memory, and the calls that map them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::format::{FIRST_FILE, IMAGE, ImageWriter, MappedFile, PAGE, is_zero};
use super::kernel::{Layout, bytes};
use super::refused;
use crate::machine::maps::Mapping;
use crate::sys::call_list::{Calls, StoredLists};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) end: u64,
    /// PROT_READ and so on, mmap(2).
    pub(super) protection: u64,
    pub(super) source: Source,
    pub(super) advice: Vec<libc::c_int>,
}

/// The source of a region's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// One of the image's files, by its number, from an offset on.
    File {
        file: usize,
        offset: u64,
    },
    /// The same, as memory that processes share. It cannot be written.
    SharedFile {
        file: usize,
        offset: u64,
    },
    /// The image's pages, from an offset on.
    Pages {
        offset: u64,
    },
    Zeroes,
    /// Zeroes, into which [`Copies`] are written.
    Copied,
    /// No memory: addresses that are reserved.
    Reserved,
    /// The stack. The image's pages hold the part from `used` on.
    Stack {
        used: u64,
        offset: u64,
    },
}

impl Region {
    pub(super) fn of(mapping: &Mapping, source: Source) -> Self {
        let Mapping { start, end, .. } = *mapping;
        Self { start, end, protection: protection(mapping), source, advice: advice(mapping) }
    }

    /// Returns `true` if `next` continues this region in memory and in the same file, and neither
    /// is writable.
    fn goes_on_in(&self, next: &Self) -> bool {
        let (Source::File { file, offset }, Source::File { file: of_next, offset: next_offset }) =
            (self.source, next.source)
        else {
            return false;
        };
        let length = self.end - self.start;
        let writable = (self.protection | next.protection) & libc::PROT_WRITE as u64 != 0;
        let is_plain = self.advice.is_empty() && next.advice.is_empty();
        file == of_next && self.end == next.start && offset + length == next_offset && !writable && is_plain
    }

    /// Adds the calls that map the region.
    pub(super) fn map(&self, list: &mut Calls) {
        let private = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
        let anonymous = private | libc::MAP_ANONYMOUS as u64;
        const NONE: u64 = u64::MAX;
        let (flags, file, offset) = match self.source {
            Source::File { file, offset } => (private, FIRST_FILE + file as u64, offset),
            Source::SharedFile { file, offset } => {
                ((libc::MAP_SHARED | libc::MAP_FIXED) as u64, FIRST_FILE + file as u64, offset)
            }
            Source::Pages { offset } => (private, IMAGE, offset),
            Source::Zeroes | Source::Copied => (anonymous, NONE, 0),
            Source::Reserved => (anonymous | libc::MAP_NORESERVE as u64, NONE, 0),
            Source::Stack { .. } => (anonymous | (libc::MAP_GROWSDOWN | libc::MAP_STACK) as u64, NONE, 0),
        };
        let length = self.end - self.start;
        let protection = match self.source {
            Source::Copied => self.protection | WRITABLE,
            _ => self.protection,
        };
        let arguments = [self.start, length, protection, flags, file, offset];
        list.call_for(libc::SYS_mmap, &arguments, self.start);
        self.advise(list);
        if let Source::Stack { used, offset } = self.source {
            let (into, length) = (self.start + used, length - used);
            list.call_for(libc::SYS_pread64, &[IMAGE, into, length, offset], length);
        }
    }

    /// Adds the calls that give the kernel the advice that it had.
    pub(super) fn advise(&self, list: &mut Calls) {
        let length = self.end - self.start;
        for advice in &self.advice {
            list.call(libc::SYS_madvise, &[self.start, length, advice.unsigned_abs().into()]);
        }
    }
}

const WRITABLE: u64 = libc::PROT_WRITE as u64;

/// Returns `true` for memory that a program may give back by `MADV_DONTNEED` and use again. It must
/// then find zeroes, on which allocators rely, and not the pages of an image: so these are copied.
/// The heap is given back by brk(2), and data not at all.
pub(super) fn may_be_given_back(mapping: &Mapping, previous: Option<&Mapping>, layout: &Layout) -> bool {
    // The data of a library without bytes in its file follows that with some.
    let follows_data = previous
        .is_some_and(|previous| previous.end == mapping.start && previous.inode != 0 && previous.may('w'));
    mapping.inode == 0 && mapping.name.is_empty() && !follows_data && !layout.has_data_at(&mapping.range())
}

/// Pages that are copied into memory instead of being mapped. Those of zeroes are left out.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// Address and length of each run.
    runs: Vec<[u64; 2]>,
    bytes: Vec<u8>,
    /// Memory that cannot be written afterwards: address, length and protection.
    protected: Vec<[u64; 3]>,
}

impl Copies {
    /// Adds the bytes of a mapping.
    pub(super) fn add(&mut self, mapping: &Mapping, bytes: &[u8]) -> Source {
        for (page, number) in bytes.chunks(PAGE as usize).zip(0..) {
            if is_zero(page) {
                continue;
            }
            let (at, length) = (mapping.start + number * PAGE, page.len() as u64);
            match self.runs.last_mut() {
                Some([start, so_far]) if *start + *so_far == at => *so_far += length,
                _ => self.runs.push([at, length]),
            }
            self.bytes.extend_from_slice(page);
        }
        if !mapping.may('w') {
            self.protected.push([mapping.start, mapping.end - mapping.start, protection(mapping)]);
        }
        Source::Copied
    }

    /// Address and length of each run.
    pub(super) fn runs(&self) -> &[[u64; 2]] {
        &self.runs
    }

    /// The number of bytes.
    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Adds the calls that copy everything into memory that is mapped, and returns the offset of
    /// the pages in the image.
    pub(super) fn make(
        &self,
        image: &mut ImageWriter<'_>,
        lists: &mut StoredLists,
        list: &mut Calls,
    ) -> io::Result<u64> {
        // IOV_MAX of linux/uio.h.
        const AT_A_TIME: usize = 1024;
        let pages = image.add_pages(&self.bytes)?;
        if self.runs.is_empty() {
            return Ok(pages);
        }
        // For a few pages of each, no larger one is cleared.
        list.call(libc::SYS_prctl, &[libc::PR_SET_THP_DISABLE as u64, 1]);
        let mut offset = pages;
        for runs in self.runs.chunks(AT_A_TIME) {
            let length = runs.iter().map(|[_, length]| length).sum();
            let vector = lists.lay(&bytes(runs.as_flattened()));
            let arguments = [IMAGE, vector, runs.len() as u64, offset, 0];
            list.call_for(libc::SYS_preadv, &arguments, length);
            offset += length;
        }
        list.call(libc::SYS_prctl, &[libc::PR_SET_THP_DISABLE as u64, 0]);
        for protected in &self.protected {
            list.call(libc::SYS_mprotect, protected);
        }
        Ok(pages)
    }
}

/// Properties of memory with the advice that gives them, madvise(2): no part of core files; no
/// large pages, as the kernel advises for stacks.
const ADVICE: [(&str, libc::c_int); 2] = [("dd", libc::MADV_DONTDUMP), ("nh", libc::MADV_NOHUGEPAGE)];

/// Returns what the kernel has been advised about memory.
fn advice(mapping: &Mapping) -> Vec<libc::c_int> {
    let is_set = |flag: &str| mapping.flags.iter().any(|found| found == flag);
    // A stack is mapped as one.
    let all = if mapping.name == STACK { &[][..] } else { &ADVICE };
    all.iter().filter(|(flag, _)| is_set(flag)).map(|&(_, advice)| advice).collect()
}

/// The name of the first thread's stack.
const STACK: &str = "[stack]";

/// Joins a library's instructions with the adjacent constants of its file: a process then makes,
/// copies at fork(2) and unmaps 150 mappings instead of 230. Constants become executable by that,
/// as linkers made them for decades; writable memory does not.
pub(super) fn merge(regions: Vec<Region>) -> Vec<Region> {
    let mut merged: Vec<Region> = Vec::with_capacity(regions.len());
    for next in regions {
        match merged.last_mut() {
            Some(last) if last.goes_on_in(&next) => {
                last.end = next.end;
                last.protection |= next.protection;
            }
            _ => merged.push(next),
        }
    }
    merged
}

pub(super) fn protection(mapping: &Mapping) -> u64 {
    let parts = [('r', libc::PROT_READ), ('w', libc::PROT_WRITE), ('x', libc::PROT_EXEC)];
    parts.into_iter().filter(|&(what, _)| mapping.may(what)).map(|(_, flag)| flag as u64).sum()
}

/// Refuses memory with properties that a restore does not reproduce.
pub(super) fn check_mapping(mapping: &Mapping) -> io::Result<()> {
    // Permissions now and by mprotect(2); growing, accounted, not mergeable, soft-dirty.
    // proc_pid_smaps(5)
    const PLAIN: [&str; 11] = ["rd", "wr", "ex", "mr", "mw", "me", "gd", "ac", "sd", "nr", "dw"];
    const SHARED: [&str; 2] = ["sh", "ms"];
    let is_shared = mapping.permissions.ends_with('s');
    let known = |flag: &str| {
        PLAIN.contains(&flag)
            || is_shared && SHARED.contains(&flag)
            || !is_shared && ADVICE.iter().any(|(advised, _)| *advised == flag)
    };
    if mapping.flags.iter().any(|flag| !known(flag)) {
        return Err(special(mapping));
    }
    Ok(())
}

/// The refusal of memory for its properties.
pub(super) fn special(mapping: &Mapping) -> io::Error {
    refused(&format!(
        "it has memory with special properties ({} {})",
        mapping.permissions,
        mapping.flags.join(" ")
    ))
}

/// The files of an image, without duplicates. They are looked up below the root of the program.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    pub(super) all: Vec<MappedFile>,
    numbers: BTreeMap<String, usize>,
}

impl Files {
    pub(super) fn below(root: &Path) -> Self {
        Self { root: root.to_owned(), all: Vec::new(), numbers: BTreeMap::new() }
    }

    pub(super) fn number(&mut self, path: &str) -> io::Result<usize> {
        if let Some(&number) = self.numbers.get(path) {
            return Ok(number);
        }
        let below = self.root.join(path.trim_start_matches('/'));
        self.all.push(MappedFile::of(PathBuf::from(path), &below)?);
        self.numbers.insert(path.to_owned(), self.all.len() - 1);
        Ok(self.all.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::image::format::PAGE;

    #[test]
    fn memory_with_special_properties_is_refused() {
        let mapping = |permissions: &str, flags: &str| {
            let text = format!("1000-2000 {permissions} 00000000 00:00 0\nVmFlags: {flags}\n");
            Mapping::parse_all(&text).remove(0)
        };
        assert!(check_mapping(&mapping("rw-p", "rd wr mr mw me ac sd")).is_ok());
        assert!(check_mapping(&mapping("rw-s", "rd wr sh mr mw me ms sd")).is_ok());
        for (permissions, flags) in [
            ("rw-p", "rd wr sh mr mw me ms sd"),
            // Excluded from a fork, cleared in a fork, locked.
            ("rw-p", "rd wr mr mw me dc ac"),
            ("rw-p", "rd wr mr mw me wf ac"),
            ("rw-p", "rd wr mr mw me lo ac"),
        ] {
            assert!(check_mapping(&mapping(permissions, flags)).is_err(), "{permissions} {flags}");
        }
    }

    #[test]
    fn a_librarys_constants_and_instructions_become_one_region() {
        let (read, write, execute) =
            (libc::PROT_READ as u64, libc::PROT_WRITE as u64, libc::PROT_EXEC as u64);
        let region = |page: u64, protection, source| Region {
            start: page * PAGE,
            end: (page + 1) * PAGE,
            protection,
            source,
            advice: Vec::new(),
        };
        let file = |file, page: u64| Source::File { file, offset: page * PAGE };
        let pages = Source::Pages { offset: 0 };
        let all = vec![
            region(0, read, file(0, 0)),
            region(1, read | execute, file(0, 1)),
            region(2, read, file(0, 2)),
            region(3, read, pages),
            region(4, read | write, pages),
            region(5, read, file(1, 0)),
            // The first is not adjacent in the file, the second not in memory.
            region(6, read | execute, file(1, 2)),
            region(8, read, file(1, 3)),
            // Constants without instructions stay as they are, but for their number.
            region(10, read, file(2, 0)),
            region(11, read, file(2, 1)),
        ];
        let found: Vec<_> = merge(all)
            .iter()
            .map(|region| (region.start / PAGE, region.end / PAGE, region.protection))
            .collect();
        let expected = [
            (0, 3, read | execute),
            (3, 4, read),
            (4, 5, read | write),
            (5, 6, read),
            (6, 7, read | execute),
            (8, 9, read),
            (10, 12, read),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn protections_are_read_from_permissions() {
        let mapping =
            |permissions: &str| Mapping::parse_all(&format!("1000-2000 {permissions} 0 00:00 0\n")).remove(0);
        let (read, write, execute) =
            (libc::PROT_READ as u64, libc::PROT_WRITE as u64, libc::PROT_EXEC as u64);
        for (permissions, expected) in
            [("---p", 0), ("r--p", read), ("rw-p", read | write), ("r-xp", read | execute)]
        {
            assert_eq!(protection(&mapping(permissions)), expected, "{permissions}");
        }
    }
}
