//! Measures the parts of a start that have a budget, and the teardown: `cargo bench -p
//! sandboxed-db-bench`.
//!
//! A program that sleeps replaces the server, which keeps rounds short and does not affect these
//! parts.

#[path = "../src/bare.rs"]
mod bare;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use sandboxed_db::{Snapshot, Timings};

use bare::Bare;

/// The number of files that the lookup of a layer checks.
const FILES: usize = 200;
/// Files that changed less than two seconds ago are read again by each lookup.
const SETTLED: Duration = Duration::from_secs(3);

fn parts(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("make a directory");
    for index in 0..FILES {
        let file = directory.path().join(format!("{index:04}_file.sql"));
        fs::write(file, format!("-- {index}\n")).expect("write a migration");
    }
    let empty = Snapshot::new(Bare);
    let migrated = empty.extend().migrations(directory.path());
    for snapshot in [&empty, &migrated] {
        drop(snapshot.start().expect("build a layer"));
    }
    thread::sleep(SETTLED);
    part(criterion, "layer: looked up", &empty, |timings| timings.layer);
    part(criterion, "layer of 200 migrations: looked up", &migrated, |timings| timings.layer);
    part(criterion, "plan", &empty, |timings| timings.plan);
    part(criterion, "container: plan and launch", &empty, |timings| timings.launch);
    criterion.bench_function("teardown", |bencher| {
        bencher.iter_custom(|rounds| {
            let teardown = |_| {
                let container = empty.start().expect("start a container");
                let begin = Instant::now();
                drop(container);
                begin.elapsed()
            };
            (0..rounds).map(teardown).sum()
        });
    });
}

/// Measures one part of many starts.
fn part(criterion: &mut Criterion, name: &str, snapshot: &Snapshot<Bare>, part: fn(&Timings) -> Duration) {
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|rounds| {
            (0..rounds).map(|_| part(&snapshot.start().expect("start a container").timings())).sum()
        });
    });
}

criterion_group!(benches, parts);
criterion_main!(benches);
