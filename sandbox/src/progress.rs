//! Progress of long work: one line on a terminal, elsewhere a line now and then, and an event for
//! each step.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The time after which the line is drawn again, so that its clock advances.
const TICK: Duration = Duration::from_secs(1);
/// The time between two lines where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(5);

/// The progress of one piece of work. Its line is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    files: OnceLock<usize>,
    /// None if no thread can be started.
    line: Option<ProgressLine>,
}

impl Progress {
    pub(crate) fn start(work: &str) -> Self {
        tracing::info!("{work}");
        let line = ProgressLine::start(work).ok();
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
        if let Some(ProgressLine { texts: Some(texts), .. }) = &self.line {
            // The thread ends early only if the terminal is gone.
            let _ = texts.send(text);
        }
    }
}

/// A line that a thread draws, or its repetitions.
#[derive(Debug)]
struct ProgressLine {
    texts: Option<Sender<String>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl ProgressLine {
    fn start(work: &str) -> io::Result<Self> {
        let (texts, received) = mpsc::channel();
        let work = work.to_owned();
        let thread = thread::Builder::new().name("sandboxed-db".to_owned());
        let thread = thread.spawn(move || match io::stderr().is_terminal() {
            true => draw(&work, &received),
            false => list(&work, &received, INTERVAL, say),
        })?;
        Ok(Self { texts: Some(texts), thread: Some(thread) })
    }
}

impl Drop for ProgressLine {
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
        write!(io::stderr().lock(), "\r\x1b[2K\x1b[?7l{}\x1b[?7h", line(work, &text, seconds))?;
        match texts.recv_timeout(TICK) {
            Ok(next) => text = next,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return write!(io::stderr().lock(), "\r\x1b[2K"),
        }
    }
}

fn line(work: &str, text: &str, seconds: u64) -> String {
    let colon = if text.is_empty() { "" } else { ": " };
    format!("{work}{colon}{text} ({seconds} s)")
}

/// Prints a line after each interval until the sender is gone. Short work prints none.
fn list(work: &str, texts: &Receiver<String>, interval: Duration, print: impl Fn(&str)) -> io::Result<()> {
    let begin = Instant::now();
    let (mut text, mut next) = (String::new(), begin + interval);
    loop {
        match texts.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(received) => text = received,
            Err(RecvTimeoutError::Timeout) => {
                print(&line(work, &text, begin.elapsed().as_secs()));
                next += interval;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Prints a line for the user. libtest captures it and shows it with a failed test.
#[expect(clippy::print_stderr, reason = "standard error is for people")]
fn say(text: &str) {
    eprintln!("sandboxed-db: {text}");
}

/// Prints a warning for the user.
pub(crate) fn notice(text: &str) {
    tracing::warn!("{text}");
    say(text);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn lines_show_the_latest_text_until_the_end() {
        let (sender, receiver) = mpsc::channel();
        let sender = RefCell::new(Some(sender));
        let lines = RefCell::new(Vec::new());
        let print = |line: &str| {
            lines.borrow_mut().push(line.to_owned());
            if lines.borrow().len() == 1 {
                sender.borrow().as_ref().unwrap().send("second".to_owned()).unwrap();
            } else if line.contains("second") {
                sender.take();
            }
        };
        list("work", &receiver, Duration::from_millis(20), print).unwrap();
        assert_eq!(lines.borrow().first().unwrap(), "work (0 s)");
        assert_eq!(lines.borrow().last().unwrap(), "work: second (0 s)");
    }
}
