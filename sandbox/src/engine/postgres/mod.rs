//! PostgreSQL, versions 13 to 18.

mod advice;
mod config;
mod extensions;
mod files;
mod initdb;
mod programs;
mod psql;
mod relcache;
mod survey;
mod tcp;
mod wal;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use self::config::{
    ACCESS, CONFIG, DATA, FIXED_PATHS, LOCALE, PORT, SOCKETS, SUPERUSER, configuration, setting,
};
use self::files::with_environment;
use crate::engine::url::{encode_path, percent_encode};
use crate::engine::{
    ClientExit, Dialect, Engine, FileRun, Image, Installation, Mode, ScriptError, Scripts, Server, Sql, Task,
    TcpAccess, TcpRequest, TlsFiles, WarmUp, children,
};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{Command, Endpoint, Ready, SandboxPath, Signal};
use crate::sys::process::libc_version;

pub use initdb::LocaleProvider;
pub(crate) use programs::install_command;
pub(crate) use survey::{Found, Survey, survey};

/// Bytes of memory that an idle server holds.
const IDLE_MEMORY: u64 = 6_500_000;

/// PostgreSQL, versions 13 to 18.
///
/// The server is found in this order: in the directories that `SANDBOXED_DB_POSTGRES` names,
/// separated as in `PATH`; in the directories of `PATH`; in the usual installation directories,
/// such as `/usr/lib/postgresql/17/bin`, the newest first. The first server counts, or the first of
/// the requested [`version`](Self::version). If there is none at all, or if `SANDBOXED_DB_POSTGRES`
/// is `packages`, the packages of a Debian or Ubuntu machine's distribution are downloaded and
/// unpacked into the cache directory, without root.
///
/// The superuser is `postgres`, without a password for clients that only the user of the tests can
/// start: those by the Unix socket, and those inside the sandbox, such as `dblink` to `localhost`.
/// Clients at a port that [`tcp`](crate::Sandbox::tcp) opens need a password. The encoding is
/// UTF-8, the locale `C.UTF-8`, the time zone UTC.
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
    locale_provider: Option<LocaleProvider>,
    initdb_args: Vec<String>,
}

impl Default for Postgres {
    fn default() -> Self {
        Self::new()
    }
}

impl Postgres {
    /// Uses any supported version, and the database `postgres`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            version: None,
            database: SUPERUSER.to_owned(),
            locale: LOCALE.to_owned(),
            locale_provider: None,
            initdb_args: Vec::new(),
        }
    }

    /// Requests a version, such as `15` or `15.18`. Default: any, see [above](Self). A start
    /// without that version installed is
    /// [`ErrorKind::NotInstalled`](crate::ErrorKind::NotInstalled).
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Names the database that is made for the test and that [`url`](crate::Sandbox::url) leads to.
    /// Default `postgres`.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = name.into();
        self
    }

    /// Sets the locale of the databases, as initdb's `--locale` does. Default `C.UTF-8`, which
    /// sorts by code point and is the same on every machine.
    #[must_use]
    pub fn locale(mut self, locale: impl Into<String>) -> Self {
        self.locale = locale.into();
        self
    }

    /// Sets the library that compares text. Default: for `C.UTF-8` PostgreSQL itself from version
    /// 17 on, otherwise the C library.
    ///
    /// # Example
    /// ```no_run
    /// use sandboxed_db::{Postgres, engine::LocaleProvider};
    /// let german = Postgres::new().locale("de-DE").locale_provider(LocaleProvider::Icu);
    /// ```
    #[must_use]
    pub fn locale_provider(mut self, provider: LocaleProvider) -> Self {
        self.locale_provider = Some(provider);
        self
    }

    /// Adds an argument for initdb(1), such as `--data-checksums`. It takes precedence over the
    /// choices of the other methods and of this library.
    #[must_use]
    pub fn initdb_arg(mut self, arg: impl Into<String>) -> Self {
        self.initdb_args.push(arg.into());
        self
    }
}

impl Engine for Postgres {
    fn name(&self) -> &str {
        "postgres"
    }

    fn of_version(self, version: &str) -> Result<Self> {
        Ok(self.version(version))
    }

    fn locate(&self) -> Result<Installation> {
        programs::locate(self.version.as_deref())
    }

    fn locate_in(&self, image: &Image) -> Result<Installation> {
        programs::locate_in(image, self.version.as_deref())
    }

    fn identity(&self, installation: &Installation) -> Vec<(String, String)> {
        let mut identity =
            vec![("database".to_owned(), self.database.clone()), ("locale".to_owned(), self.locale.clone())];
        // The order of other locales is the C library's, and changes with it. That of an image
        // belongs to the build.
        if installation.image().is_none() && !["C", "POSIX", LOCALE].contains(&self.locale.as_str()) {
            identity.push(("libc".to_owned(), libc_version()));
        }
        identity
    }

