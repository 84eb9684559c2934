//! SQLite: a database file of each sandbox, without a server.

mod files;

use std::path::Path;

use crate::engine::{
    ClientExit, Command, Dialect, Engine, FileRun, Image, Installation, Mode, Programs, Ready, SandboxPath,
    ScriptError, Scripts, Server, Signal, Sql,
};
use crate::error::{Error, ErrorKind, Result};

const DATA: &str = "/data";
const FILE: &str = "/data/database.sqlite";
/// The memory of the program that holds the place of a server, measured as the proportional set
/// size with its init.
const IDLE_MEMORY: u64 = 1_000_000;

/// SQLite: each sandbox has a copy of one database file.
///
/// This engine is for suites that run against several databases. There is no server: the test's own
/// library opens the file, by the [URL](crate::Sandbox::url) `sqlite:///PATH` or by its
/// [path](Self::file). The command-line program `sqlite3` runs migrations and seeds; it is found in
/// `PATH` or in the usual directories.
///
/// A sandbox is a private directory of the host, in the cache, whatever `SANDBOXED_DB_ISOLATION`
/// says: SQLite resolves symbolic links in a path, and so opens no file in another root. The
/// directory is removed with the sandbox, and at the next start if the test was killed with all its
/// processes. The file is a reflink where the file system has them.
///
/// # Data
/// A [seed](crate::Snapshot::seed) is a script for `sqlite3`, rows of a table as CSV, or a database
/// file, whatever its name, which replaces all data. A script that leaves a transaction open is
/// refused. An empty field of CSV is `NULL`, quoted or not.
///
/// # Limits
/// The engine has no settings, because those of SQLite belong to a connection. It has no
/// [port](crate::Sandbox::tcp), and the limit [`disk`](crate::Snapshot::disk) does not apply.
///
/// # Example
/// ```no_run
/// use sandboxed_db::{Snapshot, Sqlite};
/// # fn main() -> sandboxed_db::Result<()> {
/// let db = Snapshot::new(Sqlite::new()).migrations("migrations").start()?;
/// assert!(db.url().starts_with("sqlite:///"));
/// assert!(Sqlite::file().below(&db.root()).is_file());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sqlite {}

impl Sqlite {
    /// Uses the installed `sqlite3`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the path of the database file below a sandbox's [root](crate::Sandbox::root).
    #[must_use]
    pub fn file() -> SandboxPath {
        FILE.into()
    }
}

impl Engine for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn locate(&self) -> Result<Installation> {
        programs().find(None)
    }

    fn locate_in(&self, image: &Image) -> Result<Installation> {
        programs().find_in(image, None)
    }

    fn is_opened_by_path(&self) -> bool {
        true
    }

    fn data_dir(&self) -> SandboxPath {
        DATA.into()
    }

    fn initialise(&self, installation: &Installation) -> Option<Command> {
        // Without a table the file would stay empty, which some libraries take for none.
        Some(files::client(installation).path_arg(FILE).arg("VACUUM"))
    }

    fn server(
        &self,
        installation: &Installation,
        settings: &[(String, String)],
        _mode: Mode,
    ) -> Result<Server> {
        if let Some((name, _)) = settings.first() {
            return Err(Error::new(ErrorKind::InvalidConfig, format!("set `{name}` for `sqlite`"))
                .caused_by("SQLite's settings are those of each connection")
                .with_hint("leave the setting out, and run `PRAGMA` statements in the test's connection"));
        }
        // The directory lives as long as this process.
        let holder = Command::new(installation.program("sleep")).arg("infinity");
        let ready = Ready::Command(Command::new("/usr/bin/test").arg("-s").path_arg(FILE));
        Ok(Server::new(holder, Signal::Terminate, ready)
            .clean_signal(Signal::Terminate)
            .idle_memory(IDLE_MEMORY))
    }

    fn url(&self, root: &Path) -> Option<String> {
        Some(format!("sqlite://{}", Self::file().below(root).display()))
    }
}

impl Scripts for Sqlite {
    fn run_file(&self, installation: &Installation, run: &FileRun) -> Result<Command> {
        Ok(files::run_file(installation, run))
    }

    fn failure(&self, exit: &ClientExit<'_>) -> Option<ScriptError> {
        match exit.success {
            true => files::row_error(exit.stderr),
            false => Some(files::script_error(exit.stderr)),
        }
    }

    fn advice(&self, _: &Installation, _: &FileRun, message: &str) -> Option<String> {
        (message == files::IN_TRANSACTION).then(|| "end it with `COMMIT;`".to_owned())
    }

    fn included_files(&self, contents: &str) -> Vec<String> {
        files::included_files(contents)
    }

    fn is_archive(&self, path: &Path) -> bool {
        files::is_database(path)
    }

    fn runs_csv(&self) -> bool {
        true
    }
}

impl Sql for Sqlite {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn request(&self, text: &str) -> String {
        files::request(text)
    }
}

fn programs() -> Programs {
    Programs::new("sqlite3").client("sleep").package("sqlite3").installed_only()
}
