//! A hundred pristine databases, eight at a time.
//!
//! Run it twice with `cargo run --example quickstart`: the first run prepares the sample database, a shop with 22
//! tables and about 50,000 rows, and keeps it as a layer; from then on every server starts from that layer.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use sandboxed_db::Snapshot;
use sandboxed_db_fixtures::shop_snapshot;

const SANDBOXES: usize = 100;
const AT_A_TIME: usize = 8;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let shop = shop_snapshot();

    let first = shop.start()?;
    match first.timings() {
        timings if timings.layer_built => {
            say(&format!("layer       built in {:.1?}, kept for later runs", timings.layer))
        }
        timings => say(&format!("layer       found in {:.1?}", timings.layer)),
    }
    drop(first);

    let before = Traces::now();
    let begin = Instant::now();
    let next = AtomicUsize::new(0);
    let workers = thread::scope(|scope| {
        let work = || -> Outcome<Vec<Visit>> {
            let mut visits = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < SANDBOXES {
                visits.push(visit(&shop)?);
            }
            Ok(visits)
        };
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"))
            .collect::<Outcome<Vec<_>>>()
    })?;
    let took = begin.elapsed();

    let visits: Vec<Visit> = workers.into_iter().flatten().collect();
    let mut starts: Vec<Duration> = visits.iter().map(|visit| visit.start).collect();
    starts.sort();
    say(&format!(
        "sandboxes   {SANDBOXES}, {AT_A_TIME} at a time, each pristine when it came and wrecked when it went"
    ));
    say(&format!("start       {:.1?} median, {:.1?} slowest", starts[SANDBOXES / 2], starts[SANDBOXES - 1]));
    say(&format!("throughput  {:.0} a second, queries included", SANDBOXES as f64 / took.as_secs_f64()));
    let alive = visits.iter().filter(|visit| Path::new(&format!("/proc/{}", visit.pid)).exists()).count();
    // Those that were started ahead end when nobody asks any more.
    let patience = Instant::now() + Duration::from_secs(2);
    let mut left = Traces::now();
    while left.descriptors > before.descriptors && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(10));
        left = Traces::now();
    }
    let Traces { mounts, descriptors } = left;
    say(&format!(
        "left        {alive} processes, {} mounts, {} descriptors",
        mounts.saturating_sub(before.mounts),
        descriptors.saturating_sub(before.descriptors)
    ));
    Ok(())
}

/// What is remembered of a sandbox.
struct Visit {
    start: Duration,
    pid: u32,
}

/// Starts a sandbox, makes sure that nobody was there before, and leaves it in ruins.
fn visit(shop: &Snapshot) -> Outcome<Visit> {
    let begin = Instant::now();
    let db = shop.start()?;
    let start = begin.elapsed();

    let mut client = Client::connect(db.url(), NoTls)?;
    let row = client.query_one(
        "select (select count(*) from customers),
                (select count(*) from orders where note = 'visited'),
                (select count(*) from pg_roles where rolname = 'intruder')",
        &[],
    )?;
    let (customers, visited, intruders): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    if (customers, visited, intruders) != (2500, 0, 0) {
        return Err(
            format!("not pristine: {customers} customers, {visited} visited, {intruders} intruders").into()
        );
    }
    client.batch_execute("alter system set work_mem = '1MB'")?;
    client.batch_execute(
        "update orders set note = 'visited' where id % 10 = 0;
         create role intruder superuser;
         drop table reviews, audit_log cascade;
         drop schema public cascade;",
    )?;
    Ok(Visit { start, pid: db.pid() })
}

/// What a careless tool would leave behind, besides processes.
struct Traces {
    mounts: usize,
    descriptors: usize,
}

impl Traces {
    fn now() -> Self {
        Self {
            mounts: fs::read_to_string("/proc/self/mountinfo").map_or(0, |mounts| mounts.lines().count()),
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        }
    }
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn say(line: &str) {
    println!("{line}");
}
