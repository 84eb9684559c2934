//! Whoever started this process has confined it: where that is loosened.

use super::host_facts::{Around, Confinement, HostFacts};
use crate::fix::Fix;

/// What a systemd unit may have around a process, where no container is.
const UNIT: &str = "in the systemd unit around this, if it is one, set";

/// The fix that lifts what an outer container forbids: all of it at once, since who lifts one part meets the next.
/// Where there is no container `alone` says what to do, and with which command.
pub(super) fn loosened(facts: &HostFacts, sentence: &str, alone: (&'static str, &str)) -> Fix {
    const DOCKER: &str = "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
                          --security-opt systempaths=unconfined IMAGE";
    let (how, command) = match facts.around {
        Around::Docker | Around::Container => ("run the outer container with", DOCKER),
        Around::GitLab => (
            "in the runner's config.toml, below `[runners.docker]`, set",
            "security_opt = [\"seccomp=unconfined\", \"apparmor=unconfined\", \"systempaths=unconfined\"]",
        ),
        Around::GitHub => (
            "in the workflow, below the job's `container`, set",
            "options: --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt \
             systempaths=unconfined",
        ),
        Around::Podman => (
            "run the outer container with",
            "podman run --security-opt seccomp=unconfined --security-opt label=disable --security-opt unmask=ALL IMAGE",
        ),
        Around::Kubernetes => (
            "give the pod `hostUsers: false`, and its container",
            "securityContext: {procMount: Unmasked, seccompProfile: {type: Unconfined}, appArmorProfile: {type: \
             Unconfined}}",
        ),
        Around::Lxc => ("run on the host", "lxc config set NAME security.nesting=true"),
        Around::Nothing => alone,
    };
    Fix::new(sentence, how, command)
}

/// A seccomp filter said no.
pub(super) fn seccomp(facts: &HostFacts) -> Fix {
    let sentence = match facts.around {
        Around::Nothing => {
            "a seccomp filter forbids namespaces here, as a systemd unit's and an agent's sandbox's do"
        }
        _ => "a seccomp filter forbids namespaces here, as that of Docker does",
    };
    filtered(facts, sentence)
}

/// What a seccomp filter does, lifted.
pub(super) fn filtered(facts: &HostFacts, sentence: &str) -> Fix {
    loosened(facts, sentence, (UNIT, "RestrictNamespaces=no"))
}

/// What hides or closes /proc, lifted.
pub(super) fn open_proc(facts: &HostFacts, sentence: &str) -> Fix {
    loosened(facts, sentence, (UNIT, "ProtectKernelTunables=no"))
}

/// What a security module forbids, lifted.
pub(super) fn module(facts: &HostFacts, sentence: &str) -> Fix {
    match &facts.confinement {
        Some(Confinement::AppArmor(profile)) => {
            loosened(facts, sentence, ("run", &format!("sudo aa-complain '{profile}'")))
        }
        _ => loosened(facts, sentence, ("see which by", "sudo journalctl --dmesg --grep 'apparmor|avc'")),
    }
}
