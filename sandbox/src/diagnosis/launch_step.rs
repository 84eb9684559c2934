//! From the failed step, its errno and the machine's facts to one sentence and one command. Nothing else decides it:
//! launches and the doctor both ask here.

use super::host_facts::{Around, Confinement, HostFacts};
use super::kernels::{gvisor, missing_call, overlay_too_old};
use super::outer_container::{module, open_proc, seccomp};
use crate::fix::Fix;
use crate::launch::{Failure, LaunchStep};

/// The fix, where the cause is known.
pub(crate) fn fix(failure: &Failure, facts: &HostFacts) -> Option<Fix> {
    let step = failure.step;
    match failure.errno {
        libc::EMFILE | libc::ENFILE => Some(Fix::too_many_files(failure.errno == libc::ENFILE)),
        libc::EAGAIN if matches!(step, LaunchStep::Launcher | LaunchStep::Clone | LaunchStep::Execute) => {
            Some(Fix::run(
                "no more processes may be started, by this user's limit or by the limit of the container around",
                "ulimit -u 65536",
            ))
        }
        libc::ENOSYS => missing_call(failure, facts),
        libc::ENOSPC | libc::EUSERS if step == LaunchStep::Clone => Some(exhausted(facts)),
        libc::ENOSPC if is_mounting(step) => Some(Fix::run(
            "there are as many mounts as a mount namespace may have",
            "sudo sysctl -w fs.mount-max=1000000",
        )),
        libc::EINVAL if step == LaunchStep::Clone => Some(not_built(facts)),
        libc::EINVAL | libc::ELOOP
            if step == LaunchStep::Overlay && failure.detail.contains("stacking depth") =>
        {
            Some(Fix::run(
                "the cache lies on an overlay of an overlay, and the kernel stacks no third on them: take a directory on \
                 a volume for it",
                "export SANDBOXED_DB_CACHE=DIRECTORY",
            ))
        }
        libc::ENODEV if matches!(step, LaunchStep::Overlay | LaunchStep::Scratch | LaunchStep::Proc) => {
            let kind = if step == LaunchStep::Overlay { "overlay" } else { "tmpfs" };
            Some(Fix::run(format!("the kernel has no file system `{kind}`"), format!("sudo modprobe {kind}")))
        }
        libc::ENOENT if matches!(step, LaunchStep::Launcher | LaunchStep::MapIds) => {
            Some(Fix::run("/proc is not mounted here", "sudo mount -t proc proc /proc"))
        }
        libc::EACCES if step == LaunchStep::Launcher => Some(Fix::none(
            "this program may not be executed again, which is how the launcher starts: its file system is mounted noexec, or \
             a security module forbids it",
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

/// A namespace's number is exhausted, zero included.
fn exhausted(facts: &HostFacts) -> Fix {
    /// More than that nobody sets in order to forbid.
    const FEW: u64 = 1000;
    match facts.namespace_limits.iter().min_by_key(|(_, limit)| **limit) {
        Some((name, 0)) => Fix::run(
            format!("`{name}` is 0, which switches these namespaces off"),
            format!("sudo sysctl -w {name}=15000"),
        ),
        Some((name, limit)) if *limit < FEW => Fix::run(
            format!("`{name}` is {limit}, and so many exist already"),
            format!("sudo sysctl -w {name}=15000"),
        ),
        _ => Fix::run(
            "this user has as many namespaces as `user.max_user_namespaces` and its siblings allow, or they are nested too \
             deep: run fewer tests at a time, or raise the limit",
            "sudo sysctl -w user.max_user_namespaces=100000",
        ),
    }
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

/// No failure of a launch, which binds the outer /proc then, but worth a warning.
fn hidden_proc(facts: &HostFacts) -> Fix {
    let part = facts.proc_hidden.as_deref().map(|part| format!(" ({part})")).unwrap_or_default();
    open_proc(
        facts,
        &format!(
            "parts of /proc are hidden here{part}, so that the kernel refuses a new one: sandboxes get the outer /proc, which \
             shows outer processes"
        ),
    )
}

/// Forbidden: by whom, in the order of how certain the facts are.
fn denied(failure: &Failure, facts: &HostFacts) -> Option<Fix> {
    let (step, creating) = (failure.step, is_creating(failure.step));
    if step == LaunchStep::Clone && facts.userns_clone_off {
        return Some(Fix::run(
            "unprivileged user namespaces are switched off",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ));
    }
    if step == LaunchStep::Clone && !facts.uid_mapped {
        return Some(Fix::new(
            "this process's own user id is not mapped in the user namespace it is in",
            "enter that namespace with a map, as in",
            "unshare --user --map-current-user",
        ));
    }
    if creating && facts.in_chroot {
        return Some(in_chroot("a process in a chroot may not create user namespaces"));
    }
    // Where the clone itself fails, AppArmor had no say yet.
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
        return Some(apparmor_restricts(facts));
    }
    let named = match &facts.confinement {
        Some(Confinement::AppArmor(profile)) => format!("AppArmor, by its profile `{profile}`,"),
        Some(Confinement::SeLinux(kind)) => return Some(selinux(facts, kind)),
        None => "a security module (AppArmor or SELinux)".to_owned(),
    };
    match failure.errno {
        // Who asks AppArmor is told EACCES; filters are written to answer EPERM.
        libc::EACCES if !creating => Some(module(facts, &format!("{named} forbids mounts here"))),
        _ if facts.seccomp => Some(seccomp(facts)),
        _ if facts.gvisor => Some(gvisor()),
        _ if facts.confinement.is_some() => Some(module(facts, &format!("{named} forbids namespaces here"))),
        // A chroot into a mount looks like any root; of the kernel's reasons it is the one left, user_namespaces(7).
        libc::EPERM if step == LaunchStep::Clone => {
            Some(in_chroot("the kernel lets this process create no user namespace, as it does in a chroot"))
        }
        _ if step == LaunchStep::MapIds => Some(Fix::none(
            "a security module forbids this process to map its user id in a user namespace of its own: run the tests outside \
             of it",
        )),
        _ if !creating => Some(Fix::none(
            "something around this process forbids mounts, as a sandbox made with Landlock does: run the tests outside of it",
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

fn apparmor_restricts(facts: &HostFacts) -> Fix {
    let how = match facts.around {
        Around::Nothing => "run",
        _ => "run on the host, not in this container,",
    };
    Fix::new(
        "AppArmor restricts unprivileged user namespaces on this machine",
        how,
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    )
}

fn selinux(facts: &HostFacts, kind: &str) -> Fix {
    let sentence = format!("SELinux forbids mounts to processes of type `{kind}`");
    match facts.around {
        Around::Nothing => {
            Fix::new(sentence, "run it in a domain that may, as in", "runcon -t unconfined_t cargo test")
        }
        Around::Podman => module(facts, &sentence),
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
    match facts.around {
        Around::Nothing => Fix::new(
            sentence,
            "run the tests as another user, as in",
            "setpriv --reuid 1000 --regid 1000 --clear-groups cargo test",
        ),
        Around::Podman => {
            Fix::new(sentence, "run the outer container with", "podman run --cap-add SETFCAP IMAGE")
        }
        Around::Kubernetes => Fix::new(
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
