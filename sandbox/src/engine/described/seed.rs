//! Seeds by the client that a description names.

use super::Described;
use super::description::Seed;
use super::server::{Inside, command_env};
use crate::engine::{ClientExit, Command, Engine, FileRun, Format, Installation, ScriptError, Scripts};
use crate::error::{Error, ErrorKind, Result};

/// Runs a client on a file: `$1` is the file, or empty where it is the standard input already, `$2`
/// and `$3` the texts around it, `$4` what the last line of the output begins with, `$5` the
/// beginnings of lines that report a failure; the client follows.
///
/// All output is looked through here, since a client may print more than is kept.
const RUN: &str = r#"
if [ -n "$1" ]; then exec <"$1" || exit 1; fi
before=$2 after=$3 expect=$4 failures=$5
shift 5
{
    { printf %s "$before"; cat; printf %s "$after"; } | "$@"
    printf '\nsandboxed-db status %d\n' $?
} | EXPECT=$expect FAILURES=$failures awk '
    BEGIN { count = split(ENVIRON["FAILURES"], failures, "\n") }
    /^sandboxed-db status [0-9]+$/ { status = $3; next }
    { print }
    /[^ \t\r]/ { last = $0 }
    failed == "" { for (i = 1; i <= count; i++) if (index($0, failures[i]) == 1) failed = $0 }
    END {
        if (failed != "") { print failed >"/dev/stderr"; exit 1 }
        if (status != 0) exit status
        if (index(last, ENVIRON["EXPECT"]) != 1) {
            print "the output does not end with `" ENVIRON["EXPECT"] "`: the file ends inside a statement or a " \
                "transaction, or its client ended early" >"/dev/stderr"
            exit 1
        }
    }
'
"#;

impl Scripts for Described {
    fn run_file(&self, installation: &Installation, run: &FileRun) -> Result<Command> {
        let refused = || Error::new(ErrorKind::InvalidConfig, format!("load a seed into `{}`", self.name()));
        let Some(seed) = &self.description.seed else {
            return Err(refused().caused_by("its description has no client").with_hint(
                "name the client that runs files in `[seed]`, or prepare data by `run` (`--prepare`)",
            ));
        };
        if run.format != Format::Sql {
            return Err(refused().with_hint("write it in the language of its client"));
        }
        let given = run.path.to_string_lossy();
        let by_name = seed.command.args.iter().any(|arg| arg.has("file"));
        let stdin = if run.from_stdin || by_name { "" } else { &given };
        let failures = seed.failure.0.join("\n");
        let command = Command::new("/bin/sh").args(["-c", RUN, "sh", stdin]);
        let command = command.args([&seed.before, &seed.after, &seed.expect, &failures]);
        let values = Inside {
            file: Some(if run.from_stdin { "/dev/stdin".into() } else { given.into_owned() }),
            ..Inside::of(&self.description)
        };
        let program = self.program(installation, &seed.command.program)?;
        let command = values.words(command.arg(program.to_string_lossy()), &seed.command.args);
        command
            .and_then(|command| command_env(command, &seed.env, &values))
            .map_err(|cause| refused().caused_by(cause))
    }

    fn failure(&self, exit: &ClientExit<'_>) -> Option<ScriptError> {
        if exit.success {
            return None;
        }
        let stderr = exit.stderr.trim();
        let message = if stderr.is_empty() { exit.stdout.trim() } else { stderr };
        let line = self.description.seed.as_ref().and_then(|seed| seed.line_in(message));
        Some(ScriptError { line, message: message.to_owned(), ..ScriptError::default() })
    }
}

impl Seed {
    /// Returns the line of the file that a message names, where the description says how messages
    /// name it.
    fn line_in(&self, message: &str) -> Option<u64> {
        let (before, after) = self.line.as_ref()?.split_once("{line}")?;
        let places = message.match_indices(before).map(|(at, found)| &message[at + found.len()..]);
        let number = places.into_iter().find_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[end..].starts_with(after).then(|| rest[..end].parse::<u64>().ok()).flatten()
        });
        let added = self.before.matches('\n').count() as u64;
        number?.checked_sub(added).filter(|line| *line > 0)
    }
}
