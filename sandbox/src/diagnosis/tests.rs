//! Every refusal that is known, as the pure mapping answers it: the step, the errno and the facts to the exact words.

use super::host_facts::{Around, Confinement};
use super::*;

fn failure(step: LaunchStep, errno: i32) -> Failure {
    Failure { step, object: String::new(), errno, detail: String::new() }
}

/// A machine of today that nobody confined.
fn facts() -> HostFacts {
    HostFacts {
        release: "6.8.0-45-generic".into(),
        has_setfcap: true,
        uid_mapped: true,
        euid: 1000,
        ..HostFacts::default()
    }
}

#[track_caller]
fn answers(step: LaunchStep, errno: i32, facts: &HostFacts, sentence: &str, command: &str) {
    let error = worded(&failure(step, errno), facts);
    assert_eq!(error.kind(), ErrorKind::HostUnsupported, "{error:?}");
    let fix = error.fix().expect("a fix");
    assert_eq!((fix.sentence.as_str(), fix.command.as_str()), (sentence, command));
    assert!(
        error.hint().unwrap().starts_with(sentence) && error.hint().unwrap().contains(command),
        "{error:?}"
    );
}

const APPARMOR: &str = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
const DOCKER: &str = "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt \
                      systempaths=unconfined IMAGE";

#[test]
fn ubuntus_apparmor_wherever_it_strikes() {
    let ubuntu = HostFacts { apparmor_restricts: true, ..facts() };
    let sentence = "AppArmor restricts unprivileged user namespaces on this machine";
    for (step, errno) in [
        (LaunchStep::MapIds, libc::EPERM),
        (LaunchStep::MapIds, libc::EACCES),
        (LaunchStep::Loopback, libc::EPERM),
        (LaunchStep::Scratch, libc::EACCES),
        (LaunchStep::PrivateMounts, libc::EACCES),
        (LaunchStep::Overlay, libc::EPERM),
    ] {
        answers(step, errno, &ubuntu, sentence, APPARMOR);
    }
    let inside = HostFacts { around: Around::Docker, ..ubuntu };
    answers(LaunchStep::MapIds, libc::EPERM, &inside, sentence, APPARMOR);
    let hint = worded(&failure(LaunchStep::MapIds, libc::EPERM), &inside).hint().unwrap().to_owned();
    assert!(hint.contains("run on the host, not in this container,"), "{hint}");
}

#[test]
fn debians_own_switch() {
    let debian = HostFacts { userns_clone_off: true, ..facts() };
    let command = "sudo sysctl -w kernel.unprivileged_userns_clone=1";
    answers(
        LaunchStep::Clone,
        libc::EPERM,
        &debian,
        "unprivileged user namespaces are switched off",
        command,
    );
}

#[test]
fn namespaces_whose_number_is_limited() {
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let name = format!("user.max_{kind}_namespaces");
        let off = HostFacts {
            namespace_limits: [(name.clone(), 0), ("user.other".into(), 9000)].into(),
            ..facts()
        };
        let command = format!("sudo sysctl -w {name}=15000");
        let sentence = format!("`{name}` is 0, which switches these namespaces off");
        answers(LaunchStep::Clone, libc::ENOSPC, &off, &sentence, &command);
        let few = HostFacts { namespace_limits: [(name.clone(), 3)].into(), ..facts() };
        answers(
            LaunchStep::Clone,
            libc::ENOSPC,
            &few,
            &format!("`{name}` is 3, and so many exist already"),
            &command,
        );
    }
    let nested = "this user has as many namespaces as `user.max_user_namespaces` and its siblings allow, or they are nested \
                  too deep: run fewer tests at a time, or raise the limit";
    answers(
        LaunchStep::Clone,
        libc::EUSERS,
        &facts(),
        nested,
        "sudo sysctl -w user.max_user_namespaces=100000",
    );
}

