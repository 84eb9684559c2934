//! Redis from version 6 on, and Valkey.

mod config;
mod files;

use std::path::Path;

use self::config::{ACCOUNT, AT_SIGNAL, CONFIG, DATA, OF_TLS, PORT, SOCKET, SOCKETS, configuration};
use crate::engine::{
    ClientExit, Command, Endpoint, Engine, FileRun, Image, Installation, Mode, Programs, Ready, SandboxPath,
    ScriptError, Scripts, Server, Signal, Task, TcpAccess, TcpRequest, TlsFiles, WarmUp,
};
use crate::environment::REDIS;
use crate::error::{Error, ErrorKind, Result};

/// Redis from version 6 on, or Valkey.
///
/// The server is found in the directories that `SANDBOXED_DB_REDIS` names, else in those of `PATH`,
/// else in the usual ones such as `/usr/bin`: `redis-server`, or else `valkey-server`. If there is
/// none at all, or if `SANDBOXED_DB_REDIS` is `packages`, the packages of a Debian or Ubuntu
/// machine's distribution are downloaded and unpacked into the cache directory, without root. A
/// client, `redis-cli` or `valkey-cli`, is needed for seeds and for [`tcp`](crate::Sandbox::tcp).
///
/// # Data
/// A layer is an RDB file, which each server loads at its start. A server writes it at its clean
/// stop, by `SHUTDOWN SAVE`. Where that command is refused, it writes it at the stop signal, before
/// version 7 only with a save point. A
/// [seed](crate::Snapshot::seed) is a file of commands, one a line as redis-cli(1) takes them, or
/// an RDB file, whatever its name. In a file of commands, empty lines and lines that begin with `#`
/// are left out, and the first command that the server refuses is an error. An RDB file replaces
/// all data.
///
/// # Settings
/// A [setting](crate::Snapshot::setting) is a line of `redis.conf`, such as `maxmemory` with
/// `10mb`. Background work runs once a second (`hz 1`), so that idle servers sleep: a key that
/// expires is gone at once for readers, but its event of keyspace notifications may come a second
/// late. Nothing is written to the data directory before the server stops.
///
/// # Checkpoints
/// Servers that are resumed from one checkpoint (`SANDBOXED_DB_START=checkpoint`) share what the
/// server drew at its start: `run_id`, the replication id, and the passwords of `ACL GENPASS`.
///
/// # Passwords
/// Redis has one password for all of its addresses. The URL of the Unix socket works without one
/// until [`tcp`](crate::Sandbox::tcp) sets one; from then on use the URL of [`Tcp`](crate::Tcp), or
/// its password.
///
/// # Example
/// ```no_run
/// use sandboxed_db::{Redis, Snapshot};
/// # fn main() -> sandboxed_db::Result<()> {
/// let cache = Snapshot::new(Redis::new()).seed("sessions.redis").setting("maxmemory", "10mb").start()?;
/// assert!(cache.url().starts_with("unix://"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redis {
    version: Option<String>,
}

impl Redis {
    /// Uses any version.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests a version, such as `7` or `7.0`. Default: any, see [above](Self). A start without
    /// that version installed is [`ErrorKind::NotInstalled`].
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Returns the path of the Unix socket below a sandbox's [root](crate::Sandbox::root).
    #[must_use]
    pub fn socket() -> SandboxPath {
        SOCKET.into()
    }
}

