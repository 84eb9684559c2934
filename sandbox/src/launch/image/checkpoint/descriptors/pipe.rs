//! Pipes, of which a process has both ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::open::Open;
use super::{CLOEXEC, Descriptor, Kind, NONBLOCK};
use crate::launch::image::checkpoint::restless;
use crate::launch::image::format::IMAGE;
use crate::launch::image::refused;
use crate::sys::call_list::{Calls, StoredLists};

/// A descriptor between those of the image, for a moment.
const PASSING: [u64; 2] = [IMAGE + 3, IMAGE + 4];

/// A pipe, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pipe(u64);

impl Pipe {
    /// Recognises an end of an empty pipe, which `path` of /proc opens. `flags` are those of
    /// open(2).
    pub(super) fn look(path: &Path, flags: u64, number: u64) -> io::Result<Self> {
        if is_reader(flags) {
            let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
            if rustix::io::ioctl_fionread(&reader)? != 0 {
                return Err(restless("there is something in one of its pipes"));
            }
        }
        Ok(Self(number))
    }

    /// Adds the calls that make both ends, which are among the descriptors of a process.
    pub(super) fn make(
        self,
        all: &BTreeMap<u64, Descriptor>,
        open: &mut Open,
        lists: &mut StoredLists,
        list: &mut Calls,
    ) -> io::Result<()> {
        let ends: Vec<_> = all.iter().filter(|(_, descriptor)| descriptor.kind == Kind::Pipe(self)).collect();
        let (reader, writer) = match ends[..] {
            [one, other] if is_reader(one.1.flags) && !is_reader(other.1.flags) => (one, other),
            [one, other] if is_reader(other.1.flags) && !is_reader(one.1.flags) => (other, one),
            _ => return Err(refused("it has one end of a pipe")),
        };
        let first = open.lowest();
        open.add(first);
        let second = open.lowest();
        open.remove(first);
        let place = lists.lay(&[0; 8]);
        list.call(libc::SYS_pipe2, &[place, CLOEXEC]);
        for (made, passing) in [first, second].into_iter().zip(PASSING) {
            list.call_for(libc::SYS_dup3, &[made, passing, CLOEXEC], passing);
            list.call(libc::SYS_close, &[made]);
        }
        for (passing, (number, descriptor)) in PASSING.into_iter().zip([reader, writer]) {
            list.call_for(libc::SYS_dup3, &[passing, *number, descriptor.flags & CLOEXEC], *number);
            list.call(libc::SYS_close, &[passing]);
            let flags = descriptor.flags & NONBLOCK;
            list.call(libc::SYS_fcntl, &[*number, libc::F_SETFL as u64, flags]);
            open.add(*number);
        }
        Ok(())
    }
}

fn is_reader(flags: u64) -> bool {
    flags & libc::O_ACCMODE as u64 == libc::O_RDONLY as u64
}
