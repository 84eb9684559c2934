//! The program `sandboxed-db`: arguments in, library calls, text or JSON out.

mod diff;
mod layers;
mod open;
mod report;
mod run;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Parser, Subcommand};
use sandboxed_db::{Kept, Layers, Limit};
use serde::Serialize;

/// Runs a program with a pristine database server, tells whether this machine can do it, and looks after the layers that
/// servers start from.
///
/// Layers are in SANDBOXED_DB_CACHE, else sandboxed-db in XDG_CACHE_HOME, else ~/.cache/sandboxed-db.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell whether sandboxes work on this machine; if not, which switch is off, and the command that turns it on. Exits
    /// with 1 if they do not.
    Doctor,
    /// Run a program with a database server of its own, found by DATABASE_URL, PGHOST and the like; exit as it does.
    Run(run::RunArguments),
    /// Tell of a run of tests whose sandboxes were recorded in a file, by SANDBOXED_DB_REPORT=FILE: how long starts took, what
    /// was slow, what failed; and draw it.
    Report(report::ReportArguments),
    /// Look into what a test left behind: start a server on a copy of its data, and psql or another program with it.
    ///
    /// Data is kept where a test says `keep = "on_failure"`, or SANDBOXED_DB_KEEP=on_failure is set. Without TEST, list what
    /// is kept, the last first.
    Open(open::OpenArguments),
    /// Tell what a test changed since its snapshot: rows, definitions, sequences, roles.
    Diff(diff::DiffArguments),
    /// List the layers, the one used last first.
    Layers,
    /// Remove layers that went unused for long, and those used least lately beyond a size; likewise what is kept of tests, by
    /// when it was kept. What is in use stays.
    Prune {
        /// Keep no more than this, such as 5GiB.
        #[arg(long, value_name = "SIZE", default_value = "10GiB")]
        size: ByteSize,
        /// Remove what was not used for this long, such as 30d.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        age: Option<Duration>,
    },
    /// Compare all layers with their manifests, contents included; set damaged ones aside. Exits with 1 if there were any.
    Verify,
}

fn main() -> ExitCode {
    let Arguments { json, command } = Arguments::parse();
    match perform(command, json) {
        Ok(code) => code,
        Err(error) => {
            // The library's errors tell all in their `Debug`.
            let text = match error.downcast_ref::<sandboxed_db::Error>() {
                Some(error) => format!("{error:?}"),
                None => error.to_string(),
            };
            // There is nobody left to tell if this fails, too.
            let _ = writeln!(io::stderr(), "sandboxed-db: {text}");
            ExitCode::from(2)
        }
    }
}

fn perform(command: Command, json: bool) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match command {
        // It opens no cache, and tells why one cannot be opened.
        Command::Doctor => {
            let report = sandboxed_db::doctor();
            print(json, &report, || format!("{report}\n"))?;
            return Ok(ExitCode::from(u8::from(!report.works)));
        }
        Command::Run(run) => return run.perform(json),
        Command::Report(draw) => draw.perform(json)?,
        Command::Open(open) => return open.perform(json),
        Command::Diff(diff) => diff.perform(json)?,
        Command::Layers => {
            let list = Layers::open()?.list()?;
            print(json, &list, || layers::table(&list))?;
        }
        Command::Prune { size, age } => {
            let limit = Limit { size: size.as_u64(), age };
            let kept = Kept::open()?.prune(limit)?;
            let layers = Layers::open()?.prune(limit)?;
            print(json, &serde_json::json!({ "layers": layers, "kept": kept }), || {
                let kept = kept.iter().map(|state| format!("removed what was kept of {}\n", state.name));
                kept.chain(layers.iter().map(|layer| format!("removed {}\n", layer.digest))).collect()
            })?;
        }
        Command::Verify => {
            let damaged = Layers::open()?.verify()?;
            print(json, &damaged, || layers::report(&damaged))?;
            return Ok(ExitCode::from(u8::from(!damaged.is_empty())));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
    let text = if json { serde_json::to_string_pretty(value)? + "\n" } else { text() };
    match io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