    fn data_dir(&self) -> SandboxPath {
        DATA.into()
    }

    fn initialise(&self, installation: &Installation) -> Option<Command> {
        let Self { locale, locale_provider, initdb_args, .. } = self;
        let arguments = initdb::arguments(installation.major(), locale, *locale_provider, initdb_args);
        let initdb = with_environment(Command::new(installation.program("initdb")));
        Some(initdb.arg("--pgdata").path_arg(DATA).args(arguments))
    }

    fn set_up(&self, installation: &Installation) -> Result<Option<Task>> {
        if self.database == SUPERUSER {
            return Ok(None);
        }
        let script = format!("CREATE DATABASE {};\n", Dialect::Postgres.identifier(&self.database));
        Ok(Some(Task::new(files::own_client(installation)?, script)))
    }

    fn settle(&self, installation: &Installation) -> Result<Option<Task>> {
        Ok(Some(Task::new(files::own_client(installation)?, psql::settle(&self.database))))
    }

    fn warm_up(&self, installation: &Installation) -> Result<Option<WarmUp>> {
        // Older servers have a collector of statistics, with a socket that no checkpoint holds.
        const SINCE: u32 = 15;
        if installation.major() < SINCE {
            return Ok(None);
        }
        let client = files::first_client(installation, &self.database)?;
        Ok(Some(WarmUp::Task(Task::new(client, "SELECT 1;\n"))))
    }

    fn server(
        &self,
        installation: &Installation,
        settings: &[(String, String)],
        mode: Mode,
    ) -> Result<Server> {
        let segment = initdb::wal_segment_size(&self.initdb_args);
        // Options win over what `ALTER SYSTEM` sets, and that over the file.
        let mut options = vec![format!("port={PORT}")];
        if let Mode::Process { address } = mode {
            let address = address.map(|address| address.to_string()).unwrap_or_default();
            options.push(format!("listen_addresses={address}"));
            // In files of the data directory, which are removed with it, and not in the host's
            // /dev/shm.
            options.push("dynamic_shared_memory_type=mmap".to_owned());
        }
        let options = options.into_iter().flat_map(|option| ["-c".to_owned(), option]);
        let postgres = with_environment(Command::new(installation.program("postgres")));
        let command = FIXED_PATHS.iter().fold(postgres.arg("-D").path_arg(DATA), |command, (name, path)| {
            command.arg("-c").prefixed_path_arg(format!("{name}="), path)
        });
        let command = command.args(options);
        let ready = match installation.notifies() {
            true => Ready::NotifyOr(Box::new(answers())),
            false => answers(),
        };
        Ok(Server::new(command, Signal::Interrupt, ready)
            .account(SUPERUSER)
            .idle_memory(IDLE_MEMORY)
            .directory(SOCKETS, 0o700)
            .file(CONFIG, configuration(installation.major(), mode, segment, settings)?)
            .file(ACCESS, tcp::access_rules(mode))
            .io_uring(uses_io_uring(settings))
            .processes(processes(settings))
            // An immediate shutdown, which removes the server's shared memory.
            .end_signal(Signal::Quit))
    }

    fn cause_in_log(&self, log: &str) -> Option<String> {
        if log.contains("SSL is not supported by this build") {
            return Some(
                "the server is built without OpenSSL: choose one with it by SANDBOXED_DB_POSTGRES, or leave out `tls`"
                    .to_owned(),
            );
        }
        let refused = ["sorry, too many clients already", "remaining connection slots are reserved"];
        refused.iter().any(|text| log.contains(text)).then(|| {
            "the server had no connection left for a client: raise the setting `max_connections`".to_owned()
        })
    }

    fn tidy(&self, data: &Path) -> io::Result<()> {
        wal::check_shut_down(data)?;
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
        // The server reads these at each start; initdb's are long lists of comments.
        fs::write(data.join("postgresql.conf"), format!("# The settings are in {CONFIG}.\n"))?;
        fs::write(data.join("pg_hba.conf"), format!("# The rules are in {ACCESS}.\n"))?;
        fs::write(data.join("pg_ident.conf"), "")
    }

    fn links_when_ready(&self, data: &Path, settings: &[(String, String)]) -> Vec<(PathBuf, PathBuf)> {
        relcache::links(data, settings)
    }

