//! The end of the program: with its input, its parent or a signal.

use std::fs;
use std::io;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, getppid, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::connection::Connection;

/// Ends all connections once, and the program.
#[derive(Debug, Default)]
pub(super) struct End {
    connections: Mutex<Vec<Weak<Connection>>>,
    socket: OnceLock<PathBuf>,
}

impl End {
    pub(super) fn add(&self, connection: &Arc<Connection>) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| connection.strong_count() > 0);
        connections.push(Arc::downgrade(connection));
    }

    /// Removes the file of the socket at the end.
    pub(super) fn remove_at_end(&self, socket: PathBuf) {
        let _ = self.socket.set(socket);
    }

    /// Ends all sandboxes and the program. Requests in progress get no answer, except that a
    /// `stop` completes.
    #[expect(clippy::disallowed_methods, reason = "requests in progress would delay the end")]
    pub(super) fn now(&self) -> ! {
        // Held to the end, so that a second cause of the end waits for the first.
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = self.socket.get() {
            // It may have been removed already.
            let _ = fs::remove_file(socket);
        }
        connections.iter().filter_map(Weak::upgrade).for_each(|connection| connection.close());
        process::exit(0)
    }
}

/// Watches for the end of the parent and for signals.
///
/// Ctrl-C reaches the tests too, whose last steps still need their servers. They end this program
/// by the end of its input.
pub(super) fn watch(end: &Arc<End>) -> io::Result<()> {
    let by_hand = io::stdin().is_terminal();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    let of_signal = end.clone();
    spawn(move || {
        if signals.forever().any(|signal| by_hand || signal == SIGTERM) {
            of_signal.now();
        }
    })?;
    // None outside of this pid namespace. A parent that has ended by now has closed the input.
    let Some(parent) = getppid() else { return Ok(()) };
    let Ok(parent) = pidfd_open(parent, PidfdFlags::empty()) else { return Ok(()) };
    let of_parent = end.clone();
    spawn(move || {
        while poll(&mut [PollFd::new(&parent, PollFlags::IN)], None) == Err(Errno::INTR) {}
        of_parent.now();
    })
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("sandboxed-db".to_owned()).spawn(work).map(drop)
}
