//! PostgreSQL, versions 13 to 18.

use std::cell::OnceCell;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::installation::{Installation, in_path, major};
use super::{Engine, ScriptError, Server, packages, psql};
use crate::cache;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Command;
use crate::progress::Progress;

/// Names the directory of the server's programs, or asks for the distribution's packages.
const VARIABLE: &str = "SANDBOXED_DB_POSTGRES";
const PACKAGES: &str = "packages";
const SUPPORTED: std::ops::RangeInclusive<u32> = 13..=18;

const DATA: &str = "/var/lib/postgresql/data";
const SOCKETS: &str = "/run/postgresql";
const CONFIG: &str = "/etc/postgresql/postgresql.conf";
const SUPERUSER: &str = "postgres";
const LOCALE: &str = "C.UTF-8";

/// The settings a sandbox depends on.
const FIXED: [(&str, &str); 3] = [
    ("data_directory", DATA),
    ("unix_socket_directories", SOCKETS),
    ("port", "5432"),
];

/// Settings for a server that is started often, lives for one test and loses nothing of value when killed.
///
/// A setting of the same name given by the user takes their place. The third column is the first version that knows it.
const DEFAULTS: [(&str, &str, u32); 30] = [
    // The data dies with the test, so nothing need survive a crash of the machine.
    ("fsync", "off", 0),
    ("synchronous_commit", "off", 0),
    ("full_page_writes", "off", 0),
    ("wal_level", "minimal", 0),
    ("max_wal_senders", "0", 0),
    ("wal_recycle", "off", 0),
    ("min_wal_size", "2MB", 0),
    ("max_wal_size", "128MB", 0),
    ("checkpoint_timeout", "1h", 0),
    // Processes that a short test has no use for.
    ("autovacuum", "off", 0),
    ("max_logical_replication_workers", "0", 0),
    ("io_method", "sync", 18),
    // Small, since a thousand servers may run at once.
    ("shared_buffers", "16MB", 0),
    ("max_connections", "50", 0),
    ("huge_pages", "off", 0),
    // At its start a server probes how many files it may open, one by one.
    ("max_files_per_process", "64", 0),
    // Compiling a plan takes longer than most test queries.
    ("jit", "off", 0),
    // Reached by the Unix socket, which only the user can open.
    ("listen_addresses", "''", 0),
    ("unix_socket_permissions", "0700", 0),
    ("logging_collector", "off", 0),
    ("log_line_prefix", "'%m [%p] '", 0),
    // The same answers on every machine.
    ("timezone", "UTC", 0),
    ("log_timezone", "UTC", 0),
    ("datestyle", "'iso, mdy'", 0),
    ("lc_messages", "'C'", 0),
    ("lc_monetary", "'C'", 0),
    ("lc_numeric", "'C'", 0),
    ("lc_time", "'C'", 0),
    ("default_text_search_config", "'pg_catalog.english'", 0),
    ("dynamic_shared_memory_type", "posix", 0),
];

