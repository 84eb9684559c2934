//! System calls, mounts and /proc as a superuser's programs meet them inside a sandbox.
//!
//! perl, which every Debian has, makes the system calls: a sandbox executes no program of a test.

use std::collections::BTreeMap;
use std::process::Command;

use sandboxed_db::{Postgres, Sandbox};
use sandboxed_db_tests::{
    alone, is_alone, passed, processes_beside, runs_an_image, skip, start, status as status_of,
};

use crate::isolation::{fails, has_its_own_proc, run, shell};

pub(crate) fn has_perl(db: &Sandbox) -> bool {
    let has = run(db, "perl -e 1").1 == 0;
    if !has {
        skip("there is no perl");
    }
    has
}

/// The errno of system calls in the sandbox; 0 for success.
fn answers(db: &Sandbox, calls: &[(&str, libc::c_long, &str)]) -> BTreeMap<String, i32> {
    let script: String = calls
        .iter()
        .map(|(name, number, arguments)| {
            format!(
                "$! = 0; syscall({number}{arguments}) == -1 or $! = 0; printf \"%s %d\\n\", q({name}), $!;"
            )
        })
        .collect();
    let output = shell(db, &format!("perl -e '{script}'"));
    let answer = |line: &str| {
        let (name, errno) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), errno.parse().unwrap())
    };
    output.lines().map(answer).collect()
}

