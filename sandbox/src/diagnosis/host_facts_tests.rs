//! Facts of machines that are directories of a few files.

use std::fs;
use std::path::Path;

use super::host_facts::{Confinement, HostFacts, Surroundings};
use crate::machine::os_release;
use crate::machine::rlimit::{Resource, Rlimit};

/// Returns the facts of another machine, from a root directory with these files.
fn machine(files: &[(&str, &str)]) -> HostFacts {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    HostFacts::read(root.path())
}

#[test]
fn facts_are_read_from_a_root() {
    let status = "Name:\tx\nUid:\t1000\t1001\t1000\t1000\nCapPrm:\t0000000000000000\nSeccomp:\t2\nSeccomp_filters:\t1\n";
    let facts = machine(&[
        ("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
        ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"),
        ("proc/sys/kernel/unprivileged_userns_clone", "0\n"),
        ("proc/sys/user/max_net_namespaces", "0\n"),
        ("proc/self/status", status),
        ("proc/self/uid_map", "         0       1001          1\n      2000 0 10\n"),
        ("proc/self/attr/current", "docker-default (enforce)\n"),
        (
            "proc/self/mountinfo",
            "1 2 0:1 / /proc ro - proc proc rw\n1 2 0:1 / /proc/kcore rw - tmpfs tmpfs rw\n\
             1 2 0:1 / /cg rw - cgroup2 cgroup2 rw\n",
        ),
        (
            "proc/self/limits",
            "Max open files            1024                 524288               files     \n",
        ),
        ("proc/self/cgroup", "0::/a/b\n"),
        ("cg/a/b/pids.max", "max\n"),
        ("cg/a/pids.max", "100\n"),
        ("cg/a/pids.current", "99\n"),
        ("proc/self/environ", "A=b\0GITLAB_CI=true\0"),
        (".dockerenv", ""),
        ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n"),
    ]);
    assert_eq!((facts.kernel(), facts.euid, facts.has_setfcap, facts.seccomp), ((6, 1), 1001, false, true));
    assert!(facts.apparmor_restricts && facts.userns_clone_off && facts.in_chroot && !facts.uid_mapped);
    assert_eq!(facts.namespace_limits, [("user.max_net_namespaces".to_owned(), 0)].into());
    assert_eq!(facts.confinement, Some(Confinement::AppArmor("docker-default".into())));
    assert_eq!(facts.proc_hidden.as_deref(), Some("/proc/kcore"));
    assert_eq!(facts.surroundings, Surroundings::GitLab);
    assert!(facts.cannot_become_root && !facts.has_proc && !facts.has_null);
    assert_eq!(facts.limit(Resource::OpenFiles), Rlimit { soft: Some(1024), hard: Some(524_288) });
    assert_eq!(facts.limit(Resource::Processes), Rlimit::default());
    assert_eq!(facts.full_group, Some(("/cg/a".into(), 100)));
    assert_eq!(os_release::field(&facts.distribution, "VERSION_CODENAME"), "bookworm");
}

#[test]
fn surroundings_are_recognised_by_their_marks() {
    for (files, surroundings) in [
        (&[][..], Surroundings::Nothing),
        (&[(".dockerenv", "")], Surroundings::Docker),
        (&[(".dockerenv", ""), ("proc/self/environ", "GITHUB_ACTIONS=true\0")], Surroundings::GitHub),
        (&[("run/.containerenv", "")], Surroundings::Podman),
        (&[("proc/self/environ", "KUBERNETES_SERVICE_HOST=10.0.0.1\0")], Surroundings::Kubernetes),
        (&[("proc/self/environ", "KUBERNETES_SERVICE_HOST=\0")], Surroundings::Nothing),
        (&[("run/systemd/container", "lxc\n")], Surroundings::Lxc),
        (&[("proc/self/mountinfo", "1 2 0:1 / / rw - overlay overlay rw\n")], Surroundings::Container),
    ] {
        assert_eq!(machine(files).surroundings, surroundings, "{files:?}");
    }
    let selinux = machine(&[("proc/self/attr/current", "system_u:system_r:container_t:s0:c1,c2\0")]);
    assert_eq!(selinux.confinement, Some(Confinement::SeLinux("container_t".into())));
    for free in ["unconfined\n", "unconfined_u:unconfined_r:unconfined_t:s0", "kernel", ""] {
        assert_eq!(machine(&[("proc/self/attr/current", free)]).confinement, None, "{free}");
    }
}

#[test]
fn any_file_is_read_without_a_panic() {
    // An empty root is harmless.
    let none = HostFacts::read(Path::new("/no/such/root"));
    assert!(none.uid_mapped && none.has_setfcap && !none.in_chroot && !none.seccomp);
    for text in [
        "\u{fffd}",
        "0 0 18446744073709551615\n",
        ":::::",
        "Uid:\nCapPrm: zz\nSeccomp:",
        "9".repeat(99).as_str(),
    ] {
        let files = [
            "proc/self/status", "proc/self/uid_map", "proc/self/attr/current", "proc/self/limits",
            "proc/version",
        ];
        machine(&files.map(|file| (file, text)));
        machine(&[("proc/sys/kernel/osrelease", text), ("proc/sys/user/max_user_namespaces", text)]);
    }
}
