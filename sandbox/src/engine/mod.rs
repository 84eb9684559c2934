//! Engines: the knowledge of one database each, its programs, its data directory, its clients.
//!
//! The library has [`Postgres`], [`MariaDb`], [`MySql`], [`Redis`] and [`Sqlite`]. A crate adds
//! another database by implementing [`Engine`], and also [`Scripts`] and [`Sql`] if the database
//! has the abilities in this table:
//!
//! | trait | the database | methods of [`Snapshot`](crate::Snapshot) |
//! |---|---|---|
//! | [`Engine`] | is a server that fills a data directory | all but those below |
//! | [`Scripts`] | has a client that runs files | [`seed`](crate::Snapshot::seed) |
//! | [`Sql`] | speaks SQL | [`migrations`](crate::Snapshot::migrations), [`migrations_of`](crate::Snapshot::migrations_of) |

mod described;
mod image;
mod installation;
mod mariadb;
pub(crate) mod packages;
mod postgres;
mod programs;
mod redis;
mod script;
mod server;
mod sql;
mod sqlite;
mod task;
mod tcp_access;
mod tls_files;
mod url;
pub(crate) mod version;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
pub use crate::launch::{Command, Endpoint, Ready, SandboxPath, Signal};

pub use described::{Described, Description};
pub use image::Image;
pub use installation::Installation;
pub use mariadb::{MariaDb, MySql};
pub(crate) use postgres::{Found, Survey, install_command, survey};
pub use postgres::{LocaleProvider, Postgres};
pub use programs::Programs;
pub use redis::Redis;
pub use script::{ClientExit, FileRun, Format, ScriptError, Scripts, Sql};
pub(crate) use server::Stop;
pub use server::{Mode, Server};
pub use sql::Dialect;
pub use sqlite::Sqlite;
pub use task::{Task, WarmUp};
pub use tcp_access::{TcpAccess, TcpRequest};
pub use tls_files::TlsFiles;

/// Checks of an engine: tests with which its author finds out whether it keeps the
/// [contract](Engine#the-contract).
///
/// # Example
/// ```no_run
/// use sandboxed_db::engine::conformance::Conformance;
/// use sandboxed_db::{Redis, Sandbox};
/// # fn ask(_: &Sandbox<Redis>, _: &str) -> Result<String, std::io::Error> { unimplemented!() }
///
/// #[test]
/// # fn hidden() {}
/// fn redis_keeps_the_contract() {
///     Conformance::new(Redis::new())
///         .reads(|db| ask(db, "GET key"))
///         .writes(|db| ask(db, "SET key written").map(drop))
///         .setting("maxmemory", "10mb")
///         .script("SET key seeded\n")
///         .broken_script("SET key seeded\nNONSENSE\n", 2)
///         .open_transaction("MULTI\nSET key lost\n")
///         .check_all()
///         .unwrap();
/// }
/// # fn main() {}
/// ```
pub mod conformance {
    pub use crate::conformance::{Checked, Conformance, Violation};
}

