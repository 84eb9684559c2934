//! Simulated machines that refuse a step: the doctor and a failed launch report the same cause and
//! fix.

use rstest::rstest;
use sandboxed_db_tests::{ScratchDirs, TestProcess};

use crate::lifecycle::SUBJECT;
use crate::simulated_host::{SimulatedHost, assert_check, can, with_kernel_files};

/// The settings that a pod needs; every simulated machine is a pod.
const POD: &str = "give the pod `hostUsers: false`, and its container";
const LOOSENED: &str = "securityContext: {procMount: Unmasked, seccompProfile: {type: Unconfined}, appArmorProfile: {type: \
                        Unconfined}}";
const FILTERED: &str = "a seccomp filter forbids namespaces here, such as Docker's";

/// The fix for a setting of the host, whose command has no effect inside a pod.
const ON_HOST: &str = "run on the host, not in this container,";

/// The answers of Docker's default profile to a process without CAP_SYS_ADMIN.
const DOCKER: &[&str] = &[
    "clone3=ENOSYS", "clone(new)=EPERM", "unshare=EPERM", "setns=EPERM", "mount=EPERM", "umount2=EPERM",
    "pivot_root=EPERM", "fsopen=EPERM", "fsconfig=EPERM", "fsmount=EPERM", "open_tree=EPERM",
    "move_mount=EPERM", "mount_setattr=EPERM",
];

#[test]
fn the_doctor_passes_here_and_leaves_nothing() {
    let dirs = ScratchDirs::new();
    let mut command = dirs.command(SUBJECT);
    let (ended, lines) = TestProcess::start(command.args(["keep", "doctor"])).gone();
    assert_eq!(ended, "code 0", "{lines:?}");
    let report = lines.join("\n");
    for check in
        ["kernel", "cache", "launcher", "namespaces", "overlay", "reach", "limits", "postgres", "trial"]
    {
        assert!(
            report.lines().any(|line| line.contains(&format!("  {check} "))),
            "{check} is not in\n{report}"
        );
    }
    assert!(report.contains("Sandboxes work here"), "{report}");
    dirs.assert_no_leftovers();
}

/// A root in a plain directory of a tmpfs, with the machine's directories in it.
const CHROOT: &str = "mount -t tmpfs tmpfs /mnt\nmkdir /mnt/root\n\
    for d in /*; do [ $d != /mnt ] || continue; if [ -L $d ]; then cp -P $d /mnt/root$d; elif [ -d $d ]; then mkdir \
    /mnt/root$d; mount --rbind $d /mnt/root$d; fi; done\nexec chroot /mnt/root";

/// A machine whose security module forbids mounts to processes with that label.
fn confined(label: &str) -> SimulatedHost {
    // The shell's process becomes that of the program.
    SimulatedHost::new(format!(
        "mount -t tmpfs tmpfs /mnt\necho '{label}' > /mnt/label\nmount --bind /mnt/label /proc/$$/attr/current\n\
         exec \"$DENY_SYSCALLS\" mount=EACCES --"
    ))
}

const PROC: &[&str] = &["--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"];
const SELINUX: &str = "docker run --security-opt label=disable --security-opt seccomp=unconfined --security-opt systempaths=unconfined IMAGE";
const OUT_OF_CHROOT: &str = "run the tests outside of it, or enter it by pivot_root as in";
const BWRAP: &str = "bwrap --dev-bind DIRECTORY / --proc /proc cargo test";

