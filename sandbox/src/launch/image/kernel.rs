//! The kernel's notes on a process and its thread, and the calls that make them.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::format::{FIRST_FILE, IMAGE, PAGE};
use crate::machine::process;
use crate::sys::call_list::{Calls, REPORT, StoredLists};

/// The parts of a process's memory that the kernel knows, in the order of PR_SET_MM(2const).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout([u64; 11]);

impl Layout {
    /// Reads fields of proc_pid_stat(5), by number. `proc` is the process's directory in /proc.
    pub(super) fn read(proc: &Path, end_of_heap: u64) -> io::Result<Self> {
        let stat = fs::read_to_string(proc.join("stat"))?;
        let fields: Vec<u64> = process::stat_fields(&stat).map(|field| field.parse().unwrap_or(0)).collect();
        // The first after the name is the third of all.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        let start_of_heap = field(47);
        Ok(Self([
            field(26),
            field(27),
            field(45),
            field(46),
            start_of_heap,
            end_of_heap.max(start_of_heap),
            field(28),
            field(48),
            field(49),
            field(50),
            field(51),
        ]))
    }

    /// Returns `true` for memory of the program's data or of its heap, brk(2).
    pub(super) fn has_data_at(&self, range: &Range<u64>) -> bool {
        let [_, _, data, _, _, end_of_heap, ..] = self.0;
        range.start >= page_of(data) && range.end <= end_of_heap.next_multiple_of(PAGE)
    }

    /// Removes bytes from the end of the environment.
    pub(super) fn without_variable(mut self, bytes: u64) -> Self {
        self.0[10] -= bytes;
        self
    }

    /// Sets the layout, and the program by the number of its file.
    pub(super) fn set(
        &self,
        lists: &mut StoredLists,
        list: &mut Calls,
        auxiliary: &[u64],
        program: Option<usize>,
    ) {
        const UNCHANGED: u64 = u32::MAX as u64;
        let words = lists.lay(&bytes(auxiliary));
        let program = program.map_or(UNCHANGED, |file| FIRST_FILE + file as u64);
        let mut map = self.0.to_vec();
        // A `prctl_mm_map` ends with two 32-bit numbers, the size and the program's descriptor.
        map.extend([words, size_of_val(auxiliary) as u64 | program << 32]);
        let length = size_of_val(map.as_slice()) as u64;
        let map = lists.lay(&bytes(&map));
        list.call(libc::SYS_prctl, &[libc::PR_SET_MM as u64, libc::PR_SET_MM_MAP as u64, map, length, 0]);
    }
}

/// A thread's registrations at the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Thread {
    /// The thread pointer.
    pub(super) pointer: u64,
    /// The address of the thread's id, set_tid_address(2).
    pub(super) id: u64,
    /// The arguments of set_robust_list(2).
    pub(super) robust: Option<[u64; 2]>,
    /// The arguments of rseq(2).
    pub(super) sequences: Option<[u64; 4]>,
}

impl Thread {
    /// Sets the registrations that a child of fork(2) does not inherit.
    pub(super) fn register_child(&self, list: &mut Calls) {
        list.call(libc::SYS_set_tid_address, &[self.id]);
        if let Some(arguments) = self.robust {
            list.call(libc::SYS_set_robust_list, &arguments);
        }
    }

    /// Sets all.
    pub(super) fn register(&self, list: &mut Calls) {
        self.point(list);
        self.register_child(list);
        self.register_sequences(list);
    }

    /// Sets those that clone(2) has not set for a further thread.
    pub(super) fn register_thread(&self, list: &mut Calls) {
        if let Some(arguments) = self.robust {
            list.call(libc::SYS_set_robust_list, &arguments);
        }
        self.register_sequences(list);
    }

    /// Sets all, and writes the thread's id to its place, for a program that knows it.
    pub(super) fn register_and_tell(&self, list: &mut Calls) {
        self.point(list);
        list.call_and_store(libc::SYS_set_tid_address, &[self.id], self.id);
        if let Some(arguments) = self.robust {
            list.call(libc::SYS_set_robust_list, &arguments);
        }
        self.register_sequences(list);
    }

