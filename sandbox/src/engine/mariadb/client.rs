//! The client program: how it runs files, and the meaning of its reports.

use std::path::{Path, PathBuf};

use super::accounts::SUPERUSER;
use super::config::{SOCKET, SOCKETS};
use super::rows;
use crate::engine::{ClientExit, Command, FileRun, Format, Installation, SandboxPath, ScriptError};
use crate::error::{Error, ErrorKind, Result};

const CLIENTS: [&str; 2] = ["mariadb", "mysql"];

/// Ends each request that the client sends as it is. The client looks for it outside of strings and
/// comments, and cuts what is longer than 15 bytes.
const END_OF_REQUEST: &str = "$$sandboxed$$";

/// Fails inside a transaction, which would be lost silently, and otherwise changes nothing.
const CHECK: &str = "SET TRANSACTION READ WRITE;";
const CHARACTERISTICS: &str =
    "Transaction characteristics can't be changed while a transaction is in progress";
const IN_TRANSACTION: &str = "the file ends inside a transaction";

/// Runs the client on a file by its standard input: `$1` is the file, `$2` a script before, `$3`
/// one after, the others are the client.
///
/// `source` would take a quote or a semicolon in the file's name for SQL. The client names the
/// descriptors of the other scripts in their errors.
const SOURCE: &str = r#"
file=$1 before=$2 after=$3; shift 3
exec "$@" <"$file" 3<<BEFORE 4<<AFTER
$before
BEFORE
$after
AFTER
"#;
const SOURCES: &str = "source /proc/self/fd/3\nsource /dev/stdin\nDELIMITER ;\nsource /proc/self/fd/4";

/// Runs the client on the requests of its standard input: `$1` is a script before, `$2` one after.
const REQUESTS: &str = r#"
before=$1 after=$2; shift 2
{ printf '%s\n' "$before"; cat; printf '\nDELIMITER ;\n%s\n' "$after"; } | "$@"
"#;

/// The lines of the script before [`REQUESTS`].
const LINES_BEFORE: u64 = 2;

/// Returns the value of `MYSQL_HOME`, the directory of options that clients read after the
/// machine's (MariaDB documentation, "Configuring MariaDB with Option Files"). Debian's name a
/// socket, which would win over `MYSQL_UNIX_PORT` and lead to the machine's own server.
pub(super) fn home(root: &Path) -> String {
    SandboxPath::new(SOCKETS).below(root).display().to_string()
}

/// Returns the file of these options. Without the database's name `mariadb` connects to no
/// database.
pub(super) fn files(database: &str, root: &Path) -> Vec<(SandboxPath, String)> {
    let socket = SandboxPath::new(SOCKET).below(root).display().to_string();
    let socket = socket.replace('\\', r"\\").replace('"', "\\\"");
    let options =
        format!("[client]\nsocket = \"{socket}\"\nuser = {SUPERUSER}\n[mysql]\ndatabase = {database}\n");
    vec![(SandboxPath::new(SOCKETS).join("my.cnf"), options)]
}

/// Returns the client for scripts of this library, which it reads from the standard input. It does
/// not repeat a statement that fails, which may hold a password.
pub(super) fn own(installation: &Installation) -> Result<Command> {
    let client = connected(environment(Command::new(program(installation)?)), installation);
    Ok(client.arg("--loose-print-query-on-error=0"))
}

pub(super) fn run_file(installation: &Installation, database: &str, run: &FileRun) -> Result<Command> {
    let FileRun { path, format, from_stdin, requests, transaction, before, after } = run;
    let client = program(installation)?.to_string_lossy().into_owned();
    let file = if *from_stdin { "/dev/stdin".into() } else { path.to_string_lossy() };
    let statement = |sql: &Option<String>| sql.as_ref().map(|sql| format!("{sql};")).unwrap_or_default();
    let (begin, check) = if *transaction { ("START TRANSACTION;", "") } else { ("", CHECK) };
    // A statement that makes a table commits.
    let before = format!("{}{begin}", statement(before).replace('\n', " "));
    // A file may have turned off automatic commits.
    let after = format!("{check}\n{}\nCOMMIT;", statement(after));
    let command = match format {
        Format::Archive => {
            return Err(Error::new(ErrorKind::InvalidConfig, format!("restore `{}`", path.display()))
                .with_hint("seed with a file of SQL, as mariadb-dump(1) writes it"));
        }
        Format::Csv { table, columns } => {
            let client = connected(shell(rows::LOAD).arg(file).arg(client), installation);
            client.args(["--local-infile=1", "--show-warnings", "--execute"]).arg(rows::load(table, columns))
        }
        Format::Sql if *requests => {
            let before = format!("{before}\nDELIMITER {END_OF_REQUEST}");
            let client = connected(shell(REQUESTS).args([before, after, client]), installation);
            client.args(["--comments", "--binary-mode"])
        }
        Format::Sql => {
            let client =
                connected(shell(SOURCE).args([file.into_owned(), before, after, client]), installation);
            client.args(["--comments", "--loose-abort-source-on-error", "--execute", SOURCES])
        }
    };
    Ok(command.args(["--database", database]).current_dir(path.parent().unwrap_or(path)))
}

