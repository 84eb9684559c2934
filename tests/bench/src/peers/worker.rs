//! The test process of a contestant: runs tests on request and reports their times.
//!
//! Each contestant has its own process, as in a test run, so that threads, memory and death of one
//! do not affect another. Requests are lines of JSON on standard input. The process ends at its
//! end.

use std::io::{self, BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::contestant::{Answered, Assignment, Tests};
use crate::Result;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Prepare the resources that tests share. The first request.
    Open(Assignment),
    Block(Block),
    /// Create databases and keep them until [`Request::Release`].
    Hold {
        query: String,
        count: usize,
    },
    Release,
}

/// A block of tests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Block {
    pub(crate) query: String,
    pub(crate) at_once: usize,
    pub(crate) count: usize,
    /// The time after which no test begins, after the first `at_once`.
    pub(crate) budget: Duration,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) tests: Vec<Times>,
    /// From the first request to the last end.
    pub(crate) took: Duration,
    pub(crate) failures: Vec<String>,
}

/// The times of one test since its request.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) answered: Duration,
    pub(crate) gone: Duration,
}

/// Serves requests until the end of standard input.
pub(crate) fn serve() -> Result<()> {
    let mut requests = io::stdin().lock().lines();
    let mut next = || -> Result<Option<Request>> {
        requests.next().map(|line| Ok(serde_json::from_str(&line?)?)).transpose()
    };
    let Some(Request::Open(assignment)) = next()? else {
        return Err("the first request must be `Open`".into());
    };
    let tests = assignment.open()?;
    send(&Reply::default())?;
    while let Some(request) = next()? {
        let reply = match request {
            Request::Block(block) => run(&*tests, &block),
            Request::Hold { query, count } => hold(&*tests, query, count, &mut next)?,
            Request::Open(_) | Request::Release => return Err("unexpected `Open` or `Release`".into()),
        };
        send(&reply)?;
    }
    Ok(())
}

fn send(reply: &Reply) -> Result<()> {
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

/// Runs a test. Some peers panic if a server does not start.
fn attempt(tests: &dyn Tests, query: &'static str, answered: &Answered) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| tests.test(query, answered))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:?}")),
        Err(_) => Err("the test panicked".to_owned()),
    }
}

/// Creates databases and reports; on release removes them and reports again.
fn hold(
    tests: &dyn Tests,
    query: String,
    count: usize,
    next: &mut dyn FnMut() -> Result<Option<Request>>,
) -> Result<Reply> {
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
        let sent = send(&Reply { took: begin.elapsed(), failures: failed, ..Reply::default() });
        let request = next();
        gate.open();
        sent?;
        match request? {
            Some(Request::Release) | None => Ok(()),
            Some(_) => Err("`Release` must follow `Hold`".into()),
        }
    })
    .map(|()| {
        let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        Reply { took: begin.elapsed(), failures, ..Reply::default() }
    })
}

/// Leaks a query: there are few, and contestants take constants.
fn constant(query: &str) -> &'static str {
    String::leak(query.to_owned())
}

/// A gate at which tests wait until it opens.
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
