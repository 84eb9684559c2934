//! A contestant's test process, as the conductor holds it.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::account::Account;
use super::contestant::Part;
use super::place::Place;
use super::worker::{Order, Reply};
use crate::{Outcome, pool};

/// How long an order may take. Hundreds of servers made from nothing take minutes.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
/// How much of what it wrote to standard error goes into an error.
const LAST_WORDS: usize = 2000;

#[derive(Debug)]
pub(crate) struct TestProcess {
    child: Child,
    orders: Option<ChildStdin>,
    replies: Receiver<io::Result<String>>,
    stderr: PathBuf,
}

impl TestProcess {
    /// Starts it, and waits until it has prepared what tests share.
    pub(crate) fn start(place: &Place, part: &Part, account: &Account) -> Outcome<Self> {
        let stderr = part.place.join("stderr");
        let mut command = place.this_program();
        command.arg("--test-process").env("TMPDIR", &part.place).env_remove(pool::VARIABLE);
        command.envs(part.contestant.pool().map(|most| (pool::VARIABLE, most)));
        // How sqlx finds the server.
        command.envs(part.server.iter().map(|url| ("DATABASE_URL", url)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&stderr)?);
        let mut child = command.spawn()?;
        account.enter(child.id())?;
        let orders = child.stdin.take();
        let output = child.stdout.take().ok_or("a pipe was asked for")?;
        let (sender, replies) = channel();
        // Ends with the pipe: what the process leaves behind does not hold it.
        thread::spawn(move || BufReader::new(output).lines().try_for_each(|line| sender.send(line)));
        let mut process = Self { child, orders, replies, stderr };
        process.order(&Order::Open(part.clone()))?;
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn order(&mut self, order: &Order) -> Outcome<Reply> {
        let orders = self.orders.as_mut().ok_or("the test process has been killed")?;
        let sent = serde_json::to_vec(order)?;
        // A process that is gone tells more by its last words than by a broken pipe.
        let _ = orders.write_all(&[&sent[..], b"\n"].concat());
        match self.replies.recv_timeout(PATIENCE) {
            Ok(line) => Ok(serde_json::from_str(&line?)?),
            Err(RecvTimeoutError::Timeout) => {
                self.child.kill()?;
                Err(format!("a test process did not answer within {PATIENCE:?}").into())
            }
            Err(RecvTimeoutError::Disconnected) => {
                let words = fs::read_to_string(&self.stderr)?;
                let tail = words.char_indices().rev().nth(LAST_WORDS).map_or(0, |(index, _)| index);
                Err(format!("a test process ended with {}: {}", self.child.wait()?, words[tail..].trim())
                    .into())
            }
        }
    }

    /// SIGKILL, as an impatient runner or the kernel would. Returns when the process itself is gone.
    pub(crate) fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        // Its tests are over, or held; either way it ends with its orders.
        self.orders = None;
        let _ = self.child.wait();
    }
}
