//! Looking at what a process leaves behind: processes, mounts, files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// Long beyond need: a test that waits so long has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How long the kernel may take to clear away what a dead process leaves; it takes milliseconds.
pub const CLEARED: Duration = Duration::from_secs(10);

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none within the limit.
pub fn eventually<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The mounts of this process's mount namespace.
///
/// # Panics
/// Where there is no /proc.
#[must_use]
pub fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    text.lines().map(str::to_owned).collect()
}

/// What the kernel keeps though no process uses it: mounts, and this user's shared memory, semaphores and message queues,
/// System V's and POSIX's.
///
/// # Panics
/// Where there is no /proc.
#[must_use]
pub fn kept_by_the_kernel() -> BTreeSet<String> {
    let own = rustix::process::geteuid().as_raw();
    let mut kept = mounts();
    // Where the column of the owner is, proc_sysvipc(5). The others tell of use, not of identity.
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

/// Waits until the kernel keeps nothing that it did not keep `before`.
///
/// # Panics
/// When it goes on keeping it.
#[track_caller]
pub fn assert_nothing_kept_since(before: &BTreeSet<String>) {
    let deadline = Instant::now() + CLEARED;
    loop {
        let left: Vec<_> = kept_by_the_kernel().difference(before).cloned().collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left {CLEARED:?} after the end: {left:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Namespaces, held open: so their numbers are given to no others while it is asked who is in them.
#[derive(Debug)]
pub struct Namespaces(BTreeMap<String, File>);

const KINDS: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

impl Namespaces {
    /// Those that these processes are in and this one is not. Processes may end meanwhile.
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

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Who is in one, holds one open or has mounted one, besides this.
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

/// A pid namespace, held open: its number would be given to the next one as soon as it is gone.
#[derive(Debug)]
pub struct PidNamespace(File);

impl PidNamespace {
    fn is_that_of(&self, process: u32) -> bool {
        let own = self.0.metadata().expect("it is open");
        fs::metadata(format!("/proc/{process}/ns/pid"))
            .is_ok_and(|its| (its.dev(), its.ino()) == (own.dev(), own.ino()))
    }
}

/// That of a process, if it lives.
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
    // One that is dead and reaped is still listed for some microseconds.
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

/// Directories for a child process to have to itself, so that what it leaves behind is found.
#[derive(Debug)]
pub struct Place {
    root: TempDir,
    cache: PathBuf,
}

impl Place {
    /// With an empty cache.
    ///
    /// # Panics
    /// When the directories cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let cache = root.path().join("cache");
        Self::with_cache(root, cache)
    }

    /// With the cache that this process uses too: what is in it need not be built again, and is not looked at.
    ///
    /// # Panics
    /// When the directories cannot be made.
    #[must_use]
    pub fn sharing_the_cache() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = set("SANDBOXED_DB_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("sandboxed-db")))
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache/sandboxed-db")))
            .expect("there is a cache directory");
        let root = tempfile::tempdir().expect("a temporary directory");
        Self::with_cache(root, std::path::absolute(cache).expect("a path"))
    }

    fn with_cache(root: TempDir, cache: PathBuf) -> Self {
        for name in ["home", "tmp", "work"] {
            fs::create_dir(root.path().join(name)).expect("an empty directory");
        }
        Self { root, cache }
    }

    /// Gives the directories to another user, who then can run a copy of `program` there.
    ///
    /// # Panics
    /// When this user may not.
    pub fn give_to(&self, user: u32, program: &Path) -> PathBuf {
        let copy = self.root.path().join("program");
        fs::copy(program, &copy).expect("there is room");
        let own = ["home", "tmp", "work"].map(|name| self.root.path().join(name));
        for path in own.iter().map(PathBuf::as_path).chain([copy.as_path(), self.root.path()]) {
            chown(path, Some(user), Some(user)).expect("root gives files away");
        }
        copy
    }

    /// Where files for the child may be put; they are not looked at.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// The child's cache directory.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// A program that knows no other directories than these.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let at = |name| self.root.path().join(name);
        let mut command = Command::new(program);
        command
            .current_dir(at("work"))
            .env("HOME", at("home"))
            .env("TMPDIR", at("tmp"))
            .env("SANDBOXED_DB_CACHE", &self.cache)
            .env("RUST_BACKTRACE", "0")
            .env_remove("XDG_CACHE_HOME");
        command
    }

    /// Every file that is left besides the finished parts of a cache of its own.
    #[must_use]
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for name in ["home", "tmp", "work"] {
            left.extend(entries(&self.root.path().join(name)));
        }
        if self.cache.starts_with(self.root.path()) {
            for part in entries(&self.cache) {
                match part.file_name().unwrap_or_default().to_str() {
                    Some("layers" | "linked" | "locks" | "servers" | "lookups" | "chains") => {
                        left.extend(entries(&part).into_iter().filter(|path| !is_finished(path)));
                    }
                    Some("staging") => left.extend(entries(&part)),
                    Some("live") => {}
                    _ => left.push(part),
                }
            }
        }
        left
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// A layer, a lock, the mark of the last pruning or what is known of a server or a description, by its name and shape.
fn is_finished(path: &Path) -> bool {
    if path.ends_with("locks/prune") && path.is_file() {
        return true;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = [".json", ".none"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
    let named = stem.len() >= 16 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    named && (path.is_file() || (path.join("data").is_dir() && path.join("manifest.json").is_file()))
}

/// A `victim` that is run below a `victim keep`: it is known when no process is left of it, found by the kernel's own
/// accounts and not by looking around.
#[derive(Debug)]
pub struct Watched {
    keeper: Child,
    victim: Pid,
    lines: Receiver<String>,
    told: Vec<String>,
}

impl Watched {
    /// Runs `command`, which is `victim keep` with its arguments.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = piped.spawn().expect("victim starts");
        let output = BufReader::new(keeper.stdout.take().expect("it is piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            // The victim may speak before its keeper has named it.
            let mut early = Some(Vec::new());
            for line in output.lines().map_while(Result::ok) {
                let lines = match &mut early {
                    Some(lines) if !line.starts_with("victim ") => {
                        lines.push(line);
                        continue;
                    }
                    early => std::iter::once(line).chain(early.take().into_iter().flatten()),
                };
                for line in lines {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            }
        });
        let mut watched = Self { victim: Pid::from_child(&keeper), keeper, lines, told: Vec::new() };
        let pid = watched.wait_for("victim ");
        watched.victim = pid.parse().ok().and_then(Pid::from_raw).expect("a pid");
        watched
    }

    /// The process that uses the library.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.victim.as_raw_nonzero().get().unsigned_abs()
    }

    /// The processes that there are of it, itself included.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        descendants(self.keeper.id())
    }

    /// Waits for a line with that beginning and returns the rest of it.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_for(&mut self, beginning: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("`{beginning}` does not come after {:?}", self.told);
            };
            let rest = line.strip_prefix(beginning).map(str::to_owned);
            self.told.push(line);
            if let Some(rest) = rest {
                return rest;
            }
        }
    }

    /// Gives an obeying victim a command, and returns what it tells.
    ///
    /// # Errors
    /// The report of the error that the command ended with.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn order(&mut self, command: &str) -> Result<Vec<String>, String> {
        let stdin = self.keeper.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{command}").expect("it reads");
        let deadline = Instant::now() + DEADLINE;
        let mut answer = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("no answer to `{command}` after {answer:?}"));
            if line == "done" {
                return Ok(answer);
            }
            if let Some(report) = line.strip_prefix("failed ") {
                return Err(report.replace("\\n", "\n"));
            }
            answer.push(line);
        }
    }

    /// Sends the victim a signal, or its whole process group as a terminal does. One that has ended gets none.
    pub fn kill(&self, signal: Signal, group: bool) {
        let kill = if group { kill_process_group } else { kill_process };
        let _ = kill(self.victim, signal);
    }

    /// Waits until every process that the victim started is gone, and returns how it ended and what it told.
    ///
    /// # Panics
    /// When processes are left; they are ended.
    pub fn gone(mut self) -> (String, Vec<String>) {
        drop(self.keeper.stdin.take());
        let ended = self.wait_for("ended ");
        let deadline = Instant::now() + CLEARED;
        while self.keeper.try_wait().expect("it is our child").is_none() {
            if Instant::now() >= deadline {
                let left = descendants(self.keeper.id());
                let described: Vec<_> = left.iter().map(|&pid| describe(pid)).collect();
                panic!("left {CLEARED:?} after the end: {described:#?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let told = std::mem::take(&mut self.told);
        (ended, told)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if matches!(self.keeper.try_wait(), Ok(None)) {
            for pid in descendants(self.keeper.id()) {
                if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            let _ = self.keeper.wait();
        }
    }
}

/// In one look at all processes, of which there may be thousands.
fn descendants(process: u32) -> Vec<u32> {
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

fn describe(pid: u32) -> String {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
    let state = status(pid, "State").unwrap_or_default();
    format!("{pid} {state} {arguments}")
}
