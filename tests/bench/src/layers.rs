//! Measures the time to build, look up and verify layers, and their size on disk.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sandboxed_db::cache::Layers;
use sandboxed_db::{Postgres, Snapshot};
use walkdir::WalkDir;

use crate::Result;
use crate::figures::{Figures, Unit, by_another_process};

/// Files that changed less than two seconds ago are read again by each lookup.
const SETTLED: Duration = Duration::from_secs(3);

/// Measures in another process with an empty cache.
pub(crate) fn measure_in_own_cache(quick: bool) -> Result<Figures> {
    let cache = tempfile::tempdir()?;
    by_another_process(|command| {
        command.args(["--only", "layers", "--own-cache"]).args(quick.then_some("--quick"));
        command.env("SANDBOXED_DB_CACHE", cache.path());
    })
}

pub(crate) fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let place = tempfile::tempdir()?;
    let built = |snapshot: &Snapshot| -> Result<Duration> {
        let timings = snapshot.start()?.timings();
        if timings.layer_built { Ok(timings.layer) } else { Err("the layer was in the cache".into()) }
    };
    figures.time("a fresh server: built", built(&empty())?);
    for count in if quick { [1, 50, 200] } else { [1, 50, 500] } {
        let directory = place.path().join(format!("{count}"));
        (1..=count).try_for_each(|index| write(&directory, count, index))?;
        let migrations = empty().migrations(&directory);
        figures.time(format!("{count} migrations: built"), built(&migrations)?);
        write(&directory, count, count + 1)?;
        figures.time(format!("{count} migrations: one appended"), built(&migrations)?);
    }
    let directory = place.path().join("200 files");
    (1..=200).try_for_each(|index| write(&directory, 200, index))?;
    let migrations = empty().migrations(&directory);
    drop(migrations.start()?);
    std::thread::sleep(SETTLED);
    lookups(figures, &migrations, &directory)?;
    extensions(figures, place.path())?;

    let layers = Layers::open()?;
    let (begin, bytes) = (Instant::now(), bytes_on_disk(layers.directory(), false)?);
    if !layers.verify()?.is_empty() {
        return Err("a layer is damaged".into());
    }
    let per_gigabyte = begin.elapsed().as_secs_f64() * 1e3 / (bytes as f64 / 1e9);
    figures.push("verify: each GB of layers", per_gigabyte, Unit::Milliseconds);
    Ok(())
}

fn empty() -> Snapshot {
    Snapshot::new(Postgres::new())
}

fn write(directory: &Path, of: usize, index: usize) -> Result<()> {
    fs::create_dir_all(directory)?;
    let sql = format!(
        "create table t{of}_{index} (id bigint generated always as identity primary key, body text not null);\n\
         insert into t{of}_{index} (body) select 'row ' || i from generate_series(1, 10) i;\n"
    );
    Ok(fs::write(directory.join(format!("{index:04}_t.sql")), sql)?)
}

/// Measures lookups in a process that has done one before, and in new processes.
fn lookups(figures: &mut Figures, snapshot: &Snapshot, directory: &Path) -> Result<()> {
    let again = (0..30).map(|_| Ok(snapshot.start()?.timings().layer)).collect::<Result<_>>()?;
    figures.distribution("200 migrations: looked up again", again);
    for (what, run) in [("a lone process", None), ("a further nextest process", Some("bench"))] {
        let first = (0..20).map(|_| -> Result<Duration> {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("--look-up").arg(directory).env_remove("NEXTEST_RUN_ID");
            command.envs(run.map(|run| ("NEXTEST_RUN_ID", run)));
            let output = command.output()?;
            Ok(Duration::from_micros(String::from_utf8(output.stdout)?.trim().parse()?))
        });
        figures.distribution(&format!("200 migrations: looked up by {what}"), first.collect::<Result<_>>()?);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "read by the parent process")]
pub(crate) fn look_up(migrations: PathBuf) -> Result<()> {
    let timings = empty().migrations(migrations).start()?.timings();
    println!("{}", timings.layer.as_micros());
    if timings.layer_built { Err("the layer was not in the cache".into()) } else { Ok(()) }
}

/// Measures twenty snapshots, each of which extends the one before by a small table.
fn extensions(figures: &mut Figures, place: &Path) -> Result<()> {
    let mut snapshot = sandboxed_db_fixtures::shop_snapshot();
    drop(snapshot.start()?);
    let cache = Layers::open()?.directory().to_owned();
    let before = bytes_on_disk(&cache, true)?;
    for index in 0..20 {
        let seed = place.join(format!("extension-{index}.sql"));
        fs::write(
            &seed,
            format!("create table extension_{index} as select * from generate_series(1, 100) id;"),
        )?;
        snapshot = snapshot.extend().seed(seed);
        drop(snapshot.start()?);
    }
    let each = (bytes_on_disk(&cache, true)? - before) as f64 / 20.0 / 1e6;
    let whole = Layers::open()?.list()?.iter().map(|layer| layer.size).max().unwrap_or_default();
    figures.push("20 extensions of the shop: disk, each", each, Unit::Megabytes);
    figures.push("20 extensions of the shop: size of the last", whole as f64 / 1e6, Unit::Megabytes);
    Ok(())
}

/// Sums the bytes of all files, and counts hard links once or each time.
fn bytes_on_disk(directory: &Path, once: bool) -> Result<u64> {
    let (mut seen, mut bytes) = (HashSet::new(), 0);
    for entry in WalkDir::new(directory) {
        let file = entry?.metadata()?;
        if !once || seen.insert((file.dev(), file.ino())) {
            bytes += if once { file.blocks() * 512 } else { file.len() };
        }
    }
    Ok(bytes)
}
