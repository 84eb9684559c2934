//! Programs that an engine has run beside its server.

use crate::launch::Command;

/// A program that an engine runs beside its server until the program ends: a client with a script
/// on its standard input. Its exit status must be 0.
///
/// # Example
/// ```
/// use sandboxed_db::engine::{Command, Task};
/// let client = Command::new("/usr/bin/redis-cli").arg("-s").path_arg("/run/redis.sock");
/// let task = Task::new(client.args(["-e", "CONFIG", "REWRITE"]), "");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub(crate) command: Command,
    pub(crate) input: String,
}

impl Task {
    /// Runs `command` with this text on its standard input.
    pub fn new(command: Command, input: impl Into<String>) -> Self {
        Self { command, input: input.into() }
    }
}

/// The work of a server's first client, after which the server's checkpoint can be taken, and by
/// which a resumed server shows that it works. See [`Engine::warm_up`](super::Engine::warm_up).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WarmUp {
    /// The look for the sign of readiness, which fails for a server that only
    /// [notifies](super::Ready::Notify).
    Sign,
    /// A client, which must succeed.
    Task(Task),
}