/// A kind of database server that sandboxes can run, such as [`Postgres`].
///
/// An engine only describes: sandboxes run the commands that it returns. Paths that it returns are
/// paths in the sandbox, unless a method says otherwise. In process mode the paths of the data, of
/// directories and of files are translated when a command is run, both as whole arguments and as
/// values of `name=path`.
///
/// # The contract
/// - The server runs in the foreground, keeps all of its state in the [data
///   directory](Self::data_dir), and listens at a Unix socket or at 127.0.0.1. It may write to
///   `/tmp` and `/run` besides, whose contents are lost.
/// - At its stop signal, or [request](Server::stop_request), it writes everything into the data
///   directory and ends [cleanly](Server::clean_status). A layer is not stored otherwise.
/// - A copy of the data directory after a clean stop works as the original does.
///   [`tidy`](Self::tidy) removes files that name a process, a socket or a host.
/// - The name of a layer covers the installation's version and build, the words and the environment
///   of [`initialise`](Self::initialise) and of the [server](Self::server), the server's files, the
///   tasks [`set_up`](Self::set_up) and [`settle`](Self::settle), and the
///   [identity](Self::identity). Everything else on which a layer depends belongs to the identity.
///
/// # Example
/// memcached, which has nothing to prepare:
/// ```
/// use std::path::Path;
/// use sandboxed_db::engine::{Command, Endpoint, Installation, Mode, Ready, SandboxPath, Server, Signal};
/// use sandboxed_db::{Engine, Result};
///
/// const SOCKET: &str = "/run/memcached.sock";
///
/// #[derive(Debug, Clone)]
/// struct Memcached;
///
/// impl Engine for Memcached {
///     fn name(&self) -> &str {
///         "memcached"
///     }
///
///     fn locate(&self) -> Result<Installation> {
///         Installation::inspect(Path::new("/usr/bin"), "memcached", &[])
///     }
///
///     fn server(&self, installation: &Installation, _: &[(String, String)], _: Mode) -> Result<Server> {
///         let command = Command::new(installation.program("memcached")).arg("-s").path_arg(SOCKET);
///         let ready = Ready::answer(Endpoint::Unix(SOCKET.into()), "version\r\n", "VERSION");
///         Ok(Server::new(command, Signal::Terminate, ready))
///     }
///
///     fn url(&self, root: &Path) -> Option<String> {
///         Some(format!("memcache://{}", SandboxPath::new(SOCKET).below(root).display()))
///     }
/// }
/// ```
pub trait Engine: Clone + fmt::Debug + Send + Sync + 'static {
    /// Returns the engine's name in lower case, as in digests and messages.
    fn name(&self) -> &str;

    /// Requests a version of the engine. By default an engine has no versions to choose from.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for text that is no version. [`locate`](Engine::locate) checks
    /// that the version is installed.
    fn of_version(self, version: &str) -> Result<Self> {
        let step = format!("choose version `{version}` of `{}`", self.name());
        Err(Error::new(ErrorKind::InvalidConfig, step)
            .with_hint("this engine has no versions to choose from: leave `version` out"))
    }

    /// Finds the server's programs on this machine.
    ///
    /// # Errors
    /// [`ErrorKind::NotInstalled`] if no server is installed, or not the requested version; tests
    /// may be skipped for this error. Any other kind for an installation that cannot be used.
    fn locate(&self) -> Result<Installation>;

    /// Finds the server's programs in an image, for [`Snapshot::image`](crate::Snapshot::image). By
    /// default an engine cannot run from images; see [`Programs::find_in`].
    ///
    /// # Errors
    /// As [`locate`](Self::locate).
    fn locate_in(&self, image: &Image) -> Result<Installation> {
        let _ = image;
        Err(Error::new(ErrorKind::InvalidConfig, format!("find `{}` in an image", self.name()))
            .caused_by("its engine does not say where")
            .with_hint("`Engine::locate_in` is for that; leave out `image`"))
    }

    /// Returns names and values of everything on which a layer depends and that is not
    /// [covered](crate::engine::Engine#the-contract) otherwise, such as a number that is raised
    /// when [`tidy`](Self::tidy) changes. By default nothing.
    fn identity(&self, installation: &Installation) -> Vec<(String, String)> {
        let _ = installation;
        Vec::new()
    }

    /// Returns the work of a first client for a server that has just become ready. After that work
    /// the server is idle, and its checkpoint can be taken, from which further servers are resumed.
    /// By default there is none, and servers are started in other ways.
    ///
    /// All servers of a checkpoint share what the first one has in memory. An engine must return
    /// `None` for a server that draws secrets before its first client, unless it draws them from
    /// OpenSSL, whose generators each resumed server seeds anew.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when its program is missing.
    fn warm_up(&self, installation: &Installation) -> Result<Option<WarmUp>> {
        let _ = installation;
        Ok(None)
    }

    /// Names the values that servers of one checkpoint share and that differ between started ones,
    /// such as "the numbers of `RAND()`". Those servers are resumed with
    /// `SANDBOXED_DB_START=checkpoint` only. By default there are none.
    fn shared_by_resumed(&self) -> Option<&str> {
        None
    }

    /// Returns where the data directory is mounted. Default `/data`.
    fn data_dir(&self) -> SandboxPath {
        "/data".into()
    }

    /// Returns the command that fills an empty data directory. By default a server starts on an
    /// empty one.
    fn initialise(&self, installation: &Installation) -> Option<Command> {
        let _ = installation;
        None
    }

    /// Returns a task that makes what a freshly initialised server lacks. By default there is none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when its program is missing.
    fn set_up(&self, installation: &Installation) -> Result<Option<Task>> {
        let _ = installation;
        Ok(None)
    }

    /// Returns a task that runs at the end of each layer and does work that servers would do later:
    /// gathers statistics, vacuums tables. A layer is valid without it, so its failure is not an
    /// error. By default there is none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when its program is missing.
    fn settle(&self, installation: &Installation) -> Result<Option<Task>> {
        let _ = installation;
        Ok(None)
    }

    /// Describes the server with settings of the user, as it runs in a sandbox of that mode.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a setting that cannot be set.
    fn server(
        &self,
        installation: &Installation,
        settings: &[(String, String)],
        mode: Mode,
    ) -> Result<Server>;

    /// Returns `true` for a database without a server, whose files clients open by their paths. Its
    /// sandboxes are private directories of the host, as in [process mode](Mode::Process), even for
    /// root: libraries resolve symbolic links in a path, and so do not reach a file through
    /// `/proc/PID/root`. Default `false`.
    fn is_opened_by_path(&self) -> bool {
        false
    }

    /// Finds the cause of a failure in the server's log, such as a limit that was reached or a
    /// feature that the server is built without. Returns the cause and its fix as one sentence,
    /// which becomes the error's hint. Default `None`.
    fn cause_in_log(&self, log: &str) -> Option<String> {
        let _ = log;
        None
    }

    /// Removes files of a cleanly stopped server that the next server makes anew. `data` is a path
    /// of the host. By default there are none.
    ///
    /// # Errors
    /// A failed file operation, or data that a layer cannot hold, such as that of a server that
    /// crashed.
    fn tidy(&self, data: &Path) -> io::Result<()> {
        let _ = data;
        Ok(())
    }

    /// Returns symbolic links to make as soon as the server first reports readiness, before the
    /// test learns of it: pairs of a path below the data directory and the link's target. By
    /// default none.
    ///
    /// They stand for files that a server removes at its start although a layer could keep them. An
    /// existing file stays. `data` is the data directory of a layer, as a path of the host. Servers
    /// that do not [notify](Ready::Notify) get no links.
    fn links_when_ready(&self, data: &Path, settings: &[(String, String)]) -> Vec<(PathBuf, PathBuf)> {
        let _ = (data, settings);
        Vec::new()
    }

    /// Returns the URL under which clients outside reach the server by its Unix socket. `root` is
    /// the sandbox's root as seen from outside. `None` for a server that listens on a port only:
    /// its URL is then that of [`tcp`](Self::tcp), whose port each start opens.
    fn url(&self, root: &Path) -> Option<String>;

    /// Names the environment variable by which applications expect the URL. Default `DATABASE_URL`.
    fn url_variable(&self) -> &str {
        "DATABASE_URL"
    }

    /// Returns further environment variables by which the database's clients find the server. By
    /// default none.
    fn env(&self, root: &Path) -> Vec<(String, String)> {
        let _ = root;
        Vec::new()
    }

    /// Returns files for the database's clients, which variables of [`env`](Self::env) lead to,
    /// with their contents. They are written below `root` when the server is ready, for the user
    /// who runs the test alone. By default none.
    fn client_files(&self, root: &Path) -> Vec<(SandboxPath, String)> {
        let _ = root;
        Vec::new()
    }

    /// Describes how clients outside reach the server at `address`, a port of the host. Every user
    /// of the machine can reach the port, so the server must ask for the password there. By default
    /// clients cannot.
    fn tcp(&self, request: &TcpRequest<'_>) -> Option<TcpAccess> {
        let _ = request;
        None
    }

    /// Adds TLS to the description of a server that [`server`](Engine::server) has returned, for
    /// [`Snapshot::tls`](crate::Snapshot::tls). Each sandbox has other contents in `files`. By
    /// default an engine has no TLS.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an engine without TLS, and for settings that contradict it.
    fn tls(&self, server: Server, settings: &[(String, String)], files: &TlsFiles) -> Result<Server> {
        let _ = (server, settings, files);
        Err(Error::new(ErrorKind::InvalidConfig, format!("turn on TLS for `{}`", self.name()))
            .caused_by("its engine does not implement `Engine::tls`")
            .with_hint("leave out `tls`"))
    }

    /// Checks whether clients read a server's address or credentials from that environment
    /// variable.
    fn is_client_variable(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

/// The paths in a directory, sorted by name; none if it cannot be read.
fn children(directory: &Path) -> Vec<PathBuf> {
    let mut children: Vec<_> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    children.sort();
    children
}
