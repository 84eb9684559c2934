//! Replaces the memory of a process without execve(2): a few position-independent instructions
//! carry out a list of system calls, and jump to the new program.

use std::convert::Infallible;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use rustix::io::Errno;

use super::last_errno;
use super::process::SingleThreaded;

/// The address of the instructions and their lists: low, away from every address that the kernel or
/// a linker chooses.
const PLACE: u64 = 0x2_0000_0000;
const PAGE: u64 = 4096;
/// Room for the list that a process makes for itself.
const OWN: u64 = 64 << 10;
/// The address of lists that come from a file, and the room for them.
const STORED: u64 = PLACE + PAGE + OWN;
const ROOM: u64 = 4 << 20;
/// A place for mappings that a list makes for a moment, of up to a terabyte.
pub(crate) const PASSING: Range<u64> = 0x4_0000_0000..0x100_0000_0000;

/// The addresses that lists need.
pub(crate) const RANGE: Range<u64> = PLACE..STORED + ROOM;

/// The descriptor to which a process reports the call that failed.
pub(crate) const REPORT: RawFd = 241;

/// A system call. If `store` is not null, the lower half of the result is written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Call {
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

/// Ends a list of calls: no system call has this number, nor those of the next two.
const END: u64 = u64::MAX;
/// Forks the process; the child goes on with another list.
const FORK: u64 = u64::MAX - 1;
/// Goes on with another list.
const JUMP: u64 = u64::MAX - 2;

/// The jump into the new program.
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

/// System calls in their order.
#[derive(Debug, Default)]
pub(crate) struct Calls(Vec<Call>);

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
        self.push(FORK, &[libc::SIGCHLD.unsigned_abs().into()], list, id.into());
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

/// The part of a file that holds [`StoredLists`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredAt<'a> {
    pub(crate) file: BorrowedFd<'a>,
    /// A multiple of the size of a page.
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Carries out calls, which may lead to lists of the file. If one fails, it is written to
/// [`REPORT`], with the result in place of `store`, and the process ends with the errno as its
/// exit code, or `EPROTO` for an unexpected result.
///
/// # Errors
/// The lists cannot be placed; the process is unchanged.
pub(crate) fn go(calls: &Calls, stored: StoredAt<'_>, _proof: &SingleThreaded) -> Result<Infallible, Errno> {
    let size = size_of_val(calls.0.as_slice());
    if size as u64 > OWN || stored.length > ROOM {
        return Err(Errno::TOOBIG);
    }
    let place = map_new(PLACE, PAGE + OWN, None)?;
    map_new(STORED, stored.length, Some((stored.file, stored.offset)))?;
    let code: &[u8] = {
        let (start, end) = (&raw const sandboxed_db_go, &raw const sandboxed_db_gone);
        // SAFETY: the two symbols are the ends of one piece of this program's text, below, which is
        // never written.
        unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
    };
    // SAFETY: `place` is a fresh writable mapping of `PAGE + OWN` bytes; its first page takes
    // `code`, which is a few hundred bytes, and the rest takes the calls, whose size was checked
    // above. None overlaps its source. The calls lie at a page, and are aligned to eight bytes.
    unsafe {
        let place = place.cast::<u8>();
        ptr::copy_nonoverlapping(code.as_ptr(), place, code.len());
        ptr::copy_nonoverlapping(calls.0.as_ptr(), place.add(PAGE as usize).cast::<Call>(), calls.0.len());
    }
    // SAFETY: the first page of the mapping just made, which no Rust object lies in.
    if unsafe { libc::mprotect(place, PAGE as usize, libc::PROT_READ | libc::PROT_EXEC) } == -1 {
        return Err(last_errno());
    }
    // SAFETY: `place` begins with the instructions of `sandboxed_db_go`, which are independent of
    // their position and use neither the stack nor any other memory than the lists that begin at
    // `rdi`. They do not return, and no code of this program runs after them in this process, which
    // has one thread: so it is not seen by any that its memory goes.
    unsafe {
        std::arch::asm!(
            "jmp {place}",
            place = in(reg) place,
            in("rdi") PLACE + PAGE,
            options(noreturn)
        )
    }
}

