//! psql(1): its scripts, and the meaning of its reports.

use std::path::PathBuf;

use crate::engine::ScriptError;

/// Returns the script that a layer ends with; see
/// [`Engine::settle`](crate::engine::Engine::settle).
///
/// A table with an index whose function fails under the session's `search_path` ends VACUUM of the
/// whole database; then each table gets a VACUUM. Pages are marked all-visible only once the
/// commits that wrote them are known to be on disk, hence the checkpoint. The last connection sees
/// the final catalogues and leaves its relation cache file.
pub(super) fn settle(database: &str) -> String {
    const VACUUM: &str = "VACUUM (FREEZE, ANALYZE, SKIP_LOCKED)";
    let connect = connect(database);
    format!(
        "\\set ON_ERROR_STOP off
{connect}CHECKPOINT;
{VACUUM};
\\if :ERROR
SELECT format('{VACUUM} %s', oid::regclass) FROM pg_class WHERE relkind IN ('r', 'm', 'p') \\gexec
\\endif
{connect}"
    )
}

/// Changes to a database. psql takes the argument for an identifier, even in single quotes: it
/// drops double quotes, except a pair of them between two.
fn connect(database: &str) -> String {
    format!("\\connect -reuse-previous=on {}\n", quote(&conninfo(database).replace('"', "\"\"\"\"")))
}

