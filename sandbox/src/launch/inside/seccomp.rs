//! The seccomp filter of all processes in a container: it denies system calls that no database
//! needs, and by which processes have escaped from containers.
//!
//! A deny list, since servers and extensions make most other calls, and every version makes others.
//! Namespaces and missing capabilities forbid much of this already; the filter keeps the code
//! behind it out of reach.

use std::collections::BTreeMap;

use libc::c_long;
pub(super) use seccompiler::Error;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

/// Calls that fail with `EPERM` for all arguments.
const DENIED: &[c_long] = &[
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    // Namespaces. Rules on flags cover clone(2).
    libc::SYS_unshare,
    libc::SYS_setns,
    // Other processes' memory and descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Keyrings, which no namespace separates.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Large parts of the kernel that are seldom needed and often faulty.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    // Files by handle, which bypass directories.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // The machine itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    QUOTACTL_FD,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// Calls that only this architecture has, from older times.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[c_long] = &[
    libc::SYS__sysctl,
    libc::SYS_sysfs,
    libc::SYS_ustat,
    libc::SYS_uselib,
    libc::SYS_modify_ldt,
    libc::SYS_iopl,
    libc::SYS_ioperm,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[c_long] = &[];

/// Rings of requests carry out calls that no filter sees.
const IO_URING: &[c_long] =
    &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Linux 6.15; the same on all architectures, as all numbers above 423.
const OPEN_TREE_ATTR: c_long = 467;
const QUOTACTL_FD: c_long = 443;
const KEXEC_FILE_LOAD: c_long = if cfg!(target_arch = "x86_64") { 320 } else { 294 };

/// The flags of clone(2) that make namespaces. CLONE_NEWTIME is not among clone's.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// The allowed families of sockets. Others reach beyond the network namespace (vsock(7) leads to
/// the hypervisor) or into the kernel's cryptography.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The allowed execution domains, personality(2): Linux, Linux that reports 32 bits or 2.6, and the
/// query.
const PERSONALITIES: [u32; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, u32::MAX];

/// Input into another user's terminal, ioctl_tty(2): TIOCSTI and TIOCLINUX.
const TYPING: [u64; 2] = [0x5412, 0x541C];

/// The filters of a launcher, compiled once.
#[derive(Debug, Clone)]
pub(super) struct Filters {
    usual: BpfProgram,
    with_io_uring: BpfProgram,
}

impl Filters {
    /// Compiles the filters. `None` on an architecture without a compiler.
    pub(super) fn compile() -> Option<Self> {
        let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
        let usual = compile(arch, &[DENIED, DENIED_HERE, IO_URING]);
        Some(Self { usual, with_io_uring: compile(arch, &[DENIED, DENIED_HERE]) })
    }

    /// Installs the filter in this process and all its children, for ever. The process must have
    /// no_new_privs.
    pub(super) fn install(&self, io_uring: bool) -> Result<(), Error> {
        apply_filter(if io_uring { &self.with_io_uring } else { &self.usual })
    }
}

fn compile(arch: TargetArch, denied: &[&[c_long]]) -> BpfProgram {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        denied.iter().copied().flatten().map(|&call| (call, Vec::new())).collect();
    let namespaces = NAMESPACES.map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        rule([condition(0, SeccompCmpOp::MaskedEq(flag), flag)])
    });
    let typing = TYPING.map(|request| rule([condition(1, SeccompCmpOp::Eq, request)]));
    let none_of = |values: &[u64]| rule(values.iter().map(|&value| condition(0, SeccompCmpOp::Ne, value)));
    let families = FAMILIES.map(|family| u64::from(family.unsigned_abs()));
    rules.extend([
        (libc::SYS_clone, namespaces.into()),
        (libc::SYS_ioctl, typing.into()),
        (libc::SYS_socket, vec![none_of(&families)]),
        (libc::SYS_personality, vec![none_of(&PERSONALITIES.map(u64::from))]),
    ]);
    let mut whole = unknown_calls();
    whole.extend(search(arch, &rules.into_iter().collect::<Vec<_>>()));
    whole
}

/// The number of calls that are compared one after another.
const LEAF: usize = 6;

/// Returns a binary search for a call's rules. At installation the kernel runs a filter for every
/// system call, to find those that are always allowed: sixty comparisons in a row take a fifth of a
/// millisecond of each start.
///
/// It expects the call's number in the accumulator.
fn search(arch: TargetArch, rules: &[(i64, Vec<SeccompRule>)]) -> BpfProgram {
    if rules.len() <= LEAF {
        let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        // The compiler adds a check that kills a process for a call of another architecture.
        let filter = SeccompFilter::new(rules.iter().cloned().collect(), SeccompAction::Allow, denied, arch);
        return filter.and_then(TryInto::try_into).expect("the list is fixed and short");
    }
    let (low, high) = rules.split_at(rules.len() / 2);
    let first = u32::try_from(high[0].0).expect("numbers of calls are small");
    let (low, high) = (search(arch, low), search(arch, high));
    let mut whole = vec![
        jump(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, first, 0, 1),
        // A comparison cannot jump that far.
        jump(libc::BPF_JMP | libc::BPF_JA, low.len() as u32, 0, 0),
    ];
    whole.extend(low);
    whole.extend(high);
    whole
}

