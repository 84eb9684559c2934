//! MariaDB from version 10.5 on, and MySQL from version 8 on.

mod accounts;
mod client;
mod config;
mod holes;
mod mysql;
mod rows;
mod tls;

use std::fs;
use std::io;
use std::path::Path;

use self::accounts::SUPERUSER;
use self::config::{
    ACCOUNT, CONFIG, DATA, PID_FILE, PORT, Product, SOCKET, SOCKETS, TEMPORARY, configuration, setting,
    threads,
};
use crate::engine::url::{encode_path, percent_encode};
use crate::engine::{
    ClientExit, Command, Dialect, Endpoint, Engine, FileRun, Image, Installation, Mode, Programs, Ready,
    SandboxPath, ScriptError, Scripts, Server, Signal, Sql, Task, TcpAccess, TcpRequest, TlsFiles, WarmUp,
};
use crate::environment::MARIADB;
use crate::error::{Error, ErrorKind, Result};

pub use mysql::MySql;

/// MariaDB from version 10.5 on.
///
/// The server, `mariadbd`, is found in the directories that `SANDBOXED_DB_MARIADB` names, else in
/// those of `PATH`, else in the usual ones such as `/usr/sbin`. If there is none at all, or if
/// `SANDBOXED_DB_MARIADB` is `packages`, the packages of a Debian or Ubuntu machine's distribution
/// are downloaded and unpacked into the cache directory, without root. Its `mariadb-install-db`
/// makes the first layer, and its client, `mariadb`, runs migrations and seeds.
///
/// # Accounts
/// The superuser is `root`. By the Unix socket it is `root@localhost`, without a password; at a
/// port that [`tcp`](crate::Sandbox::tcp) opens it is `root@'%'`, with a random password. Host
/// names are not resolved (`skip_name_resolve`), so no client reaches an account for a named host,
/// except `localhost` by the Unix socket.
///
/// # Files
/// A file of SQL runs as by `mariadb < file`: with `DELIMITER`, and with `source` of further files,
/// relative to the directory of the first file. The run ends at the first error. Dumps of
/// mariadb-dump(1) are such files. A file that ends inside a transaction is refused.
///
/// # Settings
/// A [setting](crate::Snapshot::setting) is a system variable or an option of the server by its
/// name in `my.cnf`, such as `sql_mode`, `default_time_zone`, `collation_server` or
/// `lower_case_table_names`. Settings that decide the outcome of SQL have the server's own
/// defaults, except the character set, which is `utf8mb4`. The time zone of the server is UTC.
///
/// # Checkpoints
/// Servers that are resumed from one checkpoint (`SANDBOXED_DB_START=checkpoint`) share the state
/// of `RAND()` and the node of `UUID()`. Salts and `RANDOM_BYTES()` differ.
///
/// # Example
/// ```no_run
/// use sandboxed_db::{MariaDb, Snapshot};
/// # fn main() -> sandboxed_db::Result<()> {
/// let db = Snapshot::new(MariaDb::new().database("shop")).migrations("migrations").start()?;
/// assert!(db.url().starts_with("mysql://root@localhost/shop?socket="));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MariaDb {
    version: Option<String>,
    database: String,
}

impl Default for MariaDb {
    fn default() -> Self {
        Self::new()
    }
}

impl MariaDb {
    /// Uses any version, and the database `test`.
    #[must_use]
    pub fn new() -> Self {
        Self { version: None, database: "test".to_owned() }
    }

    /// Requests a version, such as `10.11`. Default: any, see [above](Self). A start without that
    /// version installed is [`ErrorKind::NotInstalled`].
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Names the database that is made for the test and that [`url`](crate::Sandbox::url) leads to.
    /// Default `test`. Its character set and collation are those of the server.
    ///
    /// # Errors
    /// None here. A start is [`ErrorKind::InvalidConfig`] for a name with other characters than
    /// ASCII letters, digits, `_` and `-`.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = name.into();
        self
    }

    /// Returns the path of the Unix socket below a sandbox's [root](crate::Sandbox::root).
    #[must_use]
    pub fn socket() -> SandboxPath {
        SOCKET.into()
    }
}

/// Makes the system tables, and an empty database: `$1` is the data directory, `$2` the database's
/// directory in it, `$3` one for temporary files, the others are the program.
///
/// A database without options has those of the server, whose settings are not known yet.
const INITIALISE: &str = r#"data=$1 database=$2 temporary=$3; shift 3
"$@" >&2 && mkdir -- "$data/$database" "$data/$temporary""#;

