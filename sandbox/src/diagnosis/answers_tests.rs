//! Whatever is asked, the mapping answers in a form that a terminal and a log can show, and it never panics.

use super::host_facts::{Around, Confinement};
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

/// Machines with every combination of the facts that are switches, each in every surrounding.
fn machines() -> impl Iterator<Item = HostFacts> {
    use Around::{Container, Docker, GitHub, GitLab, Kubernetes, Lxc, Nothing, Podman};
    let arounds = [Nothing, Docker, GitLab, GitHub, Podman, Kubernetes, Lxc, Container];
    (0..1_u32 << 9).flat_map(move |bits| {
        let bit = move |number: u32| bits & 1 << number != 0;
        arounds.into_iter().map(move |around| HostFacts {
            release: if bit(0) { "5.4.0" } else { "6.8.0" }.into(),
            apparmor_restricts: bit(1),
            userns_clone_off: bit(2),
            seccomp: bit(3),
            euid: if bit(4) { 0 } else { 1000 },
            has_setfcap: bit(5),
            uid_mapped: bit(6),
            in_chroot: bit(7),
            confinement: bit(8).then(|| Confinement::AppArmor("p".into())),
            around,
            ..HostFacts::default()
        })
    })
}

#[test]
fn every_answer_is_one_sentence_and_at_most_one_command() {
    for facts in machines() {
        for step in STEPS {
            for errno in [
                libc::EPERM,
                libc::EACCES,
                libc::ENOSYS,
                libc::ENOSPC,
                libc::EINVAL,
                libc::ENODEV,
                libc::EROFS,
            ] {
                let failure = Failure { step, object: String::new(), errno, detail: String::new() };
                let Some(answer) = fix(&failure, &facts) else { continue };
                let text = answer.to_string();
                assert!(
                    !answer.sentence.is_empty() && !text.contains('\n') && !text.ends_with('.'),
                    "{text}"
                );
                assert_eq!(answer.how.is_empty(), answer.command.is_empty(), "{text}");
                assert!(!text.contains("  ") && !answer.command.contains('`'), "{text}");
            }
        }
    }
}

#[test]
fn no_refusal_to_create_or_to_mount_is_left_without_an_answer() {
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
