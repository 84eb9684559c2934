//! Lists of system calls by which a process becomes another one, and the addresses that they have.
//! `trampoline.rs` carries them out.

use std::ops::Range;
use std::os::fd::RawFd;

use rustix::io::Errno;

/// The address of the instructions and their lists: low, away from every address that the kernel or
/// a linker chooses.
pub(super) const PLACE: u64 = 0x2_0000_0000;
pub(super) const PAGE: u64 = 4096;
/// Room for the list that a process makes for itself.
pub(super) const OWN: u64 = 64 << 10;
/// The address of lists that come from a file, and the room for them.
pub(crate) const STORED: u64 = PLACE + PAGE + OWN;
pub(super) const ROOM: u64 = 4 << 20;
/// A place for mappings that a list makes for a moment, of up to 500 GB.
pub(crate) const PASSING: Range<u64> = 0x4_0000_0000..0x80_0000_0000;
/// A place for memory of a program that the launcher holds, below the heap of Go.
pub(crate) const HELD: Range<u64> = PASSING.end..0xc0_0000_0000;

/// Returns the addresses for that many bytes at [`PASSING`], whole large pages.
pub(crate) fn passing(length: u64) -> Range<u64> {
    const LARGE: u64 = 2 << 20;
    PASSING.start..PASSING.start + length.next_multiple_of(LARGE)
}

/// The addresses that lists need.
pub(crate) const RANGE: Range<u64> = PLACE..STORED + ROOM;

/// The descriptor to which a process reports the call that failed.
pub(crate) const REPORT: RawFd = 241;

/// A system call. If `store` is not null, the lower half of the result is written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Call {
    number: u64,
    arguments: [u64; 6],
    store: u64,
    expect: u64,
}

/// The bytes of a [`Call`], as a failed one is reported.
pub(crate) const CALL: usize = size_of::<Call>();

/// Any result but an error.
const NO_ERROR: u64 = u64::MAX;
/// Any result.
const ANY: u64 = u64::MAX - 1;

/// The initial control word of vector floating point (System V ABI for x86-64, "Process
/// Initialization").
const MXCSR: u64 = 0x1f80;

/// Ends a list of calls: no system call has this number, nor those of the next three.
const END: u64 = u64::MAX;
/// Makes a process or a thread, which goes on with another list.
const CLONE: u64 = u64::MAX - 1;
/// Goes on with another list.
const JUMP: u64 = u64::MAX - 2;
/// Leaves the list by the call that follows.
const LEAVE: u64 = u64::MAX - 3;

/// The jump into a program at its entry point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trampoline {
    /// The address to continue at. Registers are as the kernel or a dynamic linker leaves them.
    pub(crate) entry: u64,
    /// The word below this address is overwritten.
    pub(crate) stack: u64,
    pub(crate) at_exit: u64,
    /// The address of two instructions of the program, a system call and a return. They unmap the
    /// list, last.
    pub(crate) farewell: u64,
}

/// The way out of a list into a program that was stopped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit {
    /// The address of two instructions of the program, a system call and a return.
    pub(crate) farewell: u64,
    /// The address of the word to which they return. Registers are not kept.
    pub(crate) stack: u64,
}

/// A thread as clone(2) makes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewThread {
    pub(crate) id: u32,
    /// The thread pointer.
    pub(crate) pointer: u64,
    /// The word that the kernel clears at the thread's end.
    pub(crate) clear: u64,
}

/// System calls in their order.
#[derive(Debug, Default)]
pub(crate) struct Calls(pub(super) Vec<Call>);

impl Calls {
    /// Adds a call that must not fail.
    pub(crate) fn call(&mut self, number: libc::c_long, arguments: &[u64]) {
        self.add(number, arguments, 0, NO_ERROR);
    }

    /// Adds a call that must have this result.
    pub(crate) fn call_for(&mut self, number: libc::c_long, arguments: &[u64], result: u64) {
        self.add(number, arguments, 0, result);
    }

