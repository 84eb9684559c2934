//! Memory at a chosen address that the children of a process inherit, or not.

use std::ops::Range;
use std::ptr::{self, NonNull};

use rustix::io::Errno;

use super::last_errno;

/// Private memory, which is unmapped when this is dropped.
#[derive(Debug)]
pub(crate) struct HeldMemory {
    place: NonNull<u8>,
    length: usize,
    /// `true` if a child that is made now inherits the memory.
    is_inherited: bool,
}

impl HeldMemory {
    /// Maps zeroes at an address where there is nothing.
    pub(crate) fn map(range: &Range<u64>) -> Result<Self, Errno> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(|_| Errno::INVAL)?;
        // SAFETY: a new private mapping at an address where there is none (MAP_FIXED_NOREPLACE)
        // touches nothing else.
        let place = unsafe {
            libc::mmap(
                ptr::without_provenance_mut(range.start as usize),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        if place == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let place = NonNull::new(place.cast()).ok_or(Errno::INVAL)?;
        let memory = Self { place, length, is_inherited: true };
        // Kernels before 4.17 take the address as a wish.
        if memory.range() == *range { Ok(memory) } else { Err(Errno::EXIST) }
    }

    /// Asks for large pages, which a child inherits as fast as small ones.
    pub(crate) fn ask_for_large_pages(&self) {
        // SAFETY: the advice is for a mapping of `self`, whose contents it does not change. Kernels
        // without large pages refuse it.
        unsafe { libc::madvise(self.place.as_ptr().cast(), self.length, libc::MADV_HUGEPAGE) };
    }

    pub(crate) fn range(&self) -> Range<u64> {
        let start = self.place.addr().get() as u64;
        start..start + self.length as u64
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable and writable until `self` is dropped, begins as zeroes,
        // and is reached through this slice only, which borrows `self`.
        unsafe { std::slice::from_raw_parts_mut(self.place.as_ptr(), self.length) }
    }

    /// Lets children inherit the memory from now on, or not.
    pub(crate) fn let_inherit(&mut self, inherit: bool) -> Result<(), Errno> {
        if self.is_inherited != inherit {
            let advice = if inherit { libc::MADV_DOFORK } else { libc::MADV_DONTFORK };
            // SAFETY: the advice is for a mapping of `self`, and changes what a child has, not what
            // this process has.
            if unsafe { libc::madvise(self.place.as_ptr().cast(), self.length, advice) } == -1 {
                return Err(last_errno());
            }
            self.is_inherited = inherit;
        }
        Ok(())
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to `self`, which every slice of it has borrowed.
        unsafe { libc::munmap(self.place.as_ptr().cast(), self.length) };
    }
}

/// Runs `work` in a process whose memory gets no large pages meanwhile.
pub(crate) fn with_small_pages<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: both options take numbers, and change the choice of pages, not their contents.
    let had_large = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) } == 0;
    if !had_large {
        return work();
    }
    // SAFETY: as above.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    let done = work();
    // SAFETY: as above.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0) };
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_memory_has_its_place_for_itself() {
        const PLACE: Range<u64> = 0xbf_0000_0000..0xbf_0000_2000;
        let mut memory = HeldMemory::map(&PLACE).unwrap();
        assert!(memory.bytes_mut().iter().all(|&byte| byte == 0));
        memory.bytes_mut()[4097] = 7;
        assert_eq!(HeldMemory::map(&PLACE).unwrap_err(), Errno::EXIST);
        memory.let_inherit(false).unwrap();
        assert!(!memory.is_inherited);
        memory.let_inherit(true).unwrap();
        assert_eq!((memory.bytes_mut()[4097], memory.range()), (7, PLACE));
        drop(memory);
        let mut again = with_small_pages(|| HeldMemory::map(&PLACE)).unwrap();
        assert_eq!(again.bytes_mut()[4097], 0);
    }
}
