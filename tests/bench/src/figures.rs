//! Figures: collected, printed, written.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::peers::Report;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Unit {
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "MB")]
    Megabytes,
    #[serde(rename = "MB/s")]
    MegabytesPerSecond,
    #[serde(rename = "")]
    Count,
}

/// One measured figure. `value` is the median of a distribution.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p99: Option<f64>,
    unit: Unit,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    pub(crate) fn push(&mut self, name: impl Into<String>, value: f64, unit: Unit) {
        self.0.push(Figure { name: name.into(), value, p99: None, unit });
    }

    /// Adds a time, in milliseconds.
    pub(crate) fn time(&mut self, name: impl Into<String>, took: Duration) {
        self.push(name, took.as_secs_f64() * 1e3, Unit::Milliseconds);
    }

    /// Adds an amount of memory, in megabytes of 2^20 bytes.
    pub(crate) fn memory(&mut self, name: impl Into<String>, bytes: f64) {
        self.push(name, bytes / f64::from(1 << 20), Unit::Megabytes);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn distribution(&mut self, name: &str, mut samples: Vec<Duration>) {
        samples.sort();
        let at =
            |share: usize| samples[(samples.len() * share / 100).min(samples.len() - 1)].as_secs_f64() * 1e3;
        let (value, p99) = (at(50), Some(at(99)));
        self.0.push(Figure { name: name.to_owned(), value, p99, unit: Unit::Milliseconds });
    }

    #[expect(clippy::print_stdout, reason = "the output of the program")]
    pub(crate) fn print(&self) {
        if self.0.is_empty() {
            return;
        }
        println!("{:<50} {:>10} {:>10}", "", "median", "p99");
        for Figure { name, value, p99, unit } in &self.0 {
            let unit = match unit {
                Unit::Milliseconds => "ms",
                Unit::PerSecond => "/s",
                Unit::Megabytes => "MB",
                Unit::MegabytesPerSecond => "MB/s",
                Unit::Count => "",
            };
            let p99 = p99.map(|p99| format!("{p99:.2} {unit}")).unwrap_or_default();
            println!("{name:<50} {:>10} {p99:>10}", format!("{value:.2} {unit}"));
        }
    }
}

/// The results of a run, as `--json` writes them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) figures: Figures,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peers: Option<Report>,
}

impl Results {
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?)
    }
}

/// Returns the median of samples that are comparable.
pub(crate) fn median<T: Copy + PartialOrd>(samples: &[T]) -> T {
    let mut samples = samples.to_vec();
    samples.sort_by(|a, b| a.partial_cmp(b).expect("samples are comparable"));
    samples[samples.len() / 2]
}

/// Measures in another process: this program with `--json` and other arguments and variables.
pub(crate) fn by_another_process(set_up: impl FnOnce(&mut Command)) -> Result<Figures> {
    let directory = tempfile::tempdir()?;
    let json = directory.path().join("figures.json");
    let mut command = Command::new(std::env::current_exe()?);
    set_up(&mut command);
    match command.arg("--json").arg(&json).status()? {
        status if status.success() => Ok(serde_json::from_slice::<Results>(&fs::read(json)?)?.figures),
        status => Err(format!("could not measure: the process `{command:?}` ended with {status}").into()),
    }
}

/// Runs `work` `count` times, `at_a_time` on as many threads. Returns the results and the time of
/// all.
pub(crate) fn concurrently<T: Send>(
    count: usize,
    at_a_time: usize,
    work: impl Fn() -> Result<T> + Sync,
) -> Result<(Vec<T>, Duration)> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<T>> {
        let mut results = Vec::new();
        while next.fetch_add(1, Ordering::Relaxed) < count {
            results.push(work()?);
        }
        Ok(results)
    };
    let begin = Instant::now();
    let results = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(worker)).collect();
        let results = workers.into_iter().map(|worker| worker.join().expect("no worker panics"));
        results.collect::<Result<Vec<_>>>()
    })?;
    Ok((results.into_iter().flatten().collect(), begin.elapsed()))
}

/// Returns the memory of programs, tmpfs and the kernel that cannot be reclaimed, proc_meminfo(5).
/// Caches do not count.
pub(crate) fn held_memory() -> io::Result<u64> {
    memory(&["AnonPages:", "Shmem:", "SUnreclaim:", "KernelStack:", "PageTables:"])
}

/// Sums lines of proc_meminfo(5), in bytes.
pub(crate) fn memory(names: &[&str]) -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kilobytes = text.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        names.contains(&name).then(|| fields.next()?.parse::<u64>().ok()).flatten()
    });
    Ok(kilobytes.sum::<u64>() << 10)
}

/// Returns the processor time of the whole machine, proc_stat(5). Sandboxes are not children of
/// this process, so a busy machine falsifies the figure.
pub(crate) fn processor_time() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
    // Hundredths of a second of user, nice, system, irq and softirq.
    let used: u64 = [0, 1, 2, 5, 6].iter().filter_map(|&index| ticks.get(index)).sum();
    Ok(Duration::from_millis(used * 10))
}
