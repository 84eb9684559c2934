//! A client: its requests, and its sandboxes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use sandboxed_db::harness::{KeepOutcome, Session, SessionEnd};
use sandboxed_db::report::Outcome;
use sandboxed_db::{Engine, Keep, Snapshot, Timings};
use serde_json::{Value, json};

use super::problem::Problem;
use super::request::{self, Log, Method, Request, Start, Stop};
use crate::engine::OnSnapshot;

/// The version of the protocol.
const PROTOCOL: u32 = 1;
/// The longest line of a request, in bytes.
const LONGEST: usize = 1 << 20;

/// A client.
pub(super) struct Connection {
    output: Mutex<Box<dyn Write + Send>>,
    /// None once the connection is closed.
    sandboxes: Mutex<Option<BTreeMap<u64, Held>>>,
    /// Shared by requests that end a sandbox: the end of the program waits for them.
    stopping: RwLock<()>,
}

/// A sandbox of a test.
struct Held {
    test: String,
    session: Box<dyn AnySession>,
}

/// A session with any engine.
trait AnySession: Send {
    fn log(&self) -> sandboxed_db::Result<String>;
    fn end(self: Box<Self>, test: &str, outcome: Outcome, message: &str) -> SessionEnd;
}

impl<E: Engine> AnySession for Session<E> {
    fn log(&self) -> sandboxed_db::Result<String> {
        self.sandbox().log()
    }

    fn end(self: Box<Self>, test: &str, outcome: Outcome, message: &str) -> SessionEnd {
        Session::end(*self, test, outcome, message)
    }
}

impl Connection {
    pub(super) fn new(output: impl Write + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            output: Mutex::new(Box::new(output)),
            sandboxes: Mutex::new(Some(BTreeMap::new())),
            stopping: RwLock::default(),
        })
    }

    /// Answers requests until the input ends or one ends the connection.
    pub(super) fn serve(self: &Arc<Self>, input: &mut dyn BufRead) {
        self.write(&json!({ "serve": PROTOCOL, "version": env!("CARGO_PKG_VERSION") }));
        while let Some(line) = next_line(input) {
            let request = match line {
                Ok(line) => request::read(&line),
                Err(problem) => Err((Value::Null, problem)),
            };
            match request {
                Ok(Request { id, method: Method::End }) => {
                    self.close();
                    self.answer(&id, Ok(json!({})));
                    return;
                }
                Ok(request) => self.perform_in_thread(request),
                Err((id, problem)) => self.answer(&id, Err(problem)),
            }
        }
    }

    /// Ends all sandboxes, and those whose start is in progress when they are ready. A test without
    /// an outcome has not failed.
    pub(super) fn close(&self) {
        let sandboxes = self.sandboxes().take();
        for Held { test, session } in sandboxes.into_iter().flat_map(BTreeMap::into_values) {
            drop(session.end(&test, Outcome::Unknown, ""));
        }
        drop(self.stopping.write());
    }

    /// A start takes long where a layer is built, so requests do not wait for each other. The
    /// thread has the name of the test, by which reports know it.
    fn perform_in_thread(self: &Arc<Self>, Request { id, method }: Request) {
        let name = match &method {
            // A name of a thread has no zero byte.
            Method::Start(start) => start.test.clone().filter(|test| !test.contains('\0')),
            _ => None,
        };
        let (this, number) = (self.clone(), id.clone());
        let work = move || {
            let result = this.perform(method);
            this.answer(&number, result);
        };
        let thread = thread::Builder::new().name(name.unwrap_or_else(|| "sandboxed-db".to_owned()));
        if let Err(error) = thread.spawn(work) {
            self.answer(&id, Err(Problem::control("start a thread", error)));
        }
    }

    fn perform(&self, method: Method) -> Result<Value, Problem> {
        match method {
            Method::Start(start) => self.start(&start),
            Method::Stop(stop) => self.stop(&stop),
            Method::Log(Log { sandbox }) => match self.sandboxes().as_ref().and_then(|all| all.get(&sandbox))
            {
                Some(held) => Ok(json!({ "log": held.session.log()? })),
                None => Err(unknown("read the log", sandbox)),
            },
            Method::End => Ok(json!({})),
        }
    }

    fn start(&self, start: &Start) -> Result<Value, Problem> {
        let current = std::env::current_dir();
        let current = current.map_err(|error| Problem::control("find the working directory", error))?;
        let Start { snapshot, directory, .. } = start;
        snapshot.engine.run_on(snapshot, current.join(directory), Begin(self, start))?
    }

    fn start_with<E: Engine>(&self, start: &Start, snapshot: Snapshot<E>) -> Result<Value, Problem> {
        let session = Session::start(&named(snapshot, start))?;
        let sandbox = session.sandbox();
        let tcp = if start.tcp { Some(sandbox.tcp()?) } else { None };
        let mut answer = json!({
            "url": sandbox.url(),
            "env": sandbox.env().into_iter().collect::<BTreeMap<_, _>>(),
            "tcp_url": tcp.map(|tcp| tcp.url().to_owned()),
            "timings": timings(&sandbox.timings()),
        });
        let number = next_number();
        answer["sandbox"] = number.into();
        let test = start.test.clone().unwrap_or_else(|| format!("sandbox {number}"));
        match self.sandboxes().as_mut() {
            Some(sandboxes) => sandboxes.insert(number, Held { test, session: Box::new(session) }),
            None => return Err(Problem::control("keep the sandbox", "the connection has ended")),
        };
        Ok(answer)
    }

    fn stop(&self, stop: &Stop) -> Result<Value, Problem> {
        let _stopping = self.stopping.read().unwrap_or_else(PoisonError::into_inner);
        let held = self.sandboxes().as_mut().and_then(|sandboxes| sandboxes.remove(&stop.sandbox));
        let Held { test, session } = held.ok_or_else(|| unknown("stop", stop.sandbox))?;
        let outcome = if stop.failed { Outcome::Failed } else { Outcome::Passed };
        let SessionEnd { report, kept } = session.end(&test, outcome, &stop.message);
        let kept = kept.and_then(|kept| match kept {
            KeepOutcome::Kept { name, open, diff } => {
                Some(json!({ "name": name, "open": open, "diff": diff }))
            }
            KeepOutcome::NotKept(_) => None,
        });
        Ok(json!({ "report": report, "kept": kept }))
    }

    fn answer(&self, id: &Value, result: Result<Value, Problem>) {
        self.write(&match result {
            Ok(result) => json!({ "id": id, "result": result }),
            Err(problem) => json!({ "id": id, "error": problem }),
        });
    }

    fn write(&self, line: &Value) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        // The client may be gone; the end of its input follows.
        let _ = output.write_all(format!("{line}\n").as_bytes()).and_then(|()| output.flush());
    }

    fn sandboxes(&self) -> MutexGuard<'_, Option<BTreeMap<u64, Held>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The start of a session.
