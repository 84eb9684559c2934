//! A check that hangs or panics is a finding, and no hanging or panicking doctor.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::diagnosis::{HostFacts, fix};
use crate::fix::Fix;
use crate::launch::{Failure, LaunchStep};

/// What `check` returns, if it does within the limit; `what` it does begins the sentence if it does not.
///
/// A check that hangs stays behind in its thread, until the process ends: a file system that does not answer holds whoever
/// asks it.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    check: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fix> {
    let (sender, receiver) = sync_channel(1);
    let worker = thread::Builder::new()
        .name("sandboxed-db doctor".to_owned())
        .spawn(move || drop(sender.send(check())))
        .map_err(|error| no_thread(&error))?;
    match receiver.recv_timeout(limit) {
        Ok(found) => {
            // It has nothing left to do, and what it leaves to be freed is freed now.
            let _ = worker.join();
            Ok(found)
        }
        Err(RecvTimeoutError::Timeout) => Err(Fix::none(format!("{what} did not end within {limit:?}"))),
        Err(RecvTimeoutError::Disconnected) => {
            Err(Fix::none(format!("{what} panicked, which is a fault of sandboxed-db: please report it")))
        }
    }
}

fn no_thread(error: &io::Error) -> Fix {
    // No more of the machine need be known to say what a lack of processes means.
    fix(&Failure::io(LaunchStep::Launcher, "", error), &HostFacts::default())
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
