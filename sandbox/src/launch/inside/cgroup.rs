//! A control group for each sandbox, where somebody gave this process a part of the tree to use: cgroups(7), version 2.
//!
//! `systemd-run --user --scope -p Delegate=yes cargo test` is one way to get one. The tree belongs to whoever runs the
//! machine, so only what is marked as delegated is touched.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::launch::limits::Limits;
use crate::machine::mountinfo::own_control_group;

/// Beginning of the names of all groups made here: a sandbox's goes on with its launcher's pid and a number.
const PREFIX: &str = "sandboxed-db";

/// What a group can limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Controllers {
    pub(super) memory: bool,
    pub(super) pids: bool,
    pub(super) cpu: bool,
}

impl Controllers {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        let has = |name| text.split_ascii_whitespace().any(|controller| controller == name);
        Self { memory: has("memory"), pids: has("pids"), cpu: has("cpu") }
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [(self.memory, "memory"), (self.pids, "pids"), (self.cpu, "cpu")];
        all.into_iter().filter_map(|(has, name)| has.then_some(name))
    }
}

/// The part of the tree that is this process's to use.
#[derive(Debug)]
pub(super) struct Delegation {
    directory: PathBuf,
    controllers: Controllers,
    made: u64,
}

impl Delegation {
    /// Finds it, and prepares it for groups with limits. None where there is none, or where it can limit nothing.
    pub(super) fn find() -> Option<Self> {
        let own = own_control_group()?;
        // Beside the other processes, once they are in a group of their own below it.
        let directory =
            [Some(own.as_path()), own.parent()].into_iter().flatten().find(|path| is_delegated(path))?;
        let available = Controllers::read(&directory.join("cgroup.controllers"));
        available.names().next()?;
        enable(directory, available).ok()?;
        let controllers = Controllers::read(&directory.join("cgroup.subtree_control"));
        sweep(directory);
        Some(Self { directory: directory.to_owned(), controllers, made: 0 })
    }

    /// Makes a group for one sandbox, whose files may take `files` bytes besides the memory of its processes.
    pub(super) fn make(&mut self, limits: &Limits, files: u64) -> io::Result<Group> {
        self.made += 1;
        let name = format!("{PREFIX}.{}.{}", std::process::id(), self.made);
        let path = self.directory.join(name);
        fs::create_dir(&path)?;
        // From here on dropping it removes it.
        let mut group = Group { path, directory: None, controllers: self.controllers };
        group.limit(limits, files)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        group.directory = Some(openat(CWD, &group.path, flags, Mode::empty())?);
        Ok(group)
    }
}

/// The control group of one sandbox.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
    directory: Option<OwnedFd>,
    controllers: Controllers,
}

impl Group {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn controllers(&self) -> Controllers {
        self.controllers
    }

    /// For clone3(2).
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// Removes it with whatever still runs in it; `false` as long as the kernel is not done with that.
    pub(super) fn remove(&self) -> bool {
        // Linux 5.14; the sandbox has ended by itself before.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        match fs::remove_dir(&self.path) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    fn limit(&self, limits: &Limits, files: u64) -> io::Result<()> {
        let write = |name: &str, value: String| fs::write(self.path.join(name), value);
        if self.controllers.memory {
            write("memory.max", limits.memory.saturating_add(files).to_string())?;
            // Or what is too much would only be slow. Not there where the kernel cannot swap.
            let _ = write("memory.swap.max", "0".to_owned());
        }
        if let Some(pids) = limits.pids.filter(|_| self.controllers.pids) {
            write("pids.max", pids.to_string())?;
        }
        if let Some(cpu) = limits.cpu.filter(|_| self.controllers.cpu) {
            // Microseconds in each of these; the kernel takes no less than one thousand.
            const PERIOD: u32 = 100_000;
            let share = (cpu * f64::from(PERIOD)).max(1000.0) as u64;
            write("cpu.max", format!("{share} {PERIOD}"))?;
        }
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.remove();
    }
}

/// systemd's mark on a group whose inside it leaves alone, systemd.resource-control(5), "Delegate=".
fn is_delegated(group: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(group, *name, &mut value).is_ok_and(|length| &value[..length] == b"1")
    })
}

/// Lets groups below have limits. Only a group without processes may, so those in it go into one of their own below it.
fn enable(directory: &Path, wanted: Controllers) -> io::Result<()> {
    const TRIES: usize = 20;
    let control = directory.join("cgroup.subtree_control");
    let mut outcome = Ok(());
    for _ in 0..TRIES {
        if Controllers::read(&control) == wanted {
            return Ok(());
        }
        let change: Vec<_> = wanted.names().map(|name| format!("+{name}")).collect();
        outcome = fs::write(&control, change.join(" "));
        // Processes are started meanwhile, by cargo or by a neighbour.
        match &outcome {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => move_processes(directory)?,
            _ => return outcome,
        }
    }
    outcome
}

fn move_processes(directory: &Path) -> io::Result<()> {
    let place = directory.join(PREFIX);
    match fs::create_dir(&place) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for pid in fs::read_to_string(directory.join("cgroup.procs"))?.lines() {
        match fs::write(place.join("cgroup.procs"), pid) {
            // It has ended.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Removes the groups of launchers that were killed.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let launcher = name.to_str().and_then(launcher_of);
        if launcher.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // One that holds processes stays, as rmdir(2) refuses it.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn launcher_of(group: &str) -> Option<u32> {
    let (launcher, number) = group.strip_prefix(PREFIX)?.strip_prefix('.')?.split_once('.')?;
    number.parse::<u64>().ok()?;
    launcher.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(controllers: Controllers) -> (tempfile::TempDir, Group) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("group");
        fs::create_dir(&path).unwrap();
        (root, Group { path, directory: None, controllers })
    }

    fn files(group: &Group) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(&group.path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn limits_are_written_for_the_controllers_there_are() {
        let limits = Limits { memory: 1000, pids: Some(40), cpu: Some(1.5) };
        let (_root, one) = group(Controllers { memory: true, pids: true, cpu: true });
        one.limit(&limits, 24).unwrap();
        let expected = [
            ("cpu.max", "150000 100000"),
            ("memory.max", "1024"),
            ("memory.swap.max", "0"),
            ("pids.max", "40"),
        ];
        assert_eq!(files(&one), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

        let (_root, none) = group(Controllers::default());
        none.limit(&limits, 24).unwrap();
        assert_eq!(files(&none), []);
    }

    #[test]
    fn groups_of_dead_launchers_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let own = format!("{PREFIX}.{}.1", std::process::id());
        // Larger than any pid.
        let dead = format!("{PREFIX}.4194305.7");
        for name in [PREFIX, "sandboxed-db.x.1", "other.4194305.7", &own, &dead] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        sweep(root.path());
        let left = fs::read_dir(root.path()).unwrap().count();
        assert!(!root.path().join(&dead).exists() && left == 4, "{left}");
    }
}
