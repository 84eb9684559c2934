//! Ways of files into a Redis server: commands by redis-cli, and RDB files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::config::{DATA, SOCKET};
use super::missing_client;
use crate::engine::{Command, FileRun, Format, Installation, ScriptError};
use crate::error::{Error, ErrorKind, Result};

/// Runs a file's commands: `$1` is the socket, `$2` the file, `$3` the client.
///
/// redis-cli ends with success whatever the server answers, and prints errors among the answers. So
/// each command is followed by one that prints its line. The first error ends the client; a missing
/// last line means a client that ended early, or a transaction that stays open. A line whose quotes
/// do not match is not sent, and answered by `Invalid argument(s)` alone.
const RUN: &str = r#"
awk '
    /^[ \t]*(#|$)/ { next }
    { print; printf "ECHO \"sandboxed-db line %d.\"\n", NR }
    END { print "ECHO \"sandboxed-db end.\"" }
' "$2" | "$3" --no-raw -s "$1" | awk '
    error == "" && $0 == "Invalid argument(s)" {
        error = "its quotes do not match: each argument is in quotes as a whole, or has none at its ends"
    }
    error == "" && match($0, /^( *[0-9]+\) )*\(error\) /) { error = substr($0, RLENGTH + 1) }
    /"sandboxed-db line [0-9]+\."$/ && error != "" {
        line = $0; sub(/.* line /, "", line); sub(/\."$/, "", line)
        print "line " line ": " error >"/dev/stderr"
        failed = 1
        exit 1
    }
    /^"sandboxed-db end\."$/ { whole = 1 }
    END {
        if (failed) exit 1
        if (error != "") { print error >"/dev/stderr"; exit 1 }
        if (!whole) { print "the file ends inside a transaction, or its client ended early" >"/dev/stderr"; exit 1 }
    }
'
"#;

/// Loads an RDB file instead of all data: `$1` is the socket, `$2` the file, `$3` the client, `$4`
/// the data directory. `DEBUG` is refused where it is renamed.
const LOAD: &str = r#"
cat "$2" >"$4/dump.rdb" || exit 1
answer=$("$3" --no-raw -s "$1" DEBUG RELOAD NOSAVE) || exit 1
[ "$answer" = OK ] || { printf '%s\n' "$answer" >&2; exit 1; }
"#;

/// Sends the one command of the standard input, which may hold a password: `$1` is the socket, `$2`
/// the client.
const ASK: &str = r#"
answer=$("$2" --no-raw -s "$1") || exit 1
[ "$answer" = OK ] || { printf '%s\n' "$answer" >&2; exit 1; }
"#;

/// Returns a command that sends the one command of its standard input, and fails if the server does
/// not answer `OK`.
pub(super) fn ask(installation: &Installation) -> Result<Command> {
    Ok(shell(ASK).path_arg(SOCKET).arg(program(installation)?.to_string_lossy()))
}

fn shell(script: &str) -> Command {
    let command = Command::new("/bin/sh").env("PATH", "/usr/bin:/bin").env("HOME", "/").env("LC_ALL", "C");
    command.args(["-c", script, "sh"])
}

fn program(installation: &Installation) -> Result<PathBuf> {
    let names = ["redis-cli", "valkey-cli"];
    let name = names.into_iter().find(|name| installation.has(name)).ok_or_else(missing_client)?;
    Ok(installation.program(name))
}

pub(super) fn run_file(installation: &Installation, run: &FileRun) -> Result<Command> {
    let file = if run.from_stdin { "/dev/stdin".into() } else { run.path.to_string_lossy() };
    let script = match run.format {
        Format::Sql => RUN,
        Format::Archive => LOAD,
        Format::Csv { .. } => {
            return Err(Error::new(ErrorKind::InvalidConfig, "load rows into Redis")
                .with_hint("write them as commands, such as `HSET user:1 name ann`"));
        }
    };
    Ok(shell(script).path_arg(SOCKET).arg(file).arg(program(installation)?.to_string_lossy()).path_arg(DATA))
}

/// First bytes of an RDB file.
const MAGIC: &[u8] = b"REDIS";

pub(super) fn is_rdb(path: &Path) -> bool {
    let mut bytes = [0; 9];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    // The version follows, as four digits.
    read.is_ok() && bytes.starts_with(MAGIC) && bytes[5..].iter().all(u8::is_ascii_digit)
}

/// Parses the report of [`RUN`].
pub(super) fn script_error(stderr: &str) -> ScriptError {
    let mut error = ScriptError::default();
    let report = stderr.lines().find_map(|report| {
        let (line, message) = report.strip_prefix("line ")?.split_once(": ")?;
        Some((line.parse().ok()?, message))
    });
    match report {
        Some((line, message)) => (error.line, error.message) = (Some(line), message.to_owned()),
        None => stderr.trim().clone_into(&mut error.message),
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rdb_file_is_recognised_by_its_first_bytes() {
        let place = tempfile::tempdir().unwrap();
        let is = |contents: &[u8]| {
            let path = place.path().join("file");
            std::fs::write(&path, contents).unwrap();
            is_rdb(&path)
        };
        assert!(is(b"REDIS0011\xfa") && !is(b"REDIS is fast\n") && !is(b"SET a 1") && !is(b""));
    }

    #[test]
    fn a_report_names_line_and_message() {
        let error = script_error("line 12: WRONGTYPE Operation against a key\n");
        assert_eq!((error.line, error.message.as_str()), (Some(12), "WRONGTYPE Operation against a key"));
        assert_eq!(script_error("Could not connect\n").line, None);
    }
}
