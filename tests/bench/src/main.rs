//! How long sandboxes and layers take, and what they cost; by themselves and beside this library's peers.
//!
//! `cargo run --release -p sandboxed-db-bench -- [--quick] [--only NAME] [--json FILE] [--plots DIRECTORY]`

mod alive;
mod bare;
mod compile;
mod endurance;
mod figures;
mod layers;
mod peers;
mod pool;
mod sandboxes;
mod tcp;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use figures::{Figures, Results};
use peers::Settings;

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
    /// Also draw what was found of the peers, as SVG files into this directory.
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
    /// Measure the peers as they are installed: on disk, with PostgreSQL's own settings. By default they are at their fastest.
    #[arg(long)]
    as_installed: bool,
    /// Who runs the peers' servers, and this library beside them, if root calls: PostgreSQL refuses root.
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    user: String,
    /// Measure what the warm pool makes of the tests that this process starts.
    #[arg(long, hide = true)]
    pooled: bool,
    /// Be a contestant's test process.
    #[arg(long, hide = true)]
    test_process: bool,
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
    /// This library beside its peers.
    Peers,
    /// Measured only when it is asked for: 3,000 servers at once, in some minutes. It takes `SANDBOXED_DB_MAX=3000`.
    Alive,
    /// Measured only when it is asked for: it takes some minutes and 2,100 descriptors (`ulimit -n 4096`).
    Endurance,
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    if let Some(migrations) = arguments.look_up {
        return layers::look_up(migrations);
    }
    if arguments.test_process {
        return peers::serve();
    }
    let mut figures = Figures::default();
    if arguments.pooled {
        pool::measure(&mut figures, arguments.quick)?;
        let json = arguments.json.ok_or("the file is missing")?;
        return Ok(Results { figures, peers: None }.write(&json)?);
    }
    if std::env::var_os(pool::VARIABLE).is_none() {
        // What a start takes is measured without those that were started ahead.
        return pool::without();
    }
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    if wanted(Part::Sandboxes) {
        sandboxes::measure(&mut figures, arguments.quick)?;
        figures.extend(pool::compare(arguments.quick)?);
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
    if arguments.only == Some(Part::Alive) {
        alive::measure(&mut figures, arguments.quick)?;
    }
    if arguments.only == Some(Part::Endurance) {
        endurance::measure(&mut figures, arguments.quick)?;
    }
    let peers = if wanted(Part::Peers) {
        let settings = if arguments.as_installed { Settings::AsInstalled } else { Settings::Fastest };
        let options = peers::Options { quick: arguments.quick, settings, user: arguments.user };
        Some(peers::measure(&options)?)
    } else {
        None
    };
    if !arguments.own_cache {
        figures.print();
    }
    if let Some(report) = &peers {
        report.print();
        arguments.plots.map_or(Ok(()), |directory| peers::draw(report, &directory))?;
    }
    if let Some(path) = arguments.json {
        Results { figures, peers }.write(&path)?;
    }
    Ok(())
}
