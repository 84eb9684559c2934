//! A sandbox has only what is its own, as its processes' entries in /proc show it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sandboxed_db::{Sandbox, Snapshot};
use sandboxed_db_tests::{DEADLINE, TestedEngine, processes_beside, runs_an_image, skip, status, wait_until};

use super::start;

for_every_server!([
    namespaces_are_those_of_one_sandbox,
    processes_have_no_privileges,
    only_its_own_processes_are_seen,
    there_is_no_network_but_lo,
    files_of_the_host_are_hidden,
    mounts_are_closed,
    the_environment_of_the_test_is_hidden,
    sockets_are_for_their_owner_only,
]);

fn fresh<E: TestedEngine>() -> Sandbox<E> {
    start(&Snapshot::new(E::engine()))
}

/// The processes of a sandbox: init and those of the server.
fn processes<E: TestedEngine>(db: &Sandbox<E>) -> Vec<u32> {
    let processes = processes_beside(db.pid());
    assert!(processes.len() > 1, "the server is no process of the sandbox");
    processes
}

fn namespaces_are_those_of_one_sandbox<E: TestedEngine>() {
    let (one, other) = (fresh::<E>(), fresh::<E>());
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap();
        let init = of(&one.pid().to_string());
        let all = BTreeSet::from([of("self"), init.clone(), of(&other.pid().to_string())]);
        assert_eq!(all.len(), 3, "{kind}: {all:?}");
        processes(&one).iter().for_each(|process| assert_eq!(of(&process.to_string()), init, "{kind}"));
    }
}

fn processes_have_no_privileges<E: TestedEngine>() {
    let db = fresh::<E>();
    for process in processes(&db) {
        let none = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| (name, "0000000000000000"));
        for (name, value) in none.into_iter().chain([("NoNewPrivs", "1"), ("Seccomp", "2")]) {
            assert_eq!(status(process, name).as_deref(), Some(value), "{name} of {process}");
        }
        let score = fs::read_to_string(format!("/proc/{process}/oom_score_adj")).unwrap();
        assert_eq!(score.trim(), "1000", "the kernel kills tests first");
        let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    }
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_ne!(own.trim(), "1000", "the test's own score is raised");
}

fn only_its_own_processes_are_seen<E: TestedEngine>() {
    let (db, _neighbour) = (fresh::<E>(), fresh::<E>());
    let proc = db.root().join("proc");
    if fs::metadata(&proc).unwrap().dev() == fs::metadata("/proc").unwrap().dev() {
        return skip("the machine refuses a fresh /proc to a sandbox");
    }
    // The last of a process's numbers is that of the innermost namespace.
    let inside = |pid: u32| status(pid, "NSpid")?.split_whitespace().last()?.parse::<u32>().ok();
    let seen = || -> BTreeSet<u32> {
        let entries = fs::read_dir(&proc).unwrap().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    };
    // A server may start a process meanwhile.
    wait_until(DEADLINE, "the processes that are seen are those of the sandbox", || {
        seen() == processes(&db).into_iter().filter_map(inside).collect()
    });
    for name in ["kallsyms", "kcore", "keys", "kmsg", "kpagecount", "kpageflags", "slabinfo", "timer_list"] {
        let read = File::open(proc.join(name)).and_then(|mut file| file.read(&mut [0]));
        assert!(read.is_err() || matches!(read, Ok(0)), "/proc/{name} can be read");
    }
}

fn there_is_no_network_but_lo<E: TestedEngine>() {
    let db = fresh::<E>();
    for process in processes(&db) {
        let net = |name: &str| fs::read_to_string(format!("/proc/{process}/net/{name}")).unwrap();
        let devices = net("dev");
        let devices: Vec<_> = devices.lines().skip(2).filter_map(|line| line.split(':').next()).collect();
        assert_eq!(devices.iter().map(|name| name.trim()).collect::<Vec<_>>(), ["lo"]);
        assert_eq!(net("route").lines().count(), 1, "a route leads out");
        // A socket that listens there is none of the host's.
        let host = fs::read_to_string("/proc/net/tcp").unwrap();
        let inode = |line: &str| line.split_whitespace().nth(9).map(str::to_owned);
        let own: BTreeSet<_> = host.lines().skip(1).filter_map(inode).collect();
        let listens = net("tcp");
        for inode in listens.lines().filter(|line| line.contains(" 0A ")).filter_map(inode) {
            assert!(!own.contains(&inode), "{inode} is in\n{host}");
        }
    }
}

/// Directories of a sandbox's root that every engine may have.
const ROOT: [&str; 15] = [
    "bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "nix", "opt", "proc", "run", "sbin", "tmp",
    "usr", "var",
];

/// The first component of a path below the root.
fn first(path: &Path) -> String {
    path.iter().nth(1).unwrap_or_default().to_string_lossy().into_owned()
}

