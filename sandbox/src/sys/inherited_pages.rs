//! Memory that children inherit, so that none of them maps or copies it again.

use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::io::Errno;

use super::call_list::PASSING;
use super::last_errno;
use super::trampoline::map_new;

/// The size of a large page. A child inherits one as fast as a small one.
const LARGE: u64 = 2 << 20;

/// A part of a file in anonymous memory at [`PASSING`].
///
/// A fork copies the value together with the memory that it stands for, if children inherit that
/// at the time.
#[derive(Debug)]
pub(crate) struct InheritedPages {
    /// Offset and length in the file.
    part: (u64, u64),
}

/// Returns the size of the memory for that many bytes.
pub(crate) fn size(length: u64) -> u64 {
    length.next_multiple_of(LARGE)
}

impl InheritedPages {
    /// Reads a part of a file. Children do not inherit the memory yet.
    ///
    /// # Errors
    /// There is other memory at that address, no memory is left, or the file ends early.
    pub(crate) fn read(file: BorrowedFd<'_>, part: (u64, u64)) -> Result<Self, Errno> {
        let (offset, length) = part;
        let place = map_new(PASSING.start, size(length), None)?;
        // From here on the memory is unmapped where something fails.
        let pages = Self { part };
        // Kernels without large pages refuse this.
        let _ = pages.advise(libc::MADV_HUGEPAGE);
        pages.advise(libc::MADV_DONTFORK)?;
        // SAFETY: `map_new` has mapped at least `length` bytes of zeroes there, which nothing else
        // refers to.
        let bytes = unsafe { std::slice::from_raw_parts_mut(place.cast::<u8>(), length as usize) };
        let mut read = 0;
        while read < bytes.len() {
            match rustix::io::pread(file, &mut bytes[read..], offset + read as u64)? {
                0 => return Err(Errno::NODATA),
                more => read += more,
            }
        }
        Ok(pages)
    }

    /// Returns `true` if this is that part of the file.
    pub(crate) fn are(&self, part: (u64, u64)) -> bool {
        self.part == part
    }

    /// Lets children inherit the memory from now on, or not.
    pub(crate) fn let_children_inherit(&self, inherit: bool) -> Result<(), Errno> {
        self.advise(if inherit { libc::MADV_DOFORK } else { libc::MADV_DONTFORK })
    }

    fn advise(&self, advice: libc::c_int) -> Result<(), Errno> {
        // SAFETY: the memory is this value's, and none of the two kinds of advice above changes
        // its contents.
        match unsafe { libc::madvise(Self::place(), self.size(), advice) } {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    }

    fn place() -> *mut libc::c_void {
        ptr::without_provenance_mut(PASSING.start as usize)
    }

    fn size(&self) -> usize {
        size(self.part.1) as usize
    }
}

impl Drop for InheritedPages {
    fn drop(&mut self) {
        // SAFETY: `read` has made this mapping, and the only reference to it ended there. Where a
        // child has not inherited it, there is no other at the address, as nothing else maps there
        // in a process that has this value.
        unsafe { libc::munmap(Self::place(), self.size()) };
    }
}
