//! Running SQL in a sandbox by the engine's own client.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Duration;

use super::SourceFile;
use crate::engine::{Engine, ScriptError};
use crate::error::{Error, ErrorKind, Result};
use crate::sandbox::Sandbox;

/// Runs files in their order in the sandbox, which sees them at their own paths. `on_file` is told each one's index.
pub(crate) fn load<E: Engine>(
    sandbox: &Sandbox<E>,
    files: &[SourceFile],
    timeout: Duration,
    on_file: &mut dyn FnMut(usize),
) -> Result<()> {
    let paths: Vec<&Path> = files.iter().map(|file| file.path.as_path()).collect();
    // What the files print shares the stream with the marker, so it must be one that they cannot print.
    let marker = format!("sandboxed-db-{:016x}", RandomState::new().hash_one(std::process::id()));
    let script = sandbox.engine().run_files(&paths, &marker);
    let mut current = 0;
    let run = run(sandbox, &script, timeout, &mut |line| {
        if let Some(index) = line.strip_prefix(&marker).and_then(|index| index.trim().parse().ok()) {
            current = index;
            on_file(index);
        }
    })?;
    match run {
        None => Ok(()),
        Some(error) => Err(worded(error, paths[current])),
    }
}

/// Runs a script of the engine's own.
pub(crate) fn run_script<E: Engine>(sandbox: &Sandbox<E>, script: &str, timeout: Duration) -> Result<()> {
    match run(sandbox, script, timeout, &mut |_| {})? {
        None => Ok(()),
        Some(error) => {
            Err(Error::new(ErrorKind::Layer, format!("run `{}`", script.trim())).caused_by(error.message))
        }
    }
}

fn run<E: Engine>(
    sandbox: &Sandbox<E>,
    script: &str,
    timeout: Duration,
    on_line: &mut dyn FnMut(&str),
) -> Result<Option<ScriptError>> {
    let client = sandbox.engine().client(sandbox.installation())?;
    let run = sandbox.container().run(client, script.as_bytes(), on_line, timeout)?;
    Ok((!run.exit.success()).then(|| {
        let mut error = sandbox.engine().script_error(&run.stderr);
        if error.message.is_empty() {
            error.message = format!("the client ended with {}", run.exit);
        }
        error
    }))
}

/// File, line, statement and the server's message. `running` is the file that was run, if the client named none.
fn worded(error: ScriptError, running: &Path) -> Error {
    let (file, line) = match (error.file, error.line) {
        (Some(file), line) => (file, line),
        // The error came after the file's end: in the statement that closes its session.
        (None, _) => (running.to_owned(), None),
    };
    let place = match line {
        Some(line) => format!("{}:{line}", file.display()),
        None => file.display().to_string(),
    };
    let left_open = error.message.contains("DISCARD ALL cannot run inside a transaction block");
    let message = match (error.statement, left_open) {
        (_, true) => "the file ends inside a transaction".to_owned(),
        (Some(statement), _) => format!("{}\nin the statement\n{}", error.message, shortened(&statement)),
        (None, _) => error.message,
    };
    let error = Error::new(ErrorKind::InvalidConfig, format!("run `{place}`")).caused_by(message);
    if left_open { error.with_hint("end it with `commit;`") } else { error }
}

/// A statement may hold megabytes of data; its beginning tells which it is.
fn shortened(statement: &str) -> String {
    const LINES: usize = 30;
    const WIDTH: usize = 200;
    let cut = |line: &str| match line.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    };
    let mut lines: Vec<_> = statement.lines().take(LINES).map(cut).collect();
    if statement.lines().count() > LINES {
        lines.push("…".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_file_line_statement_and_message() {
        let error = ScriptError {
            file: Some("/m/2.sql".into()),
            line: Some(5),
            message: "ERROR:  type \"x\" does not exist".into(),
            statement: Some("create table b (\n  y x\n);".into()),
        };
        let report = format!("{:?}", worded(error, Path::new("/m/1.sql")));
        for part in ["/m/2.sql:5", "type \"x\" does not exist", "create table b ("] {
            assert!(report.contains(part), "{report}");
        }
    }

    #[test]
    fn a_long_statement_is_cut() {
        let long = format!("insert {}\n{}", "é".repeat(1000), "row\n".repeat(100));
        let short = shortened(&long);
        assert_eq!(short.lines().count(), 31);
        assert!(short.lines().all(|line| line.chars().count() <= 201));
    }
}