struct Begin<'a>(&'a Connection, &'a Start);

impl OnSnapshot for Begin<'_> {
    type Output = Result<Value, Problem>;

    fn run<E: Engine>(self, snapshot: Snapshot<E>) -> Self::Output {
        self.0.start_with(self.1, snapshot)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Adds the name of the test, and whether its data is kept.
fn named<E: Engine>(snapshot: Snapshot<E>, start: &Start) -> Snapshot<E> {
    let snapshot = match start.keep {
        None | Some(request::Keep::Never) => snapshot,
        Some(request::Keep::OnFailure) => snapshot.keep(Keep::OnFailure),
        Some(request::Keep::Always) => snapshot.keep(Keep::Always),
    };
    match &start.test {
        Some(test) => snapshot.keep_as(test),
        None => snapshot,
    }
}

/// Numbers the sandboxes of all connections.
fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

fn timings(timings: &Timings) -> Value {
    let ms = |time: Duration| time.as_micros() as f64 / 1e3;
    json!({
        "queued_ms": ms(timings.queue),
        "started_ms": ms(timings.total()),
        "layer": if timings.layer_built { "miss" } else { "hit" },
        "prewarmed": timings.pooled.is_some(),
    })
}

fn unknown(operation: &str, number: u64) -> Problem {
    Problem::request(
        &format!("{operation} sandbox {number}"),
        "this connection has no sandbox of this number",
    )
    .with_hint("use the `sandbox` of a `start`'s result, until its `stop`")
}

/// Reads a line. `None` at the end of the input, where the beginning of a line is dropped; a longer
/// line than [`LONGEST`] is a problem.
fn next_line(input: &mut dyn BufRead) -> Option<Result<Vec<u8>, Problem>> {
    let mut line = Vec::new();
    let is_whole = |input: &mut dyn BufRead, line: &mut Vec<u8>| {
        let read = input.take(LONGEST as u64).read_until(b'\n', line).unwrap_or_default();
        (read > 0).then_some(line.ends_with(b"\n"))
    };
    if is_whole(input, &mut line)? {
        return Some(Ok(line));
    }
    loop {
        let mut rest = Vec::new();
        if is_whole(input, &mut rest)? {
            let cause = format!("the line is longer than {LONGEST} bytes");
            return Some(Err(Problem::request("read a request", cause)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_refused_and_skipped() {
        let text = format!("a\n{}\nb\nc", "x".repeat(3 * LONGEST));
        let mut input = text.as_bytes();
        let mut next = || next_line(&mut input).map(|line| line.ok().map(|line| line.len()));
        assert_eq!([next(), next(), next(), next()], [Some(Some(2)), Some(None), Some(Some(2)), None]);
    }
}