    /// Adds a call that may fail.
    pub(crate) fn attempt(&mut self, number: libc::c_long, arguments: &[u64]) {
        self.add(number, arguments, 0, ANY);
    }

    /// Adds a call that must not fail; the lower half of its result is written to an address.
    pub(crate) fn call_and_store(&mut self, number: libc::c_long, arguments: &[u64], store: u64) {
        self.add(number, arguments, store, NO_ERROR);
    }

    /// Forks. The child must get this id, and goes on with the list at `list`.
    pub(crate) fn fork(&mut self, id: u32, list: u64) {
        self.push(CLONE, &[libc::SIGCHLD.unsigned_abs().into()], list, id.into());
    }

    /// Makes a thread, which must get its id, and goes on with the list at `list`. No instruction
    /// of a list uses the stack, so the thread needs none before it leaves its list.
    pub(crate) fn start_thread(&mut self, thread: NewThread, list: u64) {
        const SHARED: i32 = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM;
        const FLAGS: i32 = SHARED | libc::CLONE_SETTLS | libc::CLONE_CHILD_CLEARTID;
        let NewThread { id, pointer, clear } = thread;
        // Flags, stack, two places for ids, thread pointer: the order of x86-64, clone(2).
        self.push(CLONE, &[FLAGS.unsigned_abs().into(), 0, 0, clear, pointer], list, id.into());
    }

    /// Goes on with the list at that address.
    pub(crate) fn jump(&mut self, list: u64) {
        self.push(JUMP, &[list], 0, 0);
    }

    /// Unmaps all lists and jumps into the program.
    pub(crate) fn end(&mut self, trampoline: Trampoline) {
        let Trampoline { entry, stack, at_exit, farewell } = trampoline;
        // The registers of the last call, munmap(2), which returns to the entry point.
        let arguments = [RANGE.start, RANGE.end - RANGE.start, at_exit, stack, entry, farewell];
        self.push(END, &arguments, MXCSR, 0);
    }

    /// Leaves the list, which is not used again, and makes this call by the program's instructions.
    pub(crate) fn leave(&mut self, exit: Exit, number: libc::c_long, arguments: &[u64]) {
        self.push(LEAVE, &[exit.stack, exit.farewell], 0, 0);
        self.add(number, arguments, 0, ANY);
    }

    /// Leaves the list, and unmaps all lists.
    pub(crate) fn leave_and_unmap(&mut self, exit: Exit) {
        self.leave(exit, libc::SYS_munmap, &[RANGE.start, RANGE.end - RANGE.start]);
    }

    fn add(&mut self, number: libc::c_long, arguments: &[u64], store: u64, expect: u64) {
        self.push(number.unsigned_abs(), arguments, store, expect);
    }

    fn push(&mut self, number: u64, arguments: &[u64], store: u64, expect: u64) {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        self.0.push(Call { number, arguments: all, store, expect });
    }
}

/// Lists and the data that they refer to, as they are stored in a file.
#[derive(Debug, Default)]
pub(crate) struct StoredLists(Vec<u8>);

impl StoredLists {
    /// Adds data for a call, aligned to sixteen bytes, and returns the address that it will have.
    pub(crate) fn lay(&mut self, bytes: &[u8]) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(16), 0);
        let address = STORED + self.0.len() as u64;
        self.0.extend_from_slice(bytes);
        address
    }

    /// Adds a list, and returns the address that it will have.
    pub(crate) fn lay_list(&mut self, calls: &Calls) -> u64 {
        let words = calls.0.iter().flat_map(|call| {
            let Call { number, arguments: [a, b, c, d, e, f], store, expect } = *call;
            [number, a, b, c, d, e, f, store, expect]
        });
        self.lay(&words.flat_map(u64::to_ne_bytes).collect::<Vec<_>>())
    }

    /// # Errors
    /// There is no room for that many bytes.
    pub(crate) fn bytes(&self) -> Result<&[u8], Errno> {
        if self.0.len() as u64 > ROOM { Err(Errno::TOOBIG) } else { Ok(&self.0) }
    }
}
