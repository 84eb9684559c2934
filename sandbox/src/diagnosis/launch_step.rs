//! The fix for a refused launch step: from the step, its errno and the facts of the host to one
//! sentence and one command. Nothing else decides it; launches and the doctor both ask here.

use super::host_facts::{Confinement, HostFacts, Surroundings};
use super::kernels::{gvisor, missing_call, overlay_too_old};
use super::outer_container::{module, on_machine, open_proc, seccomp};
use super::own_limits;
use crate::cache;
use crate::fix::Fix;
use crate::launch::{Failure, LaunchStep};

/// Returns the fix if the cause is known.
pub(crate) fn fix(failure: &Failure, facts: &HostFacts) -> Option<Fix> {
    let step = failure.step;
    match failure.errno {
        libc::EMFILE => Some(own_limits::too_many_files(facts)),
        libc::ENFILE => Some(Fix::too_many_files_on_machine()),
        libc::EAGAIN if matches!(step, LaunchStep::Launcher | LaunchStep::Clone | LaunchStep::Execute) => {
            Some(own_limits::too_many_processes(facts))
        }
        libc::ENOSYS => missing_call(failure, facts),
        libc::ENOSPC | libc::EUSERS if step == LaunchStep::Clone => Some(too_many_namespaces(facts)),
        libc::ENOSPC if is_mounting(step) => Some(on_machine(
            facts,
            "this mount namespace has as many mounts as `fs.mount-max` allows",
            "sudo sysctl -w fs.mount-max=1000000",
        )),
        libc::EINVAL if step == LaunchStep::Clone => Some(not_built(facts)),
        libc::EINVAL | libc::ELOOP
            if step == LaunchStep::Overlay && failure.detail.contains("stacking depth") =>
        {
            Some(cache::another_directory(
                "the cache is on an overlay of an overlay, and the kernel stacks no third: a volume will do",
            ))
        }
        libc::ENODEV if step == LaunchStep::Overlay => {
            Some(on_machine(facts, "the kernel has no file system `overlay`", "sudo modprobe overlay"))
        }
        libc::ENODEV if matches!(step, LaunchStep::Scratch | LaunchStep::Proc) => Some(Fix::none(
            "this kernel is built without tmpfs or proc, which a sandbox needs: use another kernel",
        )),
        libc::ENOENT if matches!(step, LaunchStep::Launcher | LaunchStep::MapIds) && !facts.has_proc => {
            Some(Fix::run("/proc is not mounted here", "sudo mount -t proc proc /proc"))
        }
        libc::ENOENT if step == LaunchStep::Launcher && !facts.has_null => {
            Some(Fix::none("/dev/null does not exist here: bind the host's /dev, or mount a devtmpfs there"))
        }
        libc::ENOENT if is_mounting(step) && failure.object.starts_with("/dev/") => Some(Fix::none(format!(
            "the device `{}` does not exist here: bind the host's /dev, or mount a devtmpfs there",
            failure.object
        ))),
        libc::EFBIG if step == LaunchStep::Launcher => own_limits::too_low(facts),
        libc::EACCES if step == LaunchStep::Launcher => Some(Fix::none(
            "this program may not be executed again, as the launcher: its file system is mounted noexec, or a security \
             module forbids it",
        )),
        libc::EROFS if step == LaunchStep::MapIds => Some(open_proc(
            facts,
            "/proc is mounted read-only here, and user ids are mapped by writing to it",
        )),
        libc::EPERM | libc::EACCES if step == LaunchStep::Proc => Some(hidden_proc(facts)),
        libc::EPERM | libc::EACCES if is_creating(step) || is_mounting(step) => denied(failure, facts),
        _ => None,
    }
}

fn is_creating(step: LaunchStep) -> bool {
    matches!(step, LaunchStep::Clone | LaunchStep::MapIds)
}

fn is_mounting(step: LaunchStep) -> bool {
    matches!(
        step,
        LaunchStep::Loopback
            | LaunchStep::PrivateMounts
            | LaunchStep::HostTree
            | LaunchStep::Scratch
            | LaunchStep::Attach
            | LaunchStep::Overlay
            | LaunchStep::PivotRoot
    )
}

/// The number of namespaces of a kind is limited, perhaps to zero.
fn too_many_namespaces(facts: &HostFacts) -> Fix {
    /// A higher limit is not meant to forbid anything.
    const FEW: u64 = 1000;
    let sentence = match facts.namespace_limits.iter().min_by_key(|(_, limit)| **limit) {
        Some((name, limit)) if *limit < FEW => {
            let sentence = match limit {
                0 => format!("`{name}` is 0, which switches these namespaces off"),
                _ => format!("`{name}` is {limit}, and as many exist already"),
            };
            return on_machine(facts, sentence, format!("sudo sysctl -w {name}=15000"));
        }
        _ => {
            "this user has as many namespaces as `user.max_user_namespaces` and its siblings allow, or they are nested \
              too deep: run fewer tests at a time, or raise the limit"
        }
    };
    on_machine(facts, sentence, "sudo sysctl -w user.max_user_namespaces=100000")
}

