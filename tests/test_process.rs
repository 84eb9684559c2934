//! A test process that another test starts, commands and kills.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::processes::{CLEANUP_DEADLINE, DEADLINE, descendants, describe};

/// A `subject` that runs below `subject keep`, the reaper of all its descendants: the kernel itself
/// says when none is left.
#[derive(Debug)]
pub struct TestProcess {
    keeper: Child,
    subject: Pid,
    lines: Receiver<String>,
    lines_read: Vec<String>,
}

impl TestProcess {
    /// Runs `command`, which is `subject keep` with its arguments.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = piped.spawn().expect("subject starts");
        let output = BufReader::new(keeper.stdout.take().expect("it is piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            // The subject may print before its keeper has printed the pid.
            let mut early = Some(Vec::new());
            for line in output.lines().map_while(Result::ok) {
                let lines = match &mut early {
                    Some(lines) if !line.starts_with("subject ") => {
                        lines.push(line);
                        continue;
                    }
                    early => std::iter::once(line).chain(early.take().into_iter().flatten()),
                };
                for line in lines {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            }
        });
        let mut process = Self { subject: Pid::from_child(&keeper), keeper, lines, lines_read: Vec::new() };
        let pid = process.wait_for("subject ");
        process.subject = pid.parse().ok().and_then(Pid::from_raw).expect("a pid");
        process
    }

    /// The pid of the process that uses the library.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.subject.as_raw_nonzero().get().unsigned_abs()
    }

    /// The process and all its descendants.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        descendants(self.keeper.id())
    }

    /// Waits for a line with that beginning and returns its rest.
    pub fn wait_for(&mut self, beginning: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("`{beginning}` does not come after {:?}", self.lines_read);
            };
            let rest = line.strip_prefix(beginning).map(str::to_owned);
            self.lines_read.push(line);
            if let Some(rest) = rest {
                return rest;
            }
        }
    }

    /// Sends a command to `subject obey`, and returns the lines of its answer.
    pub fn order(&mut self, command: &str) -> Result<Vec<String>, String> {
        let stdin = self.keeper.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{command}").expect("it reads");
        let deadline = Instant::now() + DEADLINE;
        let mut answer = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("no answer to `{command}` after {answer:?}"));
            if line == "done" {
                return Ok(answer);
            }
            if let Some(report) = line.strip_prefix("failed ") {
                return Err(report.replace("\\n", "\n"));
            }
            answer.push(line);
        }
    }

    /// Signals the process, or its whole group as a terminal does. It may have ended.
    pub fn kill(&self, signal: Signal, group: bool) {
        let kill = if group { kill_process_group } else { kill_process };
        let _ = kill(self.subject, signal);
    }

    /// Kills the process, waits until all descendants are gone, and returns the lines that it
    /// printed.
    pub fn killed(self) -> Vec<String> {
        self.kill(Signal::KILL, false);
        let (ended, lines) = self.gone();
        assert_eq!(ended, "signal 9", "{lines:?}");
        lines
    }

    /// Waits until all descendants are gone, and returns how the process ended and the lines that
    /// it printed.
    pub fn gone(mut self) -> (String, Vec<String>) {
        drop(self.keeper.stdin.take());
        let ended = self.wait_for("ended ");
        let deadline = Instant::now() + CLEANUP_DEADLINE;
        while self.keeper.try_wait().expect("it is our child").is_none() {
            if Instant::now() >= deadline {
                let left = descendants(self.keeper.id());
                let described: Vec<_> = left.iter().map(|&pid| describe(pid)).collect();
                panic!("left {CLEANUP_DEADLINE:?} after the end: {described:#?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        (ended, std::mem::take(&mut self.lines_read))
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        if matches!(self.keeper.try_wait(), Ok(None)) {
            for pid in descendants(self.keeper.id()) {
                if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            let _ = self.keeper.wait();
        }
    }
}
