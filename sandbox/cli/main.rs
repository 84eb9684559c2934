//! The program `sandboxed-db`: arguments in, library calls, text or JSON out.

mod colour;
mod description;
mod diff;
mod engine;
mod failure;
mod layers;
mod manual;
mod open;
mod report;
mod run;
mod serve;
mod table;
mod transfer;
mod units;
mod update;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{CommandFactory, FromArgMatches, Parser};
use sandboxed_db::cache::{Kept, Layers, Limit};
use serde::Serialize;

/// Run programs with a pristine database server, check that this machine supports it, and manage
/// the layers that servers start from.
///
/// Layers are in SANDBOXED_DB_CACHE, else in sandboxed-db in XDG_CACHE_HOME, else in
/// ~/.cache/sandboxed-db.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    subcommand: Subcommand,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Format {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    success
  1    doctor: sandboxes do not work on this machine; verify: a layer was damaged; push, pull: a
       layer cannot be moved
  2    the command failed, or its arguments are wrong
  run and open exit with the code of the program that they run, or with 128 + N if signal N killed it";

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Check that sandboxes work on this machine.
    ///
    /// If they do not, the output names the cause and the command that fixes it, and the exit code
    /// is 1.
    Doctor {
        /// Check with a server of this engine: postgres, mariadb, mysql, redis, sqlite, or a file
        /// of TOML that describes one.
        #[arg(long, default_value_t)]
        engine: engine::EngineName,
        #[command(flatten)]
        format: Format,
    },
    /// Run a program with its own database server, and exit as the program does.
    ///
    /// The program finds the server by variables such as DATABASE_URL and PGHOST; for Redis by
    /// REDIS_URL. Paths are relative to the working directory.
    ///
    /// `--migrations`, `--seed`, `--prepare`, `--prepare-tcp` and `--depends-on` prepare the
    /// database, in their order on the command line. The result is cached as layers, so that a step
    /// runs again only if it or an earlier step has changed.
    Run(run::RunArguments),
    /// Serve the tests of another language by lines of JSON.
    ///
    /// Requests on standard input start and end servers. All servers end with standard input, with
    /// the process that started this one, and with this one. The chapter `serve` of the guide, the
    /// library's documentation, describes the requests.
    Serve(serve::ServeArguments),
    /// Report a run of tests.
    ///
    /// SANDBOXED_DB_REPORT=FILE records a run. The report has times, slow and failed tests, and
    /// pictures.
    Report {
        #[command(flatten)]
        arguments: report::ReportArguments,
        #[command(flatten)]
        format: Format,
    },
    /// Open the data of a finished test with psql, mariadb, redis-cli, sqlite3 or another program.
    ///
    /// The program gets a server on a copy. Data is kept if the test says `keep = "on_failure"` or
    /// SANDBOXED_DB_KEEP=on_failure is set. Without TEST, lists the kept data, the latest first.
    Open {
        #[command(flatten)]
        arguments: open::OpenArguments,
        #[command(flatten)]
        format: Format,
    },
    /// Show what a test changed: rows, definitions, sequences, roles.
    Diff {
        #[command(flatten)]
        arguments: diff::DiffArguments,
        #[command(flatten)]
        format: Format,
    },
    /// List the layers, the most recently used first.
    Layers {
        /// List only the layers of this engine: postgres, mariadb, mysql, redis, sqlite, or a file
        /// of TOML that describes one.
        #[arg(long)]
        engine: Option<engine::EngineName>,
        #[command(flatten)]
        format: Format,
    },
    /// Remove old layers and the kept data of old tests.
    ///
    /// Removes those that were unused for a time, and the least recently used ones beyond a size.
    /// Layers and data in use stay.
    Prune {
        /// The size that may stay, such as 5GiB.
        #[arg(long, value_name = "SIZE", default_value = "10GiB")]
        size: ByteSize,
        /// Remove layers and data that were not used for this time, such as 30d.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        age: Option<Duration>,
        #[command(flatten)]
        format: Format,
    },
    /// Push layers to a registry.
    ///
    /// Layers that the registry already has are not pushed. Credentials are those of `docker
    /// login`. The chapter `layers_in_a_registry` of the guide describes how tests push and pull
    /// layers themselves.
    Push(transfer::TransferArguments),
    /// Pull layers from a registry.
    ///
    /// Layers that the cache already has are not pulled. Pull only from registries that you trust:
    /// a layer can run code in the sandboxes that start from it.
    Pull(transfer::TransferArguments),
    /// Compare the contents of all layers with their manifests.
    ///
    /// Sets damaged layers aside, and exits with 1 if there are any.
    Verify(Format),
    /// Ask registries again for the images that sandboxed-db.lock records.
    ///
    /// A name without a digest, such as postgres:17, is recorded when it is first used, and stands
    /// for the same image until this command asks again. The file lies beside Cargo.lock, or at the
    /// top of the repository.
    Update {
        #[command(flatten)]
        arguments: update::UpdateArguments,
        #[command(flatten)]
        format: Format,
    },
    /// Print the completion script of a shell.
    ///
    /// For bash: `sandboxed-db completions bash >
    /// ~/.local/share/bash-completion/completions/sandboxed-db`
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    ///
    /// To read it: `sandboxed-db man | man -l -`
    Man {
        /// Write the pages of this program and of its commands to a directory instead.
        #[arg(long, value_name = "OUT")]
        directory: Option<PathBuf>,
    },
}

