//! The frame from which a thread continues: what the kernel would have laid on its stack to call a
//! handler of a signal, `rt_sigframe` of the kernel without the first word.

use crate::launch::image::kernel::bytes;
use crate::sys::seize::Registers;

/// Bytes below the stack pointer that belong to a function (System V ABI for x86-64, "The Stack
/// Frame").
const RED_ZONE: u64 = 128;
/// Room for a frame without its extended state.
const FRAME: u64 = 512;

/// UC_FP_XSTATE, UC_SIGCONTEXT_SS and UC_STRICT_RESTORE_SS of asm/ucontext.h.
const FLAGS: u64 = 7;

/// Extended state as asm/sigcontext.h describes it: the words that programs may use, the magic
/// numbers that mark its beginning and its end.
const SOFTWARE: usize = 464;
const BEGIN: u32 = 0x4650_5853;
const END: u32 = 0x4650_5845;

/// A frame in free memory below a thread's stack.
#[derive(Debug)]
pub(super) struct Frame {
    /// The address that the stack pointer has when rt_sigreturn(2) is called.
    pub(super) address: u64,
    /// The bytes from there on.
    pub(super) bytes: Vec<u8>,
}

/// The part of a thread's state that a frame holds.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) registers: &'a Registers,
    pub(super) signal_stack: [u64; 3],
    pub(super) blocked: u64,
    /// As ptrace(2) returns it.
    pub(super) extended: Vec<u8>,
}

/// Returns an address above all frames of a thread, whose stack pointer that is.
pub(super) fn below(stack: u64) -> u64 {
    stack - RED_ZONE
}

impl Context<'_> {
    /// Returns the frame that continues the thread before the instruction of the system call
    /// in which it was interrupted, which is thereby made again. Programs may have values in vector
    /// registers over a call, which keeps them.
    pub(super) fn frame(mut self) -> Frame {
        let of = self.registers;
        let extended = self.mark_extended();
        // XRSTOR demands that alignment.
        let above = (below(of.rsp) - extended.len() as u64) & !0x3f;
        let address = (above - FRAME) & !0xf;
        // No link.
        let mut words = vec![FLAGS, 0];
        words.extend(self.signal_stack);
        words.extend([
            of.r8,
            of.r9,
            of.r10,
            of.r11,
            of.r12,
            of.r13,
            of.r14,
            of.r15,
            of.rdi,
            of.rsi,
            of.rbp,
            of.rbx,
            of.rdx,
            of.orig_rax,
            of.rcx,
            of.rsp,
            of.rip - 2,
            of.eflags,
        ]);
        // The segments, then error, trap, mask, address, and that of the extended state.
        words.push(of.cs & 0xffff | (of.ss & 0xffff) << 48);
        words.extend([0, 0, 0, 0, above]);
        words.extend([0; 8]);
        words.push(self.blocked);
        let mut bytes = bytes(&words);
        bytes.resize((above - address) as usize, 0);
        bytes.extend(extended);
        Frame { address, bytes }
    }

    /// Marks the extended state as the kernel does it for handlers.
    fn mark_extended(&mut self) -> Vec<u8> {
        let mut state = std::mem::take(&mut self.extended);
        let size = state.len() as u32;
        // The first of the words is the mask of the processor's features, from ptrace(2).
        let (begin, features) = (SOFTWARE, SOFTWARE..SOFTWARE + 8);
        let features: [u8; 8] = state[features].try_into().expect("8 bytes");
        state[begin..begin + 48].fill(0);
        state[begin..begin + 4].copy_from_slice(&BEGIN.to_ne_bytes());
        state[begin + 4..begin + 8].copy_from_slice(&(size + 4).to_ne_bytes());
        state[begin + 8..begin + 16].copy_from_slice(&features);
        state[begin + 16..begin + 20].copy_from_slice(&size.to_ne_bytes());
        state.extend(END.to_ne_bytes());
        state
    }
}
