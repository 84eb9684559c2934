//! A control group for each sandbox, where a part of the tree is delegated: cgroups(7), version 2.
//!
//! `systemd-run --user --scope -p Delegate=yes cargo test` delegates one. Other parts of the tree
//! belong to the machine's administrator and are left alone.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::launch::limits::Limits;
use crate::machine::mountinfo::own_control_group;

/// The prefix of all groups made here. The launcher's pid and a number follow in a sandbox's.
const PREFIX: &str = "sandboxed-db";

/// The controllers of a group.
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

/// The delegated part of the tree.
#[derive(Debug)]
pub(super) struct Delegation {
    directory: PathBuf,
    controllers: Controllers,
    made: u64,
}

impl Delegation {
    /// Finds the delegated part and prepares it for groups with limits. `None` without one, or if
    /// it can limit nothing.
    pub(super) fn find() -> Option<Self> {
        let own = own_control_group()?;
        // The parent serves if the other processes are moved to a group below it.
        let directory =
            [Some(own.as_path()), own.parent()].into_iter().flatten().find(|path| is_delegated(path))?;
        let available = Controllers::read(&directory.join("cgroup.controllers"));
        available.names().next()?;
        enable(directory, available).ok()?;
        let controllers = Controllers::read(&directory.join("cgroup.subtree_control"));
        sweep(directory);
        Some(Self { directory: directory.to_owned(), controllers, made: 0 })
    }

    /// Makes a group for one sandbox, whose files may take `files` bytes in addition to its
    /// processes' memory.
    pub(super) fn make(&mut self, limits: &Limits, files: u64) -> io::Result<Group> {
        self.made += 1;
        let name = format!("{PREFIX}.{}.{}", std::process::id(), self.made);
        let path = self.directory.join(name);
        fs::create_dir(&path)?;
        // From here on, dropping the group removes it.
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

    /// Returns the directory for clone3(2).
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// Kills the processes of the group and removes it. `false` while the kernel is not done with
    /// that.
    pub(super) fn remove(&self) -> bool {
        // Linux 5.14. Usually all processes have ended already.
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
            // Otherwise an excess would only be slow. The file is missing where the kernel cannot
            // swap.
            let _ = write("memory.swap.max", "0".to_owned());
        }
        if let Some(pids) = limits.pids.filter(|_| self.controllers.pids) {
            write("pids.max", pids.to_string())?;
        }
        if let Some(cpu) = limits.cpu.filter(|_| self.controllers.cpu) {
            // A period in microseconds; the kernel takes no share below one thousand.
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

/// Returns `true` if a group has systemd's mark of delegation, systemd.resource-control(5),
/// "Delegate=".
fn is_delegated(group: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(group, *name, &mut value).is_ok_and(|length| &value[..length] == b"1")
    })
}

/// Enables limits for groups below. Only a group without processes may do that, so its processes
/// are moved to a group below it.
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
        // Cargo or a neighbour may start processes meanwhile.
        match &outcome {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => move_processes(directory)?,
            _ => return outcome,
        }
    }
    outcome
}

fn move_processes(directory: &Path) -> io::Result<()> {
    let below = directory.join(PREFIX);
    match fs::create_dir(&below) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for pid in fs::read_to_string(directory.join("cgroup.procs"))?.lines() {
        match fs::write(below.join("cgroup.procs"), pid) {
            // The process has ended.
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
            // rmdir(2) refuses a group with processes.
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
    fn limits_are_written_for_available_controllers() {
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
