//! MySQL from version 8 on.

use std::io;
use std::path::Path;

use super::accounts;
use super::client;
use super::config::{DATA, Product, SOCKET, TEMPORARY, setting};
use super::tls;
use crate::engine::{
    Command, Dialect, Engine, Image, Installation, Mode, Programs, SandboxPath, Server, Task, TcpAccess,
    TcpRequest, TlsFiles,
};
use crate::environment::MYSQL;
use crate::error::{Error, ErrorKind, Result};

/// MySQL from version 8 on, with the same methods as [`MariaDb`](crate::MariaDb).
///
/// The tests of this library run MySQL where a server is installed. CI has none, because no
/// distribution that CI uses packages it. The server, `mysqld`, and its client, `mysql`, are found
/// in the directories that `SANDBOXED_DB_MYSQL` names, else in those of `PATH`, else in the usual
/// ones such as `/usr/sbin`. A `mysqld` of MariaDB is passed over.
///
/// Accounts and files are those of [`MariaDb`](crate::MariaDb). Settings are system variables and
/// options of the server, with the server's own defaults where they decide the outcome of SQL; a
/// layer's database keeps the character set that the server has by default.
///
/// # Example
/// ```no_run
/// use sandboxed_db::{MySql, Snapshot};
/// # fn main() -> sandboxed_db::Result<()> {
/// let db = Snapshot::new(MySql::new().version("8.0")).migrations("migrations").start()?;
/// assert!(db.url().starts_with("mysql://root@localhost/test?socket="));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MySql {
    version: Option<String>,
    pub(super) database: String,
    lower_case_table_names: u8,
}

impl Default for MySql {
    fn default() -> Self {
        Self::new()
    }
}

impl MySql {
    /// Uses any version, and the database `test`.
    #[must_use]
    pub fn new() -> Self {
        Self { version: None, database: "test".to_owned(), lower_case_table_names: 0 }
    }

    /// Requests a version, such as `8.0`. Default: any, see [above](Self). A start without that
    /// version installed is [`ErrorKind::NotInstalled`].
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Names the database that is made for the test and that [`url`](crate::Sandbox::url) leads to.
    /// Default `test`.
    ///
    /// # Errors
    /// As of [`MariaDb::database`](crate::MariaDb::database).
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = name.into();
        self
    }

    /// Sets `lower_case_table_names`, which MySQL fixes when it makes the data directory. Default
    /// 0.
    #[must_use]
    pub fn lower_case_table_names(mut self, value: u8) -> Self {
        self.lower_case_table_names = value;
        self
    }

    /// Returns the path of the Unix socket below a sandbox's [root](crate::Sandbox::root).
    #[must_use]
    pub fn socket() -> SandboxPath {
        SOCKET.into()
    }

    fn lower_case_arg(&self) -> String {
        format!("--lower-case-table-names={}", self.lower_case_table_names)
    }
}

/// Makes the system tables: `$1` is the data directory, `$2` a directory in it for temporary files,
/// the others are the program.
const INITIALISE: &str = r#"data=$1 temporary=$2; shift 2
"$@" && mkdir -- "$data/$temporary""#;

/// A directory that servers of packages expect, even empty.
const FILES: &str = "/var/lib/mysql-files";

/// Bytes of memory that an idle server is taken to hold: with its performance schema MySQL holds
/// ten times as much as MariaDB.
const IDLE_MEMORY: u64 = 400_000_000;

impl Engine for MySql {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn of_version(self, version: &str) -> Result<Self> {
        Ok(self.version(version))
    }

    fn locate(&self) -> Result<Installation> {
        recent(programs().find(self.version.as_deref())?)
    }

    fn locate_in(&self, image: &Image) -> Result<Installation> {
        recent(programs().find_in(image, self.version.as_deref())?)
    }

    fn identity(&self, _: &Installation) -> Vec<(String, String)> {
        // For kept states, whose clients need it.
        vec![("database".to_owned(), self.database.clone())]
    }

    fn data_dir(&self) -> SandboxPath {
        DATA.into()
    }

    fn initialise(&self, installation: &Installation) -> Option<Command> {
        let shell = client::environment(Command::new("/bin/sh")).args(["-c", INITIALISE, "sh"]);
        let install = shell
            .path_arg(DATA)
            .arg(TEMPORARY)
            .arg(installation.server().to_string_lossy())
            .args(["--no-defaults", "--initialize-insecure"])
            .arg(self.lower_case_arg())
            .prefixed_path_arg("--datadir=", DATA);
        Some(install)
    }

    fn set_up(&self, installation: &Installation) -> Result<Option<Task>> {
        let database = Dialect::MySql.identifier(&self.database);
        let script = format!("{}CREATE DATABASE {database};\n", accounts::set_up(Product::MySql));
        Ok(Some(Task::new(client::own(installation)?, script)))
    }

    fn settle(&self, installation: &Installation) -> Result<Option<Task>> {
        Ok(Some(Task::new(client::own(installation)?, super::SETTLE)))
    }

    fn server(
        &self,
        installation: &Installation,
        settings: &[(String, String)],
        mode: Mode,
    ) -> Result<Server> {
        super::check_database(&self.database, &[])?;
        if setting(settings, "lower_case_table_names").is_some() {
            let step = "set the server's setting `lower_case_table_names`";
            return Err(Error::new(ErrorKind::InvalidConfig, step)
                .caused_by("MySQL fixes it when it makes the data directory")
                .with_hint("choose it by `MySql::lower_case_table_names`"));
        }
        let command =
            super::command(installation, mode).args(["--loose-mysqlx=0".to_owned(), self.lower_case_arg()]);
        let server = super::server(Product::MySql, command, installation, settings)?;
        Ok(server.idle_memory(IDLE_MEMORY).directory(FILES, 0o700))
    }

    fn tidy(&self, data: &Path) -> io::Result<()> {
        super::tidy(data)
    }

    fn url(&self, root: &Path) -> Option<String> {
        Some(super::url(&self.database, root))
    }

    fn env(&self, root: &Path) -> Vec<(String, String)> {
        super::env(&self.database, root)
    }

    fn client_files(&self, root: &Path) -> Vec<(SandboxPath, String)> {
        client::files(&self.database, root)
    }

    fn tcp(&self, request: &TcpRequest<'_>) -> Option<TcpAccess> {
        Some(accounts::access(Product::MySql, &self.database, request))
    }

    fn tls(&self, server: Server, settings: &[(String, String)], files: &TlsFiles) -> Result<Server> {
        tls::turn_on(Product::MySql, server, settings, files)
    }

    fn is_client_variable(&self, name: &str) -> bool {
        super::is_client_variable(name)
    }
}
fn programs() -> Programs {
    Programs::new("mysqld")
        .client("mysql")
        .variable(MYSQL.name)
        .extensions("/usr/lib/mysql/plugin")
        .other_than("MariaDB")
}

/// Refuses versions before 8, whose data is made otherwise.
fn recent(found: Installation) -> Result<Installation> {
    if found.major() < 8 {
        let step = format!("use `{}`", found.version());
        return Err(Error::new(ErrorKind::InvalidConfig, step)
            .with_hint(format!("name the directory of MySQL 8 or newer by {}", MYSQL.name)));
    }
    Ok(found)
}
