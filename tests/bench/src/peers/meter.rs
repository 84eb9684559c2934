//! Measures the cost of contestants: processor time and writes to disks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::figures::processor_time;

/// The time for which the idle load of the machine is measured.
const WATCH: Duration = Duration::from_secs(1);
/// The time in which a control group must be empty after its processes were killed.
const EMPTYING: Duration = Duration::from_secs(5);

/// The beginning of the names of groups.
const PREFIX: &str = "sandboxed-db-bench.";

/// How the processor time of a contestant is separated from other processes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Accounting {
    /// By a control group for each contestant. Work of kernel threads, such as the last part of
    /// freeing a namespace, does not count.
    Groups,
    /// By the load of the whole machine, less its load before the run, in processors.
    Machine { idle: f64 },
}

/// Measures the processor time of a contestant: client and servers.
#[derive(Debug)]
pub(crate) enum Meter {
    Group(PathBuf),
    /// Another process removes the group.
    Own(PathBuf),
    Machine {
        idle: f64,
    },
}

impl Accounting {
    /// Uses control groups if one can be created; they need no controller, cgroups(7).
    pub(crate) fn available() -> io::Result<Self> {
        if let Some(group) = own_group()? {
            let trial = group.join(format!("{PREFIX}{}", std::process::id()));
            if fs::create_dir(&trial).and_then(|()| fs::remove_dir(&trial)).is_ok() {
                return Ok(Self::Groups);
            }
        }
        let (begin, before) = (Instant::now(), processor_time()?);
        thread::sleep(WATCH);
        let used = processor_time()?.saturating_sub(before);
        Ok(Self::Machine { idle: used.as_secs_f64() / begin.elapsed().as_secs_f64() })
    }

    pub(crate) fn open(self, number: usize) -> io::Result<Meter> {
        match self {
            Self::Machine { idle } => Ok(Meter::Machine { idle }),
            Self::Groups => {
                let parent = own_group()?.ok_or(io::ErrorKind::NotFound)?;
                let group = parent.join(format!("{PREFIX}{}.{number}", std::process::id()));
                fs::create_dir(&group)?;
                Ok(Meter::Group(group))
            }
        }
    }
}

impl Meter {
    /// Counts the processes beside this one: in the group that [`around`](Self::around) has made,
    /// or in the whole machine.
    pub(crate) fn own() -> io::Result<Self> {
        let is_made = |group: &PathBuf| {
            group.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
        };
        Ok(own_group()?.filter(is_made).map_or(Self::Machine { idle: 0.0 }, Self::Own))
    }

    /// Runs `work` while this process is in the group, so that its children are, too.
    pub(crate) fn around<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let outer = own_group()?;
        self.enter(std::process::id())?;
        let result = work();
        if let (Self::Group(_), Some(outer)) = (self, outer) {
            fs::write(outer.join("cgroup.procs"), std::process::id().to_string())?;
        }
        Ok(result)
    }

    /// Counts a process and its future descendants.
    pub(crate) fn enter(&self, pid: u32) -> io::Result<()> {
        match self {
            Self::Group(group) => fs::write(group.join("cgroup.procs"), pid.to_string()),
            Self::Own(_) | Self::Machine { .. } => Ok(()),
        }
    }

    /// Runs `work`. Returns its result and the processor time.
    pub(crate) fn during<T>(&self, work: impl FnOnce() -> T) -> io::Result<(T, Duration)> {
        let (begin, before) = (Instant::now(), self.total()?);
        let result = work();
        let used = self.total()?.saturating_sub(before);
        let background = match self {
            Self::Group(_) | Self::Own(_) => Duration::ZERO,
            Self::Machine { idle } => begin.elapsed().mul_f64(*idle),
        };
        Ok((result, used.saturating_sub(background)))
    }

    fn total(&self) -> io::Result<Duration> {
        let (Self::Group(group) | Self::Own(group)) = self else { return processor_time() };
        let text = fs::read_to_string(group.join("cpu.stat"))?;
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
        usage.map(Duration::from_micros).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let Self::Group(group) = self else { return };
        let deadline = Instant::now() + EMPTYING;
        while fs::remove_dir(&*group).is_err() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Returns the directory of this process's control group in the hierarchy of version 2.
fn own_group() -> io::Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(path)
    });
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(mount.zip(own).map(|(mount, own)| Path::new(mount).join(own)))
}

/// Returns the bytes that all disks of the machine have written, after a sync(2).
pub(crate) fn written_to_disks() -> io::Result<u64> {
    const SECTOR: u64 = 512;
    rustix::fs::sync();
    let mut sectors = 0;
    for line in fs::read_to_string("/proc/diskstats")?.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        // Partitions and stacked devices are counted with their disks.
        let (Some(name), Some(written)) = (fields.get(2), fields.get(9)) else { continue };
        if Path::new("/sys/block").join(name).join("device").exists() {
            sectors += written.parse::<u64>().unwrap_or(0);
        }
    }
    Ok(sectors * SECTOR)
}
