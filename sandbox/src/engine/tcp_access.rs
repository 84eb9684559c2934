//! What an engine says of the way to its server by TCP.

/// How clients outside reach a server by TCP; from [`Engine::tcp`](super::Engine::tcp).
///
/// Connections are forwarded to a port that the server listens on at 127.0.0.1, on the sandbox's own loopback. So the
/// server can tell them from those that come by its Unix socket, which need no password.
///
/// # Example
/// ```
/// use sandboxed_db::TcpAccess;
/// let password = "6b1f";
/// let access = TcpAccess::new(6379, format!("redis://:{password}@127.0.0.1:40000"))
///     .script(format!("CONFIG SET requirepass {password}"))
///     .env("REDISCLI_AUTH", password);
/// ```
#[derive(Clone)]
pub struct TcpAccess {
    pub(crate) port: u16,
    pub(crate) url: String,
    pub(crate) script: Option<String>,
    pub(crate) env: Vec<(String, String)>,
}

impl TcpAccess {
    /// A server that listens on `port`, which clients outside reach by `url`.
    pub fn new(port: u16, url: impl Into<String>) -> Self {
        Self { port, url: url.into(), script: None, env: Vec::new() }
    }

    /// A script for [`Engine::client`](super::Engine::client) that sets the password. It is run once, before the port is
    /// opened.
    #[must_use]
    pub fn script(mut self, script: impl Into<String>) -> Self {
        self.script = Some(script.into());
        self
    }

    /// Adds a variable of the environment by which the database's own clients find the server.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

impl std::fmt::Debug for TcpAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // All else holds the password.
        f.debug_struct("TcpAccess").field("port", &self.port).finish_non_exhaustive()
    }
}
