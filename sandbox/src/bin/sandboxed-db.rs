//! The program `sandboxed-db`: arguments in, library calls, text or JSON out.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use clap::{Parser, Subcommand};
use sandboxed_db::{Damage, LayerInfo, Layers, Limit};
use serde::Serialize;

/// Tells whether this machine can run sandboxes, and looks after the layers that they start from.
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
    /// List the layers, the one used last first.
    Layers,
    /// Remove layers that went unused for long, and those used least lately beyond a size. Layers in use stay.
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
    match run(&command, json) {
        Ok(code) => code,
        Err(error) => {
            // There is nobody left to tell if this fails, too.
            let _ = writeln!(io::stderr(), "sandboxed-db: {error:?}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &Command, json: bool) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match *command {
        // It opens no cache, and tells why one cannot be opened.
        Command::Doctor => {
            let report = sandboxed_db::doctor();
            print(json, &report, || format!("{report}\n"))?;
            return Ok(ExitCode::from(u8::from(!report.works)));
        }
        Command::Layers => {
            let list = Layers::open()?.list()?;
            print(json, &list, || table(&list))?;
        }
        Command::Prune { size, age } => {
            let removed = Layers::open()?.prune(Limit { size: size.as_u64(), age })?;
            print(json, &removed, || {
                removed.iter().map(|layer| format!("removed {}\n", layer.digest)).collect()
            })?;
        }
        Command::Verify => {
            let damaged = Layers::open()?.verify()?;
            print(json, &damaged, || report(&damaged))?;
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

fn table(layers: &[LayerInfo]) -> String {
    let mut text = line("DIGEST", "ENGINE", "SIZE", "SHARED", "USED", "STEPS");
    for layer in layers {
        let engine = format!("{} {}", layer.engine, version(&layer.version));
        let used = if layer.in_use { "now".to_owned() } else { ago(layer.last_used) };
        let name =
            |step: &String| Path::new(step).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let steps = match layer.steps.as_slice() {
            [] => "fresh server".to_owned(),
            [one] => name(one),
            [first, .., last] => format!("{} … {} ({} files)", name(first), name(last), layer.steps.len()),
        };
        let digest = layer.digest.get(..12).unwrap_or(&layer.digest);
        let (size, shared) = (ByteSize(layer.size).to_string(), ByteSize(layer.shared).to_string());
        text.push_str(&line(digest, &engine, &size, &shared, &used, &steps));
    }
    text
}

fn line(digest: &str, engine: &str, size: &str, shared: &str, used: &str, steps: &str) -> String {
    format!("{digest:<12}  {engine:<16}  {size:>10}  {shared:>10}  {used:<14}  {steps}\n")
}

fn report(damaged: &[Damage]) -> String {
    if damaged.is_empty() {
        return "all layers are what their manifests say\n".to_owned();
    }
    let mut text = String::new();
    for damage in damaged {
        text.push_str(&format!("{} was damaged and is set aside:\n", damage.digest));
        damage.differences.iter().for_each(|difference| text.push_str(&format!("  {difference}\n")));
    }
    text
}

/// `15.18` of `postgres (PostgreSQL) 15.18 (Debian …)`.
fn version(text: &str) -> &str {
    text.split_ascii_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or("")
}

fn ago(time: SystemTime) -> String {
    // Noted to the hour, so that minutes would be made up.
    match SystemTime::now().duration_since(time).unwrap_or_default().as_secs() / 3600 {
        0 => "within an hour".to_owned(),
        hours @ 1..48 => format!("{hours} h ago"),
        hours => format!("{} days ago", hours / 24),
    }
}
