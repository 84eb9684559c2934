//! The file of the report, to which lines are appended.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::environment::REPORT;
use crate::error::Result;

/// Returns `true` if a report is written.
pub(super) fn is_wanted() -> bool {
    file().as_ref().is_ok_and(Option::is_some)
}

/// Opens the file that the environment names, if it names one.
pub(crate) fn check() -> Result<()> {
    file().as_ref().map(drop).map_err(Clone::clone)
}

/// Appends a line by one write, so that no other process's line gets into it.
pub(super) fn append(line: &[u8]) {
    let Ok(Some((file, path))) = file() else { return };
    let mut file: &File = file;
    match file.write(line) {
        Ok(written) if written == line.len() => {}
        Ok(_) => warn(path, "no room for a line"),
        Err(error) => warn(path, &error.to_string()),
    }
}

fn file() -> &'static Result<Option<(File, PathBuf)>> {
    static FILE: OnceLock<Result<Option<(File, PathBuf)>>> = OnceLock::new();
    FILE.get_or_init(|| {
        let Some(named) = REPORT.value() else { return Ok(None) };
        let path = from_shell(&named, env::var_os("PWD"));
        // A pipe may have no reader, which would not be waited for.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let opened = File::options().append(true).create(true).custom_flags(flags).open(&path);
        opened.map(|file| Some((file, path))).map_err(|error| REPORT.refused(&named).caused_by(error))
    })
}

/// Returns the path as the user's shell understands it: cargo starts test programs in other
/// directories.
fn from_shell(path: &OsStr, shell: Option<OsString>) -> PathBuf {
    let shell = shell.map(PathBuf::from).filter(|shell| shell.is_absolute());
    shell.unwrap_or_default().join(path)
}

fn warn(path: &Path, cause: &str) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if WARNED.swap(true, Ordering::Relaxed) {
        return;
    }
    tracing::warn!(path = %path.display(), cause, "no report can be written");
    // Written directly: libtest hides the output of macros for tests that pass.
    let text =
        format!("sandboxed-db: no report is written to `{}` ({}): {cause}\n", path.display(), REPORT.name);
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_starts_where_the_shell_is() {
        let path = |path: &str, shell: Option<&str>| from_shell(path.as_ref(), shell.map(Into::into));
        assert_eq!(path("run.jsonl", Some("/home/me")), Path::new("/home/me/run.jsonl"));
        assert_eq!(path("/tmp/run.jsonl", Some("/home/me")), Path::new("/tmp/run.jsonl"));
        assert_eq!(path("run.jsonl", Some("nonsense")), Path::new("run.jsonl"));
        assert_eq!(path("run.jsonl", None), Path::new("run.jsonl"));
    }
}
