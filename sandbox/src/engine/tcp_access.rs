//! Access to a server by TCP, as its engine describes it.

use std::net::SocketAddr;
use std::path::Path;

use super::{Installation, Task};

/// A request to reach a server by TCP; for [`Engine::tcp`](super::Engine::tcp).
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct TcpRequest<'a> {
    /// The programs of the server.
    pub installation: &'a Installation,
    /// The port of the host.
    pub address: SocketAddr,
    /// The password for clients there.
    pub password: &'a str,
    /// With [TLS](super::Engine::tls) the host's path of the certificate, in PEM, by which clients
    /// check the server's.
    pub root_certificate: Option<&'a Path>,
    /// The sandbox's root as seen from outside.
    pub root: &'a Path,
}

/// Describes how clients outside reach a server by TCP; from [`Engine::tcp`](super::Engine::tcp).
///
/// Connections are forwarded to a port at which the server listens on 127.0.0.1, the sandbox's own
/// loopback. They come from [`FORWARDED_FROM`](Self::FORWARDED_FROM), so the server can ask them
/// for a password and let in its own connections and those by its Unix socket without one.
///
/// # Example
/// ```
/// use sandboxed_db::engine::{Command, Task, TcpAccess};
/// let password = "6b1f";
/// let client = Command::new("/usr/bin/redis-cli").arg("-s").path_arg("/run/redis.sock");
/// let access = TcpAccess::new(6379, format!("redis://default:{password}@127.0.0.1:40000"))
///     .task(Task::new(client.args(["-e", "CONFIG", "SET", "requirepass", password]), ""))
///     .env("REDISCLI_AUTH", password);
/// ```
#[derive(Clone)]
pub struct TcpAccess {
    pub(crate) port: u16,
    pub(crate) url: String,
    pub(crate) jdbc_url: Option<String>,
    pub(crate) task: Option<Task>,
    pub(crate) reset: Option<Task>,
    pub(crate) env: Vec<(String, String)>,
}

impl TcpAccess {
    /// The address in the sandbox from which forwarded connections come.
    pub const FORWARDED_FROM: std::net::Ipv4Addr = crate::launch::FORWARDED_FROM;

    /// Describes a server that listens on `port` and that clients outside reach by `url`.
    pub fn new(port: u16, url: impl Into<String>) -> Self {
        Self { port, url: url.into(), jdbc_url: None, task: None, reset: None, env: Vec::new() }
    }

    /// Sets the URL for Java's database drivers.
    #[must_use]
    pub fn jdbc_url(mut self, url: impl Into<String>) -> Self {
        self.jdbc_url = Some(url.into());
        self
    }

    /// Sets a task that gives the server the password. It runs once, before the port is opened.
    #[must_use]
    pub fn task(mut self, task: Task) -> Self {
        self.task = Some(task);
        self
    }

    /// Sets a task that removes the password, so that a layer does not keep it.
    #[must_use]
    pub fn reset(mut self, task: Task) -> Self {
        self.reset = Some(task);
        self
    }

    /// Adds an environment variable by which the database's clients find the server.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

impl std::fmt::Debug for TcpRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpRequest").field("address", &self.address).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TcpAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // All other fields hold the password.
        f.debug_struct("TcpAccess").field("port", &self.port).finish_non_exhaustive()
    }
}
