//! What is left when a test process is killed in the middle of its tests.

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

use crate::Outcome;

/// How long those left may take to notice.
const GRACE: Duration = Duration::from_secs(3);

/// What was there afterwards that was not before the tests began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Left {
    /// Which run, after [`GRACE`]. A shared server's are not among them.
    pub(crate) processes: usize,
    /// Of a shared server.
    pub(crate) databases: i64,
    pub(crate) files: usize,
    pub(crate) megabytes: f64,
}

/// What is there before tests begin.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    /// Children of this process that are to live on, with all below them.
    others: Vec<u32>,
    databases: i64,
    files: usize,
    bytes: u64,
}

/// Makes this process the parent of those whose own parent dies, so that none is overlooked; nor outlives this one's care.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(rustix::process::getpid()))?)
}

impl Before {
    /// `victim` is the test process.
    pub(crate) fn now(place: &Path, server: Option<&str>, victim: u32) -> Outcome<Self> {
        let (files, bytes) = contents(place)?;
        let mut others = processes()?.remove(&std::process::id()).unwrap_or_default();
        others.retain(|&(pid, _)| pid != victim);
        let others = others.into_iter().map(|(pid, _)| pid).collect();
        Ok(Self { others, databases: databases(server)?, files, bytes })
    }

    /// Once the test process has been killed. Ends the processes that it finds.
    pub(crate) fn left(self, place: &Path, server: Option<&str>) -> Outcome<Left> {
        let deadline = Instant::now() + GRACE;
        let mut survivors = orphans(&self.others)?;
        while !survivors.is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
            survivors = orphans(&self.others)?;
        }
        let (files, bytes) = contents(place)?;
        let left = Left {
            processes: survivors.len(),
            databases: databases(server)? - self.databases,
            files: files.saturating_sub(self.files),
            megabytes: bytes.saturating_sub(self.bytes) as f64 / f64::from(1 << 20),
        };
        end(&self.others)?;
        Ok(left)
    }
}

/// Ends all processes below this one but `others`.
fn end(others: &[u32]) -> Outcome<()> {
    let deadline = Instant::now() + GRACE;
    loop {
        let orphans = orphans(others)?;
        if orphans.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{} processes do not end", orphans.len()).into());
        }
        for pid in orphans {
            // It may have ended since.
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// All processes that run below this one, but `others` and those below them. Reaps those that ended.
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

/// Number and state of all processes, by that of their parent.
fn processes() -> io::Result<HashMap<u32, Vec<(u32, char)>>> {
    let mut children: HashMap<u32, Vec<(u32, char)>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended since.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // proc_pid_stat(5): the name is in parentheses and may hold any character; state and parent follow.
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        let state = fields.next().and_then(|state| state.chars().next());
        if let (Some(state), Some(parent)) = (state, fields.next().and_then(|parent| parent.parse().ok())) {
            children.entry(parent).or_default().push((pid, state));
        }
    }
    Ok(children)
}

fn databases(server: Option<&str>) -> Outcome<i64> {
    let Some(url) = server else { return Ok(0) };
    Ok(Client::connect(url, NoTls)?.query_one("select count(*) from pg_database", &[])?.get(0))
}

/// Files, and the bytes of memory or disk that they take.
fn contents(place: &Path) -> Outcome<(usize, u64)> {
    use std::os::unix::fs::MetadataExt;
    let (mut files, mut bytes) = (0, 0);
    for entry in WalkDir::new(place) {
        // Servers that live remove files meanwhile.
        let Ok(metadata) = entry.and_then(|entry| entry.metadata()) else { continue };
        files += usize::from(!metadata.is_dir());
        bytes += metadata.blocks() * 512;
    }
    Ok((files, bytes))
}
