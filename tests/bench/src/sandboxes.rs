//! Measures sandboxes from a cached layer: time to the first answer, rate, memory.

use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use sandboxed_db::{Engine, MariaDb, Postgres, Redis, Sandbox, Snapshot};
use sandboxed_db_tests::TestedEngine;

use crate::Result;
use crate::bare::Bare;
use crate::figures::{Figures, Unit, concurrently, held_memory};
use crate::peers::Meter;

pub(crate) fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let rounds = if quick { 30 } else { 300 };
    let empty = Snapshot::new(Postgres::new());
    let shop = sandboxed_db_fixtures::shop_snapshot();
    let bare = Snapshot::new(Bare);
    // The first start builds the layers and starts the launcher.
    drop((empty.start()?, shop.start()?, bare.start()?));

    one_at_a_time(figures, "container, no server", &bare, rounds, |_| Ok(()))?;
    one_at_a_time(figures, "empty database", &empty, rounds, |db| query(db, "select 1"))?;
    one_at_a_time(figures, "shop, 50,000 rows", &shop, rounds, |db| {
        query(db, "select count(*) from orders")
    })?;
    let select = |db: &Sandbox| query(db, "select 1");
    for at_a_time in [2, 8] {
        many_at_a_time(figures, "empty database", &empty, rounds, at_a_time, select)?;
    }
    live(figures, "", &empty, if quick { 20 } else { 100 }, select)
}

/// Measures servers of all engines, each without data.
pub(crate) fn measure_engines(figures: &mut Figures, quick: bool) -> Result<()> {
    measure_engine::<Postgres>(figures, quick)?;
    measure_engine::<Redis>(figures, quick)?;
    measure_engine::<MariaDb>(figures, quick)
}

fn measure_engine<E: TestedEngine>(figures: &mut Figures, quick: bool) -> Result<()> {
    let rounds = if quick { 30 } else { 300 };
    let engine = E::engine();
    let name = engine.name().to_owned();
    let snapshot = Snapshot::new(engine);
    let answers = |db: &Sandbox<E>| match E::answers(db) {
        true => Ok(()),
        false => Err(format!("{} does not answer", db.url()).into()),
    };
    drop(snapshot.start()?);
    one_at_a_time(figures, &name, &snapshot, rounds, answers)?;
    many_at_a_time(figures, &name, &snapshot, rounds, 8, answers)?;
    live(figures, &format!("{name}: "), &snapshot, if quick { 20 } else { 100 }, answers)
}

fn query<E: Engine>(db: &Sandbox<E>, sql: &str) -> Result<()> {
    Client::connect(db.url(), NoTls)?.query_one(sql, &[])?;
    Ok(())
}

/// Measures the parts of each sandbox, and the processor time of all.
fn one_at_a_time<E: Engine>(
    figures: &mut Figures,
    what: &str,
    snapshot: &Snapshot<E>,
    rounds: usize,
    query: impl Fn(&Sandbox<E>) -> Result<()>,
) -> Result<()> {
    let (mut answered, mut launch, mut server, mut teardown) = (vec![], vec![], vec![], vec![]);
    let measure = || -> Result<()> {
        for _ in 0..rounds {
            let begin = Instant::now();
            let db = snapshot.start()?;
            query(&db)?;
            answered.push(begin.elapsed());
            launch.push(db.timings().launch);
            server.push(db.timings().server);
            let end = Instant::now();
            drop(db);
            teardown.push(end.elapsed());
        }
        Ok(())
    };
    let (measured, processor) = Meter::own()?.during(measure)?;
    measured?;
    let processor = processor / u32::try_from(rounds)?;
    figures.distribution(&format!("{what}: start to first answer"), answered);
    figures.distribution(&format!("{what}: container"), launch);
    figures.distribution(&format!("{what}: server"), server);
    figures.distribution(&format!("{what}: teardown"), teardown);
    figures.time(format!("{what}: processor time, each"), processor);
    Ok(())
}

fn many_at_a_time<E: Engine>(
    figures: &mut Figures,
    what: &str,
    snapshot: &Snapshot<E>,
    rounds: usize,
    at_a_time: usize,
    query: impl Fn(&Sandbox<E>) -> Result<()> + Sync,
) -> Result<()> {
    let (answered, took) = concurrently(rounds, at_a_time, || {
        let begin = Instant::now();
        let db = snapshot.start()?;
        query(&db)?;
        Ok(begin.elapsed())
    })?;
    let per_second = rounds as f64 / took.as_secs_f64();
    let what = format!("{what}, {at_a_time} at a time");
    figures.distribution(&format!("{what}: start to first answer"), answered);
    figures.push(format!("{what}: rate"), per_second, Unit::PerSecond);
    Ok(())
}

/// Measures the memory of live servers, idle and after a query.
fn live<E: Engine>(
    figures: &mut Figures,
    prefix: &str,
    snapshot: &Snapshot<E>,
    count: usize,
    query: impl Fn(&Sandbox<E>) -> Result<()>,
) -> Result<()> {
    // The kernel frees the memory of earlier sandboxes with a delay.
    thread::sleep(Duration::from_secs(2));
    let before = held_memory()?;
    let mut each = |what: &str| -> Result<()> {
        let each = held_memory()?.saturating_sub(before) as f64 / count as f64;
        figures.memory(format!("{prefix}memory of each of {count} live servers, {what}"), each);
        Ok(())
    };
    let sandboxes = (0..count).map(|_| snapshot.start()).collect::<Result<Vec<_>, _>>()?;
    each("idle")?;
    sandboxes.iter().try_for_each(query)?;
    each("after a query")
}
