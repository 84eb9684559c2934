//! The error of the library and its wording.
//!
//! Users of a test tool read errors far more often than they match on them. An error therefore
//! carries the failed step, its object, the cause, the fix and the end of the server's log. `Debug`
//! prints all of it, because libtest prints the `Debug` of a test that returns `Err`.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fix::Fix;
use crate::machine::rlimit::{self, Resource};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of a failure, for callers that decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// This machine refuses something that a sandbox needs; the hint names the switch.
    HostUnsupported,
    /// The description or an environment variable is wrong: a missing file, a bad setting.
    InvalidConfig,
    /// The server is not installed, or not in the requested version.
    NotInstalled,
    /// The cache directory could not be read or written.
    Cache,
    /// A layer could not be built.
    Layer,
    /// A sandbox could not be launched, and the machine's configuration is not known to be the
    /// cause.
    Launch,
    /// A deadline passed before the server was ready, a program or code had finished, or a slot was
    /// free.
    Timeout,
    /// The server ended without a request, or its end was not clean.
    Exited,
    /// An operation on a running sandbox failed: a request to it, reading its log, opening a TCP
    /// port, ending it.
    Control,
}

/// The error of every fallible function of this library.
///
/// `Display` is one line. `Debug` is the full report on several lines: the chain of causes, a hint
/// that says what to do, and the end of the server's log if the server wrote one.
#[derive(Clone)]
pub struct Error(Arc<Repr>);

#[derive(Clone)]
struct Repr {
    kind: ErrorKind,
    step: String,
    hint: Option<String>,
    fix: Option<Fix>,
    log: Option<String>,
    /// The file at fault, and the line in it.
    place: Option<(PathBuf, Option<u64>)>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Returns an error of `kind`. `step` is the failed operation and its object: a verb phrase in
    /// lower case, without a full stop.
    ///
    /// # Example
    /// ```
    /// use sandboxed_db::{Error, ErrorKind};
    /// let error = Error::new(ErrorKind::NotInstalled, "find `valkey-server`")
    ///     .caused_by("no directory of PATH holds it")
    ///     .with_hint("install Valkey");
    /// assert_eq!(error.to_string(), "find `valkey-server`");
    /// assert_eq!(error.hint(), Some("install Valkey"));
    /// ```
    pub fn new(kind: ErrorKind, step: impl Into<String>) -> Self {
        let step = step.into();
        Self(Arc::new(Repr { kind, step, hint: None, fix: None, log: None, place: None, source: None }))
    }

    /// Returns the error of a failed file operation: `verb` and the path.
    pub(crate) fn io(kind: ErrorKind, verb: &str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::new(kind, format!("{verb} `{}`", path.display())).caused_by(source.into()).at(path, None)
    }

    /// Names the file at fault, and the line in it.
    pub(crate) fn at(mut self, file: &Path, line: Option<u64>) -> Self {
        Arc::make_mut(&mut self.0).place = Some((file.to_owned(), line));
        self
    }

    /// Adds the cause: an error, or text.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        let errno = source.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if matches!(errno, Some(libc::EMFILE | libc::ENFILE)) && self.0.hint.is_none() {
            self = self.with_fix(match errno {
                Some(libc::ENFILE) => Fix::too_many_files_on_machine(),
                _ => rlimit::too_many_files(Resource::OpenFiles.own()),
            });
        }
        Arc::make_mut(&mut self.0).source = Some(Arc::from(source));
        self
    }

    /// Adds a hint: one sentence that says what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).hint = Some(hint.into());
        self
    }

    /// Sets the hint to the fix.
    pub(crate) fn with_fix(mut self, fix: Fix) -> Self {
        let repr = Arc::make_mut(&mut self.0);
        repr.hint = Some(fix.to_string());
        repr.fix = Some(fix);
        self
    }

    /// Returns the fix in its parts.
    pub(crate) fn fix(&self) -> Option<&Fix> {
        self.0.fix.as_ref()
    }

    /// Sets the hint to the fix if the error has no hint.
    pub(crate) fn or_fix(self, fix: impl FnOnce() -> Option<Fix>) -> Self {
        match self.0.hint {
            Some(_) => self,
            None => match fix() {
                Some(fix) => self.with_fix(fix),
                None => self,
            },
        }
    }

    /// Adds a hint if the error has none.
    pub(crate) fn or_hint(mut self, hint: impl FnOnce() -> Option<String>) -> Self {
        if self.0.hint.is_none() {
            Arc::make_mut(&mut self.0).hint = hint();
        }
        self
    }

    pub(crate) fn with_log(mut self, log: impl Into<String>) -> Self {
        let log = log.into();
        Arc::make_mut(&mut self.0).log = (!log.trim().is_empty()).then_some(log);
        self
    }

    /// Returns the kind of the failure, for callers that decide by it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the failed step and its object, such as ``start the server `postgres` ``.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.0.step
    }

    /// Returns the hint: the known cause and its fix in one sentence; `None` if the library does
    /// not know them.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the one command or setting that fixes the cause, if there is one. The
    /// [hint](Self::hint) contains it too, with instructions. No command changes files or
    /// directories outside the library's cache.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        self.0.fix.as_ref().map(|fix| fix.command.as_str()).filter(|command| !command.is_empty())
    }

    /// Returns the file at fault: one that cannot be read, or one that the database refuses.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.0.place.as_ref().map(|(file, _)| file.as_path())
    }

    /// Returns the line at fault in [`file`](Self::file), counted from one, if it is known.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        self.0.place.as_ref()?.1
    }

    /// Returns the end of the server's log, if the server wrote one.
    #[must_use]
    pub fn log(&self) -> Option<&str> {
        self.0.log.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.step)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}", self.0.step)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  cause: {}", Indented(&sentence(error), "         "))?;
            cause = error.source();
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "\n  hint: {}", Indented(hint, "        "))?;
        }
        if let Some(log) = &self.0.log {
            write!(f, "\n  server log, its end:\n    | {}", Indented(log.trim_end(), "    | "))?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Returns the text of a cause. An error of this library displays its operation alone.
fn sentence(cause: &(dyn StdError + 'static)) -> String {
    match cause.downcast_ref::<Error>() {
        Some(error) => format!("could not {error}"),
        None => cause.to_string(),
    }
}

/// Text whose lines after the first start with a margin.
struct Indented<'a>(&'a str, &'a str);

impl fmt::Display for Indented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.0.lines().enumerate() {
            if index > 0 {
                write!(f, "\n{}", self.1)?;
            }
            f.write_str(line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_the_whole_report() {
        let error = Error::new(ErrorKind::Launch, "mount the overlay at `/data`")
            .caused_by(io::Error::from_raw_os_error(libc::EPERM))
            .with_hint("one\ntwo")
            .with_log("LOG:  a\nLOG:  b\n");
        assert_eq!(
            format!("{error:?}"),
            "could not mount the overlay at `/data`\n  cause: Operation not permitted (os error 1)\n  hint: one\n        two\
             \n  server log, its end:\n    | LOG:  a\n    | LOG:  b"
        );
        assert_eq!(error.to_string(), "mount the overlay at `/data`");
    }

    #[test]
    fn debug_lists_all_causes() {
        let inner =
            Error::new(ErrorKind::Layer, "copy `a`").caused_by(io::Error::from_raw_os_error(libc::ENOSPC));
        let outer = Error::new(ErrorKind::Layer, "build layer `b`").caused_by(inner);
        let report = format!("{outer:?}");
        assert!(report.contains("cause: could not copy `a`\n  cause: No space left on device"), "{report}");
    }
}