#[track_caller]
fn all_answer(db: &Sandbox, calls: &[(&str, libc::c_long, &str)], errno: i32) {
    let answers = answers(db, calls);
    assert_eq!(answers.len(), calls.len(), "{answers:?}");
    let others: Vec<_> = answers.iter().filter(|(_, answer)| **answer != errno).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// System calls with arguments for which the kernel itself has other errors.
#[cfg(target_pointer_width = "64")]
const DENIED: &[(&str, libc::c_long, &str)] = &[
    ("mount", libc::SYS_mount, ", 0, 0, 0, 0, 0"),
    ("umount2", libc::SYS_umount2, ", 0, 0"),
    ("fsopen", libc::SYS_fsopen, ", 0, 0"),
    ("fsconfig", libc::SYS_fsconfig, ", -1, 0, 0, 0, 0"),
    ("fsmount", libc::SYS_fsmount, ", -1, 0, 0"),
    ("fspick", libc::SYS_fspick, ", -1, 0, 0"),
    ("move_mount", libc::SYS_move_mount, ", -1, 0, -1, 0, 0"),
    ("open_tree", libc::SYS_open_tree, ", -1, 0, 0"),
    ("open_tree_attr", 467, ", -1, 0, 0, 0, 0"),
    ("mount_setattr", libc::SYS_mount_setattr, ", -1, 0, 0, 0, 0"),
    ("pivot_root", libc::SYS_pivot_root, ", 0, 0"),
    ("chroot", libc::SYS_chroot, ", 0"),
    ("unshare nothing", libc::SYS_unshare, ", 0"),
    ("unshare files", libc::SYS_unshare, ", 0x400"),
    ("setns", libc::SYS_setns, ", -1, 0"),
    ("clone user", libc::SYS_clone, ", 0x10000000, 0, 0, 0, 0"),
    ("clone mounts", libc::SYS_clone, ", 0x00020000, 0, 0, 0, 0"),
    ("clone pids", libc::SYS_clone, ", 0x20000000, 0, 0, 0, 0"),
    ("clone network", libc::SYS_clone, ", 0x40000000, 0, 0, 0, 0"),
    ("clone ipc", libc::SYS_clone, ", 0x08000000, 0, 0, 0, 0"),
    ("clone uts", libc::SYS_clone, ", 0x04000000, 0, 0, 0, 0"),
    ("clone cgroup", libc::SYS_clone, ", 0x02000000, 0, 0, 0, 0"),
    ("clone all at once", libc::SYS_clone, ", 0x7e020011, 0, 0, 0, 0"),
    ("ptrace", libc::SYS_ptrace, ", 16, 999999, 0, 0"),
    ("process_vm_readv", libc::SYS_process_vm_readv, ", 999999, 0, 0, 0, 0, 0"),
    ("process_vm_writev", libc::SYS_process_vm_writev, ", 999999, 0, 0, 0, 0, 0"),
    ("kcmp", libc::SYS_kcmp, ", $$, $$, 99, 0, 0"),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, ", -1, 0, 0"),
    ("keyctl", libc::SYS_keyctl, ", 0, -3, 0, 0, 0"),
    ("add_key", libc::SYS_add_key, ", 0, 0, 0, 0, 0"),
    ("request_key", libc::SYS_request_key, ", 0, 0, 0, 0"),
    ("bpf", libc::SYS_bpf, ", 99, 0, 0"),
    ("perf_event_open", libc::SYS_perf_event_open, ", 0, 0, -1, -1, 0"),
    ("userfaultfd", libc::SYS_userfaultfd, ", 1"),
    ("fanotify_init", libc::SYS_fanotify_init, ", -1, -1"),
    ("fanotify_mark", libc::SYS_fanotify_mark, ", -1, 0, 0, -1, 0"),
    ("name_to_handle_at", libc::SYS_name_to_handle_at, ", -1, 0, 0, 0, 0"),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, ", -1, 0, 0"),
    ("lookup_dcookie", libc::SYS_lookup_dcookie, ", 0, 0, 0"),
    ("nfsservctl", libc::SYS_nfsservctl, ", 0, 0, 0"),
    ("init_module", libc::SYS_init_module, ", 0, 0, 0"),
    ("finit_module", libc::SYS_finit_module, ", -1, 0, 0"),
    ("delete_module", libc::SYS_delete_module, ", 0, 0"),
    ("kexec_load", libc::SYS_kexec_load, ", 0, 99, 0, 0"),
    ("reboot", libc::SYS_reboot, ", 0, 0, 0, 0"),
    ("swapon", libc::SYS_swapon, ", 0, 0"),
    ("swapoff", libc::SYS_swapoff, ", 0"),
    ("quotactl", libc::SYS_quotactl, ", -1, 0, 0, 0"),
    ("quotactl_fd", 443, ", -1, 0, 0, 0"),
    ("acct", libc::SYS_acct, ", 0"),
    ("syslog", libc::SYS_syslog, ", 99, 0, 0"),
    ("vhangup", libc::SYS_vhangup, ""),
    ("settimeofday", libc::SYS_settimeofday, ", 0, 0"),
    ("clock_settime", libc::SYS_clock_settime, ", 99, 0"),
    ("clock_adjtime", libc::SYS_clock_adjtime, ", 99, 0"),
    ("adjtimex", libc::SYS_adjtimex, ", 0"),
    ("sethostname", libc::SYS_sethostname, ", 0, -1"),
    ("setdomainname", libc::SYS_setdomainname, ", 0, -1"),
    ("io_uring_setup", libc::SYS_io_uring_setup, ", 0, 0"),
    ("io_uring_enter", libc::SYS_io_uring_enter, ", -1, 0, 0, 0, 0, 0"),
    ("io_uring_register", libc::SYS_io_uring_register, ", -1, 0, 0, 0"),
    ("personality without randomness", libc::SYS_personality, ", 0x0040000"),
    ("ioctl TIOCSTI", libc::SYS_ioctl, ", -1, 0x5412, 0"),
    // The kernel looks at the lower half only.
    ("ioctl TIOCSTI and more", libc::SYS_ioctl, ", -1, 0x100005412, 0"),
    ("ioctl TIOCLINUX", libc::SYS_ioctl, ", -1, 0x541c, 0"),
    ("socket to the hypervisor", libc::SYS_socket, ", 40, 1, 0"),
    ("socket for cryptography", libc::SYS_socket, ", 38, 5, 0"),
    ("socket for packets", libc::SYS_socket, ", 17, 3, 0"),
];

