//! The start of the first process's list: its private memory, which it copies or inherits.

use std::io;

use super::memory::FirstMemory;
use crate::launch::image::format::ImageWriter;
use crate::launch::image::held::{Inheritance, Places};
use crate::launch::image::memory::Source;
use crate::sys::call_list::{Calls, StoredLists};

/// Two lists with one result.
#[derive(Debug)]
pub(super) struct Start {
    copying: Calls,
    inheriting: Option<(Places, Calls)>,
    /// The offset of copied pages in the image.
    pages: u64,
}

impl Start {
    pub(super) fn prepare(
        memory: &FirstMemory,
        image: &mut ImageWriter<'_>,
        lists: &mut StoredLists,
    ) -> io::Result<Self> {
        const SETMASK: u64 = libc::SIG_SETMASK as u64;
        let every_signal = lists.lay(&[0xff; 8]);
        let begin = || {
            let mut list = Calls::default();
            list.call(libc::SYS_rt_sigprocmask, &[SETMASK, every_signal, 0, 8]);
            list
        };
        let mut copying = begin();
        memory.regions.iter().for_each(|region| region.map(&mut copying));
        let pages = memory.copies.make(image, lists, &mut copying)?;
        let inheriting = Places::choose(&memory.regions, &memory.copies).map(|places| {
            let mut list = begin();
            for region in &memory.regions {
                match region.source {
                    Source::Copied => places.take(region, &mut list),
                    _ => region.map(&mut list),
                }
            }
            places.leave(&mut list);
            (places, list)
        });
        Ok(Self { copying, inheriting, pages })
    }

    /// Lets both lists go on with that at `rest`, and returns their addresses.
    pub(super) fn lead_to(
        self,
        rest: u64,
        memory: &FirstMemory,
        lists: &mut StoredLists,
    ) -> (u64, Option<Inheritance>) {
        let lay = |mut list: Calls, lists: &mut StoredLists| {
            list.jump(rest);
            lists.lay_list(&list)
        };
        let entry = lay(self.copying, lists);
        let inheritance = self.inheriting.map(|(places, list)| {
            let entry = lay(list, lists);
            places.describe(&memory.copies, self.pages, entry, lists)
        });
        (entry, inheritance)
    }
}
