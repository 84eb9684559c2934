//! The resources that a sandbox may take.

use serde::{Deserialize, Serialize};

const GIB: u64 = 1 << 30;
/// Bytes of memory: more than a server here takes with common settings, and less than an idle
/// laptop has.
const MEMORY: u64 = 4 * GIB;
/// Processes: enough for a hundred connections with their helpers, and some programs.
const PIDS: u32 = 512;
/// Additional processes of a sandbox whose server needs many.
const BESIDES: u32 = 256;

/// The resources that a sandbox may take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Memory of all processes in bytes, without files.
    pub(crate) memory: u64,
    /// Processes and threads, init included. `None`: as many as the server's settings need.
    pub(crate) pids: Option<u32>,
    /// Processor time, in processors. `None`: all.
    pub(crate) cpu: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: MEMORY, pids: None, cpu: None }
    }
}

impl Limits {
    /// Returns the limits for a server of up to `processes` processes.
    pub(crate) fn settled(self, processes: u32) -> Self {
        let usual = PIDS.max(processes.saturating_add(BESIDES));
        Self { pids: Some(self.pids.unwrap_or(usual)), ..self }
    }

    /// Returns the limits for building a layer: at least the usual ones, since a test's limits say
    /// nothing about a migration.
    pub(crate) fn for_builds(self) -> Self {
        let pids = self.pids.map(|pids| pids.max(PIDS));
        Self { memory: self.memory.max(MEMORY), pids, cpu: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_suffice_for_the_server() {
        assert_eq!(Limits::default().settled(110).pids, Some(512));
        assert_eq!(Limits::default().settled(1000).pids, Some(1256));
        assert_eq!(Limits { pids: Some(40), ..Limits::default() }.settled(1000).pids, Some(40));
    }

    #[test]
    fn builds_get_at_least_the_usual_limits() {
        let small = Limits { memory: 64 << 20, pids: Some(32), cpu: Some(0.5) };
        assert_eq!(small.for_builds(), Limits { pids: Some(512), ..Limits::default() });
        let large = Limits { memory: 64 * GIB, pids: Some(4096), cpu: None };
        assert_eq!(large.for_builds(), large);
    }
}
