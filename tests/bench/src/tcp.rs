//! Measures TCP beside the Unix socket: first call, connection, query, transfer.

use std::io::{self, Write};
use std::time::Instant;

use postgres::{Client, NoTls};
use sandboxed_db::{Postgres, Snapshot};

use crate::Result;
use crate::figures::{Figures, Unit, median};

/// A table of about 100 MB.
const TABLE: &str =
    "create table bulk as select i, repeat(md5(i::text), 30) x from generate_series(1, 100000) i";

pub(crate) fn measure(figures: &mut Figures, rounds: usize) -> Result<()> {
    let snapshot = Snapshot::new(Postgres::new());
    let mut first = vec![];
    for _ in 0..rounds {
        let db = snapshot.start()?;
        let begin = Instant::now();
        db.tcp()?;
        first.push(begin.elapsed());
    }
    figures.distribution("tcp: the first call", first);

    let db = snapshot.start()?;
    let tcp = db.tcp()?;
    Client::connect(db.url(), NoTls)?.batch_execute(TABLE)?;
    for (transport, url) in [("unix socket", db.url()), ("tcp", tcp.url())] {
        let mut connected = vec![];
        for _ in 0..rounds {
            let begin = Instant::now();
            drop(Client::connect(url, NoTls)?);
            connected.push(begin.elapsed());
        }
        figures.distribution(&format!("{transport}: a connection"), connected);
        let mut client = Client::connect(url, NoTls)?;
        let mut queries = vec![];
        for _ in 0..rounds * 10 {
            let begin = Instant::now();
            client.simple_query("select 1")?;
            queries.push(begin.elapsed());
        }
        figures.distribution(&format!("{transport}: a query"), queries);
        let (mut rates_out, mut rates_in) = (vec![], vec![]);
        for _ in 0..rounds / 10 {
            let begin = Instant::now();
            let count = io::copy(&mut client.copy_out("copy bulk to stdout")?, &mut io::sink())?;
            rates_out.push(rate(count, begin));
            client.batch_execute("begin; create table copied (like bulk)")?;
            let begin = Instant::now();
            let mut writer = client.copy_in("copy copied from stdin")?;
            let line = format!("1\t{}\n", "0123456789abcdef".repeat(60));
            (0..100_000).try_for_each(|_| writer.write_all(line.as_bytes()))?;
            writer.finish()?;
            rates_in.push(rate(100_000 * line.len() as u64, begin));
            client.batch_execute("rollback")?;
        }
        for (what, rates) in [("COPY out", rates_out), ("COPY in", rates_in)] {
            figures.push(format!("{transport}: {what}"), median(&rates), Unit::MegabytesPerSecond);
        }
    }
    Ok(())
}

fn rate(bytes: u64, begin: Instant) -> f64 {
    bytes as f64 / 1e6 / begin.elapsed().as_secs_f64()
}
