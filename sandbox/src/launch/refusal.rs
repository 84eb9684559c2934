//! Why a machine refuses a container: from the failed step, its errno and a few facts to one sentence and one command.

use std::fs;

use super::protocol::{Failure, Step};
use crate::error::{Error, ErrorKind};

/// What is read of the machine once a launch has failed.
#[derive(Debug, Default)]
struct Facts {
    apparmor_restricts: bool,
    userns_clone_off: bool,
    namespaces_limited: Option<String>,
    seccomp: bool,
    is_root: bool,
    in_chroot: bool,
}

impl Facts {
    fn read() -> Self {
        let sysctl = |name: &str| {
            fs::read_to_string(format!("/proc/sys/{name}")).ok().map(|text| text.trim().to_owned())
        };
        let limits = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            apparmor_restricts: sysctl("kernel/apparmor_restrict_unprivileged_userns").as_deref()
                == Some("1"),
            userns_clone_off: sysctl("kernel/unprivileged_userns_clone").as_deref() == Some("0"),
            namespaces_limited: limits
                .map(|kind| format!("user/max_{kind}_namespaces"))
                .into_iter()
                .find(|name| sysctl(name).as_deref() == Some("0"))
                .map(|name| name.replace('/', ".")),
            seccomp: status.lines().any(|line| line.split_ascii_whitespace().eq(["Seccomp:", "2"])),
            is_root: rustix::process::geteuid().is_root(),
            in_chroot: fs::read_to_string("/proc/self/mountinfo")
                .is_ok_and(|mounts| !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"))),
        }
    }
}

/// The error for a failed launch.
pub(super) fn explain(failure: &Failure) -> Error {
    worded(failure, &Facts::read())
}

fn worded(failure: &Failure, facts: &Facts) -> Error {
    let hint = hint(failure, facts);
    let kind = match (&hint, failure.step, failure.errno) {
        (None, Step::Execute, libc::ENOENT | libc::EACCES | libc::ENOEXEC) => ErrorKind::InvalidConfig,
        (None, _, _) => ErrorKind::Launch,
        (Some(_), _, _) => ErrorKind::HostUnsupported,
    };
    let mut step = failure.step.to_string();
    if !failure.object.is_empty() {
        step = format!("{step} `{}`", failure.object);
    }
    let mut error = Error::new(kind, format!("launch the sandbox: {step}"));
    error = match (failure.errno, failure.detail.as_str()) {
        (0, detail) => error.caused_by(detail),
        (errno, "") => error.caused_by(std::io::Error::from_raw_os_error(errno)),
        (errno, detail) => error.caused_by(format!("{}: {detail}", std::io::Error::from_raw_os_error(errno))),
    };
    match hint {
        Some(hint) => error.with_hint(hint),
        None if kind == ErrorKind::InvalidConfig => error
            .with_hint("the installation is not complete: install all of the server's and client's programs"),
        None => error,
    }
}

/// One sentence and one command.
fn hint(failure: &Failure, facts: &Facts) -> Option<String> {
    let denied = matches!(failure.errno, libc::EPERM | libc::EACCES);
    let creating = matches!(failure.step, Step::Clone | Step::MapIds);
    let mounting = matches!(
        failure.step,
        Step::Loopback
            | Step::PrivateMounts
            | Step::HostTree
            | Step::Scratch
            | Step::Attach
            | Step::Overlay
            | Step::PivotRoot
    );
    if !(creating || mounting) {
        return None;
    }
    Some(match failure.errno {
        libc::ENOSPC | libc::EUSERS if failure.step == Step::Clone => match &facts.namespaces_limited {
            Some(name) => format!(
                "`{name}` is 0, which switches these namespaces off: run `sudo sysctl -w {name}=15000`"
            ),
            None => "this user has as many namespaces as `user.max_user_namespaces` and its siblings allow, or they are \
                     nested too deep: run fewer tests at a time, or raise the limit with `sudo sysctl -w \
                     user.max_user_namespaces=100000`"
                .into(),
        },
        libc::EINVAL if failure.step == Step::Clone => {
            "this kernel is built without one of the namespaces (CONFIG_USER_NS and its siblings): use another kernel".into()
        }
        libc::ENOSYS if failure.step == Step::Clone && facts.seccomp => seccomp_hint(),
        libc::EROFS if failure.step == Step::MapIds => {
            "/proc is mounted read-only here: give the outer container a writable /proc (Docker: `--security-opt \
             systempaths=unconfined`)"
                .into()
        }
        _ if !denied => return None,
        // Where the clone itself fails, AppArmor had no say yet.
        _ if failure.step == Step::Clone && facts.seccomp => seccomp_hint(),
        _ if facts.apparmor_restricts => {
            "AppArmor restricts unprivileged user namespaces on this machine: run `sudo sysctl -w \
             kernel.apparmor_restrict_unprivileged_userns=0` (on the host, if this is a container)"
                .into()
        }
        _ if facts.userns_clone_off => {
            "unprivileged user namespaces are switched off: run `sudo sysctl -w kernel.unprivileged_userns_clone=1`".into()
        }
        _ if creating && facts.in_chroot => {
            "a process in a chroot may not create user namespaces: run the tests outside of it, or enter it by \
             pivot_root as container tools do"
                .into()
        }
        _ if failure.step == Step::MapIds && facts.is_root => {
            "root lacks CAP_SETFCAP here, which mapping its id needs: run the tests as another user, or give the outer \
             container that capability"
                .into()
        }
        _ if facts.seccomp => seccomp_hint(),
        _ if mounting && failure.errno == libc::EACCES => {
            "a security module (AppArmor or SELinux) forbids mounts here: run the outer container with `--security-opt \
             apparmor=unconfined` or `--security-opt label=disable`"
                .into()
        }
        _ => return None,
    })
}

