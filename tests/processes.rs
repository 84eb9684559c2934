//! Processes, namespaces and other objects of the kernel, as /proc shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A test that waits this long has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Time for the kernel to remove the resources of a dead process; it takes milliseconds.
pub const CLEANUP_DEADLINE: Duration = Duration::from_secs(60);

/// Polls until there is a value.
#[track_caller]
pub fn eventually<T>(limit: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Polls until the condition holds.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    eventually(limit, what, || holds().then_some(()));
}

/// The mounts of this process's mount namespace.
#[must_use]
pub fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    text.lines().map(str::to_owned).collect()
}

/// The objects that outlive processes: mounts, and this user's shared memory, semaphores and
/// message queues, of System V and of POSIX.
pub(crate) fn kernel_objects() -> BTreeSet<String> {
    let own = rustix::process::geteuid().as_raw();
    let mut kept = mounts();
    // The columns of the owners, proc_sysvipc(5). Later columns describe use.
    for (kind, owner) in [("shm", 7), ("msg", 7), ("sem", 4)] {
        let text = fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let columns: Vec<_> = line.split_ascii_whitespace().collect();
            if columns.get(owner).and_then(|owner| owner.parse().ok()) == Some(own) {
                kept.insert(format!("{kind} {} {}", columns[0], columns[1]));
            }
        }
    }
    for path in ["/dev/shm", "/dev/mqueue"].iter().flat_map(|directory| entries(Path::new(directory))) {
        if fs::symlink_metadata(&path).is_ok_and(|file| file.uid() == own) {
            kept.insert(path.display().to_string());
        }
    }
    kept
}

/// Namespaces, held open: so their numbers are given to no others while it is asked who is in them.
#[derive(Debug)]
pub struct Namespaces(BTreeMap<String, File>);

const KINDS: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

impl Namespaces {
    /// Those of these processes in which this one is not. Processes may end meanwhile.
    #[must_use]
    pub fn of(processes: &[u32]) -> Self {
        let own: BTreeSet<_> =
            KINDS.iter().filter_map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).ok()).collect();
        let mut held = BTreeMap::new();
        for (process, kind) in processes.iter().flat_map(|process| KINDS.map(|kind| (process, kind))) {
            let Ok(file) = File::open(format!("/proc/{process}/ns/{kind}")) else { continue };
            let name = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
            let name = name.expect("an open file has a name");
            if !own.contains(&name) {
                held.insert(name.display().to_string(), file);
            }
        }
        Self(held)
    }

    /// The number of namespaces.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The processes and mounts that use one, this process's open files excepted.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        let mut users = Vec::new();
        let mut note = |pid: u32, how: &str, link: std::io::Result<PathBuf>| {
            let name = link.map(|link| link.display().to_string()).unwrap_or_default();
            if self.0.contains_key(&name) {
                users.push(format!("{name} {how} {}", describe(pid)));
            }
        };
        for pid in all_processes() {
            KINDS.iter().for_each(|kind| {
                note(pid, "is that of", fs::read_link(format!("/proc/{pid}/ns/{kind}")));
            });
            if pid != std::process::id() {
                let open = entries(Path::new(&format!("/proc/{pid}/fd")));
                open.iter().for_each(|open| note(pid, "is open in", fs::read_link(open)));
            }
        }
        let mounted = mounts().into_iter().filter(|mount| self.0.keys().any(|name| mount.contains(name)));
        users.extend(mounted);
        users
    }
}

/// A pid namespace that is held open, since the kernel reuses its number.
#[derive(Debug)]
pub struct PidNamespace(File);

impl PidNamespace {
    fn is_that_of(&self, process: u32) -> bool {
        let own = self.0.metadata().expect("it is open");
        fs::metadata(format!("/proc/{process}/ns/pid"))
            .is_ok_and(|its| (its.dev(), its.ino()) == (own.dev(), own.ino()))
    }
}

/// The pid namespace of a process that lives.
#[must_use]
pub fn pid_namespace(process: u32) -> Option<PidNamespace> {
    File::open(format!("/proc/{process}/ns/pid")).ok().map(PidNamespace)
}

/// The processes in the pid namespace of process `init`, zombies included.
#[must_use]
pub fn processes_beside(init: u32) -> Vec<u32> {
    pid_namespace(init).map_or_else(Vec::new, |namespace| processes_in(&namespace))
}

/// The processes in a pid namespace, zombies included.
#[must_use]
pub fn processes_in(namespace: &PidNamespace) -> Vec<u32> {
    let all = all_processes().into_iter();
    // A reaped process is listed for some microseconds.
    let exists = |pid: u32| status(pid, "State").is_some_and(|state| !state.starts_with('X'));
    all.filter(|&pid| namespace.is_that_of(pid) && exists(pid)).collect()
}

fn all_processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A line of /proc/pid/status, without its name.
#[must_use]
pub fn status(process: u32, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

/// The children of a process, zombies included.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let of_parent = |pid: &u32| status(*pid, "PPid").is_some_and(|ppid| ppid == parent.to_string());
    all_processes().into_iter().filter(of_parent).collect()
}

pub(crate) fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// All descendants, by one pass over all processes, of which there may be thousands.
pub(crate) fn descendants(process: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in all_processes() {
        if let Some(parent) = status(pid, "PPid").and_then(|parent| parent.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&process).unwrap_or_default();
    let mut next = 0;
    while next < found.len() {
        found.extend(children.remove(&found[next]).unwrap_or_default());
        next += 1;
    }
    found
}

pub(crate) fn describe(pid: u32) -> String {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
    let state = status(pid, "State").unwrap_or_default();
    format!("{pid} {state} {arguments}")
}