/// The stack of the program, which `ulimit -s` may leave too little for clap.
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    let thread = thread::Builder::new().name("main".to_owned()).stack_size(STACK).spawn(on_stack);
    match thread.map(thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        // The panic is printed.
        Ok(Err(_)) => ExitCode::from(101),
        Err(error) => report(&failure::Failure::new("start a thread").because(error).to_string()),
    }
}

/// Prints an error. Standard error may be closed.
fn report(text: &str) -> ExitCode {
    let _ = anstream::stderr().write_all(colour::error(text).as_bytes());
    ExitCode::from(2)
}

fn on_stack() -> ExitCode {
    let command = Arguments::command();
    let matches = command.clone().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match perform(arguments) {
        Ok(code) => code,
        Err(error) => {
            let subcommand = matches.subcommand_name().and_then(|name| command.find_subcommand(name));
            report(&failure::render(error.as_ref(), subcommand.unwrap_or(&command)))
        }
    }
}

fn perform(Arguments { subcommand }: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    match subcommand {
        Subcommand::Doctor { engine, format } => {
            let findings = match engine {
                engine::EngineName::Postgres => sandboxed_db::doctor(),
                engine => engine.run(Examine)?,
            };
            print(format, &findings, || colour::findings(&format!("{findings}\n")))?;
            return Ok(ExitCode::from(u8::from(!findings.works)));
        }
        Subcommand::Run(arguments) => return arguments.perform(),
        Subcommand::Serve(arguments) => return arguments.perform(),
        Subcommand::Report { arguments, format } => arguments.perform(format)?,
        Subcommand::Open { arguments, format } => return arguments.perform(format),
        Subcommand::Diff { arguments, format } => arguments.perform(format)?,
        Subcommand::Layers { engine, format } => {
            let mut list = Layers::open()?.list()?;
            if let Some(engine) = engine {
                let name = engine.name()?;
                list.retain(|layer| layer.engine == name);
            }
            print(format, &list, || layers::list(&list))?;
        }
        Subcommand::Prune { size, age, format } => {
            let limit = Limit { size: size.as_u64(), age };
            let kept = Kept::open()?.prune(limit)?;
            let layers = Layers::open()?.prune(limit)?;
            let states: Vec<_> = kept.iter().map(open::json).collect();
            print(format, &serde_json::json!({ "layers": layers, "kept": states }), || {
                let kept = kept.iter().map(|state| format!("removed the kept data of {}\n", state.name));
                kept.chain(layers.iter().map(layers::removed)).collect()
            })?;
        }
        Subcommand::Push(arguments) => return arguments.perform(transfer::Direction::Push),
        Subcommand::Pull(arguments) => return arguments.perform(transfer::Direction::Pull),
        Subcommand::Update { arguments, format } => arguments.perform(format)?,
        Subcommand::Completions { shell } => {
            let script = manual::completions(shell, &mut Arguments::command());
            write(&mut io::stdout(), &script)?;
        }
        Subcommand::Man { directory: None } => {
            write(&mut io::stdout(), &manual::page(Arguments::command())?)?;
        }
        Subcommand::Man { directory: Some(directory) } => manual::pages(Arguments::command(), &directory)?,
        Subcommand::Verify(format) => {
            let damaged = Layers::open()?.verify()?;
            print(format, &damaged, || layers::damage(&damaged))?;
            return Ok(ExitCode::from(u8::from(!damaged.is_empty())));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The check of this machine with an engine.
struct Examine;

impl engine::OnEngine for Examine {
    type Output = sandboxed_db::doctor::Findings;

    fn run<E: sandboxed_db::Engine>(self, engine: E) -> Self::Output {
        sandboxed_db::doctor::doctor_of(&engine)
    }
}

fn print(
    format: Format,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Box<dyn Error>> {
    if format.json {
        write(&mut io::stdout(), (serde_json::to_string_pretty(value)? + "\n").as_bytes())
    } else {
        write(&mut anstream::stdout(), text().as_bytes())
    }
}

fn write(output: &mut dyn Write, text: &[u8]) -> Result<(), Box<dyn Error>> {
    match output.write_all(text) {
        // The reader, such as `head`, needs no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => {
            written.map_err(|error| failure::Failure::new("write to standard output").because(error).into())
        }
    }
}
