//! What a contestant's test process does: it runs tests as it is told, and answers how long they took.
//!
//! Each contestant has a process of its own, as each has in a test run, so that one's threads, memory and death are not
//! another's. Orders come as lines of JSON on standard input; its end is the process's.

use std::io::{self, BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::contestant::{Answered, Part, Tests};
use crate::Outcome;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Prepare what tests share. The first order.
    Open(Part),
    Block(Block),
    /// Make so many databases, and keep them until [`Order::Release`].
    Hold {
        query: String,
        count: usize,
    },
    Release,
}

/// Some tests in a row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Block {
    pub(crate) query: String,
    pub(crate) at_once: usize,
    pub(crate) count: usize,
    /// When no further test begins, though less than `count` have; `at_once` always do.
    pub(crate) budget: Duration,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) tests: Vec<Times>,
    /// From the first request to the last end.
    pub(crate) took: Duration,
    pub(crate) failures: Vec<String>,
}

/// Of one test, from its request.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) answered: Duration,
    pub(crate) gone: Duration,
}

/// Serves orders until there are no more.
pub(crate) fn serve() -> Outcome<()> {
    let mut orders = io::stdin().lock().lines();
    let mut next = || -> Outcome<Option<Order>> {
        orders.next().map(|line| Ok(serde_json::from_str(&line?)?)).transpose()
    };
    let Some(Order::Open(part)) = next()? else {
        return Err("the first order is to open".into());
    };
    let tests = part.open()?;
    say(&Reply::default())?;
    while let Some(order) = next()? {
        let reply = match order {
            Order::Block(block) => run(&*tests, &block),
            Order::Hold { query, count } => hold(&*tests, query, count, &mut next)?,
            Order::Open(_) | Order::Release => return Err("there is nothing to open or release".into()),
        };
        say(&reply)?;
    }
    Ok(())
}

fn say(reply: &Reply) -> Outcome<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, reply)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

fn run(tests: &dyn Tests, block: &Block) -> Reply {
    let begun = AtomicUsize::new(0);
    let reply = Mutex::new(Reply::default());
    let query = constant(&block.query);
    let begin = Instant::now();
    let work = || {
        for round in 0.. {
            let late = round > 0 && begin.elapsed() > block.budget;
            if late || begun.fetch_add(1, Ordering::Relaxed) >= block.count {
                return;
            }
            let result = time(tests, query);
            let mut reply = reply.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(times) => reply.tests.push(times),
                Err(failure) => reply.failures.push(failure),
            }
        }
    };
    thread::scope(|scope| (0..block.at_once).for_each(|_| drop(scope.spawn(work))));
    let mut reply = reply.into_inner().unwrap_or_else(PoisonError::into_inner);
    reply.took = begin.elapsed();
    reply
}

fn time(tests: &dyn Tests, query: &'static str) -> Result<Times, String> {
    let answer = Arc::new(OnceLock::new());
    let begin = Instant::now();
    let answered: Answered = {
        let answer = answer.clone();
        Arc::new(move || answer.set(begin.elapsed()).unwrap_or_default())
    };
    attempt(tests, query, &answered)?;
    let gone = begin.elapsed();
    match answer.get() {
        Some(&answered) => Ok(Times { answered, gone }),
        None => Err("the test ended without an answer".to_owned()),
    }
}

/// Some peers panic where a server does not start.
fn attempt(tests: &dyn Tests, query: &'static str, answered: &Answered) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| tests.test(query, answered))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:?}")),
        Err(_) => Err("the test panicked".to_owned()),
    }
}

/// Says so once all databases are there, and again when they are gone.
fn hold(
    tests: &dyn Tests,
    query: String,
    count: usize,
    next: &mut dyn FnMut() -> Outcome<Option<Order>>,
) -> Outcome<Reply> {
    let query = constant(&query);
    let gate = Arc::new(Gate::default());
    let failures = Mutex::new(Vec::new());
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let answered: Answered = {
                    let gate = gate.clone();
                    Arc::new(move || gate.arrive_and_wait())
                };
                if let Err(failure) = attempt(tests, query, &answered) {
                    failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                    gate.arrive();
                }
            });
        }
        gate.wait_for(count);
        let failed = failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let told = say(&Reply { took: begin.elapsed(), failures: failed, ..Reply::default() });
        let order = next();
        gate.open();
        told?;
        match order? {
            Some(Order::Release) | None => Ok(()),
            Some(_) => Err("what is held must be released first".into()),
        }
    })
    .map(|()| {
        let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        Reply { took: begin.elapsed(), failures, ..Reply::default() }
    })
}

/// Queries are constants of the program; this process asks only a few.
fn constant(query: &str) -> &'static str {
    String::leak(query.to_owned())
}

/// Where tests wait until all have come and somebody lets them go.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    fn arrive(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 += 1;
        self.changed.notify_all();
    }

    fn arrive_and_wait(&self) {
        self.arrive();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(state, |(_, open)| !*open));
    }

    fn wait_for(&self, count: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(state, |(arrived, _)| *arrived < count));
    }

    fn open(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }
}
