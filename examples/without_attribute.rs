//! What if there can be no attribute: in helpers, loops, benchmarks, other frameworks?
//!
//! Every argument of the attribute is a method of `Snapshot`, and `start` gives a server that ends when it is dropped.
//! A snapshot is a description, found again in half a millisecond: a function that returns it will do, and no `static`
//! has to hold it.
//!
//! Run it with `cargo test -p sandboxed-db-examples --test without_attribute`.

use std::error::Error;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use sandboxed_db::{Postgres, Snapshot};

fn orders() -> Snapshot {
    Snapshot::new(Postgres::new()).seed("orders.sql")
}

#[test]
fn an_order_is_kept() -> Result<(), Box<dyn Error>> {
    let db = orders().start()?;
    let mut client = Client::connect(db.url(), NoTls)?;
    client.execute("insert into orders (article) values ('tea')", &[])?;
    Ok(())
}

/// What a benchmark needs: the same state before each turn, however the turn before left it, and outside the measured
/// time. With criterion this is `bencher.iter_batched(|| orders().start(), |db| …, BatchSize::PerIteration)`.
#[test]
fn each_turn_of_a_benchmark_starts_afresh() -> Result<(), Box<dyn Error>> {
    let times = measure(3, &orders(), |client| {
        client.batch_execute("insert into orders (article) values ('tea'); drop table orders")
    })?;
    assert_eq!(times.len(), 3);
    Ok(())
}

fn measure(
    turns: usize,
    snapshot: &Snapshot,
    routine: impl Fn(&mut Client) -> Result<(), postgres::Error>,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..turns {
        let db = snapshot.start()?;
        let mut client = Client::connect(db.url(), NoTls)?;
        let begin = Instant::now();
        routine(&mut client)?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// In `async` code of any runtime: other tasks go on while the server starts.
#[tokio::test]
async fn servers_start_beside_other_work() -> sandboxed_db::Result<()> {
    let orders = orders();
    let (one, other) = tokio::try_join!(orders.start_async(), orders.start_async())?;
    assert_ne!(one.url(), other.url());
    Ok(())
}