#[rstest]
#[case::the_filter_of_docker(SimulatedHost::filtered(DOCKER), "namespaces", FILTERED, POD, LOOSENED)]
#[case::a_filter_of_the_mount_api(
    SimulatedHost::filtered(&["fsopen=EPERM", "open_tree=EPERM", "move_mount=EPERM", "mount_setattr=EPERM"]),
    "mounts", FILTERED, POD, LOOSENED
)]
#[case::a_filter_of_the_new_root(SimulatedHost::filtered(&["pivot_root=EPERM"]), "root", FILTERED, POD, LOOSENED)]
#[case::a_filter_of_propagation(SimulatedHost::filtered(&["mount=EPERM"]), "mounts", FILTERED, POD, LOOSENED)]
#[case::apparmor(
    confined("docker-default (enforce)"),
    "mounts",
    "AppArmor, by its profile `docker-default`, forbids mounts here",
    POD,
    LOOSENED
)]
#[case::selinux(
    confined("system_u:system_r:container_t:s0:c1,c2"),
    "mounts",
    "SELinux forbids mounts to processes of type `container_t`",
    "run the outer container with",
    SELINUX
)]
#[case::an_unknown_security_module(
    confined(""),
    "mounts",
    "a security module (AppArmor or SELinux) forbids mounts here",
    POD,
    LOOSENED
)]
#[case::apparmor_of_ubuntu(
    with_kernel_files(
        &[("apparmor_restrict_unprivileged_userns", "1")], "exec \"$DENY_SYSCALLS\" mount=EACCES --"
    ),
    "mounts", "AppArmor restricts unprivileged user namespaces on this machine", ON_HOST,
    "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
)]
#[case::the_switch_of_debian(
    with_kernel_files(
        &[("unprivileged_userns_clone", "0")], "exec \"$DENY_SYSCALLS\" 'clone(new)=EPERM' clone3=ENOSYS --"
    ),
    "namespaces", "unprivileged user namespaces are switched off", ON_HOST,
    "sudo sysctl -w kernel.unprivileged_userns_clone=1"
)]
#[case::a_read_only_proc(
    SimulatedHost::new("mount -o remount,bind,ro /proc\nexec").in_namespaces(PROC), "user id",
    "/proc is mounted read-only here, and user ids are mapped by writing to it", POD, LOOSENED
)]
// The program is not reached through /proc then.
#[case::no_proc(
    SimulatedHost::new("mount -t tmpfs tmpfs /proc\nrun() { shift; exec \"$SUBJECT\" \"$@\"; }\nrun"),
    "launcher",
    "/proc is not mounted here",
    "run",
    "sudo mount -t proc proc /proc"
)]
#[case::no_devices(
    SimulatedHost::new("mount -t tmpfs tmpfs /dev\nexec"),
    "launcher",
    "/dev/null does not exist here: bind the host's /dev, or mount a devtmpfs there",
    "",
    ""
)]
#[case::no_device_but_null(
    SimulatedHost::new(
        "mount -t tmpfs tmpfs /mnt\ntouch /mnt/null\nmount --bind /dev/null /mnt/null\nmount --rbind /mnt /dev\nexec"
    ),
    "mounts",
    "the device `/dev/urandom` does not exist here: bind the host's /dev, or mount a devtmpfs there",
    "",
    ""
)]
#[case::a_chroot_into_a_directory(
    SimulatedHost::new(CHROOT),
    "namespaces",
    "a process in a chroot may not create user namespaces",
    OUT_OF_CHROOT,
    BWRAP
)]
#[case::a_chroot_into_a_mount(
    SimulatedHost::new("mount --rbind / /mnt\nexec chroot /mnt"),
    "namespaces",
    "the kernel lets this process create no user namespace, as it does in a chroot",
    OUT_OF_CHROOT,
    BWRAP
)]
#[case::a_user_id_without_a_map(
    SimulatedHost::new("exec").in_namespaces(&["--user"]), "namespaces",
    "this process's user id is not mapped in its user namespace", "enter that namespace with a map, as in",
    "unshare --user --map-current-user"
)]
#[case::root_without_capabilities(
    SimulatedHost::new("exec setpriv --bounding-set=-all --inh-caps=-all"),
    "user id",
    "root lacks CAP_SETFCAP here, which mapping its id needs",
    "run the pod's container as another user",
    "securityContext: {runAsUser: 1000}"
)]
fn a_refusal_is_explained(
    #[case] host: SimulatedHost,
    #[case] check: &str,
    #[case] sentence: &str,
    #[case] how: &str,
    #[case] command: &str,
) {
    if can() {
        host.refuses(check, sentence, how, command);
    }
}

