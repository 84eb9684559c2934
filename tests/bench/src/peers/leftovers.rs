//! Finds leftovers of a test process that was killed in the middle of its tests.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use crate::Result;

/// The time in which surviving processes must end.
const GRACE: Duration = Duration::from_secs(3);

/// Leftovers of a killed test process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Leftovers {
    /// Running processes after [`GRACE`], without those of a shared server.
    pub(crate) processes: usize,
    /// Databases of a shared server.
    pub(crate) databases: i64,
    pub(crate) files: usize,
    pub(crate) megabytes: f64,
}

/// The state before the tests.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    /// Children of this process that must live on, with their descendants.
    others: Vec<u32>,
    databases: i64,
    files: usize,
    bytes: u64,
}

/// Makes this process the parent of orphans, so that all of them are found and killed.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(rustix::process::getpid()))?)
}

impl Before {
    /// Records the state. `victim` is the test process.
    pub(crate) fn now(directory: &Path, server: Option<&str>, victim: u32) -> Result<Self> {
        let (files, bytes) = contents(directory)?;
        let mut others = processes()?.remove(&std::process::id()).unwrap_or_default();
        others.retain(|&(pid, _)| pid != victim);
        let others = others.into_iter().map(|(pid, _)| pid).collect();
        Ok(Self { others, databases: databases(server)?, files, bytes })
    }

    /// Returns the leftovers after the test process was killed, and kills surviving processes.
    pub(crate) fn leftovers(self, directory: &Path, server: Option<&str>) -> Result<Leftovers> {
        let deadline = Instant::now() + GRACE;
        let mut survivors = orphans(&self.others)?;
        while !survivors.is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
            survivors = orphans(&self.others)?;
        }
        let (files, bytes) = contents(directory)?;
        let leftovers = Leftovers {
            processes: survivors.len(),
            databases: databases(server)? - self.databases,
            files: files.saturating_sub(self.files),
            megabytes: bytes.saturating_sub(self.bytes) as f64 / f64::from(1 << 20),
        };
        end(&self.others)?;
        Ok(leftovers)
    }
}

/// Kills all descendants of this process except `others`.
fn end(others: &[u32]) -> Result<()> {
    let deadline = Instant::now() + GRACE;
    loop {
        let orphans = orphans(others)?;
        if orphans.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{} processes survive SIGKILL", orphans.len()).into());
        }
        for pid in orphans {
            // The process may have ended.
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the running descendants of this process except `others` and their descendants. Reaps
/// zombies.
fn orphans(others: &[u32]) -> io::Result<Vec<Pid>> {
    let this = std::process::id();
    let children = processes()?;
    let (mut found, mut parents) = (Vec::new(), vec![this]);
    while let Some(parent) = parents.pop() {
        for &(pid, state) in children.get(&parent).into_iter().flatten() {
            let Some(id) = Pid::from_raw(pid.cast_signed()) else { continue };
            if others.contains(&pid) {
                continue;
            }
            if state != 'Z' {
                found.push(id);
            } else if parent == this {
                waitpid(Some(id), WaitOptions::NOHANG)?;
            }
            parents.push(pid);
        }
    }
    Ok(found)
}

/// Returns the number and state of all processes by the number of their parent.
fn processes() -> io::Result<HashMap<u32, Vec<(u32, char)>>> {
    let mut children: HashMap<u32, Vec<(u32, char)>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // The process may have ended.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // proc_pid_stat(5): the name is in parentheses and may hold any character; state and parent
        // follow.
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        let state = fields.next().and_then(|state| state.chars().next());
        if let (Some(state), Some(parent)) = (state, fields.next().and_then(|parent| parent.parse().ok())) {
            children.entry(parent).or_default().push((pid, state));
        }
    }
    Ok(children)
}

fn databases(server: Option<&str>) -> Result<i64> {
    let Some(url) = server else { return Ok(0) };
    Ok(Client::connect(url, NoTls)?.query_one("select count(*) from pg_database", &[])?.get(0))
}

/// Counts the files and their bytes of memory or disk.
fn contents(directory: &Path) -> Result<(usize, u64)> {
    use std::os::unix::fs::MetadataExt;
    let (mut files, mut bytes) = (0, 0);
    for entry in WalkDir::new(directory) {
        // Live servers may remove the file.
        let Ok(metadata) = entry.and_then(|entry| entry.metadata()) else { continue };
        files += usize::from(!metadata.is_dir());
        bytes += metadata.blocks() * 512;
    }
    Ok((files, bytes))
}
