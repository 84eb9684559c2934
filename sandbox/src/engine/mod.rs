//! What differs from one database to another: its programs, its data directory, its clients.

mod installation;
mod packages;
mod postgres;
mod tcp_access;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::launch::Command;

pub use installation::Installation;
pub(crate) use packages::install_command;
pub use postgres::Postgres;
pub(crate) use postgres::{Found, Survey, survey};
pub use tcp_access::TcpAccess;

/// A kind of database server that sandboxes can run.
///
/// [`Postgres`] is one. An engine describes; it runs nothing itself: the commands it returns are run in a sandbox.
/// All paths that it returns are paths in the sandbox unless said otherwise; where there is no container those of data,
/// directories and files are translated when a command is run, as whole arguments and as values of `name=path`.
pub trait Engine: Clone + fmt::Debug + Send + Sync + 'static {
    /// The engine's name in lower case, as it appears in digests and messages.
    fn name(&self) -> &'static str;

    /// The same engine, asked for that version, as far as it has versions to choose from; by default it has none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for what is no version of it. Whether it is installed, [`locate`](Engine::locate) says.
    fn of_version(self, version: &str) -> Result<Self> {
        Err(Error::custom(
            ErrorKind::InvalidConfig,
            format!("choose version `{version}` of `{}`", self.name()),
            "this engine has no versions to choose from; leave `version` out",
        ))
    }

    /// Finds the server's programs on this machine.
    ///
    /// # Errors
    /// [`ErrorKind::NotInstalled`] when there are none, or not the version asked for: tests may be skipped for it. Any other
    /// kind for an installation that cannot be used.
    fn locate(&self) -> Result<Installation>;

    /// What a freshly initialised data directory depends on besides the installation: pairs of a name and a value.
    fn identity(&self) -> Vec<(String, String)>;

    /// Where the data directory is mounted.
    fn data_dir(&self) -> PathBuf;

    /// The command that fills an empty data directory.
    fn initialise(&self, installation: &Installation) -> Command;

    /// A script for [`client`](Engine::client) that makes what a freshly initialised server lacks.
    fn set_up(&self) -> Option<String> {
        None
    }

    /// A script for [`client`](Engine::client) that is run at the end of each layer, to leave nothing for later:
    /// statistics gathered, tables vacuumed.
    fn settle(&self) -> Option<String> {
        None
    }

    /// How the server is run, with settings of the user.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a setting that cannot be set.
    fn server(&self, installation: &Installation, settings: &[(String, String)]) -> Result<Server>;

    /// Whether the server answers by its protocol. `root` is the sandbox's root as seen from outside.
    ///
    /// Must return within about a second.
    fn is_ready(&self, root: &Path) -> bool;

    /// A client that reads a script from its standard input.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is no such program.
    fn client(&self, installation: &Installation) -> Result<Command>;

    /// The command that runs a file to its end, or to its first error. The sandbox shows the file at its own path.
    ///
    /// It must fail where the file leaves a transaction open, which would be lost without a word.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is no such program, or none for the file's
    /// format.
    fn run_file(&self, installation: &Installation, run: &FileRun) -> Result<Command>;

    /// Whether a file or directory outside a sandbox is an [archive](Format::Archive); none is by default.
    fn is_archive(&self, path: &Path) -> bool {
        let _ = path;
        false
    }

    /// Files that SQL makes the client read in turn: paths as written in it. `contents` are some whole lines of a file.
    fn included_files(&self, contents: &str) -> Vec<String>;

    /// A script for [`client`](Engine::client) that sends a text to the server as one request, as drivers do, without the
    /// client's reading it. Each line of the text is the line of the script with the same number.
    fn request(&self, text: &str) -> String {
        text.to_owned()
    }

    /// The client's report of a failure, taken apart.
    fn script_error(&self, stderr: &str) -> ScriptError;

    /// Removes what a cleanly stopped server leaves and makes anew. `data` is a directory outside a sandbox.
    ///
    /// # Errors
    /// File operations that fail, or data that a layer cannot hold.
    fn tidy(&self, data: &Path) -> std::io::Result<()>;

    /// Symbolic links that are made as soon as the server first says that it is ready, before anybody is told: pairs of a path
    /// below the data directory, and of what it leads to. For what a server removes at its start though a layer could keep it;
    /// where something is by then, it stays. `data` is a layer's, outside a sandbox. None by default, and none are made for
    /// servers that do not [notify](Server::notifies).
    fn links_when_ready(&self, data: &Path, settings: &[(String, String)]) -> Vec<(PathBuf, PathBuf)> {
        let _ = (data, settings);
        Vec::new()
    }

    /// The URL under which clients outside reach the server. `root` is the sandbox's root as seen from outside.
    fn url(&self, root: &Path) -> String;

    /// Variables of the environment by which the database's own clients find the server; none by default.
    fn env(&self, root: &Path) -> Vec<(String, String)> {
        let _ = root;
        Vec::new()
    }

    /// How clients outside reach the server at `address`, a port of the host that is open to every user of the machine, so
    /// that a password must be asked for: this one. By default they cannot.
    fn tcp(&self, address: SocketAddr, password: &str) -> Option<TcpAccess> {
        let _ = (address, password);
        None
    }

    /// Whether clients take that variable of the environment for a part of a server's address or of its credentials.
    fn is_client_variable(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

/// How a server is run: the command, and what it needs around it.
#[derive(Debug, Clone)]
pub struct Server {
    pub(crate) command: Command,
    pub(crate) directories: Vec<(PathBuf, u32)>,
    pub(crate) files: Vec<(PathBuf, String)>,
    pub(crate) notifies: bool,
    pub(crate) io_uring: bool,
    pub(crate) processes: u32,
    pub(crate) stop_signal: i32,
    pub(crate) on_host: OnHostServer,
}

/// What else there is to a server without a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnHostServer {
    pub(crate) end_signal: i32,
    pub(crate) arguments: fn(Option<Ipv4Addr>) -> Vec<String>,
}

