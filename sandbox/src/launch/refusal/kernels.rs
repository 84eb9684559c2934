//! Kernels that lack something: which call, since when there is one, and where a newer kernel comes from.

use super::facts::Facts;
use crate::launch::protocol::{Failure, Step};
use crate::remedy::Remedy;

/// The oldest kernel on which a sandbox starts, and the one that has all it uses.
pub(crate) const OLDEST: (u32, u32) = (5, 12);
pub(crate) const COMPLETE: (u32, u32) = (6, 6);

/// The calls that a step makes and that some kernels lack, each with the version that brought it.
fn calls(step: Step) -> &'static [(&'static str, (u32, u32))] {
    match step {
        Step::Launcher => &[("memfd_create(2)", (3, 17))],
        Step::Clone => &[("clone3(2) with CLONE_PIDFD", (5, 3))],
        Step::Descriptors => &[("close_range(2)", (5, 9))],
        Step::HostTree | Step::Attach => {
            &[("mount_setattr(2)", (5, 12)), ("open_tree(2) and move_mount(2)", (5, 2))]
        }
        Step::Scratch | Step::Overlay | Step::Proc => &[("fsopen(2)", (5, 2))],
        _ => &[],
    }
}

/// The remedy for a call that is not there: an old kernel, or a filter that hides it.
pub(super) fn missing_call(failure: &Failure, facts: &Facts) -> Option<Remedy> {
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
        (_, true) => {
            super::around::loosened(facts, &format!("a seccomp filter denies that this kernel has {names}"))
        }
        _ => Remedy::none(format!(
            "this kernel has no {names}, though its version {} should: use another kernel",
            facts.release
        )),
    })
}

/// Since Linux 5.11 overlayfs may be mounted in a user namespace.
pub(super) fn overlay_too_old(failure: &Failure, facts: &Facts) -> Option<Remedy> {
    (failure.step == Step::Overlay && facts.kernel() < (5, 11)).then(|| {
        let sentence = format!(
            "Linux {} lets only root mount overlayfs; others may since 5.11, and sandboxes need {}.{} or newer",
            facts.release, OLDEST.0, OLDEST.1
        );
        newer_kernel(sentence, facts)
    })
}

pub(super) fn gvisor() -> Remedy {
    Remedy::new(
        "this is gVisor, whose kernel lacks what a sandbox needs",
        "run the outer container with",
        "docker run --runtime runc IMAGE",
    )
}

/// What an older kernel costs, though sandboxes start.
pub(crate) fn shortcoming(facts: &Facts) -> Option<Remedy> {
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

fn newer_kernel(sentence: String, facts: &Facts) -> Remedy {
    let (id, version, codename) = &facts.distribution;
    match id.as_str() {
        "ubuntu" if !version.is_empty() => {
            Remedy::run(sentence, format!("sudo apt-get install linux-generic-hwe-{version}"))
        }
        "debian" if !codename.is_empty() => {
            Remedy::run(sentence, format!("sudo apt-get install -t {codename}-backports linux-image-amd64"))
        }
        _ => Remedy::none(format!("{sentence}: install a newer kernel, or use a newer machine")),
    }
}
