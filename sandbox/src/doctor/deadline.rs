//! Runs a check with a deadline: a check that hangs or panics is a finding like any other.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::diagnosis::{HostFacts, fix};
use crate::fix::Fix;
use crate::launch::{Failure, LaunchStep};

/// Returns the result of `check` if it ends within the limit; `action` begins the sentence
/// otherwise.
///
/// A hanging check stays in its thread until the process ends: a file system that does not answer
/// holds every thread that accesses it.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    action: &str,
    check: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fix> {
    let (sender, receiver) = sync_channel(1);
    let worker = thread::Builder::new()
        .name("sandboxed-db doctor".to_owned())
        .spawn(move || drop(sender.send(check())))
        .map_err(|error| no_thread(&error))?;
    match receiver.recv_timeout(limit) {
        Ok(found) => {
            // Frees the thread's resources before the next check.
            let _ = worker.join();
            Ok(found)
        }
        Err(RecvTimeoutError::Timeout) => Err(Fix::none(format!("{action} did not end within {limit:?}"))),
        Err(RecvTimeoutError::Disconnected) => {
            Err(Fix::none(format!("{action} panicked, which is a fault of sandboxed-db: please report it")))
        }
    }
}

fn no_thread(error: &io::Error) -> Fix {
    fix(&Failure::io(LaunchStep::Launcher, "", error), &HostFacts::read("/".as_ref()))
        .unwrap_or_else(|| Fix::none(format!("no thread could be started: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hanging_and_panicking_checks_are_findings() {
        assert_eq!(within(Duration::from_secs(60), "to answer", || 7), Ok(7));
        let hangs = within(Duration::from_millis(5), "to park", thread::park);
        assert_eq!(hangs.unwrap_err().sentence, "to park did not end within 5ms");
        let panics = within(Duration::from_secs(60), "to panic", || panic!("on purpose"));
        assert!(panics.unwrap_err().sentence.starts_with("to panic panicked"));
    }
}
