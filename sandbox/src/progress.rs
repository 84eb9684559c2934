//! Progress of long work: one line on a terminal, and an event for each step.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The time after which the line is drawn again, so that its clock advances.
const TICK: Duration = Duration::from_secs(1);

/// The progress of one piece of work. Its line is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    files: OnceLock<usize>,
    line: Option<Line>,
}

impl Progress {
    pub(crate) fn start(work: &str) -> Self {
        tracing::info!("{work}");
        let line = io::stderr().is_terminal().then(|| Line::start(work)).and_then(Result::ok);
        Self { files: OnceLock::new(), line }
    }

    pub(crate) fn step(&self, step: &str) {
        tracing::info!(step);
        self.show(step.to_owned());
    }

    /// Sets the number of files.
    pub(crate) fn files(&self, count: usize) {
        self.files.get_or_init(|| count);
    }

    pub(crate) fn file(&self, index: usize, name: &str) {
        tracing::debug!(file = name);
        match self.files.get() {
            Some(&count) if count > 1 => self.show(format!("{}/{count} {name}", index + 1)),
            _ => self.show(name.to_owned()),
        }
    }

    fn show(&self, text: String) {
        if let Some(Line { texts: Some(texts), .. }) = &self.line {
            // The thread ends early only if the terminal is gone.
            let _ = texts.send(text);
        }
    }
}

/// A line that a thread draws.
#[derive(Debug)]
struct Line {
    texts: Option<Sender<String>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Line {
    fn start(work: &str) -> io::Result<Self> {
        let (texts, received) = mpsc::channel();
        let work = work.to_owned();
        let thread = thread::Builder::new().name("sandboxed-db".to_owned());
        let thread = thread.spawn(move || draw(&work, &received))?;
        Ok(Self { texts: Some(texts), thread: Some(thread) })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.texts = None;
        if let Some(thread) = self.thread.take() {
            // A line that cannot be drawn harms no work.
            let _ = thread.join();
        }
    }
}

/// Draws the line until the sender is gone, then removes it. It goes to the terminal itself, past
/// the capture of libtest.
fn draw(work: &str, texts: &Receiver<String>) -> io::Result<()> {
    let begin = Instant::now();
    let mut text = String::new();
    loop {
        // Without wrapping, so that a narrow terminal needs no more than one line.
        let seconds = begin.elapsed().as_secs();
        write!(io::stderr().lock(), "\r\x1b[2K\x1b[?7l{work} {text} ({seconds} s)\x1b[?7h")?;
        match texts.recv_timeout(TICK) {
            Ok(next) => text = next,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return write!(io::stderr().lock(), "\r\x1b[2K"),
        }
    }
}

/// Prints a warning for the user.
#[expect(clippy::print_stderr, reason = "libtest captures it and shows it with a failed test")]
pub(crate) fn notice(text: &str) {
    tracing::warn!("{text}");
    eprintln!("sandboxed-db: {text}");
}
