//! Measures the time and the cost of sandboxes and layers, alone and beside the peers of this
//! library.
//!
//! `cargo run --release -p sandboxed-db-bench -- [--quick] [--only NAME] [--json FILE] [--plots
//! DIRECTORY]`

mod alive;
mod bare;
mod compile;
mod endurance;
mod figures;
mod layers;
mod mariadb;
mod peers;
mod pool;
mod sandboxes;
mod tcp;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use figures::{Figures, Results};
use peers::Settings;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Measures sandboxes and layers on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run a tenth of the rounds.
    #[arg(long)]
    quick: bool,
    /// Measure these figures only.
    #[arg(long, value_name = "NAME")]
    only: Option<Suite>,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also draw the figures of the peers as SVG files into this directory.
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
    /// Run the peers on disk with the servers' own settings. By default they run with their fastest
    /// settings.
    #[arg(long)]
    as_installed: bool,
    /// A directory on XFS or Btrfs for clones by PostgreSQL 18's `file_copy_method`.
    #[arg(long, value_name = "DIRECTORY")]
    reflinks: Option<PathBuf>,
    /// The user that runs the contestants if root runs this program, since PostgreSQL refuses root.
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    user: String,
    /// Measure tests with the pool.
    #[arg(long, hide = true)]
    pooled: bool,
    /// Serve as the test process of a contestant.
    #[arg(long, hide = true)]
    test_process: bool,
    /// Measure MariaDB beside the server that `DATABASE_URL` names.
    #[arg(long, hide = true)]
    mariadb: bool,
    /// Look up the layer of these migrations and print the time in microseconds.
    #[arg(long, hide = true, value_name = "DIRECTORY")]
    look_up: Option<PathBuf>,
    /// Use the cache that the environment names, which is empty and belongs to this process.
    #[arg(long, hide = true)]
    own_cache: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    Sandboxes,
    /// Servers of all engines.
    Engines,
    /// MariaDB beside other ways to a database. On request only; takes minutes and needs root and
    /// MariaDB's server and client.
    Mariadb,
    Layers,
    Tcp,
    /// The time to compile tests. On request only; takes minutes.
    Compile,
    /// This library beside its peers.
    Peers,
    /// 3,000 servers at once. On request only; takes minutes and needs `SANDBOXED_DB_MAX=3000`.
    Alive,
    /// Leaks after thousands of sandboxes. On request only; takes minutes and 2,100 descriptors
    /// (`ulimit -n 4096`).
    Endurance,
}

fn main() -> Result<()> {
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
        let json = arguments.json.ok_or("--pooled needs --json")?;
        return Ok(Results { figures, peers: None }.write(&json)?);
    }
    let settings = if arguments.as_installed { Settings::AsInstalled } else { Settings::Fastest };
    if arguments.mariadb {
        mariadb::measure(&mut figures, arguments.quick, settings)?;
        let json = arguments.json.ok_or("--mariadb needs --json")?;
        return Ok(Results { figures, peers: None }.write(&json)?);
    }
    if std::env::var_os(pool::VARIABLE).is_none() {
        // Starts are measured without prewarmed sandboxes.
        return pool::without();
    }
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    if wanted(Suite::Sandboxes) {
        sandboxes::measure(&mut figures, arguments.quick)?;
        figures.extend(pool::compare(arguments.quick)?);
    }
    if wanted(Suite::Engines) {
        sandboxes::measure_engines(&mut figures, arguments.quick)?;
    }
    if wanted(Suite::Tcp) {
        tcp::measure(&mut figures, if arguments.quick { 30 } else { 300 })?;
    }
    if wanted(Suite::Layers) {
        if arguments.own_cache {
            layers::measure(&mut figures, arguments.quick)?;
        } else {
            figures.extend(layers::measure_in_own_cache(arguments.quick)?);
        }
    }
    if arguments.only == Some(Suite::Mariadb) {
        figures.extend(mariadb::compare(arguments.quick, settings)?);
    }
    if arguments.only == Some(Suite::Compile) {
        compile::measure(&mut figures, arguments.quick)?;
    }
    if arguments.only == Some(Suite::Alive) {
        alive::measure(&mut figures, arguments.quick)?;
    }
    if arguments.only == Some(Suite::Endurance) {
        endurance::measure(&mut figures, arguments.quick)?;
    }
    let peers = if wanted(Suite::Peers) {
        let (user, reflinks) = (arguments.user, arguments.reflinks);
        let options = peers::Options { quick: arguments.quick, settings, user, reflinks };
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
