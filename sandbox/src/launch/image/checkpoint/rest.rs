//! Waits until a server is at rest.

use std::fs;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::restless;
use crate::machine::process::{children, threads};

/// How long no process may have run.
const QUIET: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_secs(5);

/// A server's first process and its children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Processes {
    pub(super) first: u32,
    pub(super) children: Vec<u32>,
}

impl Processes {
    /// Lists the processes below a container's init.
    pub(super) fn below(init: u32) -> io::Result<Self> {
        let [first] = children(&init.to_string())[..] else {
            return Err(restless("other programs run beside it"));
        };
        let mut below = children(&first.to_string());
        below.sort_unstable();
        if below.iter().any(|child| !children(&child.to_string()).is_empty()) {
            return Err(restless("its processes have children themselves"));
        }
        Ok(Self { first, children: below })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = u32> {
        [self.first].into_iter().chain(self.children.iter().copied())
    }
}

/// Waits until the processes below an init have not run for a moment.
pub(super) fn wait(init: u32) -> io::Result<Processes> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = state(init);
        sleep(QUIET);
        let after = state(init);
        match (before, after) {
            (Ok(before), Ok(after)) if before == after => return Ok(after.0),
            (_, Err(error)) if Instant::now() >= deadline => return Err(error),
            _ if Instant::now() >= deadline => return Err(restless("it does not come to rest")),
            _ => {}
        }
    }
}

/// The processes, and how often each of their threads has been switched to.
fn state(init: u32) -> io::Result<(Processes, Vec<(u32, String)>)> {
    let processes = Processes::below(init)?;
    let mut switches = Vec::new();
    for process in processes.all() {
        for thread in threads(process)? {
            let status = fs::read_to_string(format!("/proc/{thread}/status"))?;
            if !status.contains("\nState:\tS") {
                return Err(restless("one of its processes runs"));
            }
            let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
            switches.extend(counts.map(|line| (thread, line.to_owned())));
        }
    }
    Ok((processes, switches))
}
