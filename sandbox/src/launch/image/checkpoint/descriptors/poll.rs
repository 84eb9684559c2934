//! The entries of an epoll(7).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::launch::image::checkpoint::frozen::Frozen;
use crate::launch::image::refused;
use crate::sys::call_list::{Calls, StoredLists};

/// Descriptor, events and data of each entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Poll(Vec<(u64, u32, u64)>);

impl Poll {
    /// Parses the entries, proc_pid_fdinfo(5).
    pub(super) fn look(process: &Frozen, info: &str) -> io::Result<Self> {
        let unclear = || refused("its epoll is unclear");
        let lines = info.lines().filter(|line| line.starts_with("tfd:"));
        lines
            .map(|line| {
                let words: Vec<_> = line.split([' ', ':']).filter(|word| !word.is_empty()).collect();
                let after = |name: &str, radix| {
                    let at = words.iter().position(|word| *word == name)?;
                    u64::from_str_radix(words.get(at + 1)?, radix).ok()
                };
                let read =
                    || Some((after("tfd", 10)?, after("events", 16)?, after("data", 16)?, after("ino", 16)?));
                let (descriptor, events, data, inode) = read().ok_or_else(unclear)?;
                // The descriptor may have been closed while another process has it open.
                let file = fs::metadata(process.proc.join("fd").join(descriptor.to_string()))?;
                if file.ino() != inode {
                    return Err(unclear());
                }
                Ok((descriptor, events as u32, data))
            })
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Adds the calls that add the entries, whose descriptors exist by now.
    pub(super) fn fill(&self, number: u64, lists: &mut StoredLists, list: &mut Calls) {
        for (descriptor, events, data) in &self.0 {
            // A packed `epoll_event`, epoll_event(3type).
            let event = [&events.to_ne_bytes()[..], &data.to_ne_bytes()[..]].concat();
            let event = lists.lay(&event);
            let add = libc::EPOLL_CTL_ADD as u64;
            list.call(libc::SYS_epoll_ctl, &[number, add, *descriptor, event]);
        }
    }
}
