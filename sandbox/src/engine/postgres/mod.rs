//! PostgreSQL, versions 13 to 18.

mod config;
mod files;
mod programs;
mod psql;
mod relcache;
mod survey;
mod tcp;
mod wal;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::config::{CONFIG, DATA, FIXED, LOCALE, SOCKETS, SUPERUSER, configuration, setting};
use self::files::with_environment;
use self::tcp::percent_encode;
use crate::engine::{Engine, FileRun, Installation, ScriptError, Server, TcpAccess, children};
use crate::error::Result;
use crate::launch::Command;
use crate::sys::process::libc_version;
use crate::sys::socket::connect_now;

pub(crate) use survey::{Found, Survey, survey};

/// PostgreSQL, versions 13 to 18.
///
/// The server is that of the directory named by `SANDBOXED_DB_POSTGRES`, else of the first directory in `PATH` that
/// holds `postgres`, else the newest in the usual installation directories, such as `/usr/lib/postgresql/17/bin`; where a
/// [`version`](Self::version) is asked for, the first of them that is of it. `SANDBOXED_DB_POSTGRES` may name several
/// directories, as `PATH` does. Where there is none at all, or where
/// `SANDBOXED_DB_POSTGRES` is `packages`, a Debian or Ubuntu machine's own packages are downloaded and unpacked into the
/// cache directory, without root.
///
/// The superuser is `postgres`, without a password: only the user who runs the tests can reach the server, unless
/// [`tcp`](crate::Sandbox::tcp) opens a port, where roles need one. The encoding is UTF-8, the locale `C.UTF-8`, the time zone UTC.
///
/// # Example
/// ```no_run
/// use sandboxed_db::{Postgres, Snapshot};
/// # fn main() -> sandboxed_db::Result<()> {
/// let db = Snapshot::new(Postgres::new().version("15").database("shop")).start()?;
/// assert!(db.url().contains("/shop?"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    version: Option<String>,
    database: String,
    locale: String,
    initdb_args: Vec<String>,
}

impl Default for Postgres {
    fn default() -> Self {
        Self::new()
    }
}

impl Postgres {
    /// Any supported version, with the database `postgres`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            version: None,
            database: SUPERUSER.to_owned(),
            locale: LOCALE.to_owned(),
            initdb_args: Vec::new(),
        }
    }

    /// Asks for a version, such as `15` or `15.18`. Default: any, see [above](Self). One that is not installed is
    /// [`ErrorKind::NotInstalled`](crate::ErrorKind::NotInstalled) at the start.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Names the database that is made for the test and that [`url`](crate::Sandbox::url) leads to. Default `postgres`.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = name.into();
        self
    }

    /// Sets the locale of the databases, as initdb's `--locale` does. Default `C.UTF-8`, which sorts by code point and is the
    /// same on every machine.
    #[must_use]
    pub fn locale(mut self, locale: impl Into<String>) -> Self {
        self.locale = locale.into();
        self
    }

    /// Adds an argument for initdb(1), such as `--data-checksums`.
    #[must_use]
    pub fn initdb_arg(mut self, arg: impl Into<String>) -> Self {
        self.initdb_args.push(arg.into());
        self
    }
}

