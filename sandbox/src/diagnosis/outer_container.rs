//! Fixes for a container or a sandbox around this process: where its restrictions are loosened.

use super::host_facts::{Confinement, HostFacts, Surroundings};
use crate::fix::Fix;

/// How to loosen a systemd unit, where no container is known.
const UNIT: &str = "in the systemd unit around this, if it is one, set";

/// Returns the fix for a restriction of an outer container: all options at once, since each one
/// alone only leads to the next refusal. Without a container `alone` is what to do, and the
/// command.
pub(super) fn loosened(facts: &HostFacts, sentence: &str, alone: (&'static str, &str)) -> Fix {
    const DOCKER: &str = "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
                          --security-opt systempaths=unconfined IMAGE";
    let (how, command) = match facts.surroundings {
        Surroundings::Docker | Surroundings::Container => ("run the outer container with", DOCKER),
        Surroundings::GitLab => (
            "in the runner's config.toml, below `[runners.docker]`, set",
            "security_opt = [\"seccomp=unconfined\", \"apparmor=unconfined\", \"systempaths=unconfined\"]",
        ),
        Surroundings::GitHub => (
            "in the workflow, below the job's `container`, set",
            "options: --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt \
             systempaths=unconfined",
        ),
        Surroundings::Podman => (
            "run the outer container with",
            "podman run --security-opt seccomp=unconfined --security-opt label=disable --security-opt unmask=ALL IMAGE",
        ),
        Surroundings::Kubernetes => (
            "give the pod `hostUsers: false`, and its container",
            "securityContext: {procMount: Unmasked, seccompProfile: {type: Unconfined}, appArmorProfile: {type: \
             Unconfined}}",
        ),
        Surroundings::Lxc => ("run on the host", "lxc config set NAME security.nesting=true"),
        Surroundings::Nothing => alone,
    };
    Fix::new(sentence, how, command)
}

/// Returns the fix for a setting of the whole machine. In a container, or in another tool's
/// sandbox, the command has no effect.
pub(super) fn on_machine(facts: &HostFacts, sentence: impl Into<String>, command: impl Into<String>) -> Fix {
    let how = match facts.surroundings {
        Surroundings::Nothing if facts.cannot_become_root => "run outside the sandbox around this process,",
        Surroundings::Nothing => "run",
        _ => "run on the host, not in this container,",
    };
    Fix::new(sentence, how, command)
}

/// Returns the fix for a seccomp filter that forbids namespaces.
pub(super) fn seccomp(facts: &HostFacts) -> Fix {
    let sentence = match facts.surroundings {
        Surroundings::Nothing => {
            "a seccomp filter forbids namespaces here, such as that of a systemd unit or of an agent's sandbox"
        }
        _ => "a seccomp filter forbids namespaces here, such as Docker's",
    };
    filtered(facts, sentence)
}

/// Returns the fix for any effect of a seccomp filter.
pub(super) fn filtered(facts: &HostFacts, sentence: &str) -> Fix {
    loosened(facts, sentence, (UNIT, "RestrictNamespaces=no"))
}

/// Returns the fix for a /proc that is hidden or read-only.
pub(super) fn open_proc(facts: &HostFacts, sentence: &str) -> Fix {
    loosened(facts, sentence, (UNIT, "ProtectKernelTunables=no"))
}

/// Returns the fix for a refusal of a security module.
pub(super) fn module(facts: &HostFacts, sentence: &str) -> Fix {
    let alone = match &facts.confinement {
        Some(Confinement::AppArmor(_)) => {
            ("run the tests outside of it, as in", "aa-exec -p unconfined -- cargo test")
        }
        _ => ("find its rule in the kernel's log, as by", "sudo journalctl --dmesg --grep 'apparmor|avc'"),
    };
    loosened(facts, sentence, alone)
}