fn not_built(facts: &HostFacts) -> Fix {
    let option = |kind: &&str| match *kind {
        "mnt" => "CONFIG_NAMESPACES".to_owned(),
        "cgroup" => "CONFIG_CGROUPS".to_owned(),
        kind => format!("CONFIG_{}_NS", kind.to_uppercase()),
    };
    let missing: Vec<_> = facts.namespaces_missing.iter().map(option).collect();
    let missing =
        if missing.is_empty() { "CONFIG_USER_NS or a sibling".to_owned() } else { missing.join(", ") };
    Fix::none(format!("this kernel is built without {missing}, which a sandbox needs: use another kernel"))
}

/// A launch then binds the outer /proc and goes on, but the doctor warns.
fn hidden_proc(facts: &HostFacts) -> Fix {
    let part = facts.proc_hidden.as_deref().map(|part| format!(" ({part})")).unwrap_or_default();
    open_proc(
        facts,
        &format!(
            "parts of /proc are hidden here{part}, so the kernel refuses a new one: sandboxes get the outer /proc, which \
             shows outer processes"
        ),
    )
}

/// Names the origin of a refusal, in the order of how certain the facts are.
fn denied(failure: &Failure, facts: &HostFacts) -> Option<Fix> {
    let (step, creating) = (failure.step, is_creating(failure.step));
    if step == LaunchStep::Clone && facts.userns_clone_off {
        return Some(on_machine(
            facts,
            "unprivileged user namespaces are switched off",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ));
    }
    if step == LaunchStep::Clone && !facts.uid_mapped {
        return Some(Fix::new(
            "this process's user id is not mapped in its user namespace",
            "enter that namespace with a map, as in",
            "unshare --user --map-current-user",
        ));
    }
    if creating && facts.in_chroot {
        return Some(in_chroot("a process in a chroot may not create user namespaces"));
    }
    // AppArmor decides after the clone, so a clone that fails is not its doing.
    if step == LaunchStep::Clone && facts.seccomp {
        return Some(seccomp(facts));
    }
    if step == LaunchStep::MapIds && facts.euid == 0 && !facts.has_setfcap {
        return Some(without_setfcap(facts));
    }
    if let Some(fix) = overlay_too_old(failure, facts) {
        return Some(fix);
    }
    if facts.apparmor_restricts {
        return Some(on_machine(
            facts,
            "AppArmor restricts unprivileged user namespaces on this machine",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ));
    }
    let named = match &facts.confinement {
        Some(Confinement::AppArmor(profile)) => format!("AppArmor, by its profile `{profile}`,"),
        Some(Confinement::SeLinux(kind)) => return Some(selinux(facts, kind)),
        None => "a security module (AppArmor or SELinux)".to_owned(),
    };
    match failure.errno {
        // AppArmor answers EACCES; filters usually answer EPERM.
        libc::EACCES if !creating => Some(module(facts, &format!("{named} forbids mounts here"))),
        _ if facts.seccomp => Some(seccomp(facts)),
        _ if facts.gvisor => Some(gvisor()),
        _ if facts.confinement.is_some() => Some(module(facts, &format!("{named} forbids namespaces here"))),
        // A chroot into a mount looks like any root. Of the kernel's reasons, user_namespaces(7),
        // it is the last.
        libc::EPERM if step == LaunchStep::Clone => {
            Some(in_chroot("the kernel lets this process create no user namespace, as it does in a chroot"))
        }
        _ if step == LaunchStep::MapIds => Some(Fix::none(
            "a security module forbids this process to map its user id in a new user namespace: run the tests outside of \
             it",
        )),
        _ if !creating => Some(Fix::none(
            "something around this process forbids mounts, such as a sandbox made with Landlock: run the tests outside of it",
        )),
        _ => None,
    }
}

fn in_chroot(sentence: &str) -> Fix {
    Fix::new(
        sentence,
        "run the tests outside of it, or enter it by pivot_root as in",
        "bwrap --dev-bind DIRECTORY / --proc /proc cargo test",
    )
}

fn selinux(facts: &HostFacts, kind: &str) -> Fix {
    let sentence = format!("SELinux forbids mounts to processes of type `{kind}`");
    match facts.surroundings {
        Surroundings::Nothing => Fix::new(
            sentence,
            "run the tests in a domain that may, as in",
            "runcon -t unconfined_t cargo test",
        ),
        Surroundings::Podman => module(facts, &sentence),
        _ => Fix::new(
            sentence,
            "run the outer container with",
            "docker run --security-opt label=disable --security-opt seccomp=unconfined --security-opt \
             systempaths=unconfined IMAGE",
        ),
    }
}

fn without_setfcap(facts: &HostFacts) -> Fix {
    let sentence = "root lacks CAP_SETFCAP here, which mapping its id needs";
    match facts.surroundings {
        Surroundings::Nothing => Fix::new(
            sentence,
            "run the tests as another user, as in",
            "setpriv --reuid 1000 --regid 1000 --clear-groups cargo test",
        ),
        Surroundings::Podman => {
            Fix::new(sentence, "run the outer container with", "podman run --cap-add SETFCAP IMAGE")
        }
        Surroundings::Kubernetes => Fix::new(
            sentence,
            "run the pod's container as another user",
            "securityContext: {runAsUser: 1000}",
        ),
        _ => Fix::new(
            sentence,
            "run the outer container as another user, or with that capability, as in",
            "docker run --cap-add SETFCAP IMAGE",
        ),
    }
}
