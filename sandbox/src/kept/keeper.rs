//! Keeps the state of a sandbox at its end, wherever its handle is by then.

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use super::capture::{Bounds, capture};
use super::policy::Keep;
use super::state::{FORMAT, KeptState};
use super::store::{DATA, Kept, SIZE};
use crate::cache;
use crate::diagnosis;
use crate::engine::{Engine, Stop};
use crate::environment::CACHE;
use crate::error::{Error, ErrorKind, Result};
use crate::fix::quoted;
use crate::launch::Signal;
use crate::layer::Layer;
use crate::machine::process;
use crate::progress::notice;
use crate::sandbox::{Holdings, KeepOutcome, Keeper, Prepared};

/// How long the server may take to write its data and end. It takes some hundredths of a second.
const STOP: Duration = Duration::from_secs(10);
/// How long the kernel may take to end killed processes.
const KILL: Duration = Duration::from_secs(2);
/// How long stopping and copying may take together.
const TIME: Duration = Duration::from_secs(60);

/// The parts of a sandbox's snapshot that matter for keeping its state.
#[derive(Debug)]
pub(crate) struct KeepContext<'a> {
    pub(crate) keep: Keep,
    pub(crate) name: String,
    pub(crate) package: PathBuf,
    pub(crate) packages: &'a [String],
    /// The image of the server, by an absolute reference.
    pub(crate) image: Option<String>,
    pub(crate) settings: &'a [(String, String)],
    pub(crate) layer: Arc<Layer>,
}

/// Keeps the state of one sandbox. The container lives as long as the keeper, even without a
/// handle.
#[derive(Debug)]
pub(crate) struct StateKeeper {
    holdings: Arc<Holdings>,
    /// The path of the server's data from outside.
    data: PathBuf,
    stop: Stop,
    keep: Keep,
    /// The description of the state, before there is one.
    state: KeptState,
    layer: Arc<Layer>,
}

impl StateKeeper {
    pub(crate) fn new<E: Engine>(
        prepared: &Prepared<E>,
        holdings: Arc<Holdings>,
        context: KeepContext<'_>,
    ) -> Self {
        let KeepContext { keep, name, package, packages, image, settings, layer } = context;
        let engine = prepared.engine();
        let state = KeptState {
            format: FORMAT,
            name,
            package,
            failed: false,
            clean: false,
            kept: SystemTime::UNIX_EPOCH,
            engine: engine.name().to_owned(),
            version: prepared.installation().version().to_owned(),
            image,
            identity: engine.identity(prepared.installation()),
            packages: packages.to_owned(),
            settings: settings.to_owned(),
            layer: layer.digest().to_string(),
            size: 0,
            directory: PathBuf::new(),
        };
        Self {
            data: prepared.data_dir(&holdings.container),
            holdings,
            stop: prepared.stop().clone(),
            keep,
            state,
            layer,
        }
    }

    /// Ends the server and keeps its data.
    fn keep(&self, failed: bool) -> Result<KeptState> {
        let deadline = Instant::now() + TIME;
        let clean = self.end_server()?;
        let kept = Kept::open()?;
        let staged = kept.stage()?;
        let to = staged.path().join(DATA);
        let bounds = Bounds { deadline, size: SIZE };
        let captured = self.layer.keeping_seal(|| capture(&self.data, &to, &self.layer.data(), &bounds));
        let size = captured.map_err(|error| cache::failed("copy the data directory to", &to, error))?;
        let name = numbered(&self.state.name);
        let kept_at = SystemTime::now();
        kept.publish(staged, KeptState { name, failed, clean, kept: kept_at, size, ..self.state.clone() })
    }

    /// Ends the server by its request or stop signal, or else kills it and all its processes;
    /// returns whether it ended cleanly.
    fn end_server(&self) -> Result<bool> {
        let container = &self.holdings.container;
        let stop = |signal, requested, limit| {
            container.stop_server(signal, requested, limit).map_err(diagnosis::explain)
        };
        let clean = match stop(self.stop.signal, self.stop.request(&container.root()), STOP) {
            Ok(exit) => self.stop.is_clean(exit),
            Err(error) if error.kind() == ErrorKind::Timeout => {
                stop(Signal::Kill, None, KILL)?;
                false
            }
            // The container has ended, and its data is gone.
            Err(error) => return Err(error),
        };
        if !clean {
            self.end_orphans();
        }
        Ok(clean)
    }

    /// Ends the orphans of a dead server, which may still write. They are children of the
    /// container's init by now.
    fn end_orphans(&self) {
        let deadline = Instant::now() + KILL;
        while Instant::now() < deadline {
            let orphans = children_of(self.holdings.container.pid());
            if orphans.is_empty() {
                return;
            }
            orphans.into_iter().for_each(|orphan| kill_child(orphan, self.holdings.container.pid()));
            thread::sleep(Duration::from_millis(1));
        }
        tracing::warn!("orphans of the server do not end");
    }

    /// Keeps the state, and reports the outcome.
    fn keep_and_report(&self, failed: bool) -> KeepOutcome {
        // A panic within a panic would end all tests of this process.
        match panic::catch_unwind(AssertUnwindSafe(|| self.keep(failed))) {
            Ok(Ok(state)) => {
                let open = command("open", &state.name);
                self.holdings.kept(&open);
                KeepOutcome::Kept { diff: command("diff", &state.name), name: state.name, open }
            }
            Ok(Err(error)) => KeepOutcome::NotKept(in_a_line(&error)),
            Err(_) => KeepOutcome::NotKept("keeping it panicked".to_owned()),
        }
    }
}

impl Keeper for StateKeeper {
    fn at_drop(&self) {
        if let Some(text) = self.at_end(thread::panicking()) {
            notice(&format!("the sandbox of `{}`: {text}", self.state.name));
        }
    }

    fn at_end(&self, failed: bool) -> Option<KeepOutcome> {
        (self.keep == Keep::Always || failed).then(|| self.keep_and_report(failed))
    }
}

fn children_of(parent: u32) -> Vec<Pid> {
    let children = process::children(&parent.to_string());
    children.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())).collect()
}

/// Kills a process if it is still that child, and not another process with the same id.
fn kill_child(child: Pid, parent: u32) {
    let Ok(pidfd) = pidfd_open(child, PidfdFlags::empty()) else { return };
    if children_of(parent).contains(&child) {
        // It may end by itself in between.
        let _ = pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    }
}

/// Numbers the states of one name in this process: each of several sandboxes of a test is kept.
fn numbered(name: &str) -> String {
    static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    names.push(name.to_owned());
    match names.iter().filter(|other| *other == name).count() {
        1 => name.to_owned(),
        number => format!("{name}#{number}"),
    }
}

/// The command line of `sandboxed-db` for a state, complete for a new shell.
fn command(verb: &str, name: &str) -> String {
    let cache = CACHE.value().and_then(|cache| cache.into_string().ok());
    let cache = cache.map(|cache| format!("{}={} ", CACHE.name, quoted(&cache))).unwrap_or_default();
    format!("{cache}sandboxed-db {verb} {}", quoted(name))
}

fn in_a_line(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!(" ({hint})"));
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_states_of_a_name_are_numbered() {
        let name = "further_states_of_a_name_are_numbered";
        assert_eq!([numbered(name), numbered(name)], [name.to_owned(), format!("{name}#2")]);
    }

    #[test]
    fn an_error_is_reported_in_one_line() {
        let error = Error::new(ErrorKind::Cache, "copy").caused_by("no\nroom").with_hint("make room");
        assert_eq!(in_a_line(&error), "copy: no room (make room)");
    }
}