/// A connection string, since psql would take a bare name that holds `=` for one.
pub(super) fn conninfo(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// An argument of a psql command: in single quotes, with C-like escapes.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Makes psql send text to the server as one request. Within dollar quotes psql interprets nothing,
/// and `\gexec` sends a value as it is.
pub(super) fn request(text: &str) -> String {
    let mut tag = "$request$".to_owned();
    while text.contains(&tag) {
        tag.insert(1, '_');
    }
    format!("SELECT {tag}{text}{tag} \\gexec\n")
}

/// Returns the files that a script makes psql read: by `\i`, `\ir` and their long names, and by
/// `\copy … from`.
///
/// Dumps are long, and most of their backslashes are data: the search goes from backslash to
/// backslash.
pub(super) fn included_files(contents: &str) -> Vec<String> {
    let begins_a_line = |at: &usize| {
        let before = contents[..*at].trim_end_matches([' ', '\t']);
        before.is_empty() || before.ends_with('\n')
    };
    memchr::memchr_iter(b'\\', contents.as_bytes())
        .filter(begins_a_line)
        .filter_map(|at| included_file(contents[at..].lines().next()?.trim_end()))
        .collect()
}

fn included_file(line: &str) -> Option<String> {
    let (command, rest) = line.strip_prefix('\\')?.split_once(char::is_whitespace)?;
    let rest = rest.trim().trim_end_matches(';').trim_end();
    match command {
        "i" | "include" | "ir" | "include_relative" => Some(unquote(rest)),
        "copy" => {
            let at = rest.to_ascii_lowercase().find(" from ")?;
            let source = rest[at + " from ".len()..].trim_start();
            let end = match source.strip_prefix('\'') {
                Some(quoted) => quoted.find('\'')? + 2,
                None => source.find(char::is_whitespace).unwrap_or(source.len()),
            };
            let source = &source[..end];
            (!matches!(source.to_ascii_lowercase().as_str(), "stdin" | "pstdin" | "program"))
                .then(|| unquote(source))
        }
        _ => None,
    }
}

fn unquote(text: &str) -> String {
    let inner = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    inner.map_or_else(|| text.to_owned(), |inner| inner.replace("\\'", "'").replace("\\\\", "\\"))
}

/// Parses psql's report of an error: `psql:FILE:LINE: ERROR:  …`, and with `--echo-errors` the
/// statement.
///
/// psql counts the line where the statement ends; the server's `LINE n:` counts from its beginning.
pub(super) fn script_error(stderr: &str) -> ScriptError {
    if let Some(error) = restore_error(stderr) {
        return error;
    }
    let mut error = ScriptError::default();
    let mut message = Vec::new();
    let mut statement: Option<Vec<&str>> = None;
    let mut end_line = None;
    for line in stderr.lines() {
        match parse_prefix(line) {
            Some((_, _, text)) if text.starts_with("STATEMENT:") && end_line.is_some() => {
                statement = Some(vec![text.trim_start_matches("STATEMENT:").trim_start()]);
            }
            Some((file, number, text)) if is_error(text) && end_line.is_none() => {
                error.file = (file != "<stdin>").then(|| PathBuf::from(file));
                end_line = Some(number);
                message = vec![text];
            }
            // Notices before the error; anything after its statement.
            Some(_) if statement.is_some() => break,
            Some(_) => {}
            None => match &mut statement {
                Some(statement) => statement.push(line),
                None if end_line.is_some() => message.push(line),
                None => {}
            },
        }
    }
    let lines = statement.as_ref().map_or(1, Vec::len) as u64;
    let within = message.iter().find_map(|line| line.strip_prefix("LINE ")?.split_once(':')?.0.parse().ok());
    error.line = end_line.map(|end| (end + 1).saturating_sub(lines) + within.unwrap_or(1) - 1);
    error.message = if message.is_empty() { stderr.trim().to_owned() } else { message.join("\n") };
    error.line = error.line.or_else(|| copied_line(&error.message));
    error.statement = statement.map(|lines| lines.join("\n"));
    error
}

/// The line of the data that COPY did not accept: `CONTEXT:  COPY users, line 3, column id: "x"`.
fn copied_line(message: &str) -> Option<u64> {
    let context = message.lines().find_map(|line| line.strip_prefix("CONTEXT:  COPY "))?;
    let (_, line) = context.split_once(", line ")?;
    line.split([',', ':']).next()?.parse().ok()
}

/// pg_restore's report: `pg_restore: error: MESSAGE`, and `Command was: STATEMENT`.
fn restore_error(stderr: &str) -> Option<ScriptError> {
    let (_, report) = stderr.split_once("pg_restore: error: ")?;
    let (message, statement) = match report.split_once("\nCommand was: ") {
        Some((message, statement)) => (message, Some(statement.trim().to_owned())),
        None => (report, None),
    };
    Some(ScriptError { message: message.trim().to_owned(), statement, ..ScriptError::default() })
}

fn is_error(text: &str) -> bool {
    ["ERROR:", "FATAL:", "PANIC:", "error:", "fatal:"].iter().any(|severity| text.starts_with(severity))
}

/// `psql:FILE:LINE: TEXT`. File names may hold colons, so the search for the number begins at the
/// first `: `.
fn parse_prefix(line: &str) -> Option<(&str, u64, &str)> {
    let rest = line.strip_prefix("psql:")?;
    rest.match_indices(": ").find_map(|(at, _)| {
        let (file, number) = rest[..at].rsplit_once(':')?;
        Some((file, number.parse().ok()?, &rest[at + 2..]))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_parse_error_names_its_line() {
        let error = script_error(
            "psql:/m/1.sql:1: NOTICE:  hello\n\
             psql:/m/2.sql:6: ERROR:  type \"nosuchtype\" does not exist\nLINE 3:   y nosuchtype\n            ^\n\
             psql:/m/2.sql:6: STATEMENT:  create table b (\n  x int,\n  y nosuchtype\n);\n",
        );
        assert_eq!(error.file.unwrap(), Path::new("/m/2.sql"));
        assert_eq!(error.line, Some(5));
        assert!(error.message.starts_with("ERROR:  type \"nosuchtype\""), "{}", error.message);
        assert_eq!(error.statement.unwrap().lines().count(), 4);
    }

    #[test]
    fn a_runtime_error_names_the_line_of_its_statement() {
        let error = script_error(
            "psql:/m/a: b/4.sql:5: ERROR:  division by zero\nCONTEXT:  SQL statement\n\
             psql:/m/a: b/4.sql:5: STATEMENT:  do $$\nbegin\n  perform 1/0;\nend\n$$;\n",
        );
        assert_eq!((error.file.unwrap().to_str().unwrap(), error.line), ("/m/a: b/4.sql", Some(1)));
        assert!(error.message.ends_with("CONTEXT:  SQL statement"));
    }

    #[test]
    fn a_failure_of_psql_itself_keeps_its_message() {
        let error = script_error("psql:/m/7.sql:1: error: invalid command \\foo\n");
        assert_eq!((error.line, error.message.as_str()), (Some(1), "error: invalid command \\foo"));
        let error = script_error("psql: error: connection to server failed\n");
        assert_eq!((error.file, error.line), (None, None));
        assert_eq!(error.message, "psql: error: connection to server failed");
    }

    #[test]
    fn a_row_that_copy_refuses_names_its_line() {
        let error = script_error(
            "ERROR:  invalid input syntax for type integer: \"x, line 9\"\nCONTEXT:  COPY users, line 3, column id: \"x, l\"\n",
        );
        assert_eq!((error.file, error.line), (None, Some(3)));
        assert!(error.message.starts_with("ERROR:  invalid input syntax"));
    }

    #[test]
    fn a_failure_of_pg_restore_is_parsed() {
        let error = script_error(
            "pg_restore: while PROCESSING TOC:\npg_restore: from TOC entry 2; 12 t a\npg_restore: error: could not \
             execute query: ERROR:  relation \"a\" already exists\nCommand was: CREATE TABLE a (\n    id integer\n);\n\n",
        );
        assert_eq!(error.message, "could not execute query: ERROR:  relation \"a\" already exists");
        assert_eq!(error.statement.unwrap(), "CREATE TABLE a (\n    id integer\n);");
    }

    #[test]
    fn included_files_are_found() {
        let script = "\\i a.sql\n  \\ir '../b c.sql'\n\\copy t(x, y) from 'it.csv' csv header\n\\copy t from stdin\n\
                      select '\\i no';\n\\include_relative d.sql;\n\\copy t FROM e.csv with csv\n\\echo x\n";
        assert_eq!(included_files(script), ["a.sql", "../b c.sql", "it.csv", "d.sql", "e.csv"]);
    }

    #[test]
    fn a_request_is_quoted_whatever_it_holds() {
        assert_eq!(request("a;\n\\d"), "SELECT $request$a;\n\\d$request$ \\gexec\n");
        assert_eq!(request("$request$"), "SELECT $_request$$request$$_request$ \\gexec\n");
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(connect("a\"b"), "\\connect -reuse-previous=on 'dbname=\\'a\"\"\"\"b\\''\n");
        assert_eq!(connect("it's"), "\\connect -reuse-previous=on 'dbname=\\'it\\\\\\'s\\''\n");
    }

    proptest! {
        /// A client prints text that a server sends, and a script may hold anything.
        #[test]
        fn parsers_survive_any_text(text in "(psql:|pg_restore: error: |STATEMENT:|LINE |:[0-9]{1,3}: |ERROR:|\\PC|\n|\\\\(copy|i|ir) |'| from ){0,40}") {
            let _ = (script_error(&text), included_files(&text));
        }

        #[test]
        fn a_quoted_file_name_is_found(name in "[a-zé数0-9 ._;:-]{1,20}") {
            prop_assume!(name.trim() == name);
            assert_eq!(included_files(&format!("\\ir '{name}'\n")), [name]);
        }
    }
}
