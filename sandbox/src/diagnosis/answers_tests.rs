//! Each answer of the mapping fits into a line of a terminal or a log, and is harmless to execute.

use super::host_facts::{Confinement, Surroundings};
use super::*;

const STEPS: [LaunchStep; 18] = [
    LaunchStep::Launcher,
    LaunchStep::Receive,
    LaunchStep::Clone,
    LaunchStep::Descriptors,
    LaunchStep::MapIds,
    LaunchStep::Loopback,
    LaunchStep::Hostname,
    LaunchStep::PrivateMounts,
    LaunchStep::HostTree,
    LaunchStep::Scratch,
    LaunchStep::Skeleton,
    LaunchStep::Attach,
    LaunchStep::Overlay,
    LaunchStep::Proc,
    LaunchStep::PivotRoot,
    LaunchStep::Limits,
    LaunchStep::Capabilities,
    LaunchStep::Execute,
];

const ERRNOS: [i32; 13] = [
    libc::EPERM,
    libc::EACCES,
    libc::ENOSYS,
    libc::ENOSPC,
    libc::EUSERS,
    libc::EINVAL,
    libc::ENODEV,
    libc::EROFS,
    libc::EAGAIN,
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOENT,
    libc::EFBIG,
];

/// Returns machines with every combination of the facts that are switches, in all surroundings.
fn machines() -> impl Iterator<Item = HostFacts> {
    use Surroundings::{Container, Docker, GitHub, GitLab, Kubernetes, Lxc, Nothing, Podman};
    let all = [Nothing, Docker, GitLab, GitHub, Podman, Kubernetes, Lxc, Container];
    (0..1_u32 << 10).flat_map(move |bits| {
        let bit = move |number: u32| bits & 1 << number != 0;
        all.into_iter().map(move |surroundings| HostFacts {
            release: if bit(0) { "5.4.0" } else { "6.8.0" }.into(),
            distribution: if bit(0) { "ID=ubuntu\nVERSION_ID=20.04" } else { "" }.into(),
            apparmor_restricts: bit(1),
            userns_clone_off: bit(2),
            seccomp: bit(3),
            euid: if bit(4) { 0 } else { 1000 },
            has_setfcap: bit(5),
            uid_mapped: bit(6),
            in_chroot: bit(7),
            confinement: bit(8).then(|| Confinement::AppArmor("p".into())),
            cannot_become_root: bit(9),
            namespace_limits: bit(1).then(|| ("user.max_net_namespaces".to_owned(), 0)).into_iter().collect(),
            limits: if bit(2) { "Max open files 32 32\nMax processes 20 4096" } else { "" }.into(),
            surroundings,
            ..HostFacts::default()
        })
    })
}

/// Calls `check` with the answers to every refusal, and with the machine.
fn each_answer(check: impl Fn(&Fix, &HostFacts)) {
    for facts in machines() {
        for step in STEPS {
            for errno in ERRNOS {
                let failure = Failure { step, object: String::new(), errno, detail: String::new() };
                fix(&failure, &facts).inspect(|fix| check(fix, &facts));
            }
        }
        shortcoming(&facts).inspect(|fix| check(fix, &facts));
        too_low(&facts).inspect(|fix| check(fix, &facts));
    }
}

#[test]
fn an_answer_is_one_sentence_and_at_most_one_command() {
    each_answer(|answer, _| {
        let text = answer.to_string();
        assert!(!answer.sentence.is_empty() && !text.contains('\n') && !text.ends_with('.'), "{text}");
        assert_eq!(answer.how.is_empty(), answer.command.is_empty(), "{text}");
        assert!(!text.contains("  ") && !answer.command.contains('`'), "{text}");
    });
}

/// Programs execute these commands. `Fix::new` refuses those that change files.
#[test]
fn no_answer_changes_more_than_a_setting_of_the_machine() {
    const SETTINGS: [&str; 3] = ["sysctl -w ", "modprobe overlay", "apt-get install "];
    each_answer(|answer, facts| {
        if let Some(command) = answer.command.strip_prefix("sudo ") {
            let is_local = command.starts_with("journalctl ") || command == "mount -t proc proc /proc";
            assert!(is_local || SETTINGS.iter().any(|setting| command.starts_with(setting)), "{answer}");
            // Inside a container or another tool's sandbox such a command has no effect.
            let is_inside = facts.surroundings != Surroundings::Nothing || facts.cannot_become_root;
            assert!(is_local || !is_inside || answer.how != "run", "{answer} {facts:?}");
        }
    });
}

#[test]
fn no_refusal_to_create_or_to_mount_lacks_an_answer() {
    for facts in machines() {
        for (step, errno) in [
            (LaunchStep::Clone, libc::EPERM),
            (LaunchStep::Clone, libc::ENOSPC),
            (LaunchStep::Clone, libc::ENOSYS),
            (LaunchStep::MapIds, libc::EPERM),
            (LaunchStep::MapIds, libc::EROFS),
            (LaunchStep::PrivateMounts, libc::EPERM),
            (LaunchStep::PrivateMounts, libc::EACCES),
            (LaunchStep::Overlay, libc::EPERM),
        ] {
            let failure = Failure { step, object: String::new(), errno, detail: String::new() };
            assert!(fix(&failure, &facts).is_some(), "{failure:?} {facts:?}");
        }
    }
}
