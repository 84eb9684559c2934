//! Files that clients run in a server, and the reports of failures.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Dialect, Installation};
use crate::error::Result;
use crate::launch::{Command, ProgramExit};

/// An engine with a client that runs files. It makes [seeds](crate::Snapshot::seed) possible.
pub trait Scripts: fmt::Debug + Send + Sync {
    /// Returns the command that runs a file to its end, or to its first error. The sandbox shows
    /// the file at its own path.
    ///
    /// The command must fail if the file leaves a transaction open, because its changes would be
    /// lost silently.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if the client is missing, or
    /// cannot run files of that format.
    fn run_file(&self, installation: &Installation, run: &FileRun) -> Result<Command>;

    /// Returns the failure of a file's client, with its place as far as the client reported it.
    /// `None` for a success. By default the client failed if its exit status is not 0, and its
    /// standard error is the message.
    fn failure(&self, exit: &ClientExit<'_>) -> Option<ScriptError> {
        (!exit.success)
            .then(|| ScriptError { message: exit.stderr.trim().to_owned(), ..ScriptError::default() })
    }

    /// Returns one sentence with the fix for a file that failed with this message, if the message
    /// shows a common cause. Default `None`.
    fn advice(&self, installation: &Installation, run: &FileRun, message: &str) -> Option<String> {
        let _ = (installation, run, message);
        None
    }

    /// Returns the paths of files that a file makes the client read, as written in it. `contents`
    /// are some whole lines of a file. By default there are none.
    fn included_files(&self, contents: &str) -> Vec<String> {
        let _ = contents;
        Vec::new()
    }

    /// Checks whether a file or directory outside a sandbox is an [archive](Format::Archive). By
    /// default none is.
    fn is_archive(&self, path: &Path) -> bool {
        let _ = path;
        false
    }

    /// Returns `true` if files of [rows](Format::Csv) can be run. By default they cannot.
    fn runs_csv(&self) -> bool {
        false
    }
}

/// An engine that speaks SQL. It makes [migrations](crate::Snapshot::migrations) possible.
pub trait Sql: Scripts {
    /// Returns the dialect.
    fn dialect(&self) -> Dialect;

    /// Returns a script that sends text to the server as one request, as drivers do: the client
    /// does not interpret it. Each line of the text keeps its number in the script, which runs
    /// as [requests](FileRun::requests).
    fn request(&self, text: &str) -> String;
}

/// The end of a client that ran a file.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ClientExit<'a> {
    /// `true` for an exit status of 0.
    pub success: bool,
    /// The end of its standard output.
    pub stdout: &'a str,
    /// The end of its standard error.
    pub stderr: &'a str,
}

impl<'a> From<&'a ProgramExit> for ClientExit<'a> {
    fn from(ProgramExit { exit, stdout, stderr }: &'a ProgramExit) -> Self {
        Self { success: exit.success(), stdout, stderr }
    }
}

/// The format of a file, which decides how the file is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Statements in the language that the client reads.
    #[default]
    Sql,
    /// Rows of a table: comma-separated values after a header, RFC 4180.
    Csv {
        /// The table, as the file is named: perhaps with its schema, as in `shop.users`.
        table: String,
        /// The columns that the header names.
        columns: Vec<String>,
    },
    /// A file or directory that the database's dump program made for its counterpart to restore.
    Archive,
}

/// A file, and how a client is to run it. This library makes it for
/// [`Scripts::run_file`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileRun {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// The client runs its standard input and not the file itself: the uncompressed contents, or a
    /// part of them at the same lines.
    pub from_stdin: bool,
    /// The standard input is a script of [requests](Sql::request), as a migration tool sends them.
    /// The client interprets nothing else in it.
    pub requests: bool,
    /// All of it is one transaction.
    pub transaction: bool,
    /// SQL to run first, in the same session; in the same transaction where the database can make
    /// tables in one and change settings in it. A second run after a failure repeats it.
    pub before: Option<String>,
    /// SQL to run last, in the same session and transaction.
    pub after: Option<String>,
}

impl FileRun {
    /// Runs the whole file of SQL and nothing else, without a transaction around it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: Format::Sql,
            from_stdin: false,
            requests: false,
            transaction: false,
            before: None,
            after: None,
        }
    }
}

/// Place and cause of a script's failure, as far as the client reported them.
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