/// Gathers statistics that each server would gather again, and has the server finish its work at
/// its stop: a server purges at its start what is left, and has to copy the tables up for that.
const SETTLE: &str = "\
SET GLOBAL innodb_fast_shutdown = 0;
SET SESSION group_concat_max_len = 16777216;
SELECT COALESCE(CONCAT('ANALYZE LOCAL TABLE ', GROUP_CONCAT('`', REPLACE(table_schema, '`', '``'), '`.`',
    REPLACE(table_name, '`', '``'), '`')), 'DO 0') INTO @analyze FROM information_schema.tables
    WHERE engine = 'InnoDB' AND table_type = 'BASE TABLE'
    AND table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema');
PREPARE analyze_all FROM @analyze;
EXECUTE analyze_all;
";

/// Closes the tables of accounts, which the server has read: a resumed server copies up each file
/// that it has open. Those of statistics, which the first query of a table opens, stay open.
const WARM_UP: &str = "\
FLUSH LOCAL TABLES;
SELECT 1 FROM mysql.table_stats, mysql.column_stats, mysql.index_stats LIMIT 0;
";

impl Engine for MariaDb {
    fn name(&self) -> &'static str {
        "mariadb"
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
        // For kept states, whose clients need it.
        vec![("database".to_owned(), self.database.clone())]
    }

    fn data_dir(&self) -> SandboxPath {
        DATA.into()
    }

    fn initialise(&self, installation: &Installation) -> Option<Command> {
        let base = installation.bin().parent().unwrap_or(Path::new("/usr"));
        // How the server names the directory of a database.
        let directory = self.database.replace('-', "@002d");
        let shell = client::environment(Command::new("/bin/sh")).args(["-c", INITIALISE, "sh"]);
        let install = shell
            .path_arg(DATA)
            .args([&directory, TEMPORARY])
            .arg(installation.program("mariadb-install-db").to_string_lossy())
            .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .arg(format!("--basedir={}", base.display()))
            .prefixed_path_arg("--datadir=", DATA);
        Some(install)
    }

    fn set_up(&self, installation: &Installation) -> Result<Option<Task>> {
        Ok(Some(Task::new(client::own(installation)?, accounts::set_up(Product::MariaDb))))
    }

    fn settle(&self, installation: &Installation) -> Result<Option<Task>> {
        Ok(Some(Task::new(client::own(installation)?, SETTLE)))
    }

    fn shared_by_resumed(&self) -> Option<&'static str> {
        Some("the numbers of `RAND()`")
    }

    fn warm_up(&self, installation: &Installation) -> Result<Option<WarmUp>> {
        Ok(Some(WarmUp::Task(Task::new(client::own(installation)?, WARM_UP))))
    }

    fn server(
        &self,
        installation: &Installation,
        settings: &[(String, String)],
        mode: Mode,
    ) -> Result<Server> {
        check_database(&self.database, settings)?;
        let ignored = format!("--ignore-db-dirs={TEMPORARY}");
        let command = command(installation, mode).args(["--skip-log-error".to_owned(), ignored]);
        Ok(server(Product::MariaDb, command, installation, settings)?.idle_memory(IDLE_MEMORY))
    }

    fn tidy(&self, data: &Path) -> io::Result<()> {
        tidy(data)
    }

    fn url(&self, root: &Path) -> Option<String> {
        Some(url(&self.database, root))
    }

    fn env(&self, root: &Path) -> Vec<(String, String)> {
        env(&self.database, root)
    }

    fn client_files(&self, root: &Path) -> Vec<(SandboxPath, String)> {
        client::files(&self.database, root)
    }

    fn tcp(&self, request: &TcpRequest<'_>) -> Option<TcpAccess> {
        Some(accounts::access(Product::MariaDb, &self.database, request))
    }

    fn tls(&self, server: Server, settings: &[(String, String)], files: &TlsFiles) -> Result<Server> {
        tls::turn_on(Product::MariaDb, server, settings, files)
    }

    fn is_client_variable(&self, name: &str) -> bool {
        is_client_variable(name)
    }
}

/// Files run alike in both servers.
macro_rules! run_files {
    ($($engine:ty),+) => {$(
        impl Scripts for $engine {
            fn run_file(&self, installation: &Installation, run: &FileRun) -> Result<Command> {
                client::run_file(installation, &self.database, run)
            }

            fn failure(&self, exit: &ClientExit<'_>) -> Option<ScriptError> {
                client::failure(exit)
            }

            fn advice(&self, _: &Installation, run: &FileRun, message: &str) -> Option<String> {
                client::advice(run, message)
            }

            fn included_files(&self, contents: &str) -> Vec<String> {
                client::included_files(contents)
            }

            fn runs_csv(&self) -> bool {
                true
            }
        }

        impl Sql for $engine {
            fn dialect(&self) -> Dialect {
                Dialect::MySql
            }

            fn request(&self, text: &str) -> String {
                client::request(text)
            }
        }
    )+};
}

