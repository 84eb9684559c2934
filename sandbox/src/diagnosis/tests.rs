//! The exact answers to all known refusals.

use super::host_facts::{Confinement, Surroundings};
use super::*;

fn failure(step: LaunchStep, errno: i32) -> Failure {
    Failure { step, object: String::new(), errno, detail: String::new() }
}

/// Returns a current machine without restrictions.
fn facts() -> HostFacts {
    HostFacts {
        release: "6.8.0-45-generic".into(),
        has_setfcap: true,
        uid_mapped: true,
        has_proc: true,
        has_null: true,
        euid: 1000,
        ..HostFacts::default()
    }
}

fn answer(failure: Failure, facts: &HostFacts) -> Error {
    worded(&failure, facts)
}

#[track_caller]
fn answers(step: LaunchStep, errno: i32, facts: &HostFacts, sentence: &str, command: &str) {
    let error = answer(failure(step, errno), facts);
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
fn apparmor_of_ubuntu() {
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
    let inside = HostFacts { surroundings: Surroundings::Docker, ..ubuntu };
    answers(LaunchStep::MapIds, libc::EPERM, &inside, sentence, APPARMOR);
    let hint = answer(failure(LaunchStep::MapIds, libc::EPERM), &inside).hint().unwrap().to_owned();
    assert!(hint.contains("run on the host, not in this container,"), "{hint}");
}

#[test]
fn limited_numbers_of_namespaces() {
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
            &format!("`{name}` is 3, and as many exist already"),
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
fn the_seccomp_filter_of_an_outer_container() {
    let by_docker = "a seccomp filter forbids namespaces here, such as Docker's";
    let options = "options: --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt \
                   systempaths=unconfined";
    let podman = "podman run --security-opt seccomp=unconfined --security-opt label=disable --security-opt unmask=ALL IMAGE";
    let pod = "securityContext: {procMount: Unmasked, seccompProfile: {type: Unconfined}, appArmorProfile: {type: \
               Unconfined}}";
    let runner =
        "security_opt = [\"seccomp=unconfined\", \"apparmor=unconfined\", \"systempaths=unconfined\"]";
    for (surroundings, command) in [
        (Surroundings::Docker, DOCKER),
        (Surroundings::Container, DOCKER),
        (Surroundings::GitLab, runner),
        (Surroundings::GitHub, options),
        (Surroundings::Podman, podman),
        (Surroundings::Kubernetes, pod),
        (Surroundings::Lxc, "lxc config set NAME security.nesting=true"),
    ] {
        let facts = HostFacts { seccomp: true, surroundings, ..facts() };
        answers(LaunchStep::Clone, libc::EPERM, &facts, by_docker, command);
        // With CAP_SYS_ADMIN Docker's filter lets clone pass, but a runtime's own may yet deny
        // mounts.
        answers(LaunchStep::HostTree, libc::EPERM, &facts, by_docker, command);
    }
    let docker = HostFacts { seccomp: true, surroundings: Surroundings::Docker, ..facts() };
    let hidden = "a seccomp filter hides clone3(2) with CLONE_PIDFD";
    answers(LaunchStep::Clone, libc::ENOSYS, &docker, hidden, DOCKER);
    let hidden = "a seccomp filter hides fsopen(2)";
    answers(LaunchStep::Scratch, libc::ENOSYS, &docker, hidden, DOCKER);
}

#[test]
fn the_seccomp_filter_of_a_systemd_unit() {
    let unit = HostFacts { seccomp: true, ..facts() };
    let sentence =
        "a seccomp filter forbids namespaces here, such as that of a systemd unit or of an agent's sandbox";
    answers(LaunchStep::Clone, libc::EPERM, &unit, sentence, "RestrictNamespaces=no");
    // Landlock leaves no trace that a process could read.
    let sentence = "something around this process forbids mounts, such as a sandbox made with Landlock: run the tests \
                    outside of it";
    answers(LaunchStep::PrivateMounts, libc::EPERM, &facts(), sentence, "");
}

#[test]
fn the_apparmor_profile_of_docker() {
    let confinement = Some(Confinement::AppArmor("docker-default".into()));
    let docker = HostFacts { confinement, seccomp: true, surroundings: Surroundings::Docker, ..facts() };
    let sentence = "AppArmor, by its profile `docker-default`, forbids mounts here";
    answers(LaunchStep::PrivateMounts, libc::EACCES, &docker, sentence, DOCKER);
    let alone = HostFacts { confinement: Some(Confinement::AppArmor("cargo".into())), ..facts() };
    let sentence = "AppArmor, by its profile `cargo`, forbids mounts here";
    answers(LaunchStep::PrivateMounts, libc::EACCES, &alone, sentence, "aa-exec -p unconfined -- cargo test");
    let unknown = HostFacts { surroundings: Surroundings::Docker, ..facts() };
    let sentence = "a security module (AppArmor or SELinux) forbids mounts here";
    answers(LaunchStep::Scratch, libc::EACCES, &unknown, sentence, DOCKER);
}

#[test]
fn selinux() {
    let confinement = Some(Confinement::SeLinux("container_t".into()));
    let sentence = "SELinux forbids mounts to processes of type `container_t`";
    let label = "docker run --security-opt label=disable --security-opt seccomp=unconfined --security-opt \
                 systempaths=unconfined IMAGE";
    let docker =
        HostFacts { confinement: confinement.clone(), surroundings: Surroundings::Docker, ..facts() };
    answers(LaunchStep::Scratch, libc::EACCES, &docker, sentence, label);
    let alone = HostFacts { confinement, ..facts() };
    answers(LaunchStep::Scratch, libc::EACCES, &alone, sentence, "runcon -t unconfined_t cargo test");
}

#[test]
fn a_hidden_or_read_only_or_missing_proc() {
    let hidden =
        HostFacts { proc_hidden: Some("/proc/kcore".into()), surroundings: Surroundings::Docker, ..facts() };
    let sentence = "parts of /proc are hidden here (/proc/kcore), so the kernel refuses a new one: sandboxes get the \
                    outer /proc, which shows outer processes";
    answers(LaunchStep::Proc, libc::EPERM, &hidden, sentence, DOCKER);
    let read_only = HostFacts { surroundings: Surroundings::Docker, ..facts() };
    let sentence = "/proc is mounted read-only here, and user ids are mapped by writing to it";
    answers(LaunchStep::MapIds, libc::EROFS, &read_only, sentence, DOCKER);
    answers(LaunchStep::MapIds, libc::EROFS, &facts(), sentence, "ProtectKernelTunables=no");
    let mount = "sudo mount -t proc proc /proc";
    let missing = HostFacts { has_proc: false, ..facts() };
    answers(LaunchStep::Launcher, libc::ENOENT, &missing, "/proc is not mounted here", mount);
}

#[test]
fn root_without_capabilities() {
    let root = HostFacts { euid: 0, has_setfcap: false, ..facts() };
    let sentence = "root lacks CAP_SETFCAP here, which mapping its id needs";
    let user = "setpriv --reuid 1000 --regid 1000 --clear-groups cargo test";
    answers(LaunchStep::MapIds, libc::EPERM, &root, sentence, user);
    for (surroundings, command) in [
        (Surroundings::Docker, "docker run --cap-add SETFCAP IMAGE"),
        (Surroundings::Podman, "podman run --cap-add SETFCAP IMAGE"),
        (Surroundings::Kubernetes, "securityContext: {runAsUser: 1000}"),
    ] {
        answers(
            LaunchStep::MapIds,
            libc::EPERM,
            &HostFacts { surroundings, ..root.clone() },
            sentence,
            command,
        );
    }
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
fn exhausted_descriptors_processes_and_mounts() {
    let limited = |limits: &str| HostFacts { limits: limits.to_owned(), ..facts() };
    let files = limited("Max open files 1024 1048576");
    let sentence = "this process has all 1024 files open that it may";
    answers(LaunchStep::HostTree, libc::EMFILE, &files, sentence, "ulimit -n 65536");
    let sentence = "this process may open 32 files, and a server needs 64; the hard limit (ulimit -Hn) is no higher: raise \
                    that where it is set, in limits.conf(5), the systemd unit or the container";
    answers(LaunchStep::Launcher, libc::EMFILE, &limited("Max open files 32 32"), sentence, "");
    let processes = limited("Max processes 20 4096");
    let full = HostFacts { full_group: Some(("/sys/fs/cgroup/a".into(), 100)), ..processes.clone() };
    let root = HostFacts { euid: 0, ..processes.clone() };
    for step in [LaunchStep::Launcher, LaunchStep::Clone, LaunchStep::Execute] {
        let sentence = "this user has all 20 processes and threads that it may";
        answers(step, libc::EAGAIN, &processes, sentence, "ulimit -u 4096");
        let sentence = "the control group `/sys/fs/cgroup/a` may have 100 processes and is full: raise its pids.max where \
                        it is set, as by TasksMax= of a systemd unit or --pids-limit of a container";
        answers(step, libc::EAGAIN, &full, sentence, "");
        let sentence =
            "the machine has all processes and threads that it may (kernel.threads-max, kernel.pid_max)";
        answers(step, libc::EAGAIN, &root, sentence, "");
    }
    let sentence = "this mount namespace has as many mounts as `fs.mount-max` allows";
    answers(LaunchStep::HostTree, libc::ENOSPC, &facts(), sentence, "sudo sysctl -w fs.mount-max=1000000");
    let inside = HostFacts { cannot_become_root: true, ..facts() };
    let hint = answer(failure(LaunchStep::HostTree, libc::ENOSPC), &inside).hint().unwrap().to_owned();
    assert!(hint.contains("run outside the sandbox around this process, `sudo sysctl"), "{hint}");
    let deep = Failure {
        detail: "maximum fs stacking depth exceeded".into(),
        ..failure(LaunchStep::Overlay, libc::EINVAL)
    };
    assert_eq!(fix(&deep, &facts()).unwrap().how, "set SANDBOXED_DB_CACHE to another directory, as in");
}

#[test]
fn a_missing_program_is_an_invalid_description() {
    let missing =
        Failure { object: "/opt/pg/bin/postgres".into(), ..failure(LaunchStep::Execute, libc::ENOENT) };
    let error = answer(missing, &facts());
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert_eq!(error.to_string(), "launch the sandbox: execute `/opt/pg/bin/postgres`");
}

#[test]
fn other_failures_keep_the_words_of_the_kernel() {
    let odd = Failure { detail: "too many layers".into(), ..failure(LaunchStep::Overlay, libc::EINVAL) };
    let report = format!("{:?}", answer(odd, &facts()));
    assert!(report.contains("Invalid argument (os error 22): too many layers"), "{report}");
}
