//! Runs steps on a server: files by the engine's client in the sandbox, programs and code outside
//! it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::source::unreadable;
use super::{FileStep, Language, Link, compressed};
use crate::diagnosis;
use crate::engine::{ClientExit, Dialect, Engine, FileRun, ScriptError, Scripts};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{Command, Stdin};
use crate::migration::Request;
use crate::sandbox::Sandbox;

/// Runs links in their order; each file in its own client and session, so that the outcome does not
/// depend on the files that run together. Calls `on_link` with the index of each.
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
            Link::File(file, language) => run_file(sandbox, file, *language, deadline)?,
            Link::Program(program) => program.run(sandbox, deadline)?,
            Link::Code(code) => code.run(sandbox, deadline)?,
            Link::Inputs(_) => {}
        }
    }
    Ok(())
}

fn run_file<E: Engine>(
    sandbox: &Sandbox<E>,
    file: &FileStep,
    language: Language<E>,
    deadline: Instant,
) -> Result<()> {
    let (path, scripts) = (&file.source.path, language.scripts(sandbox.engine()));
    let client = |run_as: &FileRun| scripts.run_file(sandbox.prepared().installation(), run_as);
    let mut run_as = FileRun::new(path);
    run_as.format.clone_from(&file.format);
    run_as.from_stdin = file.streamed || file.requests.is_some();
    run_as.requests = file.requests.is_some();
    run_as.transaction = file.transaction;
    run_as.before.clone_from(&file.before);
    run_as.after.clone_from(&file.after);
    let failure = match &file.requests {
        Some(requests) => run_requests(sandbox, requests, run_as.clone(), language, deadline)?,
        None if file.streamed => {
            let client = client(&run_as)?;
            let (feed, contents) = compressed::Feed::open(path).map_err(|error| unreadable(path, error))?;
            let failure = run(sandbox, scripts, client, Stdin::Descriptor(contents), deadline)?;
            if failure.is_none() {
                feed.end().map_err(|error| unreadable(path, error))?;
            }
            failure
        }
        None => run(sandbox, scripts, client(&run_as)?, Stdin::Text(""), deadline)?,
    };
    match failure {
        None => Ok(()),
        Some(error) => {
            let installation = sandbox.prepared().installation();
            let advice = scripts.advice(installation, &run_as, &error.message);
            Err(worded(error, path).or_hint(|| advice))
        }
    }
}

/// Sends requests as a migration tool does.
///
/// The server names no statement in a request that fails. So the statements run again one by one,
/// in a transaction, and if they fail likewise the client says where. In MySQL's dialect the
/// statements before may have changed the schema for good; there the message may show the place.
fn run_requests<E: Engine>(
    sandbox: &Sandbox<E>,
    requests: &[Request],
    mut run_as: FileRun,
    language: Language<E>,
    deadline: Instant,
) -> Result<Option<ScriptError>> {
    let (engine, installation) = (sandbox.engine(), sandbox.prepared().installation());
    let (scripts, sql) = (language.scripts(engine), language.sql(engine));
    let send = |run_as: &FileRun, script: &str| {
        run(sandbox, scripts, scripts.run_file(installation, run_as)?, Stdin::Text(script), deadline)
    };
    let script =
        at_their_lines(requests, |text| sql.map_or_else(|| text.to_owned(), |sql| sql.request(text)));
    let Some(mut error) = send(&run_as, &script)? else {
        return Ok(None);
    };
    if sql.is_some_and(|sql| sql.dialect() == Dialect::MySql) {
        error.line = line_of(&error, requests);
        return Ok(Some(error));
    }
    (run_as.transaction, run_as.requests, run_as.after) = (true, false, None);
    let one_by_one = send(&run_as, &at_their_lines(requests, |text| format!("{text};\n")))?;
    let message = |error: &ScriptError| error.message.lines().next().map(str::to_owned);
    Ok(Some(one_by_one.filter(|located| message(located) == message(&error)).unwrap_or(error)))
}