impl Engine for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn of_version(self, version: &str) -> Result<Self> {
        Ok(self.version(version))
    }

    fn locate(&self) -> Result<Installation> {
        programs().find(self.version.as_deref())
    }

    fn locate_in(&self, image: &Image) -> Result<Installation> {
        programs().find_in(image, self.version.as_deref())
    }

    fn identity(&self, _: &Installation) -> Vec<(String, String)> {
        // Raised when seeds of the same contents are loaded in another way.
        vec![("seeds".to_owned(), "2".to_owned())]
    }

    fn data_dir(&self) -> SandboxPath {
        DATA.into()
    }

    fn shared_by_resumed(&self) -> Option<&'static str> {
        Some("`run_id` and the passwords of `ACL GENPASS`")
    }

    fn warm_up(&self, installation: &Installation) -> Result<Option<WarmUp>> {
        let client = files::ask(installation).ok();
        Ok(client.map(|client| WarmUp::Task(Task::new(client, "SELECT 0\n"))))
    }

    fn server(
        &self,
        installation: &Installation,
        settings: &[(String, String)],
        mode: Mode,
    ) -> Result<Server> {
        let ready = match installation.notifies() {
            true => Ready::NotifyOr(Box::new(answers())),
            false => answers(),
        };
        let supervised = if installation.notifies() { "systemd" } else { "no" };
        // Arguments win over the file, so that no setting moves what the sandbox relies on.
        let command = Command::new(installation.server())
            .env("TZ", "UTC")
            .path_arg(CONFIG)
            .arg("--dir")
            .path_arg(DATA)
            .arg("--unixsocket")
            .path_arg(SOCKET)
            .args(["--unixsocketperm", "700", "--daemonize", "no", "--supervised", supervised]);
        let command = match mode {
            Mode::Container => command.args(["--bind", "127.0.0.1", "--port", &PORT.to_string()]),
            Mode::Process { address: Some(address) } => {
                command.args(["--bind", &address.to_string(), "--port", &PORT.to_string()])
            }
            Mode::Process { address: None } => command.args(["--port", "0"]),
        };
        let server = Server::new(command, Signal::Terminate, ready)
            .account(ACCOUNT)
            .directory(SOCKETS, 0o700)
            .file(CONFIG, configuration(settings, installation.major())?);
        // At `hz 1` it takes a second to look for signals, which do what the user's setting says.
        let is_own = settings.iter().any(|(name, _)| name.eq_ignore_ascii_case(AT_SIGNAL));
        Ok(if is_own { server } else { server.stop_request(SOCKET, "SHUTDOWN SAVE\r\n") })
    }

    fn url(&self, root: &Path) -> Option<String> {
        Some(format!("unix://{}", Self::socket().below(root).display()))
    }

    fn url_variable(&self) -> &'static str {
        "REDIS_URL"
    }

    fn tcp(&self, request: &TcpRequest<'_>) -> Option<TcpAccess> {
        let TcpRequest { installation, address, password, root_certificate, .. } = *request;
        let scheme = if root_certificate.is_some() { "rediss" } else { "redis" };
        // With the name of the user: redis-cli takes a missing one for an empty name.
        let mut access = TcpAccess::new(PORT, format!("{scheme}://default:{password}@{address}"));
        if let Some(path) = root_certificate {
            access = access.env("REDIS_CACERT", path.display().to_string());
        }
        // Without a client there is no password, and nobody may get in.
        let client = files::ask(installation).ok()?;
        let set = |client: Command, password: &str| {
            Task::new(client, format!("CONFIG SET requirepass \"{password}\"\n"))
        };
        let reset = set(client.clone().env("REDISCLI_AUTH", password), "");
        Some(access.task(set(client, password)).reset(reset).env("REDISCLI_AUTH", password))
    }

    fn tls(&self, mut server: Server, settings: &[(String, String)], files: &TlsFiles) -> Result<Server> {
        let is_set = |name: &&&str| settings.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        if let Some(name) = OF_TLS.iter().find(is_set) {
            return Err(Error::new(ErrorKind::InvalidConfig, format!("set the Redis setting `{name}`"))
                .caused_by("`tls` sets it, to the certificate of the sandbox")
                .with_hint("leave out the setting, or `tls`"));
        }
        // In process mode without TCP there is no port to encrypt.
        let listens = server.command.words().iter().any(|word| word == "--bind");
        let command = server.command.arg("--tls-cert-file").path_arg(files.certificate.clone());
        let command = command.arg("--tls-key-file").path_arg(files.key.clone());
        let command = command.args(["--tls-auth-clients", "no"]);
        server.command = match listens {
            true => command.args(["--port", "0", "--tls-port", &PORT.to_string()]),
            false => command,
        };
        Ok(server)
    }

    fn cause_in_log(&self, log: &str) -> Option<String> {
        (log.contains("'tls-cert-file") && log.contains("Bad directive")).then(|| {
            format!(
                "the server is built without TLS: choose one with it by {}, or leave out `tls`",
                REDIS.name
            )
        })
    }

    fn is_client_variable(&self, name: &str) -> bool {
        name.starts_with("REDIS") || name.starts_with("VALKEY")
    }
}

impl Scripts for Redis {
    fn run_file(&self, installation: &Installation, run: &FileRun) -> Result<Command> {
        files::run_file(installation, run)
    }

    fn failure(&self, exit: &ClientExit<'_>) -> Option<ScriptError> {
        (!exit.success).then(|| files::script_error(exit.stderr))
    }

    fn is_archive(&self, path: &Path) -> bool {
        files::is_rdb(path)
    }
}

fn programs() -> Programs {
    Programs::new("redis-server")
        .or("valkey-server")
        .client("redis-cli")
        .client("valkey-cli")
        .variable(REDIS.name)
        .package("redis-server")
}

/// The sign of a server that has loaded its data: before that it answers by an error.
fn answers() -> Ready {
    Ready::answer(Endpoint::Unix(SOCKET.into()), "PING\r\n", "+PONG\r\n")
}

fn missing_client() -> Error {
    Error::new(ErrorKind::InvalidConfig, "find `redis-cli` or `valkey-cli`").with_hint(format!(
        "install the package `redis-tools` of the distribution, or add the client's directory to {}",
        REDIS.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_tls_is_reported() {
        let log = "*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\nReading the configuration file, at line 20\n\
                   >>> 'tls-cert-file \"/etc/tls/server.crt\"'\nBad directive or wrong number of arguments\n";
        assert!(Redis::new().cause_in_log(log).unwrap().contains("leave out `tls`"));
        assert_eq!(Redis::new().cause_in_log("* Ready to accept connections"), None);
    }
}