/// Maps writable memory at an address where there is none: zeroes, or a copy of a part of a file.
fn map_new(
    address: u64,
    length: u64,
    file: Option<(BorrowedFd<'_>, u64)>,
) -> Result<*mut libc::c_void, Errno> {
    let kind = if file.is_some() { 0 } else { libc::MAP_ANONYMOUS };
    // SAFETY: a new private mapping at an address where there is none (MAP_FIXED_NOREPLACE) touches
    // nothing else; the descriptor is open while it is borrowed.
    let place = unsafe {
        libc::mmap(
            ptr::without_provenance_mut(address as usize),
            length as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE | kind,
            file.map_or(-1, |(file, _)| file.as_raw_fd()),
            file.map_or(0, |(_, offset)| offset.cast_signed()),
        )
    };
    if place == libc::MAP_FAILED { Err(last_errno()) } else { Ok(place) }
}

unsafe extern "C" {
    static sandboxed_db_go: u8;
    static sandboxed_db_gone: u8;
}

// `rdi` is the list. r12 is kept by system calls; rcx and r11 are not.
std::arch::global_asm!(
    ".hidden sandboxed_db_go",
    ".hidden sandboxed_db_gone",
    ".globl sandboxed_db_go",
    ".globl sandboxed_db_gone",
    "sandboxed_db_go:",
    "mov r12, rdi",
    "2:",
    "mov rdi, [r12 + 8]",
    "mov rsi, [r12 + 16]",
    "mov rdx, [r12 + 24]",
    "mov r10, [r12 + 32]",
    "mov r8, [r12 + 40]",
    "mov r9, [r12 + 48]",
    "mov rax, [r12]",
    "cmp rax, -3",
    "jae 6f",
    "syscall",
    "mov rcx, [r12 + 64]",
    "cmp rcx, -2",
    "je 3f",
    "cmp rax, -4096",
    "ja 4f",
    "cmp rcx, -1",
    "je 9f",
    "cmp rax, rcx",
    "jne 8f",
    "9:",
    "mov rcx, [r12 + 56]",
    "test rcx, rcx",
    "jz 3f",
    "mov [rcx], eax",
    "3:",
    "add r12, 72",
    "jmp 2b",
    // An unexpected result counts as EPROTO.
    "8:",
    "mov rax, -71",
    // Reports the call, and exit_group(2) with the errno.
    "4:",
    "mov r13, rax",
    "mov [r12 + 56], rax",
    "mov edi, 241",
    "mov rsi, r12",
    "mov edx, 72",
    "mov eax, 1",
    "syscall",
    "mov edi, r13d",
    "neg edi",
    "mov eax, 231",
    "syscall",
    "ud2",
    // The numbers that are no calls.
    "6:",
    "cmp rax, -2",
    "je 7f",
    "ja 5f",
    "mov r12, rdi",
    "jmp 2b",
    // clone(2) as fork(2): the child goes on with its list.
    "7:",
    "mov eax, 56",
    "syscall",
    "cmp rax, -4096",
    "ja 4b",
    "test rax, rax",
    "jz 7f",
    "cmp rax, [r12 + 64]",
    "jne 8b",
    "jmp 3b",
    "7:",
    "mov r12, [r12 + 56]",
    "jmp 2b",
    // Floating point as execve(2) leaves it.
    "5:",
    "fninit",
    "ldmxcsr [r12 + 56]",
    // munmap(rdi, rsi) by the program's own instructions, which then return to the address to
    // continue at. Memory just below the stack is free. rdx is the function to call at exit; the
    // other registers are as execve(2) leaves them.
    "lea rsp, [r10 - 8]",
    "mov [rsp], r8",
    "mov rcx, r9",
    "mov eax, 11",
    "xor ebx, ebx",
    "xor ebp, ebp",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "xor r10d, r10d",
    "xor r12d, r12d",
    "xor r13d, r13d",
    "xor r14d, r14d",
    "xor r15d, r15d",
    "jmp rcx",
    "sandboxed_db_gone:",
);

const _: () = assert!(CALL == 72 && REPORT == 241, "the instructions above have these numbers");

/// Unregisters this thread's area for restartable sequences: the kernel writes to it, and would
/// kill the process if it were unmapped. C libraries without one register nothing.
///
/// # References
/// glibc manual, "Restartable Sequences"
pub(crate) fn leave_restartable_sequences(_proof: &SingleThreaded) -> Result<(), Errno> {
    const UNREGISTER: libc::c_int = 1;
    const SIGNATURE: u32 = 0x5305_3053;
    // The size that kernels before 6.3 know and older C libraries register.
    const ORIGINAL: usize = 32;
    const AT_RSEQ_FEATURE_SIZE: libc::c_ulong = 27;

    // SAFETY: dlsym reads a NUL-terminated name, and the default handle is always valid.
    let offset = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()) };
    if offset.is_null() {
        return Ok(());
    }
    // SAFETY: glibc documents the symbol as a constant `ptrdiff_t`, which is what an `isize` is.
    let offset = unsafe { *offset.cast::<isize>() };
    let thread: usize;
    // SAFETY: the word at the thread pointer is the thread pointer itself (System V ABI for x86-64,
    // "Thread-Local Storage").
    unsafe {
        std::arch::asm!("mov {}, fs:[0]", out(reg) thread, options(nostack, readonly, preserves_flags))
    };
    let area = thread.wrapping_add_signed(offset);
    // SAFETY: takes an integer.
    let features = unsafe { libc::getauxval(AT_RSEQ_FEATURE_SIZE) } as usize;
    // Newer C libraries register the size that the kernel knows, rounded up to the area's
    // alignment, and do not publish it.
    let lengths = [ORIGINAL, features.next_multiple_of(ORIGINAL), features];
    for length in lengths {
        // SAFETY: to unregister, the kernel compares the address with that which it has and writes
        // there one last time; the area is part of this thread, which runs.
        let result = unsafe { libc::syscall(libc::SYS_rseq, area, length, UNREGISTER, SIGNATURE) };
        if result == 0 {
            return Ok(());
        }
    }
    match last_errno() {
        // The call does not exist, or a tunable of the C library disables it.
        Errno::NOSYS => Ok(()),
        errno => Err(errno),
    }
}