pub(super) fn environment(command: Command) -> Command {
    command
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .path_env("HOME", "/tmp")
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
}

fn shell(script: &str) -> Command {
    environment(Command::new("/bin/sh")).args(["-c", script, "sh"])
}

fn program(installation: &Installation) -> Result<PathBuf> {
    let name = CLIENTS.into_iter().find(|name| installation.has(name)).ok_or_else(|| {
        Error::new(ErrorKind::InvalidConfig, "find the client `mariadb`")
            .with_hint("install the database's client programs: they run migrations and seeds")
    })?;
    Ok(installation.program(name))
}

/// Adds the arguments that all uses have in common. MySQL's client does not know those that are
/// loose elsewhere. From version 9 on it obeys `source` and `DELIMITER` only on request.
fn connected(client: Command, installation: &Installation) -> Command {
    let client = client
        .args(["--no-defaults", "--user=root", "--protocol=socket", "--default-character-set=utf8mb4"])
        .args(["--batch", "--skip-reconnect"]);
    let is_mysql = !installation.version().contains("MariaDB");
    let client = if is_mysql && installation.major() >= 9 { client.arg("--commands") } else { client };
    client.prefixed_path_arg("--socket=", SOCKET)
}

/// Says what to do about a file that failed with this message.
pub(super) fn advice(run: &FileRun, message: &str) -> Option<String> {
    let all = |parts: &[&str]| parts.iter().all(|part| message.contains(part));
    let is_csv = matches!(run.format, Format::Csv { .. });
    let advice = if message == IN_TRANSACTION {
        "end it with `COMMIT;`"
    } else if is_csv && all(&["Unknown column"]) {
        "the first line names the columns: rename it there, or add the column in an earlier step"
    } else if is_csv && all(&["Table '", "' doesn't exist"]) {
        "the file is named for its table, as in `database.table.csv`: rename the file, or create the table in an earlier step"
    } else if run.after.is_none() && message.contains("_migrations' doesn't exist") {
        "name the tool that makes the table: `Snapshot::migrations_of(MigrationTool::…, directory)` (`--tool`)"
    } else if all(&["Table '", "' doesn't exist"]) {
        "create it in an earlier step: steps run in the order written, migrations in the order of their numbers or names"
    } else if all(&["Unknown database '"]) {
        "name the database by `MariaDb::database` (`--database`), or create it in an earlier step"
    } else {
        return None;
    };
    Some(advice.to_owned())
}

/// Returns a script that sends text as it is.
pub(super) fn request(text: &str) -> String {
    // The end must not become part of a comment.
    let last = text.lines().next_back().unwrap_or_default();
    let separator = if last.contains("--") || last.contains('#') { "\n" } else { "" };
    format!("{text}{separator}{END_OF_REQUEST}\n")
}

/// Returns the files that a script makes the client read, by `source` and `\.`.
pub(super) fn included_files(contents: &str) -> Vec<String> {
    let included = |line: &str| {
        let line = line.trim_start();
        let rest = match line.get(..7) {
            Some(word) if word.eq_ignore_ascii_case("source ") => &line[7..],
            _ => line.strip_prefix("\\.")?,
        };
        let name = rest.trim().trim_end_matches(';').trim_end();
        (!name.is_empty()).then(|| name.to_owned())
    };
    contents.lines().filter_map(included).collect()
}

/// Returns the failure that the client reported. Errors of the client's commands, such as a missing
/// file, may leave the exit status 0.
pub(super) fn failure(exit: &ClientExit<'_>) -> Option<ScriptError> {
    let reported = exit.stderr.lines().any(|line| line.starts_with("ERROR"));
    (reported || !exit.success).then(|| script_error(exit.stderr))
}

