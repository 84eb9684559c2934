//! Advice on usual causes of a failed file that lie in how the file was made or how it runs.

use crate::engine::{FileRun, Format, ScriptError};

/// A file that leaves a transaction open.
const IN_TRANSACTION: &str = "the file ends inside a transaction";
const ELSEWHERE: &str = "the file ends in the database ";

/// Names the cause where a file leaves its session in a state that would be lost silently: the
/// statements that close the session fail then, and not one of the file.
pub(super) fn unfinished(error: ScriptError) -> ScriptError {
    let cause = |message: &str| {
        if message.contains("DISCARD ALL cannot run inside a transaction block") {
            return Some(IN_TRANSACTION.to_owned());
        }
        let (_, database) = message.lines().next()?.split_once(ELSEWHERE)?;
        let database = database.trim_end_matches('"');
        Some(format!("{ELSEWHERE}`{database}`, and the sandbox's URL leads to another"))
    };
    match cause(&error.message) {
        Some(message) => ScriptError { message, statement: None, ..error },
        None => error,
    }
}

/// One sentence that says what to do about a file that failed with this message.
pub(super) fn on_failure(file: &FileRun, message: &str) -> Option<String> {
    let all = |parts: &[&str]| parts.iter().all(|part| message.contains(part));
    let is_csv = matches!(file.format, Format::Csv { .. });
    let is_archive = file.format == Format::Archive;
    let advice = if message == IN_TRANSACTION {
        "end it with `commit;`"
    } else if message.starts_with(ELSEWHERE) {
        "remove `CREATE DATABASE` and `\\connect` from it, and name the database by `Postgres::database` \
         (`--database`); or end the file with a `\\connect` back"
    } else if all(&["cannot run inside a transaction block"]) {
        match (file.requests, file.transaction) {
            (_, true) => {
                "keep it out of the tool's transaction, as the tool's variant of `MigrationTool` describes"
            }
            (true, false) => {
                "the tool sends all of the file to the server as one request, which is one transaction: give the \
                 statement a separate file"
            }
            (false, false) => return None,
        }
    } else if all(&["role \"", "\" does not exist"]) {
        "create the role in an earlier step (`create role …;`), or dump with `--no-owner --no-privileges`"
    } else if all(&["role \"postgres\" already exists"]) {
        "dump one database by pg_dump instead of all by pg_dumpall, or remove `CREATE ROLE postgres` from the file"
    } else if all(&["schema \"public\" already exists"]) {
        "drop it in an earlier step (`drop schema public;`), or dump without `--schema=public`"
    } else if all(&["unrecognized configuration parameter \"transaction_timeout\""]) {
        "pg_dump 17 or newer wrote the file: choose that version by `Postgres::version` (`--version`), or remove the line"
    } else if all(&["invalid command \\restrict"]) {
        "a pg_dump newer than psql wrote the file: update PostgreSQL's client programs, or remove the lines `\\restrict` \
         and `\\unrestrict`"
    } else if is_archive && all(&["unsupported version", "in file header"]) {
        "a newer pg_dump made the archive: choose its version by `Postgres::version` (`--version`)"
    } else if file.after.is_none() && message.contains("_migrations\" does not exist") {
        "name the tool that makes the table: `Snapshot::migrations_of(MigrationTool::…, directory)` (`--tool`)"
    } else if is_csv && all(&["column \"", "\" of relation \"", "\" does not exist"]) {
        "the first line names the columns: rename it there, or add the column in an earlier step"
    } else if is_csv && all(&["relation \"", "\" does not exist"]) {
        "the file is named for its table, as in `schema.table.csv`: rename the file, or create the table in an earlier step"
    } else if all(&["relation \"", "\" does not exist"]) {
        "create it in an earlier step: steps run in the order written, migrations in the order of their numbers or names"
    } else if file.requests && message.contains("syntax error at or near \"\\\"") {
        "commands with a backslash are psql's, and the tool does not know them: move them to a seed, which psql runs"
    } else {
        return None;
    };
    Some(advice.to_owned())
}