fn seccomp_hint() -> String {
    "a seccomp filter forbids namespaces here, as that of Docker does: run the outer container with `--security-opt \
     seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined`"
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(step: Step, errno: i32) -> Failure {
        Failure { step, object: String::new(), errno, detail: String::new() }
    }

    #[track_caller]
    fn hints(step: Step, errno: i32, facts: &Facts, expected: &str) {
        let error = worded(&failure(step, errno), facts);
        assert_eq!(error.kind(), ErrorKind::HostUnsupported, "{error:?}");
        assert!(error.hint().unwrap().contains(expected), "{error:?}");
    }

    #[test]
    fn each_refusal_names_its_switch() {
        let off = Facts { namespaces_limited: Some("user.max_user_namespaces".into()), ..Facts::default() };
        hints(Step::Clone, libc::ENOSPC, &off, "sysctl -w user.max_user_namespaces=15000");
        hints(Step::Clone, libc::ENOSPC, &Facts::default(), "nested too deep");
        let debian = Facts { userns_clone_off: true, ..Facts::default() };
        hints(Step::Clone, libc::EPERM, &debian, "kernel.unprivileged_userns_clone=1");
        let ubuntu = Facts { apparmor_restricts: true, ..Facts::default() };
        hints(Step::MapIds, libc::EPERM, &ubuntu, "apparmor_restrict_unprivileged_userns=0");
        hints(Step::Scratch, libc::EACCES, &ubuntu, "apparmor_restrict_unprivileged_userns=0");
        let docker = Facts { seccomp: true, ..Facts::default() };
        hints(Step::Clone, libc::ENOSYS, &docker, "seccomp=unconfined");
        hints(Step::Clone, libc::EPERM, &docker, "seccomp=unconfined");
        let root = Facts { is_root: true, ..Facts::default() };
        hints(Step::MapIds, libc::EPERM, &root, "CAP_SETFCAP");
        hints(Step::Scratch, libc::EACCES, &Facts::default(), "label=disable");
        let chroot = Facts { in_chroot: true, ..Facts::default() };
        hints(Step::Clone, libc::EPERM, &chroot, "chroot");
        hints(Step::MapIds, libc::EROFS, &Facts::default(), "read-only");
    }

    #[test]
    fn a_missing_program_is_a_wrong_description() {
        let missing =
            Failure { object: "/opt/pg/bin/postgres".into(), ..failure(Step::Execute, libc::ENOENT) };
        let error = worded(&missing, &Facts::default());
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(error.to_string(), "launch the sandbox: execute `/opt/pg/bin/postgres`");
    }

    #[test]
    fn other_failures_keep_the_kernels_words() {
        let odd = Failure { detail: "too many layers".into(), ..failure(Step::Overlay, libc::EINVAL) };
        let report = format!("{:?}", worded(&odd, &Facts::default()));
        assert!(report.contains("Invalid argument (os error 22): too many layers"), "{report}");
    }
}
