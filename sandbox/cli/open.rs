//! `sandboxed-db open`: a server on the data that a test left.

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::SystemTime;

use bytesize::ByteSize;
use clap::Args;
use sandboxed_db::{Kept, KeptState, Sandbox};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::print;
use super::run::{exit_as, run};

#[derive(Debug, Args)]
pub(super) struct OpenArguments {
    /// The test, by its path or a part of it.
    test: Option<String>,
    /// Print the URL and wait until interrupted, instead of running a program.
    #[arg(long, requires = "test", conflicts_with = "command")]
    url: bool,
    /// The program to run instead of psql, and its arguments.
    #[arg(last = true, requires = "test", value_name = "CMD")]
    command: Vec<OsString>,
}

impl OpenArguments {
    /// Ends as the program does.
    pub(super) fn perform(self, json: bool) -> Result<ExitCode, Box<dyn Error>> {
        let kept = Kept::open()?;
        let Some(test) = &self.test else {
            let states = kept.list()?;
            print(json, &states, || table(&states))?;
            return Ok(ExitCode::SUCCESS);
        };
        if json && !self.url {
            return Err("`open` with a program prints nothing of its own, so it knows no --json".into());
        }
        let sandbox = kept.find(test)?.start()?;
        if self.url {
            return wait(&sandbox, json);
        }
        let psql = self.command.is_empty();
        let command = if psql { vec!["psql".into()] } else { self.command };
        match run(&command, &sandbox.env()) {
            Err(error) if psql && error.kind() == std::io::ErrorKind::NotFound => Err(concat!(
                "there is no psql in PATH: install PostgreSQL's client programs, or use another client by `--url` or ",
                "`-- CMD`"
            )
            .into()),
            status => Ok(exit_as(status?)),
        }
    }
}

fn wait(sandbox: &Sandbox, json: bool) -> Result<ExitCode, Box<dyn Error>> {
    // Before the URL is told: whoever reads it may be quick.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    print(json, &serde_json::json!({ "url": sandbox.url() }), || format!("{}\n", sandbox.url()))?;
    signals.forever().next();
    Ok(ExitCode::SUCCESS)
}

fn table(states: &[KeptState]) -> String {
    if states.is_empty() {
        return "nothing is kept; SANDBOXED_DB_KEEP=on_failure keeps the data of tests that fail\n"
            .to_owned();
    }
    let widest = states.iter().map(|state| state.name.chars().count()).max().unwrap_or_default();
    let line = |test: &str, kept: &str, size: &str, outcome: &str| {
        format!("{test:<widest$}  {kept:<14}  {size:>10}  {outcome}\n")
    };
    let mut text = line("TEST", "KEPT", "SIZE", "OUTCOME");
    for state in states {
        let outcome = match (state.failed, state.clean) {
            (true, true) => "failed",
            (false, true) => "passed",
            (true, false) => "failed; the server had died or hung",
            (false, false) => "passed; the server had died or hung",
        };
        text.push_str(&line(&state.name, &ago(state.kept), &ByteSize(state.size).to_string(), outcome));
    }
    text
}

fn ago(time: SystemTime) -> String {
    match SystemTime::now().duration_since(time).unwrap_or_default().as_secs() {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}
