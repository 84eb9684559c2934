//! From a description to a server that is ready.

use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::Snapshot;
use crate::admission::admit;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::isolation;
use crate::kept::{self, Circumstances, Keep, StateKeeper};
use crate::launch::plan::Data;
use crate::layer::{self, Recipe};
use crate::pool::{self, Ahead, Living, Starting};
use crate::report;
use crate::sandbox::{Prepared, Sandbox, Start};
use crate::test_id::{self, Function};
use crate::timings::Timings;

/// On less than that a server may start but answers nobody.
const SMALLEST_DISK: u64 = 4 << 20;
const SMALLEST_MEMORY: u64 = 32 << 20;
const FEWEST_PIDS: u32 = 16;

/// Who asks for a sandbox, and what is to become of it.
struct Asked {
    /// The thread that will hold it, if that is known.
    holder: Option<ThreadId>,
    keep: Keep,
    /// Names what is kept.
    name: String,
    report: report::Recorder,
}

impl<E: Engine> Snapshot<E> {
    /// Starts a server on a pristine copy.
    ///
    /// As many sandboxes may live at once, over all processes with the same cache, as the variable `SANDBOXED_DB_MAX` says;
    /// by default as many servers as four fifths of the memory hold when idle, and at most 2048 a processor. Further ones
    /// wait in the order of asking, at most 10 minutes.
    ///
    /// # Started ahead
    /// From the second start of the same description in a process on, further ones are started ahead while tests run: one that
    /// is ready is handed over in about a millisecond. Which differ in nothing, down to the files of the snapshot, is decided
    /// by the same look at these as ever. At most as many as the variable `SANDBOXED_DB_POOL` says are ready, by default
    /// one for each processor, and `0` has each started when it is asked for. They give way to sandboxes that
    /// are asked for, end soon when nobody asks, and with the process. Never without a container
    /// (`SANDBOXED_DB_ISOLATION=process`).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a description that cannot work: a missing file, a migration that fails, a setting that
    /// cannot be set. [`ErrorKind::NotInstalled`] for a server that is not installed. [`ErrorKind::HostUnsupported`] for a machine that refuses containers,
    /// [`ErrorKind::Cache`] for a cache that cannot be read or written, [`ErrorKind::Exited`] and [`ErrorKind::Timeout`]
    /// for a server that does not start, [`ErrorKind::Launch`] where none may live beside those that do.
    pub fn start(&self) -> Result<Sandbox<E>> {
        self.start_for_test(None)
    }

    /// Starts a server for the test of this thread, of that function if it is known.
    pub(crate) fn start_for_test(&self, function: Option<Function>) -> Result<Sandbox<E>> {
        self.start_for(self.asked(Some(thread::current().id()), function)?)
    }

    /// Who asks for a sandbox, as this thread knows it.
    fn asked(&self, holder: Option<ThreadId>, function: Option<Function>) -> Result<Asked> {
        let keep = kept::wanted(self.keep)?;
        let name = if keep == Keep::Never {
            String::new()
        } else {
            self.keep_as.clone().unwrap_or_else(|| test_id::caller(function))
        };
        Ok(Asked { holder, keep, name, report: report::Recorder::asked(self.engine.name(), function) })
    }

    fn start_for(&self, asked: Asked) -> Result<Sandbox<E>> {
        let report = asked.report.clone();
        self.try_start(asked).inspect_err(|error| report.failed(error))
    }

