//! Ways of files into a SQLite database: scripts by sqlite3, rows, database files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::FILE;
use crate::engine::{Command, Dialect, FileRun, Format, Installation, ScriptError};

/// A file that leaves a transaction open.
pub(super) const IN_TRANSACTION: &str = "the file ends inside a transaction";

/// sqlite3, which ends at the first error and reads no configuration of the user.
pub(super) fn client(installation: &Installation) -> Command {
    Command::new(installation.program("sqlite3"))
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/")
        .env("TZ", "UTC")
        .args(["-batch", "-bail", "-init", "/dev/null"])
}

/// Each text is a separate command, so that the lines of a file are counted from its first.
pub(super) fn run_file(installation: &Installation, run: &FileRun) -> Command {
    let FileRun { path, format, from_stdin, transaction, before, after, requests: _ } = run;
    let path_of_file = if *from_stdin { "/dev/stdin".into() } else { path.to_string_lossy() };
    let file = quoted(&path_of_file);
    let body = match format {
        Format::Sql => vec![format!(".read {file}")],
        Format::Archive => vec![format!(".restore main {file}")],
        Format::Csv { table, columns } => load_rows(&file, table, columns),
    };
    // The text before the file may set `PRAGMA foreign_keys`, which does nothing in a transaction.
    // `BEGIN` fails in a transaction, which would be lost silently.
    let (begin, end) = match (format, transaction) {
        (Format::Archive, _) => (None, None),
        (_, true) => (Some("BEGIN"), Some("COMMIT")),
        (_, false) => (None, Some("BEGIN")),
    };
    let commands = before
        .clone()
        .into_iter()
        .chain(begin.map(str::to_owned))
        .chain(body)
        .chain(after.clone())
        .chain(end.map(str::to_owned));
    commands
        .fold(client(installation), |client, command| client.args(["-cmd", &command]))
        .path_arg(FILE)
        .arg("")
        .current_dir(path.parent().unwrap_or(path))
}

/// Copies rows by the names in the header: `.import` alone would go by their order, and takes an
/// empty field for an empty text.
fn load_rows(file: &str, table: &str, columns: &[String]) -> Vec<String> {
    let identifier = |name: &str| Dialect::Sqlite.identifier(name);
    let table = table.splitn(2, '.').map(identifier).collect::<Vec<_>>().join(".");
    let names: Vec<_> = columns.iter().map(|column| identifier(column)).collect();
    let values: Vec<_> = names.iter().map(|name| format!("nullif({name}, '')")).collect();
    vec![
        format!(".import --csv --schema temp {file} \"sandboxed-db rows\""),
        format!(
            "INSERT INTO {table} ({}) SELECT {} FROM temp.\"sandboxed-db rows\"",
            names.join(", "),
            values.join(", ")
        ),
        "DROP TABLE temp.\"sandboxed-db rows\"".to_owned(),
    ]
}

/// An argument of a command of sqlite3, which knows escapes as in C within double quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Keeps sqlite3 from taking a line for one of its commands: these begin with `.` or `#` in the
/// first column, outside a statement. Within quotes a space would change the data, and sqlite3 does
/// not look for commands there.
pub(super) fn request(text: &str) -> String {
    let mut script = String::new();
    let mut within = None;
    for line in text.split_inclusive('\n') {
        if within.is_none() && line.starts_with(['.', '#']) {
            script.push(' ');
        }
        script.push_str(line);
        within = quote_after(line, within);
    }
    script.trim_end().trim_end_matches(';').to_owned() + "\n;\n"
}

/// The quote or comment that is open after a line, by its last character.
fn quote_after(line: &str, mut within: Option<char>) -> Option<char> {
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let next = characters.peek().copied();
        match (within, character, next) {
            (Some('/'), '*', Some('/')) => {
                characters.next();
                within = None;
            }
            (Some(end), character, _) if end != '/' && character == end => within = None,
            (Some(_), ..) => {}
            (None, '-', Some('-')) => return None,
            (None, '/', Some('*')) => {
                characters.next();
                within = Some('/');
            }
            (None, '\'' | '"' | '`', _) => within = Some(character),
            (None, '[', _) => within = Some(']'),
            (None, ..) => {}
        }
    }
    within
}

