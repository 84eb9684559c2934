//! Does without the attribute: in helpers, loops, benchmarks, other frameworks.
//!
//! Every argument of the attribute is a method of `Snapshot`, and `start` returns a server that
//! ends on drop. A snapshot is a description whose layer is found in half a millisecond, so a
//! function can return it and no `static` is needed.
//!
//! Run it by `cargo test -p sandboxed-db-examples --test without_attribute`.

use std::error::Error;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use sandboxed_db::{Postgres, Snapshot};

fn orders() -> Snapshot {
    Snapshot::new(Postgres::new()).seed("orders.sql")
}

#[test]
fn an_order_is_stored() -> Result<(), Box<dyn Error>> {
    let db = orders().start()?;
    let mut client = Client::connect(db.url(), NoTls)?;
    client.execute("insert into orders (article) values ('tea')", &[])?;
    Ok(())
}

/// Gives each iteration of a benchmark the same state, outside the measured time. With criterion
/// this is `bencher.iter_batched(|| orders().start(), |db| …, BatchSize::PerIteration)`.
#[test]
fn each_iteration_of_a_benchmark_starts_afresh() -> Result<(), Box<dyn Error>> {
    let times = measure(3, &orders(), |client| {
        client.batch_execute("insert into orders (article) values ('tea'); drop table orders")
    })?;
    assert_eq!(times.len(), 3);
    Ok(())
}

fn measure(
    iterations: usize,
    snapshot: &Snapshot,
    routine: impl Fn(&mut Client) -> Result<(), postgres::Error>,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..iterations {
        let db = snapshot.start()?;
        let mut client = Client::connect(db.url(), NoTls)?;
        let begin = Instant::now();
        routine(&mut client)?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// Starts servers in `async` code of any runtime: other tasks go on meanwhile.
#[tokio::test]
async fn servers_start_concurrently() -> sandboxed_db::Result<()> {
    let orders = orders();
    let (one, other) = tokio::try_join!(orders.start_async(), orders.start_async())?;
    assert_ne!(one.url(), other.url());
    Ok(())
}
