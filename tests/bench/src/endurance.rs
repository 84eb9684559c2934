//! Measures leaks of this process and of the kernel after thousands of sandboxes in sequence and
//! hundreds at once.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use sandboxed_db::{Postgres, Sandbox, Snapshot};

use crate::Result;
use crate::figures::{Figures, Unit, memory};

/// The time in which the kernel must have freed deferred memory: namespaces one after another, and
/// later the charges of control groups.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let (rounds, at_once) = if quick { (500, 50) } else { (10_000, 500) };
    let snapshot = Snapshot::new(Postgres::new());
    // The first starts create the launcher and kernel caches.
    for _ in 0..20 {
        drop(snapshot.start()?);
    }
    thread::sleep(Duration::from_secs(2));
    let before = Usage::now()?;
    let mut tenths = Vec::new();
    for _ in 0..10 {
        let begin = Instant::now();
        for _ in 0..rounds / 10 {
            drop(snapshot.start()?);
        }
        tenths.push(begin.elapsed().as_secs_f64() * 1e3 / f64::from(rounds / 10));
    }
    let what = format!("{rounds} in sequence");
    let (first, last) = (tenths[0], tenths[9]);
    figures.push(format!("{what}: each of the first tenth"), first, Unit::Milliseconds);
    figures.push(format!("{what}: each of the last tenth"), last, Unit::Milliseconds);
    figures.push(format!("{what}: ratio of the last to the first"), last / first, Unit::Count);
    Usage::settled(&before)?.report(&before, &what, figures);

    // Kernel tables of many sandboxes stay allocated for reuse.
    let before = Usage::now()?;
    let begin = Instant::now();
    let sandboxes = (0..at_once).map(|_| snapshot.start()).collect::<Result<Vec<Sandbox>, _>>()?;
    let what = format!("{at_once} at once");
    figures.time(format!("{what}: each"), begin.elapsed() / at_once);
    let begin = Instant::now();
    drop(sandboxes);
    figures.time(format!("{what}: teardown of each"), begin.elapsed() / at_once);
    Usage::settled(&before)?.report(&before, &what, figures);
    Ok(())
}

/// Resources that could leak. Other processes change the figures of the whole machine, too.
#[derive(Debug, Clone, Copy)]
struct Usage {
    descriptors: usize,
    threads: usize,
    temporary: usize,
    mounts: usize,
    /// Only root can read it.
    net_namespaces: Option<u64>,
    unreclaimable: u64,
}

impl Usage {
    fn now() -> io::Result<Self> {
        let count = |directory: &str| Ok::<_, io::Error>(fs::read_dir(directory)?.count());
        let temporary = std::env::temp_dir();
        Ok(Self {
            descriptors: count("/proc/self/fd")?,
            threads: count("/proc/self/task")?,
            temporary: fs::read_dir(temporary)?.count(),
            mounts: fs::read_to_string("/proc/self/mountinfo")?.lines().count(),
            net_namespaces: net_namespaces(),
            unreclaimable: memory(&["SUnreclaim:"])?,
        })
    }

    /// Returns the usage once the kernel holds no more than before, or after the deadline.
    fn settled(before: &Self) -> io::Result<Self> {
        let end = Instant::now() + DEADLINE;
        loop {
            let now = Self::now()?;
            let settled =
                now.unreclaimable <= before.unreclaimable && now.net_namespaces <= before.net_namespaces;
            if settled || Instant::now() > end {
                return Ok(now);
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn report(&self, before: &Self, what: &str, figures: &mut Figures) {
        let mut more = |name: &str, now: usize, before: usize| {
            let more = now as f64 - before as f64;
            figures.push(format!("{what}: {name} left"), more, Unit::Count);
        };
        more("descriptors", self.descriptors, before.descriptors);
        more("threads", self.threads, before.threads);
        more("temporary files", self.temporary, before.temporary);
        more("mounts", self.mounts, before.mounts);
        if let (Some(now), Some(before)) = (self.net_namespaces, before.net_namespaces) {
            more("network namespaces", now as usize, before as usize);
        }
        let more = self.unreclaimable as f64 - before.unreclaimable as f64;
        figures.memory(format!("{what}: kernel memory left"), more);
    }
}

/// Counts network namespaces by slabinfo(5). The count lags by a few objects for each core.
fn net_namespaces() -> Option<u64> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("net_namespace "))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}
