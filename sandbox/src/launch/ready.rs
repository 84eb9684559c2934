//! The sign by which a server counts as ready.

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::path::SandboxPath;

/// The sign by which a server counts as ready. The sandbox's init checks it inside the sandbox.
///
/// A sign other than a notification is looked for every half millisecond at first, and less often
/// the longer it takes, until [`start_timeout`](crate::Snapshot::start_timeout) has passed.
///
/// # Example
/// A server that accepts connections while it still loads its data:
/// ```
/// use sandboxed_db::engine::{Endpoint, Ready};
/// let ready = Ready::answer(Endpoint::Unix("/run/redis.sock".into()), "PING\r\n", "+PONG");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Ready {
    /// The server reports it by sd_notify(3).
    Notify,
    /// The server reports it by sd_notify(3). After two seconds of silence the other sign counts as
    /// well.
    NotifyOr(Box<Ready>),
    /// The server accepts a connection.
    Connect(Endpoint),
    /// The server answers what is sent to it.
    Answer {
        /// The server's address.
        at: Endpoint,
        /// The bytes to send after the connection is made; none for a server that speaks first.
        send: Vec<u8>,
        /// The bytes that the answer must contain.
        expect: Vec<u8>,
        /// The bytes to send before the connection is closed, so that the server sees no broken
        /// client.
        end: Vec<u8>,
    },
    /// The server answers `GET` by HTTP.
    Http {
        /// The server's address.
        at: Endpoint,
        /// The path, such as `/health`.
        path: String,
        /// The status of the answer, such as 200.
        status: u16,
    },
    /// A program ends with exit status 0, within ten seconds.
    Command(Command),
}

/// An address of a server inside its sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(SandboxPath),
    /// A TCP port of the loopback interface.
    Tcp(u16),
}

impl Ready {
    /// Returns [`Answer`](Self::Answer): the server answers `send` with bytes that contain
    /// `expect`.
    pub fn answer(at: Endpoint, send: impl Into<Vec<u8>>, expect: impl Into<Vec<u8>>) -> Self {
        Self::Answer { at, send: send.into(), expect: expect.into(), end: Vec::new() }
    }
}
