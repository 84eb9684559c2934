//! Files that clients run in a server, and the reports of failures.

use std::path::PathBuf;

/// Format of a file, which decides how it gets into a database.
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
/// [`Engine::run_file`](super::Engine::run_file).
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
    /// All of it is one transaction.
    pub transaction: bool,
    /// SQL to run first, in the same session and transaction.
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
