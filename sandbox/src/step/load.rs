//! Running SQL in a sandbox by the engine's own client.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Run;
use crate::engine::{Engine, FileRun, ScriptError};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Command;
use crate::sandbox::Sandbox;

/// Runs files in their order in the sandbox, which shows them at their own paths; each in a client and a session of its
/// own, so that the outcome does not depend on which files are run together. `on_file` is told each one's index.
pub(crate) fn load<E: Engine>(
    sandbox: &Sandbox<E>,
    runs: &[Run],
    timeout: Duration,
    on_file: &mut dyn FnMut(usize),
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    for (index, file) in runs.iter().enumerate() {
        on_file(index);
        let path = &file.source.path;
        let mut description = FileRun::new(path);
        description.from_stdin = file.part.is_some();
        description.transaction = file.transaction;
        description.before.clone_from(&file.before);
        description.after.clone_from(&file.after);
        let command = sandbox.engine().run_file(sandbox.installation(), &description)?;
        if let Some(error) = run(sandbox, command, file.part.as_deref().unwrap_or_default(), deadline)? {
            let in_the_way =
                file.transaction && error.message.contains("cannot run inside a transaction block");
            return Err(worded(error, path).or_hint(|| {
                in_the_way.then(|| {
                    "`MigrationTool` tells how a migration is kept out of the tool's transaction".into()
                })
            }));
        }
    }
    Ok(())
}

/// Runs a script of the engine's own.
pub(crate) fn run_script<E: Engine>(sandbox: &Sandbox<E>, script: &str, timeout: Duration) -> Result<()> {
    let client = sandbox.engine().client(sandbox.installation())?;
    match run(sandbox, client, script, Instant::now() + timeout)? {
        None => Ok(()),
        Some(error) => {
            Err(Error::new(ErrorKind::Layer, format!("run `{}`", script.trim())).caused_by(error.message))
        }
    }
}

fn run<E: Engine>(
    sandbox: &Sandbox<E>,
    client: Command,
    script: &str,
    deadline: Instant,
) -> Result<Option<ScriptError>> {
    let left = deadline.saturating_duration_since(Instant::now());
    let run = sandbox.container().run(client, script.as_bytes(), left)?;
    Ok((!run.exit.success()).then(|| {
        let mut error = sandbox.engine().script_error(&run.stderr);
        if error.message.is_empty() {
            error.message = format!("the client ended with {}", run.exit);
        }
        error
    }))
}

/// File, line, statement and the server's message. `running` is the file that was run, if the client names none.
fn worded(error: ScriptError, running: &Path) -> Error {
    let (file, line) = match (error.file, error.line) {
        (Some(file), line) => (file, line),
        // With a line it is that of the part which the client read from its standard input. Without one the error came
        // before the file's beginning or after its end: in a tool's books, or in the statement that closes the session.
        (None, line) => (running.to_owned(), line),
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