    fn try_start(&self, Asked { holder, keep, name, report }: Asked) -> Result<Sandbox<E>> {
        self.check()?;
        let begin = Instant::now();
        let engine = match &self.version {
            None => self.engine.clone(),
            Some(version) => self.engine.clone().of_version(version)?,
        };
        let installation = engine.locate()?;
        let recipe = Recipe {
            engine: &engine,
            installation: &installation,
            settings: &self.settings,
            steps: &self.steps,
            base: &self.base,
            start_timeout: self.start_timeout,
            limits: self.limits,
            build_timeout: self.build_timeout,
        };
        let (layer, layer_built) = layer::obtain(&recipe)?;
        let obtained = begin.elapsed();
        let mut queue = Duration::ZERO;
        report.found(|| installation.version().to_owned(), || layer.digest().to_string(), layer_built);
        let prepared = Prepared::new(Start {
            engine: &engine,
            installation: &installation,
            settings: &self.settings,
            start_timeout: self.start_timeout,
            limits: self.limits,
            links: engine.links_when_ready(&layer.data(), &self.settings),
            data: Data::Overlay { lower: layer.data(), upper_size: self.disk },
            initialise: false,
            visible: Vec::new(),
        })?;
        let planned = begin.elapsed() - obtained;
        let (sandbox, admission) = match pool::ask(&prepared, &layer, holder)? {
            Some(Ahead { sandbox, admission, executed }) => {
                report.admitted(begin.elapsed() - obtained);
                let timings = Timings {
                    plan: prepared.planned(),
                    launch: planned,
                    server: begin.elapsed() - obtained - planned,
                    pooled: Some(executed.elapsed()),
                    ..Timings::default()
                };
                (sandbox.handed_over(&prepared, timings), admission)
            }
            None => {
                let admission = admit(holder)?;
                report.admitted(planned);
                queue = begin.elapsed() - obtained - planned;
                let _starting = Starting::begin();
                (prepared.start()?, admission)
            }
        };
        let admission = Arc::new(admission);
        let before = Timings { layer: obtained, layer_built, queue, ..Timings::default() };
        let held = Arc::new((layer.clone(), Living::begin()));
        let sandbox = sandbox.with_layer(held, admission.clone(), before, report);
        if keep == Keep::Never {
            return Ok(sandbox);
        }
        let keeper = StateKeeper::new(
            &sandbox,
            Circumstances {
                keep,
                name,
                package: self.base.clone(),
                settings: &self.settings,
                layer,
                admission,
                ended: sandbox.ended().clone(),
            },
        );
        Ok(sandbox.with_keeper(Arc::new(keeper)))
    }

    /// Starts a server on a pristine copy, without blocking the runtime; any runtime will do.
    ///
    /// The work is done on a thread of its own. When the future is dropped, a sandbox that is still started ends at once.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_async(&self) -> Result<Sandbox<E>> {
        let failed = || Error::new(ErrorKind::Launch, "start a sandbox on a thread of its own");
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let snapshot = self.clone();
        // Here the thread may be a test's.
        let asked = self.asked(None, None)?;
        thread::Builder::new()
            .name("sandboxed-db".to_owned())
            .spawn(move || drop(sender.send(snapshot.start_for(asked))))
            .map_err(|error| failed().caused_by(error))?;
        receiver.await.map_err(|error| failed().caused_by(error))?
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: &str, hint: &str| {
            Err(Error::new(ErrorKind::InvalidConfig, format!("set `{what}`")).with_hint(hint))
        };
        isolation::wanted()?;
        pool::most()?;
        if self.start_timeout.is_zero() {
            return refuse("start_timeout", "it must be longer than zero");
        }
        if self.build_timeout.is_zero() {
            return refuse("build_timeout", "it must be longer than zero");
        }
        if self.disk < SMALLEST_DISK {
            return refuse("disk", "it is a number of bytes, at least 4 MB (4 << 20)");
        }
        if self.limits.memory < SMALLEST_MEMORY {
            return refuse("memory", "it is a number of bytes, at least 32 MB (32 << 20)");
        }
        if self.limits.pids.is_some_and(|pids| pids < FEWEST_PIDS) {
            return refuse("pids", "it is a number of processes, at least 16");
        }
        if self.limits.cpu.is_some_and(|cores| !cores.is_finite() || cores <= 0.0) {
            return refuse("cpu", "it is a number of processors greater than zero, such as 0.5");
        }
        Ok(())
    }
}