/// PostgreSQL, versions 13 to 18.
///
/// The server is that of the directory named by `SANDBOXED_DB_POSTGRES`, else of the first directory in `PATH` that
/// holds `postgres`, else the newest in the usual installation directories. Where there is none at all, or where
/// `SANDBOXED_DB_POSTGRES` is `packages`, a Debian or Ubuntu machine's own packages are downloaded and unpacked into the
/// cache directory, without root.
///
/// The superuser is `postgres`, without a password: only the user who runs the tests can reach the server. The encoding
/// is UTF-8, the locale `C.UTF-8`, the time zone UTC.
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

    /// Asks for a version, such as `15` or `15.18`. Default: the newest found.
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

    /// The installations of this machine that are worth a look, the preferred first.
    fn installed(&self) -> Result<Vec<Installation>> {
        let named = std::env::var_os(VARIABLE)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from);
        if let Some(directory) = named {
            if directory.as_os_str() == PACKAGES {
                return Ok(Vec::new());
            }
            let bin = if directory.join("postgres").exists() {
                directory
            } else {
                directory.join("bin")
            };
            let wrong = |error: Error| {
                error.with_hint(format!(
                    "set {VARIABLE} to the directory that holds `postgres`, `initdb` and `psql`"
                ))
            };
            return Ok(vec![Installation::inspect(&bin, "postgres").map_err(wrong)?]);
        }
        let mut usual = usual_directories();
        usual.sort_by_key(|bin| std::cmp::Reverse(version_in_path(bin)));
        let mut found = Vec::new();
        for bin in in_path("postgres").into_iter().chain(usual) {
            // Some distributions' PATH holds links; a broken installation must not hide a good one.
            let bin = fs::canonicalize(bin.join("postgres"))
                .ok()
                .and_then(|path| path.parent().map(Path::to_owned));
            match bin.map(|bin| Installation::inspect(&bin, "postgres")) {
                Some(Ok(installation)) => found.push(installation),
                Some(Err(error)) => tracing::warn!(?error, "passed over"),
                None => {}
            }
            // Without a version to look for, the first will do, and the others need not be run.
            if self.version.is_none() && found.last().is_some_and(|last| SUPPORTED.contains(&last.major())) {
                break;
            }
        }
        Ok(found)
    }

    fn wanted(&self, installation: &Installation) -> bool {
        let number = version_number(installation.version());
        self.version.as_deref().is_none_or(|wanted| {
            number
                .strip_prefix(wanted)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    }

    fn choose(&self, found: Vec<Installation>) -> Result<Installation> {
        let versions: Vec<_> = found
            .iter()
            .map(|found| version_number(found.version()).to_owned())
            .collect();
        let mut suitable = found.into_iter().filter(|found| self.wanted(found));
        match suitable.next() {
            Some(installation) if SUPPORTED.contains(&installation.major()) => Ok(installation),
            Some(installation) => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("use PostgreSQL {}", version_number(installation.version())),
            )
            .with_hint(format!(
                "versions {} to {} are supported",
                SUPPORTED.start(),
                SUPPORTED.end()
            ))),
            None => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("find PostgreSQL {}", self.version.as_deref().unwrap_or_default()),
            )
            .with_hint(format!(
                "found were: {}. Install that version, or set {VARIABLE} to the directory of its programs",
                versions.join(", ")
            ))),
        }
    }
}

