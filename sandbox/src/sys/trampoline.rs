//! Replaces the memory of a process without execve(2): a few position-independent instructions
//! carry out a list of system calls, and jump to the new program.

use std::ptr;

use rustix::io::Errno;

use super::last_errno;
use super::process::SingleThreaded;

/// The address of the instructions and their list: low, away from every address that the kernel or
/// a linker chooses.
const PLACE: u64 = 0x2_0000_0000;
const PAGE: u64 = 4096;

/// A system call. If `store` is not null, the lower half of the result is written there.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Call {
    number: u64,
    arguments: [u64; 6],
    store: u64,
}

/// The initial control word of vector floating point (System V ABI for x86-64, "Process
/// Initialization").
const MXCSR: u64 = 0x1f80;

/// Ends a list of calls: no system call has this number.
const END: u64 = u64::MAX;

/// The jump into the new program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trampoline {
    /// The entry point. Registers are as the kernel or a dynamic linker leaves them.
    pub(crate) entry: u64,
    pub(crate) stack: u64,
    pub(crate) at_exit: u64,
    /// The address of two instructions of the program, a system call and a return. They unmap the
    /// list, last.
    pub(crate) farewell: u64,
}

/// System calls that replace the memory of a process, and the data that they refer to.
#[derive(Debug, Default)]
pub(crate) struct SyscallList {
    data: Vec<u8>,
    calls: Vec<Call>,
}

impl SyscallList {
    /// Adds data for a call, aligned to eight bytes, and returns the address that it will have.
    pub(crate) fn lay(&mut self, bytes: &[u8]) -> u64 {
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let address = PLACE + PAGE + self.data.len() as u64;
        self.data.extend_from_slice(bytes);
        address
    }

    /// Adds a call that must not fail.
    pub(crate) fn call(&mut self, number: libc::c_long, arguments: &[u64]) {
        self.call_and_store(number, arguments, 0);
    }

    /// Adds a call that must not fail; the lower half of its result is written to an address.
    pub(crate) fn call_and_store(&mut self, number: libc::c_long, arguments: &[u64], store: u64) {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        self.calls.push(Call { number: number.unsigned_abs(), arguments: all, store });
    }

    /// Returns the range of addresses that the list needs. Data and calls may take up to `reserve`
    /// bytes.
    pub(crate) fn range(reserve: u64) -> std::ops::Range<u64> {
        PLACE..PLACE + PAGE + reserve.next_multiple_of(PAGE)
    }

    /// Carries out the calls. If one fails, the process ends with the errno as its exit code.
    ///
    /// # Errors
    /// The list cannot be placed; the process is unchanged.
    pub(crate) fn go(
        mut self,
        _proof: &SingleThreaded,
        reserve: u64,
        trampoline: Trampoline,
    ) -> Result<std::convert::Infallible, Errno> {
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let range = Self::range(reserve);
        let length = range.end - range.start;
        let end = Call {
            number: END,
            // The registers of the last call, munmap(2), which returns to the entry point.
            arguments: [
                range.start,
                length,
                trampoline.at_exit,
                trampoline.stack,
                trampoline.entry,
                trampoline.farewell,
            ],
            store: MXCSR,
        };
        self.calls.push(end);
        if PAGE + (self.data.len() + size_of_val(self.calls.as_slice())) as u64 > length {
            return Err(Errno::TOOBIG);
        }
        // SAFETY: a new anonymous mapping at an address where there is none (MAP_FIXED_NOREPLACE)
        // touches nothing else.
        let place = unsafe {
            libc::mmap(
                ptr::without_provenance_mut(PLACE as usize),
                length as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        if place == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let code: &[u8] = {
            let (start, end) = (&raw const sandboxed_db_go, &raw const sandboxed_db_gone);
            // SAFETY: the two symbols are the ends of one piece of this program's text, below,
            // which is never written.
            unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
        };
        let calls = self.data.len();
        // SAFETY: `place` is a fresh writable mapping of `length` bytes; its first page takes
        // `code`, which is a few dozen bytes, and what follows takes data and calls, whose sizes
        // were checked above. None overlaps its source. The calls lie at a multiple of eight, which
        // is what they are aligned to.
        unsafe {
            let place = place.cast::<u8>();
            ptr::copy_nonoverlapping(code.as_ptr(), place, code.len());
            let rest = place.add(PAGE as usize);
            ptr::copy_nonoverlapping(self.data.as_ptr(), rest, self.data.len());
            ptr::copy_nonoverlapping(self.calls.as_ptr(), rest.add(calls).cast::<Call>(), self.calls.len());
        }
        // SAFETY: the first page of the mapping just made, which no Rust object lies in.
        if unsafe { libc::mprotect(place, PAGE as usize, libc::PROT_READ | libc::PROT_EXEC) } == -1 {
            return Err(last_errno());
        }
        // SAFETY: `place` begins with the instructions of `sandboxed_db_go`, which are independent
        // of their position and use neither the stack nor any other memory than the list at `rdi`.
        // They do not return, and no code of this program runs after them in this process, which
        // has one thread: so it is not seen by any that its memory goes.
        unsafe {
            std::arch::asm!(
                "jmp {place}",
                place = in(reg) place,
                in("rdi") PLACE + PAGE + calls as u64,
                options(noreturn)
            )
        }
    }
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
    "cmp rax, -1",
    "je 5f",
    "syscall",
    "cmp rax, -4096",
    "ja 4f",
    "mov rcx, [r12 + 56]",
    "test rcx, rcx",
    "jz 3f",
    "mov [rcx], eax",
    "3:",
    "add r12, 64",
    "jmp 2b",
    // exit_group(2) with the errno.
    "4:",
    "mov edi, eax",
    "neg edi",
    "mov eax, 231",
    "syscall",
    "ud2",
    // Floating point as execve(2) leaves it.
    "5:",
    "fninit",
    "ldmxcsr [r12 + 56]",
    // munmap(rdi, rsi) by the program's own instructions, which then return to its entry point.
    // Memory just below the stack is free. rdx is the function to call at exit; the other registers
    // are as execve(2) leaves them.
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