#[test]
fn an_outer_containers_seccomp_filter() {
    let by_docker = "a seccomp filter forbids namespaces here, as that of Docker does";
    let options = "options: --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt \
                   systempaths=unconfined";
    let podman = "podman run --security-opt seccomp=unconfined --security-opt label=disable --security-opt unmask=ALL IMAGE";
    let pod = "securityContext: {procMount: Unmasked, seccompProfile: {type: Unconfined}, appArmorProfile: {type: \
               Unconfined}}";
    let runner =
        "security_opt = [\"seccomp=unconfined\", \"apparmor=unconfined\", \"systempaths=unconfined\"]";
    for (around, command) in [
        (Around::Docker, DOCKER),
        (Around::Container, DOCKER),
        (Around::GitLab, runner),
        (Around::GitHub, options),
        (Around::Podman, podman),
        (Around::Kubernetes, pod),
        (Around::Lxc, "lxc config set NAME security.nesting=true"),
    ] {
        let facts = HostFacts { seccomp: true, around, ..facts() };
        answers(LaunchStep::Clone, libc::EPERM, &facts, by_docker, command);
        // With CAP_SYS_ADMIN Docker's filter lets clone pass, but a runtime's own may yet deny mounts.
        answers(LaunchStep::HostTree, libc::EPERM, &facts, by_docker, command);
    }
    let docker = HostFacts { seccomp: true, around: Around::Docker, ..facts() };
    let hidden = "a seccomp filter denies that this kernel has clone3(2) with CLONE_PIDFD";
    answers(LaunchStep::Clone, libc::ENOSYS, &docker, hidden, DOCKER);
    let hidden = "a seccomp filter denies that this kernel has fsopen(2)";
    answers(LaunchStep::Scratch, libc::ENOSYS, &docker, hidden, DOCKER);
}

#[test]
fn a_systemd_units_or_an_agents_filter() {
    let unit = HostFacts { seccomp: true, ..facts() };
    let sentence =
        "a seccomp filter forbids namespaces here, as a systemd unit's and an agent's sandbox's do";
    answers(LaunchStep::Clone, libc::EPERM, &unit, sentence, "RestrictNamespaces=no");
    // Landlock leaves no trace that a process could read.
    let sentence = "something around this process forbids mounts, as a sandbox made with Landlock does: run the tests \
                    outside of it";
    answers(LaunchStep::PrivateMounts, libc::EPERM, &facts(), sentence, "");
}

#[test]
fn dockers_apparmor_profile() {
    let confinement = Some(Confinement::AppArmor("docker-default".into()));
    let docker = HostFacts { confinement, seccomp: true, around: Around::Docker, ..facts() };
    let sentence = "AppArmor, by its profile `docker-default`, forbids mounts here";
    answers(LaunchStep::PrivateMounts, libc::EACCES, &docker, sentence, DOCKER);
    let alone = HostFacts { confinement: Some(Confinement::AppArmor("cargo".into())), ..facts() };
    let sentence = "AppArmor, by its profile `cargo`, forbids mounts here";
    answers(LaunchStep::PrivateMounts, libc::EACCES, &alone, sentence, "sudo aa-complain 'cargo'");
    let unknown = HostFacts { around: Around::Docker, ..facts() };
    let sentence = "a security module (AppArmor or SELinux) forbids mounts here";
    answers(LaunchStep::Scratch, libc::EACCES, &unknown, sentence, DOCKER);
}

#[test]
fn selinux() {
    let confinement = Some(Confinement::SeLinux("container_t".into()));
    let sentence = "SELinux forbids mounts to processes of type `container_t`";
    let label = "docker run --security-opt label=disable --security-opt seccomp=unconfined --security-opt \
                 systempaths=unconfined IMAGE";
    let docker = HostFacts { confinement: confinement.clone(), around: Around::Docker, ..facts() };
    answers(LaunchStep::Scratch, libc::EACCES, &docker, sentence, label);
    let alone = HostFacts { confinement, ..facts() };
    answers(LaunchStep::Scratch, libc::EACCES, &alone, sentence, "runcon -t unconfined_t cargo test");
}

#[test]
fn proc_that_is_hidden_or_read_only_or_missing() {
    let hidden = HostFacts { proc_hidden: Some("/proc/kcore".into()), around: Around::Docker, ..facts() };
    let sentence = "parts of /proc are hidden here (/proc/kcore), so that the kernel refuses a new one: sandboxes get the \
                    outer /proc, which shows outer processes";
    answers(LaunchStep::Proc, libc::EPERM, &hidden, sentence, DOCKER);
    let read_only = HostFacts { around: Around::Docker, ..facts() };
    let sentence = "/proc is mounted read-only here, and user ids are mapped by writing to it";
    answers(LaunchStep::MapIds, libc::EROFS, &read_only, sentence, DOCKER);
    answers(LaunchStep::MapIds, libc::EROFS, &facts(), sentence, "ProtectKernelTunables=no");
    let mount = "sudo mount -t proc proc /proc";
    answers(LaunchStep::Launcher, libc::ENOENT, &facts(), "/proc is not mounted here", mount);
}

