//! Description of a server: its command, and what the sandbox provides for it.

use std::net::Ipv4Addr;

use crate::launch::{Command, SandboxPath, Signal};

/// How a sandbox confines its server; see [`Engine::server`](super::Engine::server).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// In a container with a network of its own: all clients on its loopback are inside the
    /// sandbox.
    Container,
    /// Without a container, where `SANDBOXED_DB_ISOLATION=process` is set. The server shares the
    /// host's network, so it must ask clients for a password.
    Process {
        /// The only address at which the server may listen; without one it listens at none.
        address: Option<Ipv4Addr>,
    },
}

/// A server: the command, and what the sandbox provides for it.
#[derive(Debug, Clone)]
pub struct Server {
    pub(crate) command: Command,
    pub(crate) directories: Vec<(SandboxPath, u32)>,
    pub(crate) files: Vec<(SandboxPath, String)>,
    pub(crate) notifies: bool,
    pub(crate) io_uring: bool,
    pub(crate) processes: u32,
    pub(crate) stop_signal: Signal,
    pub(crate) end_signal: Signal,
}

impl Server {
    /// Describes a server that `command` runs and that shuts down cleanly at the signal
    /// `stop_signal`.
    pub fn new(command: Command, stop_signal: Signal) -> Self {
        Self {
            command,
            directories: Vec::new(),
            files: Vec::new(),
            notifies: false,
            io_uring: false,
            processes: 0,
            stop_signal,
            end_signal: Signal::Kill,
        }
    }

    /// Makes a directory in the sandbox with permissions `mode`, for sockets and the like.
    #[must_use]
    pub fn directory(mut self, path: impl Into<SandboxPath>, mode: u32) -> Self {
        self.directories.push((path.into(), mode));
        self
    }

    /// Makes a file in the sandbox, readable by the server.
    #[must_use]
    pub fn file(mut self, path: impl Into<SandboxPath>, contents: impl Into<String>) -> Self {
        self.files.push((path.into(), contents.into()));
        self
    }

    /// Says whether the server reports by sd_notify(3) when it is ready. Otherwise
    /// [`Engine::is_ready`](super::Engine::is_ready) is polled.
    #[must_use]
    pub fn notifies(mut self, notifies: bool) -> Self {
        self.notifies = notifies;
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

    /// Says whether the server uses io_uring(7), which sandboxes are otherwise denied. Default
    /// `false`.
    #[must_use]
    pub fn io_uring(mut self, io_uring: bool) -> Self {
        self.io_uring = io_uring;
        self
    }
}