/// The line of an error of a request in MySQL's dialect: that of the text which the message quotes,
/// if it occurs once, or that of a request of one statement.
fn line_of(error: &ScriptError, requests: &[Request]) -> Option<u64> {
    let failed = |request: &&Request| {
        let lines = request.line as u64 + 1..=(request.line + request.text.lines().count()) as u64;
        error.line.is_some_and(|line| lines.contains(&line))
    };
    let Request { line, text } = requests.iter().find(failed)?;
    let quoted = error.message.split_once(" near '").and_then(|(_, rest)| rest.rsplit_once("' at line "));
    let quoted = quoted.map(|(quoted, _)| quoted).filter(|quoted| !quoted.is_empty());
    if let Some(quoted) = quoted
        && let [(at, _)] = text.match_indices(quoted).collect::<Vec<_>>()[..]
    {
        return Some((line + text[..at].matches('\n').count()) as u64 + 1);
    }
    let is_single = !text.trim_end().trim_end_matches(';').contains(';');
    error.line.filter(|_| is_single)
}

/// A script with each request at the line that it has in its file.
fn at_their_lines(requests: &[Request], script: impl Fn(&str) -> String) -> String {
    let mut lines = 0;
    let mut all = String::new();
    for Request { line, text } in requests {
        let script = "\n".repeat(line.saturating_sub(lines)) + &script(text);
        lines += script.matches('\n').count();
        all += &script;
    }
    all
}

fn run<E: Engine>(
    sandbox: &Sandbox<E>,
    scripts: &dyn Scripts,
    client: Command,
    stdin: Stdin<'_>,
    deadline: Instant,
) -> Result<Option<ScriptError>> {
    let left = deadline.saturating_duration_since(Instant::now());
    let run = sandbox.container().run(client, stdin, left).map_err(diagnosis::explain)?;
    Ok(scripts.failure(&ClientExit::from(&run)).map(|mut error| {
        if error.message.is_empty() {
            error.message = format!("the client ended with {}", run.exit);
        }
        error
    }))
}

/// File, line, statement and the server's message. `running` is the file that ran, where the client
/// names none.
fn worded(error: ScriptError, running: &Path) -> Error {
    // Without a line the error came from the bookkeeping, or from the statements that close the
    // session.
    let file = error.file.unwrap_or_else(|| running.to_owned());
    let place = match error.line {
        Some(line) => format!("{}:{line}", file.display()),
        None => file.display().to_string(),
    };
    let message = match error.statement {
        Some(statement) => format!("{}\nin the statement\n{}", error.message, shortened(&statement)),
        None => error.message,
    };
    Error::new(ErrorKind::InvalidConfig, format!("run `{place}`")).caused_by(message).at(&file, error.line)
}

/// The beginning of a statement, which may hold megabytes of data.
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

    #[test]
    fn a_message_shows_the_line_in_a_request() {
        let line = |message: &str, line, text: &str| {
            let requests = [Request { line: 4, text: text.to_owned() }];
            let error = ScriptError { line, message: message.to_owned(), ..ScriptError::default() };
            line_of(&error, &requests)
        };
        let text = "select 1;\nselect 2;\nselect x from\n from t;";
        let near = "ERROR 1064 (42000): You have an error near 'from t' at line 2";
        assert_eq!(line(near, Some(5), text), Some(8));
        assert_eq!(line("ERROR 1050 (42S01): Table 'a' already exists", Some(5), text), None);
        assert_eq!(line("ERROR 1054 (42S22): Unknown column", Some(6), "select\n x;\n"), Some(6));
        assert_eq!(line(near, Some(99), text), None, "an error of the bookkeeping");
    }

    #[test]
    fn requests_keep_their_lines() {
        let requests = [(1, "a\nb"), (5, "c")].map(|(line, text)| Request { line, text: text.to_owned() });
        assert_eq!(at_their_lines(&requests, |text| format!("<{text}>\n")), "\n<a\nb>\n\n\n<c>\n");
    }
}
