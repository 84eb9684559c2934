//! Starts a hundred pristine databases, eight at a time.
//!
//! Run it twice by `cargo run --example quickstart`. The first run prepares the sample database, a
//! shop with 22 tables and about 50,000 rows, and caches it as a layer. All servers start from that
//! layer.

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
const CONCURRENT: usize = 8;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let shop = shop_snapshot();

    let first = shop.start()?;
    match first.timings() {
        timings if timings.layer_built => {
            print(&format!("layer       built in {:.1?}, cached for later runs", timings.layer))
        }
        timings => print(&format!("layer       found in {:.1?}", timings.layer)),
    }
    drop(first);

    let before = Resources::now();
    let begin = Instant::now();
    let next = AtomicUsize::new(0);
    let workers = thread::scope(|scope| {
        let work = || -> Result<Vec<Visit>> {
            let mut visits = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < SANDBOXES {
                visits.push(visit(&shop)?);
            }
            Ok(visits)
        };
        let workers: Vec<_> = (0..CONCURRENT).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"))
            .collect::<Result<Vec<_>>>()
    })?;
    let took = begin.elapsed();

    let visits: Vec<Visit> = workers.into_iter().flatten().collect();
    let mut starts: Vec<Duration> = visits.iter().map(|visit| visit.start).collect();
    starts.sort();
    print(&format!(
        "sandboxes   {SANDBOXES}, {CONCURRENT} at a time, each pristine at its start and wrecked at its end"
    ));
    print(&format!(
        "start       {:.1?} median, {:.1?} slowest",
        starts[SANDBOXES / 2],
        starts[SANDBOXES - 1]
    ));
    print(&format!("throughput  {:.0} a second, queries included", SANDBOXES as f64 / took.as_secs_f64()));
    let alive = visits.iter().filter(|visit| Path::new(&format!("/proc/{}", visit.pid)).exists()).count();
    // Prewarmed sandboxes end soon after the last request.
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut left = Resources::now();
    while left.descriptors > before.descriptors && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
        left = Resources::now();
    }
    let Resources { mounts, descriptors } = left;
    print(&format!(
        "left        {alive} processes, {} mounts, {} descriptors",
        mounts.saturating_sub(before.mounts),
        descriptors.saturating_sub(before.descriptors)
    ));
    Ok(())
}

/// The figures of one sandbox.
struct Visit {
    start: Duration,
    pid: u32,
}

/// Starts a sandbox, checks that it is pristine, and wrecks it.
fn visit(shop: &Snapshot) -> Result<Visit> {
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

/// Resources that a sandbox could leak, besides processes.
struct Resources {
    mounts: usize,
    descriptors: usize,
}

impl Resources {
    fn now() -> Self {
        Self {
            mounts: fs::read_to_string("/proc/self/mountinfo").map_or(0, |mounts| mounts.lines().count()),
            descriptors: fs::read_dir("/proc/self/fd")
                .map_or(0, |open| open.flatten().filter(is_own).count()),
        }
    }
}

/// Returns `true` for a descriptor of a sandbox: a socket, a process or a file without a name.
/// Files of the cache stay open for further starts.
fn is_own(descriptor: &fs::DirEntry) -> bool {
    fs::read_link(descriptor.path()).is_ok_and(|target| !target.exists())
}

#[expect(clippy::print_stdout, reason = "the output of the program")]
fn print(line: &str) {
    println!("{line}");
}