impl Engine for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn locate(&self) -> Result<Installation> {
        let mut found = self.installed()?;
        if found.is_empty() {
            found.push(unpacked()?);
        }
        self.choose(found)
    }

    fn identity(&self) -> Vec<(String, String)> {
        let mut identity = vec![
            ("database".to_owned(), self.database.clone()),
            ("locale".to_owned(), self.locale.clone()),
        ];
        identity.extend(
            self.initdb_args
                .iter()
                .map(|arg| ("initdb".to_owned(), arg.clone())),
        );
        identity
    }

    fn data_dir(&self) -> PathBuf {
        DATA.into()
    }

    fn initialise(&self, installation: &Installation) -> Command {
        let command = with_environment(Command::new(installation.program("initdb")))
            .args([
                "--pgdata",
                DATA,
                "--username",
                SUPERUSER,
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
            ])
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
        command
            .args(["--locale", self.locale.as_str()])
            .args(self.initdb_args.iter().cloned())
    }

    fn set_up(&self) -> Option<String> {
        (self.database != SUPERUSER).then(|| {
            let name = self.database.replace('"', "\"\"");
            format!("CREATE DATABASE \"{name}\";\n")
        })
    }

    fn settle(&self) -> Option<String> {
        Some(format!(
            "{}VACUUM (FREEZE, ANALYZE);\n",
            psql::connect(&self.database)
        ))
    }

    fn server(&self, installation: &Installation, settings: &[(String, String)]) -> Result<Server> {
        let config = configuration(installation.major(), settings)?;
        let command = with_environment(Command::new(installation.program("postgres")))
            .args(["-D", DATA, "-c"])
            .arg(format!("config_file={CONFIG}"));
        Ok(Server::new(command, libc::SIGINT)
            .directory(SOCKETS, 0o700)
            .file(CONFIG, config)
            .notifies(installation.notifies()))
    }

    fn is_ready(&self, root: &Path) -> bool {
        let socket = root.join(SOCKETS.trim_start_matches('/')).join(".s.PGSQL.5432");
        UnixStream::connect(socket).is_ok_and(|mut stream| greet(&mut stream).unwrap_or(false))
    }

    fn client(&self, installation: &Installation) -> Result<Command> {
        let missing = || {
            Error::new(ErrorKind::InvalidConfig, format!("find `psql` in `{}`", installation.bin().display())).with_hint(
                "migrations and seeds are run by psql: install PostgreSQL's client programs next to the server's",
            )
        };
        let psql = match installation.has("psql") {
            true => installation.program("psql"),
            // A client of another version will do; it must be in a place that sandboxes see.
            false => usual_directories()
                .into_iter()
                .filter(|bin| bin.starts_with("/usr") && bin.join("psql").is_file())
                .max_by_key(|bin| version_in_path(bin))
                .map(|bin| bin.join("psql"))
                .ok_or_else(missing)?,
        };
        Ok(with_environment(Command::new(psql))
            .args([
                "--no-psqlrc",
                "--quiet",
                "--echo-errors",
                "--set",
                "ON_ERROR_STOP=on",
                "--pset",
                "pager=off",
            ])
            .args([
                "--host",
                SOCKETS,
                "--username",
                SUPERUSER,
                "--dbname",
                "postgres",
                "--file",
                "-",
            ]))
    }

    fn run_files(&self, files: &[&Path], marker: &str) -> String {
        format!(
            "{}{}",
            psql::connect(&self.database),
            psql::run_files(files, marker)
        )
    }

    fn included_files(&self, contents: &str) -> Vec<String> {
        psql::included_files(contents)
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
        for junk in [
            "postmaster.opts",
            "postmaster.pid",
            "pg_stat/pgstat.stat",
            "pg_stat/global.stat",
        ] {
            match fs::remove_file(data.join(junk)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        for file in children(&data.join("pg_stat")) {
            fs::remove_file(file)?;
        }
        // Read at every start; initdb's are long lists of comments.
        fs::write(
            data.join("postgresql.conf"),
            format!("# The settings are in {CONFIG}.\n"),
        )?;
        fs::write(
            data.join("pg_hba.conf"),
            "local all all trust\nlocal replication all trust\n",
        )?;
        fs::write(data.join("pg_ident.conf"), "")
    }

    fn url(&self, root: &Path) -> String {
        let database = percent_encode(&self.database);
        format!(
            "postgresql:///{database}?host={}{SOCKETS}&user={SUPERUSER}",
            root.display()
        )
    }
}

/// The distribution's packages, unpacked into the cache.
fn unpacked() -> Result<Installation> {
    let progress = OnceCell::new();
    let tree = packages::obtain(&cache::directory()?.join("packages"), &|step| {
        progress
            .get_or_init(|| Progress::start("getting PostgreSQL:"))
            .step(step);
    })?;
    let bins = children(&tree.join("usr/lib/postgresql"))
        .into_iter()
        .map(|version| version.join("bin"));
    let bin = bins.max_by_key(|bin| version_in_path(bin)).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidConfig,
            format!("find PostgreSQL in the packages at `{}`", tree.display()),
        )
        .with_hint(packages::install_hint())
    })?;
    let inside = Path::new("/").join(bin.strip_prefix(&tree).unwrap_or(&bin));
    Installation::inspect_unpacked(&tree, &inside, "postgres")
}

fn with_environment(command: Command) -> Command {
    command
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/tmp")
        .env("LANG", LOCALE)
        .env("TZ", "UTC")
        .env("PGDATA", DATA)
        .env("PGHOST", SOCKETS)
        .env("PGUSER", SUPERUSER)
}

/// The configuration file: defaults, the user's settings, and last what a sandbox depends on.
fn configuration(major: u32, settings: &[(String, String)]) -> Result<String> {
    let mut config = String::new();
    for (name, value, since) in DEFAULTS {
        if major >= since {
            config.push_str(&format!("{name} = {value}\n"));
        }
    }
    for (name, value) in settings {
        let wrong = |hint: String| {
            Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("set the PostgreSQL setting `{name}`"),
            )
            .with_hint(hint))
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$');
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(valid) {
            return wrong("a setting's name consists of letters, digits, `_` and `.`".into());
        }
        if FIXED.iter().any(|(fixed, _)| fixed.eq_ignore_ascii_case(name)) {
            return wrong("the sandbox is reached by it: it cannot be changed".into());
        }
        if value.contains(['\n', '\r', '\0']) {
            return wrong("a setting's value is one line".into());
        }
        config.push_str(&format!(
            "{name} = '{}'\n",
            value.replace('\\', "\\\\").replace('\'', "''")
        ));
    }
    for (name, value) in FIXED {
        config.push_str(&format!("{name} = '{value}'\n"));
    }
    Ok(config)
}

