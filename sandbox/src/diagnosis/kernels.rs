//! Kernels that lack something: the call, the version that brought it, and the package of a newer
//! kernel.

use super::host_facts::HostFacts;
use super::outer_container::{filtered, on_machine};
use crate::fix::Fix;
use crate::launch::{Failure, LaunchStep};
use crate::machine::os_release;

/// The oldest kernel on which a sandbox starts, and the one that has all it uses.
pub(crate) const OLDEST: (u32, u32) = (5, 12);
pub(crate) const COMPLETE: (u32, u32) = (6, 6);

/// Returns the calls of a step that some kernels lack, each with the version that brought it.
fn calls(step: LaunchStep) -> &'static [(&'static str, (u32, u32))] {
    match step {
        LaunchStep::Launcher => &[("memfd_create(2)", (3, 17))],
        LaunchStep::Clone => &[("clone3(2) with CLONE_PIDFD", (5, 3))],
        LaunchStep::Descriptors => &[("close_range(2)", (5, 9))],
        LaunchStep::HostTree | LaunchStep::Attach => {
            &[("mount_setattr(2)", (5, 12)), ("open_tree(2) and move_mount(2)", (5, 2))]
        }
        LaunchStep::Scratch | LaunchStep::Overlay | LaunchStep::Proc => &[("fsopen(2)", (5, 2))],
        _ => &[],
    }
}

/// Returns the fix for a missing call: the kernel is old, or a filter hides the call.
pub(super) fn missing_call(failure: &Failure, facts: &HostFacts) -> Option<Fix> {
    let kernel = facts.kernel();
    let calls = calls(failure.step);
    if let Some((call, (major, minor))) = calls.iter().find(|(_, since)| kernel < *since) {
        let sentence = format!(
            "Linux {} has no {call}, which came with {major}.{minor}; sandboxes need {}.{} or newer",
            facts.release, OLDEST.0, OLDEST.1
        );
        return Some(newer_kernel(sentence, facts));
    }
    let names: Vec<_> = calls.iter().map(|(call, _)| *call).collect();
    let names = if names.is_empty() { "a system call".to_owned() } else { names.join(", or ") };
    Some(match (facts.gvisor, facts.seccomp) {
        (true, _) => gvisor(),
        (_, true) => filtered(facts, &format!("a seccomp filter hides {names}")),
        _ => Fix::none(format!(
            "this kernel has no {names}, though its version {} should: use another kernel",
            facts.release
        )),
    })
}

/// Returns the fix for a kernel before 5.11, which mounts no overlayfs in a user namespace.
pub(super) fn overlay_too_old(failure: &Failure, facts: &HostFacts) -> Option<Fix> {
    (failure.step == LaunchStep::Overlay && facts.kernel() < (5, 11)).then(|| {
        let sentence = format!(
            "Linux {} lets only root mount overlayfs; others may since 5.11, and sandboxes need {}.{} or newer",
            facts.release, OLDEST.0, OLDEST.1
        );
        newer_kernel(sentence, facts)
    })
}

pub(super) fn gvisor() -> Fix {
    Fix::new(
        "this is gVisor, whose kernel lacks what a sandbox needs",
        "run the outer container with",
        "docker run --runtime runc IMAGE",
    )
}

/// Returns what an older kernel costs, though sandboxes start.
pub(crate) fn shortcoming(facts: &HostFacts) -> Option<Fix> {
    let kernel = facts.kernel();
    let sentence = if kernel < OLDEST {
        format!("it is older than {}.{}, which sandboxes need", OLDEST.0, OLDEST.1)
    } else if kernel < COMPLETE {
        format!(
            "before {}.{} a tmpfs has no user attributes, so a server cannot remove a directory of its layer and make it \
             again",
            COMPLETE.0, COMPLETE.1
        )
    } else {
        return None;
    };
    Some(newer_kernel(sentence, facts))
}

fn newer_kernel(sentence: String, facts: &HostFacts) -> Fix {
    let field = |name| os_release::field(&facts.distribution, name);
    match (field("ID"), field("VERSION_ID"), field("VERSION_CODENAME")) {
        ("ubuntu", version, _) if !version.is_empty() => {
            on_machine(facts, sentence, format!("sudo apt-get install linux-generic-hwe-{version}"))
        }
        ("debian", _, codename) if !codename.is_empty() => on_machine(
            facts,
            sentence,
            format!("sudo apt-get install -t {codename}-backports linux-image-amd64"),
        ),
        _ => Fix::none(format!("{sentence}: install a newer kernel, or use a newer machine")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::fix;

    fn failure(step: LaunchStep, errno: i32) -> Failure {
        Failure { step, object: String::new(), errno, detail: String::new() }
    }

    #[test]
    fn an_old_kernel_is_reported_with_its_lack_and_a_newer_one() {
        let kernel = |release: &str, id: &str, version: &str, codename: &str| HostFacts {
            release: release.into(),
            distribution: format!("ID={id}\nVERSION_ID=\"{version}\"\nVERSION_CODENAME={codename}\n"),
            ..HostFacts::default()
        };
        for (step, errno, release, sentence) in [
            (
                LaunchStep::Descriptors,
                libc::ENOSYS,
                "5.4.0-150-generic",
                "has no close_range(2), which came with 5.9",
            ),
            (
                LaunchStep::HostTree,
                libc::ENOSYS,
                "5.10.0-21-amd64",
                "has no mount_setattr(2), which came with 5.12",
            ),
            (LaunchStep::Scratch, libc::ENOSYS, "4.19.0", "has no fsopen(2), which came with 5.2"),
            (
                LaunchStep::Clone,
                libc::ENOSYS,
                "5.1",
                "has no clone3(2) with CLONE_PIDFD, which came with 5.3",
            ),
            (
                LaunchStep::Launcher,
                libc::ENOSYS,
                "3.10.0-1160.el7",
                "has no memfd_create(2), which came with 3.17",
            ),
            (
                LaunchStep::Overlay,
                libc::EPERM,
                "5.10.0",
                "lets only root mount overlayfs; others may since 5.11",
            ),
        ] {
            let ubuntu = kernel(release, "ubuntu", "20.04", "focal");
            let fix = fix(&failure(step, errno), &ubuntu).unwrap();
            assert!(fix.sentence.starts_with(&format!("Linux {release} {sentence}")), "{fix}");
            assert!(fix.sentence.ends_with("sandboxes need 5.12 or newer"), "{fix}");
            assert_eq!(fix.command, "sudo apt-get install linux-generic-hwe-20.04");
        }
        let debian = kernel("5.10.0-21-amd64", "debian", "11", "bullseye");
        let command = "sudo apt-get install -t bullseye-backports linux-image-amd64";
        assert_eq!(shortcoming(&debian).unwrap().command, command);
        assert_eq!(shortcoming(&debian).unwrap().sentence, "it is older than 5.12, which sandboxes need");
        let bookworm = kernel("6.1.0-18-amd64", "debian", "12", "bookworm");
        assert!(
            shortcoming(&bookworm).unwrap().sentence.starts_with("before 6.6 a tmpfs has no user attributes")
        );
        assert!(shortcoming(&kernel("5.14.0-427.el9", "rhel", "9.4", "")).unwrap().command.is_empty());
        for new in ["6.6.0", "6.18.44-fc", "7.0", "", "unknown"] {
            assert_eq!(shortcoming(&kernel(new, "", "", "")), None, "{new}");
        }
    }
}
