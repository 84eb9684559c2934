//! `sandboxed-db open`: a server on the data of a finished test.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::Args;
use sandboxed_db::Sandbox;
use sandboxed_db::cache::{Kept, KeptState};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::failure::Failure;
use super::run::{exit_code, run};
use super::table::Table;
use super::units::ago;
use super::{Format, print};

#[derive(Debug, Args)]
pub(super) struct OpenArguments {
    /// The test: its path or a part of it.
    test: Option<String>,
    /// Print the URL and wait for an interrupt, instead of running a program.
    #[arg(long, requires = "test", conflicts_with = "command")]
    url: bool,
    /// The program to run instead of psql, and its arguments.
    #[arg(last = true, requires = "test", value_name = "CMD")]
    command: Vec<OsString>,
}

impl OpenArguments {
    /// Starts the server and runs the program. Returns the program's exit code.
    pub(super) fn perform(self, format: Format) -> Result<ExitCode, Box<dyn Error>> {
        let kept = Kept::open()?;
        let Some(test) = &self.test else {
            let states = kept.list()?;
            print(format, &states.iter().map(json).collect::<Vec<_>>(), || list(&states))?;
            return Ok(ExitCode::SUCCESS);
        };
        if format.json && !self.url {
            return Err(Failure::new("print JSON")
                .because("a program that `open` runs has the output")
                .hint("leave out --json, or print the server's URL by --url")
                .into());
        }
        let sandbox = kept.find(test)?.start()?;
        if self.url {
            return wait(&sandbox, format);
        }
        let psql = self.command.is_empty();
        let command = if psql { vec!["psql".into()] } else { self.command };
        let status = run(&command, &sandbox.env()).map_err(|failure| match psql {
            true => failure.hint(
                "install PostgreSQL's client programs, or use another client by `-- CMD` or by `--url`",
            ),
            false => failure,
        })?;
        Ok(exit_code(status))
    }
}

fn wait(sandbox: &Sandbox, format: Format) -> Result<ExitCode, Box<dyn Error>> {
    // The reader of the URL may send a signal at once, so handlers come first.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])
        .map_err(|error| Failure::new("wait for an interrupt").because(error))?;
    print(format, &json!({ "url": sandbox.url() }), || format!("{}\n", sandbox.url()))?;
    signals.forever().next();
    Ok(ExitCode::SUCCESS)
}

/// Returns a state as `--json` prints it.
pub(super) fn json(state: &KeptState) -> Value {
    let pairs = |pairs: &[(String, String)]| pairs.iter().cloned().collect::<BTreeMap<_, _>>();
    let mut json = serde_json::to_value(state).unwrap_or_default();
    if let Some(fields) = json.as_object_mut() {
        fields.remove("format");
    }
    json["identity"] = json!(pairs(&state.identity));
    json["settings"] = json!(pairs(&state.settings));
    json
}

fn list(states: &[KeptState]) -> String {
    if states.is_empty() {
        return "nothing is kept; SANDBOXED_DB_KEEP=on_failure keeps the data of tests that fail\n"
            .to_owned();
    }
    let rows = states.iter().map(|state| {
        let outcome = match (state.failed, state.clean) {
            (true, true) => "failed",
            (false, true) => "passed",
            (true, false) => "failed; the server had died or hung",
            (false, false) => "passed; the server had died or hung",
        };
        vec![state.name.clone(), ago(state.kept), ByteSize(state.size).to_string(), outcome.to_owned()]
    });
    Table::new(["TEST", "KEPT", "SIZE", "OUTCOME"], 2..3, rows).text("")
}