/// A start-up packet and the first byte of its answer: `R` begins an authentication, `E` an error such as "the database
/// system is starting up" (PostgreSQL documentation, "Message Formats").
fn greet(stream: &mut UnixStream) -> io::Result<bool> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    const PROTOCOL: u32 = 3 << 16;
    let parameters = format!("user\0{SUPERUSER}\0database\0postgres\0\0");
    let length = u32::try_from(8 + parameters.len()).map_err(io::Error::other)?;
    let packet = [
        &length.to_be_bytes()[..],
        &PROTOCOL.to_be_bytes()[..],
        parameters.as_bytes(),
    ]
    .concat();
    stream.write_all(&packet)?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    // Terminate, so that the backend does not log a client that vanished.
    let _ = stream.write_all(b"X\0\0\0\x04");
    Ok(answer == *b"R")
}

/// The directories into which packages and `make install` put the programs.
fn usual_directories() -> Vec<PathBuf> {
    let mut directories = Vec::new();
    // Debian, SUSE, Alpine, and Red Hat's and PostgreSQL's own packages.
    for parent in ["/usr/lib/postgresql", "/usr/lib", "/usr/libexec", "/usr"] {
        let named = |path: &PathBuf| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            parent.ends_with("postgresql") || name.starts_with("postgresql") || name.starts_with("pgsql-")
        };
        directories.extend(children(Path::new(parent)).into_iter().filter(named));
    }
    directories.extend(
        [
            "/usr/local/pgsql",
            "/usr/local",
            "/usr",
            "/opt/postgresql",
            "/opt/pgsql",
        ]
        .map(PathBuf::from),
    );
    directories
        .into_iter()
        .flat_map(|path| [path.join("bin"), path])
        .filter(|bin| bin.join("postgres").is_file())
        .collect()
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let mut children: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    children.sort();
    children
}

/// The version that a directory's name tells, such as 15 in `/usr/lib/postgresql/15/bin`.
fn version_in_path(bin: &Path) -> u32 {
    major(&bin.to_string_lossy())
}

/// `15.18` of `postgres (PostgreSQL) 15.18 (Debian …)`.
fn version_number(version: &str) -> &str {
    version
        .split_ascii_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap_or(version)
}

/// Everything that is not unreserved in a URL, RFC 3986.
fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_settings_come_after_the_defaults_and_before_the_fixed() {
        let settings = [
            ("fsync".to_owned(), "on".to_owned()),
            ("a.b".to_owned(), "it's".to_owned()),
        ];
        let config = configuration(15, &settings).unwrap();
        assert!(config.find("fsync = off").unwrap() < config.find("fsync = 'on'").unwrap());
        assert!(config.contains("a.b = 'it''s'\n"));
        assert!(!config.contains("io_method"));
        assert!(configuration(18, &[]).unwrap().contains("io_method = sync"));
    }

    #[test]
    fn settings_that_cannot_be_set_are_refused() {
        for (name, value) in [
            ("port", "1"),
            ("PORT", "1"),
            ("a b", "1"),
            ("", "1"),
            ("work_mem", "1\nfsync = on"),
        ] {
            let error = configuration(15, &[(name.to_owned(), value.to_owned())]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.hint().is_some(), "{error:?}");
        }
    }

    #[test]
    fn a_database_name_is_encoded_in_the_url() {
        let url = Postgres::new().database("a b/é").url(Path::new("/proc/7/root"));
        assert_eq!(
            url,
            "postgresql:///a%20b%2F%C3%A9?host=/proc/7/root/run/postgresql&user=postgres"
        );
    }

    #[test]
    fn a_version_is_matched_by_whole_numbers() {
        assert_eq!(
            version_number("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            "15.18"
        );
        assert_eq!(version_number("postgres (PostgreSQL) 18beta1"), "18beta1");
        assert_eq!(version_in_path(Path::new("/usr/lib/postgresql/15/bin")), 15);
    }
}