impl Server {
    /// A server that is run by `command` and shuts down cleanly at the signal `stop_signal`, by number.
    pub fn new(command: Command, stop_signal: i32) -> Self {
        Self {
            command,
            directories: Vec::new(),
            files: Vec::new(),
            notifies: false,
            io_uring: false,
            processes: 0,
            stop_signal,
            on_host: OnHostServer { end_signal: libc::SIGKILL, arguments: |_| Vec::new() },
        }
    }

    /// Makes a directory in the sandbox with permissions `mode`, for sockets and the like.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>, mode: u32) -> Self {
        self.directories.push((path.into(), mode));
        self
    }

    /// Makes a file in the sandbox, readable by the server.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>, contents: impl Into<String>) -> Self {
        self.files.push((path.into(), contents.into()));
        self
    }

    /// The server says by sd_notify(3) when it is ready. Otherwise [`Engine::is_ready`] is asked again and again.
    #[must_use]
    pub fn notifies(mut self, notifies: bool) -> Self {
        self.notifies = notifies;
        self
    }

    /// The server may be that many processes and threads, with as many clients as its settings allow. Default 0: few enough
    /// for the usual limit of a sandbox, see [`Snapshot::pids`](crate::Snapshot::pids).
    #[must_use]
    pub fn processes(mut self, processes: u32) -> Self {
        self.processes = processes;
        self
    }

    /// How the server runs without a container, in the mode `SANDBOXED_DB_ISOLATION=process`: which signal ends it at once,
    /// by number, and which arguments are added to its command. By default that is `SIGKILL` and none.
    ///
    /// It shares the host's network then, so these must keep it from all addresses but the one that they are given, of the
    /// loopback network and for this server alone; or from all. It should keep nothing outside its directories.
    #[must_use]
    pub fn on_host(mut self, end_signal: i32, arguments: fn(Option<Ipv4Addr>) -> Vec<String>) -> Self {
        self.on_host = OnHostServer { end_signal, arguments };
        self
    }

    /// The server uses io_uring(7), which sandboxes are denied otherwise. Default `false`.
    #[must_use]
    pub fn io_uring(mut self, io_uring: bool) -> Self {
        self.io_uring = io_uring;
        self
    }
}

/// What a file holds, and thus how it gets into a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Statements, in whatever language the client reads.
    #[default]
    Sql,
    /// Rows of a table: comma-separated values after a header, RFC 4180.
    Csv {
        /// The table, as the file is named: perhaps with its schema, as in `shop.users`.
        table: String,
        /// What the header names.
        columns: Vec<String>,
    },
    /// A file or directory that the database's own dump program made for its counterpart to restore.
    Archive,
}

/// How a file is to be run; made by this library, for [`Engine::run_file`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileRun {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub format: Format,
    /// The client is to run what it is given on its standard input, which is what the file holds, uncompressed, or a part
    /// of it at the lines that it has there; and not the file itself.
    pub from_stdin: bool,
    /// All of it is to be one transaction.
    pub transaction: bool,
    /// SQL to run first, in the same session and transaction.
    pub before: Option<String>,
    /// SQL to run last, in the same session and transaction.
    pub after: Option<String>,
}

impl FileRun {
    /// The whole file of SQL and nothing else, without a transaction around it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: Format::Sql,
            from_stdin: false,
            transaction: false,
            before: None,
            after: None,
        }
    }
}

/// A failure of a script: where and why, as far as the client told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScriptError {
    /// The file.
    pub file: Option<PathBuf>,
    /// The line at fault in it, counted from one.
    pub line: Option<u64>,
    /// The server's message.
    pub message: String,
    /// The statement that failed.
    pub statement: Option<String>,
}

/// What a directory holds, in the order of names; nothing if it cannot be read.
fn children(directory: &Path) -> Vec<PathBuf> {
    let mut children: Vec<_> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    children.sort();
    children
}
