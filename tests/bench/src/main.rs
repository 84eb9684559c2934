//! How long sandboxes and layers take, and what they cost.
//!
//! `cargo run --release -p sandboxed-db-bench -- [--quick] [--only NAME] [--json FILE]`

mod bare;
mod compile;
mod endurance;
mod figures;
mod layers;
mod sandboxes;
mod tcp;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use figures::Figures;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures sandboxes and layers on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// A tenth of the rounds.
    #[arg(long)]
    quick: bool,
    /// Only these figures.
    #[arg(long, value_name = "NAME")]
    only: Option<Part>,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Look up the layer of these migrations and say how long it took, in microseconds: how a process measures another.
    #[arg(long, hide = true, value_name = "DIRECTORY")]
    look_up: Option<PathBuf>,
    /// The cache that the environment names is empty and for this process alone.
    #[arg(long, hide = true)]
    own_cache: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Sandboxes,
    Layers,
    Tcp,
    /// Measured only when it is asked for: how long tests take to compile, in some minutes.
    Compile,
    /// Measured only when it is asked for: it takes some minutes and 2,100 descriptors (`ulimit -n 4096`).
    Endurance,
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    if let Some(migrations) = arguments.look_up {
        return layers::look_up(migrations);
    }
    let mut figures = Figures::default();
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    if wanted(Part::Sandboxes) {
        sandboxes::measure(&mut figures, arguments.quick)?;
    }
    if wanted(Part::Tcp) {
        tcp::measure(&mut figures, if arguments.quick { 30 } else { 300 })?;
    }
    if wanted(Part::Layers) {
        if arguments.own_cache {
            layers::measure(&mut figures, arguments.quick)?;
        } else {
            figures.extend(layers::measure_in_own_cache(arguments.quick)?);
        }
    }
    if arguments.only == Some(Part::Compile) {
        compile::measure(&mut figures, arguments.quick)?;
    }
    if arguments.only == Some(Part::Endurance) {
        endurance::measure(&mut figures, arguments.quick)?;
    }
    if !arguments.own_cache {
        figures.print();
    }
    if let Some(path) = arguments.json {
        figures.write(&path)?;
    }
    Ok(())
}