#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[(&str, libc::c_long, &str)] = &[
    ("kexec_file_load", libc::SYS_kexec_file_load, ", -1, -1, 0, 0, -1"),
    ("_sysctl", libc::SYS__sysctl, ", 0"),
    ("sysfs", libc::SYS_sysfs, ", 3"),
    ("ustat", libc::SYS_ustat, ", 0, 0"),
    ("uselib", libc::SYS_uselib, ", 0"),
    ("modify_ldt", libc::SYS_modify_ldt, ", 0, 0, 0"),
    ("iopl", libc::SYS_iopl, ", 99"),
    ("ioperm", libc::SYS_ioperm, ", -1, 0, 0"),
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[(&str, libc::c_long, &str)] = &[];

#[test]
fn system_calls_are_denied() {
    let db = start();
    if !has_perl(&db) {
        return;
    }
    all_answer(&db, &[DENIED, DENIED_HERE].concat(), libc::EPERM);
    // A filter cannot read flags in memory.
    let size = if cfg!(target_arch = "x86_64") { ", 0, 0" } else { ", 0, 1" };
    all_answer(&db, &[("clone3", libc::SYS_clone3, size)], libc::ENOSYS);
    let harmless = [
        ("a socket", libc::SYS_socket, ", 1, 1, 0"),
        ("a socket of IPv6", libc::SYS_socket, ", 10, 1, 0"),
        ("personality", libc::SYS_personality, ", 0xffffffff"),
        ("getpid", libc::SYS_getpid, ""),
    ];
    all_answer(&db, &harmless, 0);
    // A neighbouring ioctl passes the filter.
    all_answer(&db, &[("ioctl", libc::SYS_ioctl, ", -1, 0x5413, 0")], libc::EBADF);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn other_ways_into_the_kernel_are_closed() {
    let db = start();
    if !has_perl(&db) {
        return;
    }
    const X32: libc::c_long = 0x4000_0000;
    let calls = [
        ("x32 mount", X32 + libc::SYS_mount, ", 0, 0, 0, 0, 0"),
        ("x32 ptrace", X32 + 521, ", 16, 999999, 0, 0"),
        ("x32 getpid", X32 + libc::SYS_getpid, ""),
    ];
    all_answer(&db, &calls, libc::ENOSYS);
    // The smallest program that calls getpid(2) as a 32-bit program does, and then exits with 7. It
    // is executed from memory.
    let program = "7f454c4602010100 0000000000000000 02003e0001000000 7800400000000000 4000000000000000 0000000000000000 \
        0000000040003800 0100000000000000 0100000005000000 0000000000000000 0000400000000000 0000400000000000 \
        8f00000000000000 8f00000000000000 0010000000000000 b814000000cd80bf 07000000b83c0000 000f05";
    let memfd_create = libc::SYS_memfd_create;
    let execute = |program: &str| {
        let program: String = program.split_whitespace().collect();
        let script = format!(
            "$name = \"x\"; $fd = syscall({memfd_create}, $name, 0); open(F, \">&=\", $fd); syswrite(F, pack(\"H*\", \"{program}\")); \
             if (!fork) {{ exec(\"/proc/self/fd/$fd\"); exit 99; }} wait; printf \"%d %d\\n\", $? & 127, $? >> 8"
        );
        shell(&db, &format!("perl -e '{script}'"))
    };
    let sigsys = libc::SIGSYS;
    assert_eq!(execute(program), format!("{sigsys} 0"));
    // With `nop` in place of the call the program exits.
    assert_eq!(execute(&program.replace("cd80", "9090")), "0 7");
}

/// `every_engine/isolation.rs` looks at the server's processes.
#[test]
fn a_program_of_the_server_has_the_filter_and_no_capability() {
    let names = "-e 'Cap[A-Z][a-z]*:.0000000000000000' -e 'NoNewPrivs:.1' -e 'Seccomp:.2'";
    assert_eq!(shell(&start(), &format!("grep -c {names} /proc/self/status")), "7");
}

/// Programs inherit ignored signals, and a shell or a test runner may ignore any.
#[test]
#[ignore = "run by `signals_are_reset`"]
fn ignored_signals_are_looked_for() {
    if !is_alone() {
        return;
    }
    // A signal that no server handles.
    let ignored = |mask: &str| u64::from_str_radix(mask, 16).unwrap() & (1 << (libc::SIGVTALRM - 1)) != 0;
    assert!(ignored(&status_of(std::process::id(), "SigIgn").unwrap()));
    let db = start();
    for pid in processes_beside(db.pid()) {
        assert!(!ignored(&status_of(pid, "SigIgn").unwrap()), "{pid}");
    }
    assert!(!ignored(&shell(&db, "grep SigIgn /proc/self/status | cut -f 2")));
}

#[test]
fn signals_are_reset() {
    let test = alone("hardening::ignored_signals_are_looked_for");
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' VTALRM; exec \"$0\" \"$@\""]).arg(test.get_program()).args(test.get_args());
    shell.envs(test.get_envs().filter_map(|(name, value)| Some((name, value?))));
    passed(&mut shell);
}

#[test]
fn writable_directories_execute_no_program() {
    let db = start();
    // The old root is not mounted below the new one.
    let root = if runs_an_image::<Postgres>() { " - overlay " } else { " - tmpfs " };
    assert!(shell(&db, "grep ' / / ' /proc/self/mountinfo").contains(root));
    for directory in ["/tmp", "/run", "/dev/shm", "/var/lib/postgresql/data"] {
        fails(&db, &format!("cp /bin/true {directory}/true && {directory}/true"), "Permission denied");
    }
}

#[test]
fn devices_are_few() {
    let db = start();
    let known = ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"];
    let there = shell(&db, "ls -A /dev");
    assert!(there.lines().all(|name| known.contains(&name)), "{there}");
    assert_eq!(shell(&db, "find / -xdev -type b -o -xdev -type c 2> /dev/null; true"), "");
    fails(&db, "mknod /tmp/memory c 1 1", "Operation not permitted");
}

#[test]
fn files_of_proc_about_the_host_are_masked() {
    let db = start();
    if !has_its_own_proc(&db) {
        return;
    }
    let masked = [
        "interrupts", "kallsyms", "kcore", "keys", "kmsg", "kpagecount", "kpageflags", "slabinfo",
        "timer_list", "vmallocinfo",
    ];
    for name in masked {
        let (output, exit) = run(&db, &format!("head -c 1 /proc/{name}"));
        let closed = exit != 0 && (output.contains("Permission denied") || output.contains("No such file"));
        assert!(closed, "{name}: exit {exit}, {output}");
    }
    for name in ["acpi", "scsi", "asound"] {
        assert_eq!(shell(&db, &format!("ls -A /proc/{name} 2> /dev/null || true")), "", "{name}");
    }
    for path in [
        "sysrq-trigger", "sys/kernel/hostname", "sys/vm/drop_caches", "self/oom_score_adj", "1/oom_score_adj",
    ] {
        let (output, exit) = run(&db, &format!("echo 0 > /proc/{path}"));
        let closed = ["Read-only", "Permission denied", "nonexistent"].iter().any(|why| output.contains(why));
        assert!(exit != 0 && closed, "{path}: exit {exit}, {output}");
    }
    // Servers and their tools read these files.
    for name in ["cpuinfo", "meminfo", "stat", "uptime", "self/status", "sys/kernel/osrelease"] {
        assert_ne!(shell(&db, &format!("cat /proc/{name}")), "", "{name}");
    }
    fails(&db, "ls /sys", "No such file");
}

/// Images with Rust have cargo's directory in /usr, with the token for publishing in it.
#[test]
fn directories_of_cargo_are_not_there() {
    let db = start();
    for name in ["CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"] {
        if let Some(path) = std::env::var_os(name) {
            let listing = run(&db, &format!("ls -A '{}' 2> /dev/null", path.display())).0;
            assert_eq!(listing, "", "{name}");
        }
    }
    assert_eq!(run(&db, "ls -A /usr/local/cargo /usr/local/rustup /usr/src 2> /dev/null | grep -v :").0, "");
}

/// OpenSSL's default is a cipher, which makes the start of a server longer.
#[test]
fn random_numbers_are_made_by_a_hash() {
    let (list, exit) = run(&start(), "openssl list -random-instances");
    if exit != 0 {
        return skip("openssl(1) cannot list its generators");
    }
    assert!(list.contains("HASH-DRBG") && !list.contains("CTR-DRBG"), "{list}");
}