    fn url(&self, root: &Path) -> Option<String> {
        let database = percent_encode(&self.database);
        // A container's path has nothing to encode; that of a cache may.
        let host = encode_path(&root.display().to_string());
        Some(format!("postgresql:///{database}?host={host}{SOCKETS}&user={SUPERUSER}"))
    }

    fn env(&self, root: &Path) -> Vec<(String, String)> {
        let host = format!("{}{SOCKETS}", root.display());
        let port = PORT.to_string();
        [
            ("PGHOST", host.as_str()),
            ("PGPORT", &port),
            ("PGUSER", SUPERUSER),
            ("PGDATABASE", &self.database),
            // Drivers that are not libpq may want TLS by default, which a Unix socket never has.
            ("PGSSLMODE", "disable"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    fn tcp(&self, request: &TcpRequest<'_>) -> Option<TcpAccess> {
        // A missing client is reported when the password is set.
        let client = files::own_client(request.installation).ok();
        let TcpRequest { address, password, root_certificate, .. } = *request;
        Some(tcp::access(&self.database, address, password, root_certificate, client))
    }

    fn tls(&self, mut server: Server, settings: &[(String, String)], files: &TlsFiles) -> Result<Server> {
        for name in ["ssl", "ssl_cert_file", "ssl_key_file"] {
            if setting(settings, name).is_some() {
                let step = format!("set the PostgreSQL setting `{name}`");
                return Err(Error::new(ErrorKind::InvalidConfig, step)
                    .caused_by("`tls` sets it, to the certificate of the sandbox")
                    .with_hint("leave out the setting, or `tls`"));
            }
        }
        let paths = [("ssl_cert_file=", &files.certificate), ("ssl_key_file=", &files.key)];
        server.command =
            paths.into_iter().fold(server.command.args(["-c", "ssl=on"]), |command, (name, path)| {
                command.arg("-c").prefixed_path_arg(name, path.clone())
            });
        for (path, contents) in &mut server.files {
            if *path == SandboxPath::new(ACCESS) {
                *contents = tcp::require_tls(&String::from_utf8_lossy(contents)).into_bytes();
            }
        }
        Ok(server)
    }

    fn is_client_variable(&self, name: &str) -> bool {
        // PostgreSQL documentation, "Environment Variables" of libpq.
        name.starts_with("PG")
    }
}

impl Scripts for Postgres {
    fn run_file(&self, installation: &Installation, run: &FileRun) -> Result<Command> {
        files::run_file(installation, &self.database, run)
    }

    fn failure(&self, exit: &ClientExit<'_>) -> Option<ScriptError> {
        (!exit.success).then(|| advice::unfinished(psql::script_error(exit.stderr)))
    }

    fn advice(&self, installation: &Installation, run: &FileRun, message: &str) -> Option<String> {
        advice::on_failure(run, message).or_else(|| extensions::advice(message, installation))
    }

    fn included_files(&self, contents: &str) -> Vec<String> {
        psql::included_files(contents)
    }

    fn is_archive(&self, path: &Path) -> bool {
        files::is_archive(path)
    }

    fn runs_csv(&self) -> bool {
        true
    }
}

impl Sql for Postgres {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn request(&self, text: &str) -> String {
        psql::request(text)
    }
}

/// Returns `true` if a setting asks for io_uring. By default none does, since calls in a ring pass
/// no filter.
fn uses_io_uring(settings: &[(String, String)]) -> bool {
    setting(settings, "io_method").is_some_and(|value| value.eq_ignore_ascii_case("io_uring"))
}

/// The number of processes that the settings allow: one for each connection, and those in the
/// background.
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

/// The sign of a server that answers: a start-up packet, and the authentication that succeeded
/// without a password (PostgreSQL documentation, "Message Formats").
fn answers() -> Ready {
    const PROTOCOL: u32 = 3 << 16;
    let parameters = format!("user\0{SUPERUSER}\0database\0postgres\0\0");
    let length = 8 + u32::try_from(parameters.len()).expect("the parameters are short");
    Ready::Answer {
        at: Endpoint::Unix(SandboxPath::new(SOCKETS).join(format!(".s.PGSQL.{PORT}"))),
        send: [&length.to_be_bytes()[..], &PROTOCOL.to_be_bytes()[..], parameters.as_bytes()].concat(),
        expect: b"R\0\0\0\x08\0\0\0\0".to_vec(),
        // Terminate, so that the backend does not log a client that vanished.
        end: b"X\0\0\0\x04".to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_decide_processes_and_io_uring() {
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
        let url = Postgres::new().database("a b/é").url(Path::new("/proc/7/root")).unwrap();
        assert_eq!(url, "postgresql:///a%20b%2F%C3%A9?host=/proc/7/root/run/postgresql&user=postgres");
    }
}
