//! `deny_syscalls CALL=ERRNO… -- PROGRAM ARGUMENT…` runs a program under a seccomp filter that
//! makes system calls fail. `clone(new)` is clone(2) with a flag for a new namespace.

use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

/// CLONE_NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and NEWNS, as Docker's profile has
/// them.
const NEW: [u64; 7] =
    [0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0002_0000];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    // One filter for each errno. All of them are in force.
    let mut answers: BTreeMap<u32, Rules> = BTreeMap::new();
    for arg in args.by_ref().take_while(|arg| arg != "--") {
        let (call, errno) = arg.split_once('=').ok_or("CALL=ERRNO")?;
        let (number, rules) = rules(call)?;
        answers.entry(errno_of(errno)?).or_default().insert(number, rules);
    }
    for (errno, rules) in answers {
        let architecture = std::env::consts::ARCH.try_into()?;
        let filter =
            SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture)?;
        let program: seccompiler::BpfProgram = filter.try_into()?;
        apply_filter(&program)?;
    }
    Err(Command::new(args.next().ok_or("a program")?).args(args).exec().into())
}

fn rules(call: &str) -> Result<(i64, Vec<SeccompRule>), Box<dyn Error>> {
    // Every call matches an empty list of rules.
    let mut rules = Vec::new();
    let number = match call {
        "clone" => libc::SYS_clone,
        "clone(new)" => {
            for flag in NEW {
                let flagged = SeccompCmpOp::MaskedEq(flag);
                let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, flagged, flag)?;
                rules.push(SeccompRule::new(vec![condition])?);
            }
            libc::SYS_clone
        }
        "clone3" => libc::SYS_clone3,
        "unshare" => libc::SYS_unshare,
        "setns" => libc::SYS_setns,
        "mount" => libc::SYS_mount,
        "umount2" => libc::SYS_umount2,
        "pivot_root" => libc::SYS_pivot_root,
        "fsopen" => libc::SYS_fsopen,
        "fsconfig" => libc::SYS_fsconfig,
        "fsmount" => libc::SYS_fsmount,
        "open_tree" => libc::SYS_open_tree,
        "move_mount" => libc::SYS_move_mount,
        "mount_setattr" => libc::SYS_mount_setattr,
        "close_range" => libc::SYS_close_range,
        "memfd_create" => libc::SYS_memfd_create,
        "ptrace" => libc::SYS_ptrace,
        "openat2" => libc::SYS_openat2,
        "pidfd_open" => libc::SYS_pidfd_open,
        "faccessat2" => libc::SYS_faccessat2,
        "statx" => libc::SYS_statx,
        other => return Err(format!("no such call: {other}").into()),
    };
    Ok((number, rules))
}

fn errno_of(name: &str) -> Result<u32, Box<dyn Error>> {
    let number = match name {
        "EPERM" => libc::EPERM,
        "EACCES" => libc::EACCES,
        "EAGAIN" => libc::EAGAIN,
        "EMFILE" => libc::EMFILE,
        "ENFILE" => libc::ENFILE,
        "ENOMEM" => libc::ENOMEM,
        "ENOSPC" => libc::ENOSPC,
        "EINVAL" => libc::EINVAL,
        "ENOSYS" => libc::ENOSYS,
        other => return Err(format!("no such errno: {other}").into()),
    };
    Ok(u32::try_from(number)?)
}
