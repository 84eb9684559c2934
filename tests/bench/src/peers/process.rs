//! The conductor's side of a test process.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::contestant::Assignment;
use super::directories::RunDirectories;
use super::meter::Meter;
use super::worker::{Reply, Request};
use crate::{Result, pool};

/// The time in which a request must be answered. Initialising hundreds of servers takes minutes.
const DEADLINE: Duration = Duration::from_secs(20 * 60);
/// The number of characters of standard error in an error message.
const TAIL: usize = 2000;

#[derive(Debug)]
pub(crate) struct TestProcess {
    child: Child,
    requests: Option<ChildStdin>,
    replies: Receiver<io::Result<String>>,
    stderr: PathBuf,
}

impl TestProcess {
    /// Starts the process, and waits until it has prepared the resources that tests share.
    pub(crate) fn start(place: &RunDirectories, assignment: &Assignment, meter: &Meter) -> Result<Self> {
        let stderr = assignment.place.join("stderr");
        let mut command = place.this_program();
        command.arg("--test-process").env("TMPDIR", &assignment.place).env_remove(pool::VARIABLE);
        command.envs(assignment.contestant.pool().map(|most| (pool::VARIABLE, most)));
        // sqlx reads this variable.
        command.envs(assignment.server.iter().map(|url| ("DATABASE_URL", url)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&stderr)?);
        let mut child = command.spawn()?;
        meter.enter(child.id())?;
        let requests = child.stdin.take();
        let output = child.stdout.take().ok_or("the pipe is missing")?;
        let (sender, replies) = channel();
        // The thread ends with the pipe, which no orphan of the process holds.
        thread::spawn(move || BufReader::new(output).lines().try_for_each(|line| sender.send(line)));
        let mut process = Self { child, requests, replies, stderr };
        process.request(&Request::Open(assignment.clone()))?;
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn request(&mut self, request: &Request) -> Result<Reply> {
        let requests = self.requests.as_mut().ok_or("the test process has been killed")?;
        let sent = serde_json::to_vec(request)?;
        // If the process has ended, its standard error explains more than a broken pipe.
        let _ = requests.write_all(&[&sent[..], b"\n"].concat());
        match self.replies.recv_timeout(DEADLINE) {
            Ok(line) => Ok(serde_json::from_str(&line?)?),
            Err(RecvTimeoutError::Timeout) => {
                self.child.kill()?;
                Err(format!("a test process did not answer within {DEADLINE:?}").into())
            }
            Err(RecvTimeoutError::Disconnected) => {
                let output = fs::read_to_string(&self.stderr)?;
                let tail = output.char_indices().rev().nth(TAIL).map_or(0, |(index, _)| index);
                Err(format!("a test process ended with {}: {}", self.child.wait()?, output[tail..].trim())
                    .into())
            }
        }
    }

    /// Kills the process by SIGKILL and reaps it.
    pub(crate) fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        // The process ends at the end of its input.
        self.requests = None;
        let _ = self.child.wait();
    }
}
