//! Description of a server: its command, and what the sandbox provides for it.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::launch::{Command, Exit, Ready, SandboxPath, Signal};
use crate::sys::socket::connect_now;

/// How a sandbox confines its server; see [`Engine::server`](super::Engine::server).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The server runs in a container with a separate network: all clients on its loopback are
    /// inside the sandbox.
    Container,
    /// The server runs without a container, as `SANDBOXED_DB_ISOLATION=process` requests. It shares
    /// the host's network, so it must ask clients for a password.
    Process {
        /// The only address at which the server may listen; without one it listens at none.
        address: Option<Ipv4Addr>,
    },
}

/// A server: the command, and what the sandbox provides for it.
///
/// # Example
/// ```
/// use sandboxed_db::engine::{Command, Endpoint, Ready, Server, Signal};
/// let command = Command::new("/usr/bin/memcached").arg("-s").path_arg("/run/memcached.sock");
/// let ready = Ready::Connect(Endpoint::Unix("/run/memcached.sock".into()));
/// let server = Server::new(command, Signal::Terminate, ready).idle_memory(2_000_000);
/// ```
#[derive(Debug, Clone)]
pub struct Server {
    pub(crate) command: Command,
    pub(crate) directories: Vec<(SandboxPath, u32)>,
    pub(crate) files: Vec<(SandboxPath, Vec<u8>)>,
    pub(crate) ready: Ready,
    pub(crate) account: String,
    pub(crate) idle_memory: u64,
    pub(crate) io_uring: bool,
    pub(crate) processes: u32,
    pub(crate) stop: Stop,
    pub(crate) end_signal: Signal,
}

/// A clean shutdown of a server: how it is requested, and how it is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) signal: Signal,
    /// The text that is sent to a socket before the signal.
    pub(crate) request: Option<(SandboxPath, String)>,
    pub(crate) clean_codes: Vec<i32>,
    pub(crate) clean_signals: Vec<Signal>,
}

impl Stop {
    /// Sends the request, and returns the connection on which the server refuses it. `None` without
    /// a request, or where it cannot be sent. `root` is the sandbox's root as seen from outside.
    pub(crate) fn request(&self, root: &Path) -> Option<UnixStream> {
        let (socket, text) = self.request.as_ref()?;
        let mut stream = connect_now(&socket.below(root)).ok()?;
        stream.write_all(text.as_bytes()).ok()?;
        Some(stream)
    }

    pub(crate) fn is_clean(&self, exit: Exit) -> bool {
        matches!(exit, Exit::Code(code) if self.clean_codes.contains(&code))
            || self.clean_signals.iter().any(|signal| exit.was_by(*signal))
    }
}

impl Server {
    /// Describes a server that `command` runs, that shuts down cleanly at the signal `stop_signal`,
    /// and that counts as ready by the sign `ready`.
    pub fn new(command: Command, stop_signal: Signal, ready: Ready) -> Self {
        Self {
            command,
            directories: Vec::new(),
            files: Vec::new(),
            ready,
            account: "server".to_owned(),
            idle_memory: 8_000_000,
            io_uring: false,
            processes: 0,
            stop: Stop {
                signal: stop_signal,
                request: None,
                clean_codes: vec![0],
                clean_signals: Vec::new(),
            },
            end_signal: Signal::Kill,
        }
    }

    /// Makes a directory in the sandbox with permissions `mode`, for sockets and the like.
    #[must_use]
    pub fn directory(mut self, path: impl Into<SandboxPath>, mode: u32) -> Self {
        self.directories.push((path.into(), mode));
        self
    }

    /// Makes a file in the sandbox with these bytes, readable by the server.
    #[must_use]
    pub fn file(mut self, path: impl Into<SandboxPath>, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.into(), contents.into()));
        self
    }

    /// Names the sandbox's only user, which servers look up by its id. Default `server`.
    #[must_use]
    pub fn account(mut self, name: impl Into<String>) -> Self {
        self.account = name.into();
        self
    }

    /// Sets how many bytes of memory an idle server holds. Default 8 MB.
    ///
    /// Without `SANDBOXED_DB_MAX` the number of sandboxes that may live at a time is four fifths of
    /// the machine's memory divided by this size.
    #[must_use]
    pub fn idle_memory(mut self, bytes: u64) -> Self {
        self.idle_memory = bytes;
        self
    }

    /// Sets a text that requests a clean shutdown. The sandbox sends it to a Unix socket before the
    /// stop signal, for a server that checks for signals only now and then. By default there is
    /// only the signal.
    ///
    /// An answer means that the server refuses; then the signal follows at once. Otherwise it
    /// follows after a second.
    #[must_use]
    pub fn stop_request(mut self, socket: impl Into<SandboxPath>, text: impl Into<String>) -> Self {
        self.stop.request = Some((socket.into(), text.into()));
        self
    }

    /// Adds an exit status that the server has after a clean shutdown. Default 0 only.
    ///
    /// A layer is stored only after a clean shutdown, so do not add a status that the server also
    /// has after a failure.
    #[must_use]
    pub fn clean_status(mut self, status: i32) -> Self {
        self.stop.clean_codes.push(status);
        self
    }

    /// Adds a signal by which the server ends itself after a clean shutdown. Default none.
    #[must_use]
    pub fn clean_signal(mut self, signal: Signal) -> Self {
        self.stop.clean_signals.push(signal);
        self
    }

    /// Sets how many processes and threads the server may have, with as many clients as its
    /// settings allow. Default 0: fits the usual limit of a sandbox, see
    /// [`Snapshot::pids`](crate::Snapshot::pids).
    #[must_use]
    pub fn processes(mut self, processes: u32) -> Self {
        self.processes = processes;
        self
    }

    /// Sets the signal that ends the server at once, without a shutdown, in [process
    /// mode](Mode::Process). Default [`Signal::Kill`]; a server with child processes may have a
    /// signal that ends these, too.
    #[must_use]
    pub fn end_signal(mut self, signal: Signal) -> Self {
        self.end_signal = signal;
        self
    }

    /// Allows io_uring(7), which sandboxes are otherwise denied. Default `false`.
    #[must_use]
    pub fn io_uring(mut self, io_uring: bool) -> Self {
        self.io_uring = io_uring;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_says_which_exits_are_clean() {
        let server = || Server::new(Command::new("/bin/x"), Signal::Terminate, Ready::Notify);
        let terminated = Exit::Signal(libc::SIGTERM);
        let (usual, other) = (server().stop, server().clean_status(1).clean_signal(Signal::Terminate).stop);
        assert!(
            usual.is_clean(Exit::Code(0)) && !usual.is_clean(Exit::Code(1)) && !usual.is_clean(terminated)
        );
        assert!(other.is_clean(Exit::Code(0)) && other.is_clean(Exit::Code(1)) && other.is_clean(terminated));
        assert!(!other.is_clean(Exit::Signal(libc::SIGKILL)) && !other.is_clean(Exit::Code(libc::SIGTERM)));
    }
}