#[test]
fn root_without_capabilities() {
    let root = HostFacts { euid: 0, has_setfcap: false, ..facts() };
    let sentence = "root lacks CAP_SETFCAP here, which mapping its id needs";
    let user = "setpriv --reuid 1000 --regid 1000 --clear-groups cargo test";
    answers(LaunchStep::MapIds, libc::EPERM, &root, sentence, user);
    for (around, command) in [
        (Around::Docker, "docker run --cap-add SETFCAP IMAGE"),
        (Around::Podman, "podman run --cap-add SETFCAP IMAGE"),
        (Around::Kubernetes, "securityContext: {runAsUser: 1000}"),
    ] {
        answers(LaunchStep::MapIds, libc::EPERM, &HostFacts { around, ..root.clone() }, sentence, command);
    }
}

#[test]
fn a_chroot_and_an_id_that_is_not_mapped() {
    let chroot = HostFacts { in_chroot: true, ..facts() };
    let sentence = "a process in a chroot may not create user namespaces";
    let bwrap = "bwrap --dev-bind DIRECTORY / --proc /proc cargo test";
    answers(LaunchStep::Clone, libc::EPERM, &chroot, sentence, bwrap);
    let unmapped = HostFacts { uid_mapped: false, ..facts() };
    let sentence = "this process's own user id is not mapped in the user namespace it is in";
    answers(LaunchStep::Clone, libc::EPERM, &unmapped, sentence, "unshare --user --map-current-user");
}

#[test]
fn kernels_that_lack_something() {
    let sentence = "this kernel is built without CONFIG_USER_NS, CONFIG_NET_NS, which a sandbox needs: use another kernel";
    let without = HostFacts { namespaces_missing: vec!["user", "net"], ..facts() };
    answers(LaunchStep::Clone, libc::EINVAL, &without, sentence, "");
    answers(
        LaunchStep::Overlay,
        libc::ENODEV,
        &facts(),
        "the kernel has no file system `overlay`",
        "sudo modprobe overlay",
    );
    let gvisor = HostFacts { gvisor: true, ..facts() };
    let sentence = "this is gVisor, whose kernel lacks what a sandbox needs";
    answers(LaunchStep::HostTree, libc::ENOSYS, &gvisor, sentence, "docker run --runtime runc IMAGE");
}

#[test]
fn what_has_run_out() {
    answers(LaunchStep::Launcher, libc::EMFILE, &facts(), "too many files are open", "ulimit -n 65536");
    let sentence =
        "no more processes may be started, by this user's limit or by the limit of the container around";
    for step in [LaunchStep::Launcher, LaunchStep::Clone, LaunchStep::Execute] {
        answers(step, libc::EAGAIN, &facts(), sentence, "ulimit -u 65536");
    }
    let sentence = "there are as many mounts as a mount namespace may have";
    answers(LaunchStep::HostTree, libc::ENOSPC, &facts(), sentence, "sudo sysctl -w fs.mount-max=1000000");
    let deep = Failure {
        detail: "maximum fs stacking depth exceeded".into(),
        ..failure(LaunchStep::Overlay, libc::EINVAL)
    };
    assert_eq!(fix(&deep, &facts()).unwrap().command, "export SANDBOXED_DB_CACHE=DIRECTORY");
}

#[test]
fn a_program_that_may_not_be_executed_again() {
    let sentence = "this program may not be executed again, which is how the launcher starts: its file system is mounted \
                    noexec, or a security module forbids it";
    answers(LaunchStep::Launcher, libc::EACCES, &facts(), sentence, "");
}

#[test]
fn a_missing_program_is_a_wrong_description() {
    let missing =
        Failure { object: "/opt/pg/bin/postgres".into(), ..failure(LaunchStep::Execute, libc::ENOENT) };
    let error = worded(&missing, &facts());
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert_eq!(error.to_string(), "launch the sandbox: execute `/opt/pg/bin/postgres`");
}

#[test]
fn other_failures_keep_the_kernels_words() {
    let odd = Failure { detail: "too many layers".into(), ..failure(LaunchStep::Overlay, libc::EINVAL) };
    let report = format!("{:?}", worded(&odd, &facts()));
    assert!(report.contains("Invalid argument (os error 22): too many layers"), "{report}");
}
