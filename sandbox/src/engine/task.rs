//! Programs that an engine has run beside its server.

use crate::launch::Command;

/// A program that an engine has run beside its server, to its end: a client with a script on its
/// standard input. It must end with exit status 0.
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