impl Engine for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn of_version(self, version: &str) -> Result<Self> {
        Ok(self.version(version))
    }

    fn locate(&self) -> Result<Installation> {
        programs::locate(self.version.as_deref())
    }

    fn identity(&self) -> Vec<(String, String)> {
        let mut identity =
            vec![("database".to_owned(), self.database.clone()), ("locale".to_owned(), self.locale.clone())];
        // The order of other locales is the C library's, and changes with it.
        if !["C", "POSIX", LOCALE].contains(&self.locale.as_str()) {
            identity.push(("libc".to_owned(), libc_version()));
        }
        identity.extend(self.initdb_args.iter().map(|arg| ("initdb".to_owned(), arg.clone())));
        identity
    }

    fn data_dir(&self) -> PathBuf {
        DATA.into()
    }

    fn initialise(&self, installation: &Installation) -> Command {
        let command = with_environment(Command::new(installation.program("initdb")))
            .args(["--pgdata", DATA, "--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8"])
            .args(["--wal-segsize", "1", "--no-sync"]);
        let command = match installation.major() {
            14.. => command.arg("--no-instructions"),
            _ => command,
        };
        // The built-in provider's C.UTF-8 needs nothing of the host's C library, so it is the same everywhere.
        let command = match (installation.major(), self.locale.as_str()) {
            (17.., LOCALE) => command.args(["--locale-provider", "builtin", "--builtin-locale", LOCALE]),
            _ => command,
        };
        // Verifying checksums guards against broken disks; the layer has hashes of its own.
        let command = match installation.major() {
            18.. if !self.initdb_args.iter().any(|arg| arg.contains("data-checksums")) => {
                command.arg("--no-data-checksums")
            }
            _ => command,
        };
        command.args(["--locale", self.locale.as_str()]).args(self.initdb_args.iter().cloned())
    }

    fn set_up(&self) -> Option<String> {
        (self.database != SUPERUSER).then(|| {
            let name = self.database.replace('"', "\"\"");
            format!("CREATE DATABASE \"{name}\";\n")
        })
    }

    fn settle(&self) -> Option<String> {
        let connect = psql::connect(&self.database);
        // Pages are marked all-visible only once the commits that wrote them are known to be on disk. The last connection
        // finds the catalogues as they stay, and leaves its relation cache file.
        Some(format!(
            "{connect}SET synchronous_commit = on;\nCHECKPOINT;\nVACUUM (FREEZE, ANALYZE);\n{connect}"
        ))
    }

    fn server(&self, installation: &Installation, settings: &[(String, String)]) -> Result<Server> {
        let config = configuration(installation.major(), settings)?;
        let command = with_environment(Command::new(installation.program("postgres")))
            .args(["-D", DATA, "-c"])
            .arg(format!("config_file={CONFIG}"))
            // What `ALTER SYSTEM` sets counts for more than the file, and less than this.
            .args(FIXED.iter().flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]));
        Ok(Server::new(command, libc::SIGINT)
            .directory(SOCKETS, 0o700)
            .file(CONFIG, config)
            .notifies(installation.notifies())
            .io_uring(uses_io_uring(settings))
            .processes(processes(settings))
            // An immediate shutdown, which removes its shared memory.
            .on_host(libc::SIGQUIT, on_host))
    }

    fn is_ready(&self, root: &Path) -> bool {
        let socket = root.join(SOCKETS.trim_start_matches('/')).join(".s.PGSQL.5432");
        connect_now(&socket).is_ok_and(|mut stream| greet(&mut stream).unwrap_or(false))
    }

    fn client(&self, installation: &Installation) -> Result<Command> {
        Ok(files::psql(installation, SUPERUSER)?.args(["--file", "-"]))
    }

    fn run_file(&self, installation: &Installation, run: &FileRun) -> Result<Command> {
        files::run_file(installation, &self.database, run)
    }

    fn is_archive(&self, path: &Path) -> bool {
        files::is_archive(path)
    }

    fn included_files(&self, contents: &str) -> Vec<String> {
        psql::included_files(contents)
    }

    fn request(&self, text: &str) -> String {
        psql::request(text)
    }

    fn script_error(&self, stderr: &str) -> ScriptError {
        psql::script_error(stderr)
    }

    fn tidy(&self, data: &Path) -> io::Result<()> {
        for tablespace in children(&data.join("pg_tblspc")) {
            if tablespace.is_symlink() {
                return Err(io::Error::other(
                    "a tablespace lies outside the data directory, which a layer cannot hold",
                ));
            }
        }
        for junk in ["postmaster.opts", "postmaster.pid", "pg_stat/pgstat.stat", "pg_stat/global.stat"] {
            match fs::remove_file(data.join(junk)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        for file in children(&data.join("pg_stat")) {
            fs::remove_file(file)?;
        }
        wal::remove_spare_segments(data)?;
        relcache::keep(data)?;
        // Read at every start; initdb's are long lists of comments.
        fs::write(data.join("postgresql.conf"), format!("# The settings are in {CONFIG}.\n"))?;
        fs::write(data.join("pg_hba.conf"), tcp::ACCESS)?;
        fs::write(data.join("pg_ident.conf"), "")
    }

    fn links_when_ready(&self, data: &Path, settings: &[(String, String)]) -> Vec<(PathBuf, PathBuf)> {
        relcache::links(data, settings)
    }

    fn url(&self, root: &Path) -> String {
        let database = percent_encode(&self.database);
        // A container's path has nothing to encode; that of a cache may.
        let host = root.display().to_string();
        let host = host.split('/').map(percent_encode).collect::<Vec<_>>().join("/");
        format!("postgresql:///{database}?host={host}{SOCKETS}&user={SUPERUSER}")
    }

    fn env(&self, root: &Path) -> Vec<(String, String)> {
        let host = format!("{}{SOCKETS}", root.display());
        [("PGHOST", host.as_str()), ("PGPORT", "5432"), ("PGUSER", SUPERUSER), ("PGDATABASE", &self.database)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    fn tcp(&self, address: SocketAddr, password: &str) -> Option<TcpAccess> {
        Some(tcp::access(&self.database, address, password))
    }

    fn is_client_variable(&self, name: &str) -> bool {
        // PostgreSQL documentation, "Environment Variables" of libpq.
        name.starts_with("PG")
    }
}

/// What is set where a server shares the host's network and its /dev/shm.
fn on_host(loopback: Option<Ipv4Addr>) -> Vec<String> {
    let address = loopback.map(|address| address.to_string()).unwrap_or_default();
    // In files of the data directory, which are removed with it.
    let memory = "dynamic_shared_memory_type=mmap".to_owned();
    let options = [format!("listen_addresses={address}"), memory];
    options.into_iter().flat_map(|option| ["-c".to_owned(), option]).collect()
}

/// Whether a setting asks for it; by default none does, since what is asked by rings passes no filter.
fn uses_io_uring(settings: &[(String, String)]) -> bool {
    setting(settings, "io_method").is_some_and(|value| value.eq_ignore_ascii_case("io_uring"))
}

/// As many as the settings let it have: one a connection, and those that work in the background.
fn processes(settings: &[(String, String)]) -> u32 {
    // Checkpointer, writers, launchers, archiver, logger and workers for reading.
    const ALWAYS: u32 = 48;
    let counted = [
        "max_connections",
        "superuser_reserved_connections",
        "max_worker_processes",
        "max_wal_senders",
        "autovacuum_max_workers",
        "autovacuum_worker_slots",
    ];
    let counted = counted.iter().filter_map(|name| setting(settings, name)?.parse().ok());
    counted.fold(ALWAYS, u32::saturating_add)
}

/// A start-up packet and the first byte of its answer: `R` begins an authentication, `E` an error such as "the database
/// system is starting up" (PostgreSQL documentation, "Message Formats").
fn greet(stream: &mut UnixStream) -> io::Result<bool> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    const PROTOCOL: u32 = 3 << 16;
    let parameters = format!("user\0{SUPERUSER}\0database\0postgres\0\0");
    let length = u32::try_from(8 + parameters.len()).map_err(io::Error::other)?;
    let packet = [&length.to_be_bytes()[..], &PROTOCOL.to_be_bytes()[..], parameters.as_bytes()].concat();
    stream.write_all(&packet)?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    // Terminate, so that the backend does not log a client that vanished.
    let _ = stream.write_all(b"X\0\0\0\x04");
    Ok(answer == *b"R")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_tell_what_the_server_needs_of_the_sandbox() {
        let settings = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        assert!(!uses_io_uring(&[]) && processes(&[]) < 100);
        assert!(uses_io_uring(&settings(&[("io_method", "sync"), ("IO_METHOD", "io_uring")])));
        assert!(!uses_io_uring(&settings(&[("io_method", "io_uring"), ("io_method", "worker")])));
        let many =
            settings(&[("max_connections", "1"), ("max_connections", "1000"), ("max_wal_senders", "10")]);
        assert_eq!(processes(&many), 1058);
        assert_eq!(processes(&settings(&[("max_connections", "many")])), processes(&[]));
    }

    #[test]
    fn a_database_name_is_encoded_in_the_url() {
        let url = Postgres::new().database("a b/é").url(Path::new("/proc/7/root"));
        assert_eq!(url, "postgresql:///a%20b%2F%C3%A9?host=/proc/7/root/run/postgresql&user=postgres");
    }
}