/// Returns the files that a script makes sqlite3 read, by `.read` and `.import`.
pub(super) fn included_files(contents: &str) -> Vec<String> {
    let included = |line: &str| {
        let mut words = line.split_whitespace();
        let name = match words.next()? {
            ".read" => words.next()?,
            ".import" => words.rev().nth(1)?,
            _ => return None,
        };
        let is_program = name.trim_start_matches(['"', '\'']).starts_with('|');
        let name = name.trim_matches(['"', '\'']);
        (!is_program).then(|| name.to_owned())
    };
    contents.lines().filter_map(included).collect()
}

/// Parses sqlite3's report: `Parse error near line 3: MESSAGE`, with the text of the statement
/// below.
pub(super) fn script_error(stderr: &str) -> ScriptError {
    let report = stderr.trim();
    // Of the last statement, which only asks.
    if report.contains("cannot start a transaction within a transaction") && !report.contains("near line") {
        return ScriptError { message: IN_TRANSACTION.to_owned(), ..ScriptError::default() };
    }
    let located = report.split_once(" near line ").and_then(|(kind, rest)| {
        let (line, message) = rest.split_once(':')?;
        Some((kind, line.parse().ok()?, message.trim_start()))
    });
    match located {
        Some((kind, line, message)) => {
            let kind = kind.lines().last().unwrap_or_default();
            ScriptError { line: Some(line), message: format!("{kind}: {message}"), ..ScriptError::default() }
        }
        None => ScriptError { message: report.to_owned(), ..ScriptError::default() },
    }
}

/// Finds the warning of `.import` about a row with more or fewer fields than the header, which it
/// loads nevertheless: `FILE:3: expected 2 columns but found 1 - filling the rest with NULL`.
pub(super) fn row_error(stderr: &str) -> Option<ScriptError> {
    let report = stderr.lines().find(|line| line.contains(" columns but found "))?;
    let (place, message) = report.split_once(": ")?;
    let line = place.rsplit_once(':').and_then(|(_, line)| line.parse().ok());
    let message = message.split(" - ").next().unwrap_or(message).to_owned();
    Some(ScriptError { line, message, ..ScriptError::default() })
}

/// First bytes of a database file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

pub(super) fn is_database(path: &Path) -> bool {
    let mut bytes = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).is_ok() && bytes == *MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_holds_no_commands_of_the_client() {
        assert_eq!(request("select 1;\n.shell x\n"), "select 1;\n .shell x\n;\n");
        assert_eq!(request("select '\n.5' -- '\n"), "select '\n.5' -- '\n;\n");
        assert_eq!(request("/* it's\n.x */\n#y"), "/* it's\n.x */\n #y\n;\n");
        assert_eq!(request("select [a\n.b], \"c\n#d\";"), "select [a\n.b], \"c\n#d\"\n;\n");
    }

    #[test]
    fn a_report_names_its_line() {
        let error = script_error(
            "Parse error near line 3: near \"selec\": syntax error\n  selec 1;\n  ^--- error here\n",
        );
        assert_eq!(error.line, Some(3));
        assert!(error.message.starts_with("Parse error: near \"selec\": syntax error"), "{}", error.message);
        let open = "Error: cannot start a transaction within a transaction";
        assert_eq!(script_error(open).message, IN_TRANSACTION);
    }

    #[test]
    fn a_row_with_other_fields_than_the_header_is_an_error() {
        let error =
            row_error("/r.csv:3: expected 2 columns but found 1 - filling the rest with NULL\n").unwrap();
        assert_eq!((error.line, error.message.as_str()), (Some(3), "expected 2 columns but found 1"));
        assert_eq!(row_error("a notice\n"), None);
    }

    #[test]
    fn included_files_are_found() {
        let script = ".read a.sql\n.import --csv 'rows.csv' t\nselect '.read no';\n.read '|ls'\n";
        assert_eq!(included_files(script), ["a.sql", "rows.csv"]);
    }
}