fn rule(conditions: impl IntoIterator<Item = SeccompCondition>) -> SeccompRule {
    SeccompRule::new(conditions.into_iter().collect()).expect("a rule has conditions")
}

/// Compares the lower half of an argument, as the kernel does for these calls.
fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> SeccompCondition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .expect("calls have up to six arguments")
}

/// Returns a filter for calls that fail with `ENOSYS`, as in a kernel without them. It is written
/// by hand, since the compiler supports one answer a filter.
///
/// The flags of clone3(2) are in memory, out of a filter's reach; C libraries fall back to
/// clone(2). On x86-64, numbers from 2^30 on are the x32 ABI, a second way to every call.
fn unknown_calls() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let statement = |code: u32, k: u32| jump(code, k, 0, 0);
    vec![
        // The number is the first word of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32, 1, 0),
        jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_clone3 as u32, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
    ]
}

/// Returns an instruction. `jt` and `jf` are the instructions to skip if a comparison holds, and if
/// not.
fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use rustix::mount::{UnmountFlags, unmount};
    use rustix::net::{AddressFamily, SocketType, socket};

    #[test]
    fn a_filter_holds_for_its_thread_and_its_children() {
        // There is none on such an architecture.
        let Some(filters) = Filters::compile() else { return };
        std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            filters.install(false).unwrap();
            assert_eq!(unmount("/nowhere", UnmountFlags::empty()), Err(Errno::PERM));
            // Threads and programs are still started.
            let inner = std::thread::spawn(|| {
                assert_eq!(unmount("/nowhere", UnmountFlags::empty()), Err(Errno::PERM));
                let vsock = AddressFamily::from_raw(libc::AF_VSOCK as u16);
                assert_eq!(socket(vsock, SocketType::STREAM, None).unwrap_err(), Errno::PERM);
                assert!(socket(AddressFamily::UNIX, SocketType::STREAM, None).is_ok());
                assert!(std::process::Command::new("true").status().unwrap().success());
            });
            inner.join().unwrap();
        })
        .join()
        .unwrap();
        // This thread is not the other.
        assert_ne!(unmount("/nowhere", UnmountFlags::empty()), Ok(()));
    }

    /// Interprets a filter for a call with zeros as arguments.
    fn answer(program: &BpfProgram, call: u32) -> u32 {
        // EM_X86_64 and EM_AARCH64 with AUDIT_ARCH's flags: 64 bits, little-endian.
        let arch: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
        let (mut accumulator, mut at) = (0, 0);
        for _ in 0..program.len() {
            let sock_filter { code, jt, jf, k } = program[at];
            let code = u32::from(code);
            let jump_if = |holds: bool| usize::from(if holds { jt } else { jf });
            at += 1;
            match code & 0x07 {
                libc::BPF_LD => accumulator = [call, arch].get(k as usize / 4).copied().unwrap_or(0),
                libc::BPF_RET => return k,
                libc::BPF_ALU => accumulator &= k,
                libc::BPF_JMP => {
                    at += match code & 0xf0 {
                        libc::BPF_JA => k as usize,
                        libc::BPF_JEQ => jump_if(accumulator == k),
                        libc::BPF_JGE => jump_if(accumulator >= k),
                        libc::BPF_JGT => jump_if(accumulator > k),
                        other => panic!("{other:#x}"),
                    };
                }
                other => panic!("{other:#x}"),
            }
        }
        panic!("a filter goes forward only");
    }

    #[test]
    fn each_call_is_found() {
        let Some(filters) = Filters::compile() else { return };
        let denied = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
        let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
        // With no argument socket(2) wants AF_UNSPEC, which is none of the families.
        let always: Vec<_> =
            [DENIED, DENIED_HERE, IO_URING].concat().into_iter().chain([libc::SYS_socket]).collect();
        for call in 0..600_u32 {
            let expected = match c_long::from(call) {
                libc::SYS_clone3 => unknown,
                call if always.contains(&call) => denied,
                _ => libc::SECCOMP_RET_ALLOW,
            };
            assert_eq!(answer(&filters.usual, call), expected, "{call}");
            let rings = IO_URING.contains(&c_long::from(call));
            let expected = if rings { libc::SECCOMP_RET_ALLOW } else { expected };
            assert_eq!(answer(&filters.with_io_uring, call), expected, "{call}, with rings");
        }
    }

    #[test]
    fn filters_differ_in_io_uring_only() {
        let Some(filters) = Filters::compile() else { return };
        let has = |program: &BpfProgram, call: c_long| {
            program.iter().any(|instruction| i64::from(instruction.k) == call)
        };
        assert!(has(&filters.usual, libc::SYS_io_uring_setup));
        assert!(!has(&filters.with_io_uring, libc::SYS_io_uring_setup));
        assert!(has(&filters.with_io_uring, libc::SYS_bpf));
    }
}
