//! Doing what steps say to a server: files by the engine's own client, in its sandbox; the rest from outside.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::source::unreadable;
use super::{FileStep, Link, compressed};
use crate::engine::{Engine, FileRun, Format, ScriptError};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{Command, Stdin};
use crate::sandbox::Sandbox;

/// Does what the links say, in their order; each file in a client and a session of its own, so that the outcome does not
/// depend on which are run together. `on_link` is told each one's index.
pub(crate) fn load<E: Engine>(
    sandbox: &Arc<Sandbox<E>>,
    links: &[Link<E>],
    timeout: Duration,
    on_link: &mut dyn FnMut(usize),
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    for (index, link) in links.iter().enumerate() {
        on_link(index);
        match link {
            Link::File(file) => run_file(sandbox, file, deadline)?,
            Link::Program(program) => program.run(sandbox, deadline)?,
            Link::Code(code) => code.run(sandbox, deadline)?,
            Link::Inputs(_) => {}
        }
    }
    Ok(())
}

fn run_file<E: Engine>(sandbox: &Sandbox<E>, file: &FileStep, deadline: Instant) -> Result<()> {
    let path = &file.source.path;
    let mut description = FileRun::new(path);
    description.format.clone_from(&file.format);
    description.from_stdin = file.streamed || file.part.is_some();
    description.transaction = file.transaction;
    description.before.clone_from(&file.before);
    description.after.clone_from(&file.after);
    let command = sandbox.engine().run_file(sandbox.prepared().installation(), &description)?;
    let outcome = match &file.part {
        None if file.streamed => {
            let (feed, contents) = compressed::Feed::open(path).map_err(|error| unreadable(path, error))?;
            let outcome = run(sandbox, command, Stdin::Descriptor(contents), deadline);
            if matches!(outcome, Ok(None)) {
                feed.end().map_err(|error| unreadable(path, error))?;
            }
            outcome
        }
        part => run(sandbox, command, Stdin::Text(part.as_deref().unwrap_or_default()), deadline),
    };
    let Some(error) = outcome? else {
        return Ok(());
    };
    let message = error.message.clone();
    Err(worded(error, path).or_hint(|| hint(file, &message)))
}

/// What to do about usual causes that lie in how the file is run.
fn hint(file: &FileStep, message: &str) -> Option<String> {
    let hint = if file.transaction && message.contains("cannot run inside a transaction block") {
        "`MigrationTool` tells how a migration is kept out of the tool's transaction"
    } else if file.format == Format::Archive && message.contains("role \"") {
        "a step before it can make the role, or dump with `--no-owner --no-privileges`"
    } else if file.after.is_none() && message.contains("_migrations\" does not exist") {
        "name the tool that makes the table: `Snapshot::migrations_of(MigrationTool::…, directory)`"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

/// Runs a script of the engine's own.
pub(crate) fn run_script<E: Engine>(sandbox: &Sandbox<E>, script: &str, timeout: Duration) -> Result<()> {
    let client = sandbox.engine().client(sandbox.prepared().installation())?;
    match run(sandbox, client, Stdin::Text(script), Instant::now() + timeout)? {
        None => Ok(()),
        Some(error) => {
            Err(Error::new(ErrorKind::Layer, format!("run `{}`", script.trim())).caused_by(error.message))
        }
    }
}

fn run<E: Engine>(
    sandbox: &Sandbox<E>,
    client: Command,
    stdin: Stdin<'_>,
    deadline: Instant,
) -> Result<Option<ScriptError>> {
    let left = deadline.saturating_duration_since(Instant::now());
    let run = sandbox.container().run(client, stdin, left)?;
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