/// Parses `ERROR 1064 (42000) at line 3 in file: 'a.sql': MESSAGE`, and the statement before it
/// between lines of dashes.
fn script_error(stderr: &str) -> ScriptError {
    let mut error = ScriptError { message: stderr.trim().to_owned(), ..ScriptError::default() };
    if stderr.contains(CHARACTERISTICS) {
        IN_TRANSACTION.clone_into(&mut error.message);
        return error;
    }
    let begin = if stderr.starts_with("ERROR") { Some(0) } else { stderr.find("\nERROR").map(|at| at + 1) };
    let Some(begin) = begin else { return error };
    error.statement = statement(&stderr[..begin]);
    let report = stderr[begin..].trim_end();
    let Some((head, number, rest)) = placed(report) else {
        report.clone_into(&mut error.message);
        return error;
    };
    let (file, line, message) = match rest.strip_prefix(" in file: '").and_then(|rest| rest.split_once("': "))
    {
        Some((file, message)) => (Some(file), Some(number), message),
        None => (None, number.checked_sub(LINES_BEFORE), rest.strip_prefix(": ").unwrap_or(rest)),
    };
    error.message = format!("{head}: {message}");
    if file.is_some_and(|file| file.starts_with("/proc/self/fd/")) {
        return error;
    }
    error.file = file.filter(|file| *file != "/dev/stdin").map(PathBuf::from);
    error.line = line.filter(|line| *line > 0).map(|line| line + within(message).saturating_sub(1));
    error
}

/// Splits a report before and after ` at line N`.
fn placed(report: &str) -> Option<(&str, u64, &str)> {
    let (head, rest) = report.split_once(" at line ")?;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    Some((head, rest[..digits].parse().ok()?, &rest[digits..]))
}

/// The line in its statement that a message of the server names, counted from one.
fn within(message: &str) -> u64 {
    let line = message.rsplit_once(" at line ").and_then(|(_, line)| line.parse().ok());
    line.unwrap_or(1)
}

/// The statement that the client repeats before its report.
fn statement(before: &str) -> Option<String> {
    const DASHES: &str = "--------------\n";
    let (_, statement) = before.trim_end().strip_suffix(DASHES.trim_end())?.rsplit_once(DASHES)?;
    Some(statement.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    const REPEATED: &str = "--------------\nselect\n 2,\n 3 from\n--------------\n\n";

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = script_error(&format!(
            "{REPEATED}ERROR 1064 (42000) at line 4 in file: '/m/a: b.sql': You have an error near '' at line 3\n"
        ));
        assert_eq!((error.file.as_deref(), error.line), (Some(Path::new("/m/a: b.sql")), Some(6)));
        assert_eq!(error.message, "ERROR 1064 (42000): You have an error near '' at line 3");
        assert_eq!(error.statement.unwrap(), "select\n 2,\n 3 from");
    }

    #[test]
    fn lines_of_requests_follow_the_script_before_them() {
        let error = script_error("ERROR 1050 (42S01) at line 5: Table 'a' already exists\n");
        assert_eq!((error.file, error.line, error.statement), (None, Some(3), None));
        let error = script_error("ERROR 1050 (42S01) at line 1: Table '_sqlx_migrations' already exists\n");
        assert_eq!(error.line, None);
        assert_eq!(error.message, "ERROR 1050 (42S01): Table '_sqlx_migrations' already exists");
    }

    #[test]
    fn scripts_of_this_library_have_no_line() {
        let error = script_error("ERROR 1568 (25001) at line 1 in file: '/proc/self/fd/4': Transaction …\n");
        assert_eq!(
            (error.file, error.line, error.message.as_str()),
            (None, None, "ERROR 1568 (25001): Transaction …")
        );
        let error = script_error("sh: 1: cannot open /m/1.sql: No such file\n");
        assert_eq!((error.line, error.message.as_str()), (None, "sh: 1: cannot open /m/1.sql: No such file"));
    }

    #[test]
    fn an_error_of_the_client_is_a_failure_whatever_its_status() {
        let exit = |success, stderr| ClientExit { success, stdout: "", stderr };
        let missing = "ERROR at line 2 in file: '/dev/stdin': Failed to open file 'x.sql', error: 2\n";
        let error = failure(&exit(true, missing)).unwrap();
        assert_eq!((error.file, error.line), (None, Some(2)));
        assert_eq!(error.message, "ERROR: Failed to open file 'x.sql', error: 2");
        assert!(failure(&exit(true, "WARNING: x\n")).is_none() && failure(&exit(false, "")).is_some());
    }

    #[test]
    fn included_files_are_found() {
        let script =
            "source a.sql\n  SOURCE b c.sql ;\n\\. d.sql\nselect 'source no.sql';\nsources\nsource\n";
        assert_eq!(included_files(script), ["a.sql", "b c.sql", "d.sql"]);
    }

    #[test]
    fn a_request_ends_outside_of_comments() {
        assert_eq!(request("select 1;"), "select 1;$$sandboxed$$\n");
        assert_eq!(request("select 1; -- a"), "select 1; -- a\n$$sandboxed$$\n");
    }

    proptest! {
        /// A client prints text that a server sends, and a script may hold anything.
        #[test]
        fn parsers_survive_any_text(text in "(ERROR| at line | in file: '|': |[0-9]{1,20}|--------------|source |\\PC|\n|\\\\.){0,40}") {
            let _ = (script_error(&text), included_files(&text));
        }
    }
}
