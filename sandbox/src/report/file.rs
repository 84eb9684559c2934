//! The file that lines are appended to.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const VARIABLE: &str = "SANDBOXED_DB_REPORT";

/// Whether anybody wants a report.
pub(super) fn is_wanted() -> bool {
    file().is_some()
}

/// Appends a line by one write, which no other process's can come into.
pub(super) fn append(line: &[u8]) {
    let Some((mut file, path)) = file().as_ref().map(|(file, path)| (file, path)) else { return };
    match file.write(line) {
        Ok(written) if written == line.len() => {}
        Ok(_) => warn(path, "no room for a line"),
        Err(error) => warn(path, &error.to_string()),
    }
}

fn file() -> &'static Option<(File, PathBuf)> {
    static FILE: OnceLock<Option<(File, PathBuf)>> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = env::var_os(VARIABLE).filter(|path| !path.is_empty())?;
        let path = from_shell(path, env::var_os("PWD"));
        // The reader of a pipe, should it be one, is not waited for.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        match File::options().append(true).create(true).custom_flags(flags).open(&path) {
            Ok(file) => Some((file, path)),
            Err(error) => {
                warn(&path, &error.to_string());
                None
            }
        }
    })
}

/// The path as the user's shell understands it: cargo starts test programs elsewhere.
fn from_shell(path: OsString, shell: Option<OsString>) -> PathBuf {
    let shell = shell.map(PathBuf::from).filter(|shell| shell.is_absolute());
    shell.unwrap_or_default().join(Path::new(&path))
}

fn warn(path: &Path, cause: &str) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if WARNED.swap(true, Ordering::Relaxed) {
        return;
    }
    tracing::warn!(path = %path.display(), cause, "no report can be written");
    // Not by a macro, whose output libtest keeps from those whose tests pass.
    let text = format!("sandboxed-db: no report is written to `{}` ({VARIABLE}): {cause}\n", path.display());
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_starts_where_the_shell_is() {
        let path = |path: &str, shell: Option<&str>| from_shell(path.into(), shell.map(Into::into));
        assert_eq!(path("run.jsonl", Some("/home/me")), Path::new("/home/me/run.jsonl"));
        assert_eq!(path("/tmp/run.jsonl", Some("/home/me")), Path::new("/tmp/run.jsonl"));
        assert_eq!(path("run.jsonl", Some("nonsense")), Path::new("run.jsonl"));
        assert_eq!(path("run.jsonl", None), Path::new("run.jsonl"));
    }
}