run_files!(MariaDb, MySql);

/// Refuses names that need another spelling as a directory, and those of the server's own
/// databases.
fn check_database(name: &str, settings: &[(String, String)]) -> Result<()> {
    let refused = |hint: &str| {
        Err(Error::new(ErrorKind::InvalidConfig, format!("make the database `{name}`")).with_hint(hint))
    };
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_letter) {
        return refused("its name consists of at most 64 ASCII letters, digits, `_` and `-`");
    }
    if ["mysql", "sys", "performance_schema", "information_schema"]
        .iter()
        .any(|system| system.eq_ignore_ascii_case(name))
    {
        return refused("the server has a database of that name for itself");
    }
    let is_lowered = setting(settings, "lower_case_table_names").is_some_and(|value| value.trim() != "0");
    if is_lowered && name.contains(|c: char| c.is_ascii_uppercase()) {
        return refused("with `lower_case_table_names` its name has no capital letters");
    }
    Ok(())
}

/// Returns the command of a server. Arguments win over the file, so that no setting moves what the
/// sandbox relies on.
fn command(installation: &Installation, mode: Mode) -> Command {
    let command = client::environment(Command::new(installation.server()))
        .prefixed_path_arg("--defaults-file=", CONFIG)
        .prefixed_path_arg("--datadir=", DATA)
        .prefixed_path_arg("--tmpdir=", SandboxPath::new(DATA).join(TEMPORARY))
        .prefixed_path_arg("--socket=", SOCKET)
        .prefixed_path_arg("--pid-file=", PID_FILE)
        .args(["--skip-name-resolve", "--skip-grant-tables=0"])
        .arg(format!("--port={PORT}"));
    match mode {
        Mode::Container => command.args(["--skip-networking=0", "--bind-address=127.0.0.1"]),
        Mode::Process { address: Some(address) } => {
            command.args(["--skip-networking=0".to_owned(), format!("--bind-address={address}")])
        }
        Mode::Process { address: None } => command.arg("--skip-networking"),
    }
}

fn server(
    product: Product,
    command: Command,
    installation: &Installation,
    settings: &[(String, String)],
) -> Result<Server> {
    let ready = match installation.notifies() {
        true => Ready::NotifyOr(Box::new(greets())),
        false => greets(),
    };
    Ok(Server::new(command, Signal::Terminate, ready)
        .account(ACCOUNT)
        .directory(SOCKETS, 0o700)
        .file(CONFIG, configuration(product, settings)?)
        .processes(threads(settings)))
}

fn tidy(data: &Path) -> io::Result<()> {
    for junk in ["ib_buffer_pool", "ibtmp1", "multi-master.info"] {
        match fs::remove_file(data.join(junk)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    ["ibdata1", "ib_logfile0"].iter().try_for_each(|file| holes::dig(&data.join(file)))
}

fn url(database: &str, root: &Path) -> String {
    let socket = encode_path(&SandboxPath::new(SOCKET).below(root).display().to_string());
    format!("mysql://{SUPERUSER}@localhost/{}?socket={socket}", percent_encode(database))
}

fn env(database: &str, root: &Path) -> Vec<(String, String)> {
    let socket = SandboxPath::new(SOCKET).below(root).display().to_string();
    [
        ("MYSQL_HOME", client::home(root).as_str()),
        ("MYSQL_UNIX_PORT", socket.as_str()),
        ("MYSQL_HOST", "localhost"),
        ("MYSQL_USER", SUPERUSER),
        ("MYSQL_DATABASE", database),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn is_client_variable(name: &str) -> bool {
    name.starts_with("MYSQL_") || name.starts_with("MARIADB_")
}

/// Bytes of memory that an idle server holds.
const IDLE_MEMORY: u64 = 41_000_000;

/// The sign of a server that answers: it speaks first, with number 0 and version 10 of the protocol
/// (MariaDB documentation, "Initial Handshake Packet"). An error has another byte there.
fn greets() -> Ready {
    Ready::answer(Endpoint::Unix(SOCKET.into()), "", b"\0\0\0\x0a")
}

fn programs() -> Programs {
    Programs::new("mariadbd")
        .client("mariadb-install-db")
        .client("mariadb")
        .client("mysql")
        .variable(MARIADB.name)
        .extensions("/usr/lib/mysql/plugin")
        .extensions("/usr/lib64/mariadb/plugin")
        .package("mariadb-server")
}
