//! Engines: the knowledge of one database each, its programs, its data directory, its clients.
//!
//! [`Postgres`] is one. Other databases are added by implementing [`Engine`].

mod installation;
mod packages;
mod postgres;
mod script;
mod server;
pub(crate) mod sql;
mod tcp_access;
mod tls_files;
pub(crate) mod version;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
pub use crate::launch::{Command, SandboxPath, Signal};

pub use installation::Installation;
pub(crate) use packages::install_command;
pub(crate) use postgres::{Found, Survey, survey};
pub use postgres::{LocaleProvider, Postgres};
pub use script::{FileRun, Format, ScriptError};
pub use server::{Mode, Server};
pub use tcp_access::TcpAccess;
pub use tls_files::TlsFiles;

/// A kind of database server that sandboxes can run, such as [`Postgres`].
///
/// An engine describes and runs nothing itself: a sandbox runs the commands that it returns. All
/// paths that it returns are paths in the sandbox unless said otherwise. In process mode those of
/// data, directories and files are translated when a command is run, as whole arguments and as
/// values of `name=path`.
pub trait Engine: Clone + fmt::Debug + Send + Sync + 'static {
    /// Returns the engine's name in lower case, as in digests and messages.
    fn name(&self) -> &'static str;

    /// Asks for a version of the engine. By default an engine has no versions to choose from.
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
    /// [`ErrorKind::NotInstalled`] without any, or without the version asked for: tests may be
    /// skipped for it. Any other kind for an installation that cannot be used.
    fn locate(&self) -> Result<Installation>;

    /// Returns names and values of all that a freshly initialised data directory depends on besides
    /// the installation.
    fn identity(&self) -> Vec<(String, String)>;

    /// Returns where the data directory is mounted.
    fn data_dir(&self) -> SandboxPath;

    /// Returns the command that fills an empty data directory.
    fn initialise(&self, installation: &Installation) -> Command;

    /// Returns a script for [`client`](Engine::client) that makes what a freshly initialised server
    /// lacks.
    fn set_up(&self) -> Option<String> {
        None
    }

    /// Returns a script for [`client`](Engine::client) that runs at the end of each layer and does
    /// work that servers would do later: gathers statistics, vacuums tables. A layer is as valid
    /// without, so the script's failure is no error.
    fn settle(&self) -> Option<String> {
        None
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

    /// Checks whether the server answers by its protocol, within about a second. `root` is the
    /// sandbox's root as seen from outside.
    fn is_ready(&self, root: &Path) -> bool;

    /// Returns a client that reads a script from its standard input.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is no such program.
    fn client(&self, installation: &Installation) -> Result<Command>;

    /// Returns the command that runs a file to its end, or to its first error. The sandbox shows
    /// the file at its own path.
    ///
    /// The command must fail where the file leaves a transaction open, which would be lost
    /// silently.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is no such program, or none for the file's format.
    fn run_file(&self, installation: &Installation, run: &FileRun) -> Result<Command>;

    /// Checks whether a file or directory outside a sandbox is an [archive](Format::Archive). By
    /// default none is.
    fn is_archive(&self, path: &Path) -> bool {
        let _ = path;
        false
    }

    /// Returns the paths of files that SQL makes the client read, as written in it. `contents` are
    /// some whole lines of a file.
    fn included_files(&self, contents: &str) -> Vec<String>;

    /// Returns a script for [`client`](Engine::client) that sends text to the server as one
    /// request, as drivers do: the client does not interpret it. Each line of the text keeps its
    /// number in the script.
    fn request(&self, text: &str) -> String {
        text.to_owned()
    }

    /// Parses the client's report of a failure.
    fn script_error(&self, stderr: &str) -> ScriptError;

    /// Names the cause of a failure that the server's log shows, such as the setting behind a limit
    /// that was reached, and what to do. By default none.
    fn reached_limit(&self, log: &str) -> Option<String> {
        let _ = log;
        None
    }

    /// Removes files of a cleanly stopped server that the next server makes anew. `data` is a
    /// directory outside a sandbox.
    ///
    /// # Errors
    /// File operations that fail, or data that a layer cannot hold.
    fn tidy(&self, data: &Path) -> std::io::Result<()>;

    /// Returns symbolic links to make as soon as the server first reports readiness, before the
    /// test learns of it: pairs of a path below the data directory and the link's target. By
    /// default none.
    ///
    /// They are for files that a server removes at its start though a layer could keep them. An
    /// existing file stays. `data` is a layer's, outside a sandbox. Servers that do not
    /// [notify](Server::notifies) get no links.
    fn links_when_ready(&self, data: &Path, settings: &[(String, String)]) -> Vec<(PathBuf, PathBuf)> {
        let _ = (data, settings);
        Vec::new()
    }

    /// Returns the URL under which clients outside reach the server. `root` is the sandbox's root
    /// as seen from outside.
    fn url(&self, root: &Path) -> String;

    /// Returns environment variables by which the database's clients find the server. By default
    /// none.
    fn env(&self, root: &Path) -> Vec<(String, String)> {
        let _ = root;
        Vec::new()
    }

    /// Describes how clients outside reach the server at `address`, a port of the host. Every user
    /// of the machine can reach the port, so the server must ask for this password there. With
    /// [TLS](Engine::tls), `root_certificate` is the host's path of the certificate, in PEM, by
    /// which clients check the server's. By default clients cannot.
    fn tcp(&self, address: SocketAddr, password: &str, root_certificate: Option<&Path>) -> Option<TcpAccess> {
        let _ = (address, password, root_certificate);
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
            .caused_by("its engine does not say how")
            .with_hint("`Engine::tls` is for that; leave out `tls`"))
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
