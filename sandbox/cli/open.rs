//! `sandboxed-db open`: a server on the data of a finished test.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::Args;
use sandboxed_db::cache::{Kept, KeptState};
use sandboxed_db::{Engine, Sandbox};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::engine::{EngineName, OnKept, on_kept};
use super::failure::Failure;
use super::run::{exit_code, run};
use super::table::Table;
use super::units::ago;
use super::{Format, print};

#[derive(Debug, Args)]
pub(super) struct OpenArguments {
    /// The test: its path or a part of it.
    test: Option<String>,
    /// List or open only the data of this engine: postgres, mariadb, mysql, redis, sqlite, or a
    /// file of TOML that describes one.
    #[arg(long)]
    engine: Option<EngineName>,
    /// Print the URL and wait for an interrupt, instead of running a program.
    #[arg(long, requires = "test", conflicts_with = "command")]
    url: bool,
    /// The program to run instead of psql, mariadb, redis-cli or sqlite3, and its arguments.
    #[arg(last = true, requires = "test", value_name = "CMD")]
    command: Vec<OsString>,
}

impl OpenArguments {
    /// Starts the server and runs the program. Returns the program's exit code.
    pub(super) fn perform(self, format: Format) -> Result<ExitCode, Box<dyn Error>> {
        let kept = Kept::open()?;
        let Some(test) = &self.test else {
            let mut states = kept.list()?;
            if let Some(engine) = self.engine {
                let name = engine.name()?;
                states.retain(|state| state.engine == name);
            }
            print(format, &states.iter().map(json).collect::<Vec<_>>(), || list(&states))?;
            return Ok(ExitCode::SUCCESS);
        };
        if format.json && !self.url {
            return Err(Failure::new("print JSON")
                .because("a program that `open` runs has the output")
                .hint("leave out --json, or print the server's URL by --url")
                .into());
        }
        let state = kept.find(test)?;
        if let Some(engine) = &self.engine
            && engine.name()? != state.engine
        {
            return Err(Failure::new(format!("open `{}` as data of `{engine}`", state.name))
                .because(format!("it is data of `{}`", state.engine))
                .into());
        }
        on_kept(&state, Opened { arguments: &self, format, state: &state })?
    }
}

/// A state to open.
struct Opened<'a> {
    arguments: &'a OpenArguments,
    format: Format,
    state: &'a KeptState,
}

impl OnKept for Opened<'_> {
    type Output = Result<ExitCode, Box<dyn Error>>;

    fn run<E: Engine>(self, sandbox: Sandbox<E>, client: Option<Vec<String>>) -> Self::Output {
        const HINT: &str = "use another client by `-- CMD` or by `--url`";
        let Self { arguments, format, state } = self;
        if arguments.url {
            return wait(&sandbox, format);
        }
        let command = match (arguments.command.as_slice(), client) {
            ([], None) => {
                return Err(Failure::new(format!("open `{}`", state.name))
                    .because(format!("the engine `{}` names no client", state.engine))
                    .hint(HINT)
                    .into());
            }
            ([], Some(client)) => client.into_iter().map(OsString::from).collect(),
            (command, _) => command.to_vec(),
        };
        let status = run(&command, &sandbox.env(), sandbox.engine()).map_err(|failure| {
            match arguments.command.is_empty() {
                true => failure.hint(format!("install the client programs of {}, or {HINT}", state.engine)),
                false => failure,
            }
        })?;
        Ok(exit_code(status))
    }
}

fn wait<E: Engine>(sandbox: &Sandbox<E>, format: Format) -> Result<ExitCode, Box<dyn Error>> {
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