fn files_of_the_host_are_hidden<E: TestedEngine>() {
    let db = fresh::<E>();
    let root = db.root();
    let server = server(&db);
    let data = E::engine().data_dir().below(Path::new("/"));
    let known: BTreeSet<_> =
        ROOT.map(str::to_owned).into_iter().chain([first(&data), first(&server)]).collect();
    let there = fs::read_dir(&root).unwrap().flatten();
    let there: BTreeSet<_> = there.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(there.is_subset(&known), "{:?}", there.difference(&known));

    let mut mark = tempfile::NamedTempFile::new().unwrap();
    mark.write_all(b"of the host").unwrap();
    let mut hidden: Vec<PathBuf> =
        ["/root", "/home", "/etc/shadow", "/etc/ssh", "/var/log", "/boot", "/sys"].map(PathBuf::from).into();
    // An image has its own.
    hidden.retain(|path| !runs_an_image::<E>() || path != "/var/log");
    hidden.extend([env!("CARGO_MANIFEST_DIR").into(), mark.path().to_owned()]);
    hidden.extend([std::env::current_exe().unwrap()].into_iter().chain(std::env::home_dir()));
    for path in hidden.iter().filter(|path| !path.starts_with("/usr") && path.parent().is_some()) {
        let inside = root.join(path.strip_prefix("/").unwrap());
        assert!(fs::symlink_metadata(&inside).is_err(), "{} is there", inside.display());
    }
}

/// The program of a server.
fn server<E: TestedEngine>(db: &Sandbox<E>) -> PathBuf {
    let server = processes(db).into_iter().find(|process| *process != db.pid()).unwrap();
    fs::read_link(format!("/proc/{server}/exe")).unwrap()
}

/// Where programs of servers may lie, which are the host's.
const PROGRAMS: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/opt", "/nix", "/home", "/root"];

fn mounts_are_closed<E: TestedEngine>() {
    let db = fresh::<E>();
    let data = E::engine().data_dir().below(Path::new("/"));
    let server = server(&db);
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", db.pid())).unwrap();
    let writable = ["/tmp", "/run", "/dev/shm", data.to_str().unwrap()];
    let mut points = BTreeSet::new();
    for line in mounts.lines() {
        let columns: Vec<_> = line.split(' ').collect();
        let (point, options) = (columns[4], columns[5].split(',').collect::<BTreeSet<_>>());
        let has = |option| options.contains(option);
        let is_device = ["null", "zero", "full", "random", "urandom"]
            .iter()
            .any(|name| point.strip_prefix("/dev/") == Some(name));
        let holds_programs = PROGRAMS.iter().any(|programs| point.starts_with(programs))
            || point.starts_with("/etc/")
            || first(Path::new(point)) == first(&server)
            || point == "/" && runs_an_image::<E>();
        assert!(has("nosuid"), "{line}");
        assert!(has("nodev") || is_device, "{line}");
        assert!(has("noexec") || holds_programs, "{line}");
        assert!(has("ro") || is_device || writable.contains(&point), "{line}");
        points.insert(point);
    }
    assert!(writable.iter().all(|point| points.contains(point)), "{points:?}");
}

fn the_environment_of_the_test_is_hidden<E: TestedEngine>() {
    let db = fresh::<E>();
    let own: BTreeSet<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    // Every program has these; the server has other values.
    let common = ["PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "SHELL", "PWD", "SHLVL", "_"];
    for process in processes(&db) {
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap();
        for line in environment.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            let line = String::from_utf8_lossy(line);
            let name = line.split('=').next().unwrap();
            // A dynamically linked test program needs the first to run as a launcher, and the
            // second selects that.
            if process == db.pid() && ["LD_LIBRARY_PATH", "SANDBOXED_DB_LAUNCHER"].contains(&name) {
                continue;
            }
            let foreign = name.starts_with("CARGO") || name.starts_with("SANDBOXED_DB");
            let inherited = own.contains(name) && !common.contains(&name);
            assert!(!foreign && !inherited, "{name} is in the environment of {process}");
        }
    }
}

/// The sockets below a directory.
fn sockets(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        match kind.is_dir() {
            true => found.extend(sockets(&entry.path())),
            false if kind.is_socket() => found.push(entry.path()),
            false => {}
        }
    }
    found
}

fn sockets_are_for_their_owner_only<E: TestedEngine>() {
    let db = fresh::<E>();
    let mut sockets = sockets(&db.root().join("run"));
    // Init's, to which the server sends one message.
    sockets.retain(|path| !path.ends_with("run/notify"));
    assert!(!sockets.is_empty());
    for path in sockets {
        let closed = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077 == 0;
        assert!(closed(&path) || closed(path.parent().unwrap()), "others reach {}", path.display());
    }
}