#[rstest]
fn namespaces_that_are_off(#[values("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")] kind: &str) {
    if can() {
        SimulatedHost::new(format!("echo 0 > /proc/sys/user/max_{kind}_namespaces\nexec")).refuses(
            "namespaces",
            &format!("`user.max_{kind}_namespaces` is 0, which switches these namespaces off"),
            ON_HOST,
            &format!("sudo sysctl -w user.max_{kind}_namespaces=15000"),
        );
    }
}

#[rstest]
#[case("close_range", "namespaces", "close_range(2), which came with 5.9", "close_range(2)")]
#[case(
    "mount_setattr",
    "mounts",
    "mount_setattr(2), which came with 5.12",
    "mount_setattr(2), or open_tree(2) and move_mount(2)"
)]
#[case(
    "open_tree",
    "mounts",
    "mount_setattr(2), which came with 5.12",
    "mount_setattr(2), or open_tree(2) and move_mount(2)"
)]
#[case("fsopen", "mounts", "fsopen(2), which came with 5.2", "fsopen(2)")]
#[case("memfd_create", "launcher", "memfd_create(2), which came with 3.17", "memfd_create(2)")]
fn a_missing_system_call(#[case] call: &str, #[case] check: &str, #[case] old: &str, #[case] hidden: &str) {
    if !can() {
        return;
    }
    let filter = format!("exec \"$DENY_SYSCALLS\" {call}=ENOSYS --");
    let sentence = format!("Linux 3.10.0-old has no {old}; sandboxes need 5.12 or newer");
    let machine = with_kernel_files(&[("osrelease", "3.10.0-old")], &filter);
    let report = machine.doctor(false);
    let line = report.lines().find(|line| line.starts_with("FAILED"));
    // Where the newer kernel comes from depends on the distribution.
    assert!(
        line.is_some_and(|line| line.contains(&format!("  {check} ")) && line.contains(&sentence)),
        "{report}"
    );
    let launch = String::from_utf8_lossy(&machine.run("return").stderr).into_owned();
    assert!(launch.contains(&format!("\n  hint: {sentence}: ")), "{launch}");
    let sentence = format!("a seccomp filter hides {hidden}");
    SimulatedHost::filtered(&[&format!("{call}=ENOSYS")]).refuses(check, &sentence, POD, LOOSENED);
}

#[test]
fn sandboxes_start_without_calls_of_newer_kernels() {
    if can() {
        for call in ["clone3", "openat2", "pidfd_open", "faccessat2", "statx"] {
            SimulatedHost::filtered(&[&format!("{call}=ENOSYS")]).starts();
        }
    }
}

#[test]
fn an_older_kernel_is_a_warning() {
    if can() {
        let report = with_kernel_files(&[("osrelease", "6.1.0-18-amd64")], "exec").starts();
        assert!(
            report.contains("warning  kernel      Linux 6.1.0-18-amd64: before 6.6 a tmpfs has no"),
            "{report}"
        );
    }
}

#[test]
fn a_masked_proc_is_a_warning_with_the_command() {
    if can() {
        let script = "place=/proc/scsi; [ -d $place ] || place=/proc/irq\nmount -t tmpfs tmpfs $place\necho $place >&2\nexec";
        let machine = SimulatedHost::new(script).in_namespaces(PROC);
        let report = machine.starts();
        let place = String::from_utf8_lossy(&machine.run("doctor").stderr).lines().next().unwrap().to_owned();
        let sentence = format!(
            "parts of /proc are hidden here ({place}), so the kernel refuses a new one: sandboxes get the outer /proc, \
             which shows outer processes"
        );
        // The machine itself may be masked in the first place.
        if !std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" /proc/") {
            assert_check(&report, "warning", "proc", &sentence, POD, LOOSENED);
        }
        assert!(report.contains("Sandboxes work here, with "), "{report}");
    }
}
