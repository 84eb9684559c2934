//! Describes the machine on which figures depend.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use super::meter::Accounting;
use crate::figures::memory;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    /// In bytes.
    pub(crate) memory: u64,
    /// The version that the server prints.
    pub(crate) postgres: String,
    /// The command of this run.
    pub(crate) command: String,
    pub(crate) accounting: Accounting,
    /// The load of the minute before the run, proc_loadavg(5). More than some tenths means that
    /// other programs ran.
    pub(crate) load: f64,
}

impl Machine {
    pub(crate) fn this(postgres: &str, accounting: Accounting) -> io::Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg")?;
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            processor: model.map_or(std::env::consts::ARCH, |(_, model)| model).to_owned(),
            processors: std::thread::available_parallelism()?.get(),
            memory: memory(&["MemTotal:"])?,
            postgres: postgres.to_owned(),
            command: format!("cargo run --release -p sandboxed-db-bench -- {}", arguments.join(" ")),
            accounting,
            load: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
        })
    }

    /// Formats the description in one line.
    pub(crate) fn line(&self) -> String {
        let Self { kernel, processor, processors, memory, postgres, load, .. } = self;
        let gigabytes = *memory as f64 / f64::from(1 << 30);
        format!(
            "{postgres}, Linux {kernel}, {processors} processors ({processor}), {gigabytes:.0} GB; load before: {load}"
        )
    }
}
