//! System calls that a program may make before its image is taken.

use std::io;

use super::kernel::Thread;
use crate::sys::trace::Registers;

/// Calls that leave no state but memory.
const HARMLESS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_capget,
    libc::SYS_getrusage,
    libc::SYS_get_mempolicy,
    // Older forms of the same calls.
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_time,
];

/// The most random bytes. All servers restored from an image share those that the program has
/// drawn. The C library draws a few for checks of its heap; a program that draws more may keep
/// secrets by them.
const MOST_RANDOMNESS: u64 = 16;

const ARCH_SET_FS: u64 = 0x1002;

/// State that calls of the program have left.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) thread: Thread,
    /// Zero without a heap.
    pub(super) end_of_heap: u64,
    /// The policy for memory, set_mempolicy(2): libnuma tries some when it is loaded.
    pub(super) memory_policy: u64,
}

impl Calls {
    /// Notes a call that has succeeded. Returns `false` if it has left state that an image does not
    /// hold. `text` reads the beginning of a text in the program's memory.
    pub(super) fn note(
        &mut self,
        begun: &Registers,
        result: u64,
        text: impl Fn(u64) -> io::Result<[u8; 8]>,
    ) -> io::Result<bool> {
        let [first, second, third, fourth, ..] = begun.arguments;
        Ok(match begun.call as libc::c_long {
            libc::SYS_arch_prctl => first == ARCH_SET_FS,
            // A device may be a source of random bytes.
            libc::SYS_open => !text(first)?.starts_with(b"/dev/"),
            libc::SYS_openat => !text(second)?.starts_with(b"/dev/"),
            libc::SYS_brk => {
                self.end_of_heap = result;
                true
            }
            libc::SYS_set_tid_address => {
                self.thread.id = first;
                true
            }
            libc::SYS_set_robust_list => {
                self.thread.robust = Some([first, second]);
                true
            }
            // Without flags it registers an area.
            libc::SYS_rseq => {
                self.thread.sequences = Some([first, second, third, fourth]);
                third == 0
            }
            libc::SYS_set_mempolicy => {
                self.memory_policy = first;
                true
            }
            libc::SYS_getrandom => second <= MOST_RANDOMNESS,
            // Without a new limit it only reads one.
            libc::SYS_prlimit64 => third == 0,
            libc::SYS_prctl => asks(first, second),
            call => HARMLESS.contains(&call),
        })
    }
}

/// Returns `true` if a prctl(2) only reads.
fn asks(option: u64, argument: u64) -> bool {
    const ASKING: [libc::c_int; 5] = [
        libc::PR_CAPBSET_READ,
        libc::PR_GET_SECUREBITS,
        libc::PR_GET_NO_NEW_PRIVS,
        libc::PR_GET_DUMPABLE,
        libc::PR_GET_KEEPCAPS,
    ];
    let ambient = (libc::PR_CAP_AMBIENT as u64, libc::PR_CAP_AMBIENT_IS_SET as u64);
    ASKING.iter().any(|&ask| ask as u64 == option) || (option, argument) == ambient
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(calls: &mut Calls, call: libc::c_long, arguments: [u64; 6], text: &[u8; 8]) -> bool {
        let begun = Registers {
            call: call as u64,
            arguments,
            result: 0,
            instruction: 0,
            stack: 0,
            at_exit: 0,
            thread: 0,
        };
        calls.note(&begun, 7, |_| Ok(*text)).unwrap()
    }

    #[test]
    fn calls_that_leave_state_are_refused() {
        let mut calls = Calls::default();
        let none = [0; 6];
        for call in [libc::SYS_clone, libc::SYS_rt_sigaction, libc::SYS_socket, libc::SYS_memfd_create] {
            assert!(!note(&mut calls, call, none, b"        "), "{call}");
        }
        assert!(note(&mut calls, libc::SYS_mmap, none, b"        "));
        assert!(note(&mut calls, libc::SYS_openat, none, b"/usr/lib"));
        assert!(!note(&mut calls, libc::SYS_openat, none, b"/dev/ura"));
        assert!(note(&mut calls, libc::SYS_getrandom, [0, 8, 0, 0, 0, 0], b"        "));
        assert!(!note(&mut calls, libc::SYS_getrandom, [0, 32, 0, 0, 0, 0], b"        "));
        assert!(!note(&mut calls, libc::SYS_prlimit64, [0, 0, 1, 0, 0, 0], b"        "));
        assert!(!note(&mut calls, libc::SYS_prctl, [libc::PR_SET_NAME as u64, 0, 0, 0, 0, 0], b"        "));
    }

    #[test]
    fn registrations_of_the_c_library_are_noted() {
        let mut calls = Calls::default();
        let text = b"        ";
        assert!(note(&mut calls, libc::SYS_brk, [0; 6], text));
        assert!(note(&mut calls, libc::SYS_set_tid_address, [1, 0, 0, 0, 0, 0], text));
        assert!(note(&mut calls, libc::SYS_set_robust_list, [2, 24, 0, 0, 0, 0], text));
        assert!(note(&mut calls, libc::SYS_rseq, [3, 32, 0, 4, 0, 0], text));
        let Thread { id, robust, sequences, .. } = calls.thread;
        assert_eq!((calls.end_of_heap, id, robust), (7, 1, Some([2, 24])));
        assert_eq!(sequences, Some([3, 32, 0, 4]));
        assert!(!note(&mut calls, libc::SYS_rseq, [3, 32, 1, 4, 0, 0], text), "it unregisters");
    }
}