    fn point(&self, list: &mut Calls) {
        const ARCH_SET_FS: u64 = 0x1002;
        list.call(libc::SYS_arch_prctl, &[ARCH_SET_FS, self.pointer]);
    }

    fn register_sequences(&self, list: &mut Calls) {
        if let Some(arguments) = self.sequences {
            list.call(libc::SYS_rseq, &arguments);
        }
    }
}

/// Returns a value of an auxiliary vector, getauxval(3).
pub(super) fn auxiliary(vector: &[u64], kind: u64) -> u64 {
    vector.chunks_exact(2).find(|pair| pair[0] == kind).map_or(0, |pair| pair[1])
}

/// Reads the auxiliary vector: pairs of a type and a value.
pub(super) fn read_auxiliary(proc: &Path) -> io::Result<Vec<u64>> {
    let words = fs::read(proc.join("auxv"))?;
    Ok(words.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes"))).collect())
}

/// Draws the random bytes that execve(2) gives each program: no two servers share them.
pub(super) fn draw_randomness(list: &mut Calls, vector: &[u64]) {
    match auxiliary(vector, libc::AT_RANDOM) {
        0 => {}
        place => list.call(libc::SYS_getrandom, &[place, 16, 0]),
    }
}

/// Draws the C library's canary, before a function has used it. It begins with a zero byte in the
/// sixth word of the thread's data.
pub(super) fn draw_canary(list: &mut Calls, thread: &Thread) {
    list.call(libc::SYS_getrandom, &[thread.pointer + 0x29, 7, 0]);
}

pub(super) fn set_name(lists: &mut StoredLists, list: &mut Calls, name: &[u8]) {
    let name = lists.lay(&[name, b"\0"].concat());
    list.call(libc::SYS_prctl, &[libc::PR_SET_NAME as u64, name]);
}

/// Sets the alternate signal stack: address, flags and size.
pub(super) fn set_signal_stack(lists: &mut StoredLists, list: &mut Calls, stack: [u64; 3]) {
    let stack = lists.lay(&bytes(&stack));
    list.call(libc::SYS_sigaltstack, &[stack, 0]);
}

/// No alternate signal stack, sigaltstack(2).
pub(super) const NO_SIGNAL_STACK: [u64; 3] = [0, 2, 0];

/// The report of a process that has arrived.
pub(super) const ARRIVED: u8 = 0;

/// Drops the last capability, as execve(2) does for all users but root. Each thread has its own.
pub(super) fn drop_capabilities(lists: &mut StoredLists, list: &mut Calls) {
    // _LINUX_CAPABILITY_VERSION_3, and the calling thread.
    let header = lists.lay(&[0x2008_0522_u32.to_ne_bytes(), [0; 4]].concat());
    let none = lists.lay(&[0; 24]);
    list.call(libc::SYS_capset, &[header, none]);
}

/// Drops the last capability, sets the signal at the parent's death, reports the arrival, and
/// closes the descriptors of the image.
pub(super) fn arrive(lists: &mut StoredLists, list: &mut Calls, death_signal: u32) {
    drop_capabilities(lists, list);
    if death_signal != 0 {
        list.call(libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as u64, death_signal.into()]);
    }
    let arrived = lists.lay(&[ARRIVED]);
    list.call_for(libc::SYS_write, &[REPORT.unsigned_abs().into(), arrived, 1], 1);
    list.call(libc::SYS_close_range, &[IMAGE, u64::from(u32::MAX), 0]);
}

/// Closes the files that are mapped.
pub(super) fn close_files(list: &mut Calls) {
    list.call(libc::SYS_close_range, &[FIRST_FILE, IMAGE - 1, 0]);
}

pub(super) fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Returns the address of some instructions in a piece of a program, which begins at `start`.
pub(super) fn find_instructions(piece: &[u8], start: u64, instructions: &[u8]) -> Option<u64> {
    memchr::memmem::find(piece, instructions).map(|at| start + at as u64)
}

/// `syscall; ret`.
pub(super) const FAREWELL: [u8; 3] = [0x0f, 0x05, 0xc3];

/// The bytes of whole pages that hold an address range.
pub(super) fn page_of(address: u64) -> u64 {
    address & !(PAGE - 1)
}
