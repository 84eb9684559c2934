//! Replaces the memory of a process without execve(2): a few position-independent instructions
//! carry out a list of system calls, and jump to the new program.

use std::convert::Infallible;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::io::Errno;

use super::call_list::{CALL, Call, Calls, OWN, PAGE, PLACE, REPORT, ROOM, STORED};
use super::last_errno;
use super::process::SingleThreaded;

/// The part of a file that holds [`StoredLists`](super::call_list::StoredLists).
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
#[rustfmt::skip] // One instruction on a line.
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
    "cmp rax, -4",
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
    "cmp rax, -4",
    "je 12f",
    "mov r12, rdi",
    "jmp 2b",
    // clone(2): the new process or thread goes on with its list. Without a stack in rsi it has the
    // caller's, which no instruction uses before the list ends.
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
    // The call that follows, by the program's own instructions. They return to the address on
    // that stack.
    "12:",
    "mov rsp, rdi",
    "mov r13, rsi",
    "mov rax, [r12 + 72]",
    "mov rdi, [r12 + 80]",
    "mov rsi, [r12 + 88]",
    "mov rdx, [r12 + 96]",
    "mov r10, [r12 + 104]",
    "mov r8, [r12 + 112]",
    "mov r9, [r12 + 120]",
    "jmp r13",
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
