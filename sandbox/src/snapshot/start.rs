//! From a description to a server that is ready.

use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Instant;

use super::Snapshot;
use crate::admission::admit;
use crate::engine::{Engine, Installation};
use crate::environment;
use crate::error::{Error, ErrorKind, Result};
use crate::isolation;
use crate::kept::{self, Keep, KeepContext, StateKeeper};
use crate::layer::{self, Recipe};
use crate::pool::{self, Prewarmed, Starting};
use crate::report;
use crate::sandbox::{
    DataSource, Holdings, ImageReference, Keeping, Prepared, Sandbox, StartOptions, tls_is_possible,
};
use crate::test_id::{self, Function};
use crate::timings::Timings;

/// A server with less may start, but answers no query.
const SMALLEST_DISK: u64 = 4 << 20;
const SMALLEST_MEMORY: u64 = 32 << 20;
const FEWEST_PIDS: u32 = 16;

/// A request for a sandbox.
struct Request {
    /// The thread that will hold it, if known.
    holder: Option<ThreadId>,
    keep: Keep,
    /// Name of the state, if one is kept.
    name: String,
    report: report::Recorder,
}

impl<E: Engine> Snapshot<E> {
    /// Starts a server on a pristine copy.
    ///
    /// At most [`SANDBOXED_DB_MAX`](crate::environment) sandboxes live at a time, in all processes
    /// with the same cache. Default: the number of idle servers that fit into four fifths of the
    /// memory, and at most 2048 for each processor. Further starts wait for a slot in the order of
    /// their requests, at most 10 minutes.
    ///
    /// # Prewarmed sandboxes
    /// From the second start of the same description in a process on, a pool starts further
    /// sandboxes while tests run, and hands a ready one over in about a millisecond. A prewarmed
    /// sandbox serves a request only if nothing differs, including the contents of the snapshot's
    /// files. At most `SANDBOXED_DB_POOL` are ready at a time; default: one for each processor, and
    /// `0` turns the pool off. Prewarmed sandboxes give way to requested ones, and end soon after
    /// the last request and with the process. In process mode (`SANDBOXED_DB_ISOLATION=process`)
    /// there is no pool.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a description that cannot work: a missing file, a failing
    /// migration, a setting on which the sandbox depends. [`ErrorKind::NotInstalled`] for a server
    /// that is not installed. [`ErrorKind::HostUnsupported`] for a machine that refuses containers.
    /// [`ErrorKind::Cache`] for a cache that cannot be read or written. [`ErrorKind::Exited`] for a
    /// server that ends at its start, such as one that refuses a setting. [`ErrorKind::Timeout`]
    /// for a server that is not ready in time, and if no slot is free in time.
    pub fn start(&self) -> Result<Sandbox<E>> {
        self.start_for_test(None)
    }

    /// Starts a server for the test that runs on this thread; `function` is its function, if known.
    pub(crate) fn start_for_test(&self, function: Option<Function>) -> Result<Sandbox<E>> {
        self.start_for(self.request(Some(thread::current().id()), function)?)
    }

    /// The request, with the name of the test as this thread knows it.
    fn request(&self, holder: Option<ThreadId>, function: Option<Function>) -> Result<Request> {
        let keep = kept::wanted(self.keep)?;
        let name = if keep == Keep::Never {
            String::new()
        } else {
            self.keep_as.clone().unwrap_or_else(|| test_id::caller(function))
        };
        Ok(Request { holder, keep, name, report: report::Recorder::asked(self.engine.name(), function) })
    }

    fn start_for(&self, request: Request) -> Result<Sandbox<E>> {
        let report = request.report.clone();
        self.try_start(request).inspect_err(|error| report.failed(error))
    }

    fn try_start(&self, Request { holder, keep, name, report }: Request) -> Result<Sandbox<E>> {
        self.check()?;
        let begin = Instant::now();
        let (engine, installation) = self.located()?;
        let (layer, layer_built) = layer::obtain(&self.recipe(&engine, &installation))?;
        let obtained = begin.elapsed();
        report.found(|| installation.version().to_owned(), || layer.digest().to_string(), layer_built);
        let prepared = Prepared::new(StartOptions {
            engine: &engine,
            installation: &installation,
            settings: &self.settings,
            start_timeout: self.start_timeout,
            limits: self.limits,
            tls: self.tls,
            source: DataSource::Overlay {
                lower: layer.data(),
                upper_size: self.disk,
                links: engine.links_when_ready(&layer.data(), &self.settings),
            },
        })?;
        let planned = begin.elapsed() - obtained;
        let waited = || begin.elapsed() - obtained - planned;
        let (server, slot, timings) = match pool::ask(&prepared, &layer, holder)? {
            Some(Prewarmed { server, slot }) => {
                report.admitted(begin.elapsed() - obtained);
                let timings = Timings {
                    plan: prepared.planning(),
                    launch: planned,
                    server: waited(),
                    pooled: Some(server.executed.elapsed()),
                    start: server.container.origin().into(),
                    ..Timings::default()
                };
                (server, slot, timings)
            }
            None => {
                let slot = admit(holder, prepared.idle_memory())?;
                report.admitted(planned);
                let queue = waited();
                let _starting = Starting::begin();
                let server = prepared.start()?;
                let timings = Timings { queue, ..server.timings(&prepared) };
                (server, slot, timings)
            }
        };
        let timings = Timings { layer: obtained, layer_built, ..timings };
        let holdings = Arc::new(Holdings::for_test(server.container, report, layer.lock().clone(), slot));
        let keeping = if keep == Keep::Never {
            Keeping::Never
        } else {
            let package = self.package.clone();
            let image = prepared.image().map(|image| image.reference().to_owned());
            let context = KeepContext {
                keep,
                name,
                package,
                image,
                packages: &self.packages,
                settings: &self.settings,
                layer,
            };
            Keeping::AtDrop(Box::new(StateKeeper::new(&prepared, holdings.clone(), context)))
        };
        Sandbox::new(prepared, timings, holdings, keeping)
    }

    /// Builds or pulls the layer of the description, unless it is in the cache.
    pub(crate) fn prepare_layer(&self) -> Result<()> {
        self.check()?;
        let (engine, installation) = self.located()?;
        layer::obtain(&self.recipe(&engine, &installation)).map(drop)
    }

    /// Returns the engine of the version asked for, and its programs.
    pub(crate) fn located(&self) -> Result<(E, Installation)> {
        let engine = match &self.version {
            None => self.engine.clone(),
            Some(version) => self.engine.clone().of_version(version)?,
        };
        let of_run = ImageReference::of_environment(engine.name())?;
        let installation = match self.image.as_ref().or(of_run.as_ref()) {
            None => engine.locate()?,
            Some(image) => engine.locate_in(&image.obtain(self.locked)?)?,
        };
        let installation = installation.with_packages(&self.packages)?;
        Ok((engine, installation))
    }

    pub(crate) fn recipe<'a>(&'a self, engine: &'a E, installation: &'a Installation) -> Recipe<'a, E> {
        Recipe {
            engine,
            installation,
            settings: &self.settings,
            steps: &self.steps,
            start_timeout: self.start_timeout,
            limits: self.limits,
            build_timeout: self.build_timeout,
            max_age: self.max_age,
        }
    }

    /// Starts a server on a pristine copy, without blocking the runtime. Every runtime works.
    ///
    /// The start runs on its own thread. If the future is dropped, the start goes on, and its
    /// sandbox ends as soon as it exists.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_async(&self) -> Result<Sandbox<E>> {
        let failed = || Error::new(ErrorKind::Launch, "start a sandbox on its own thread");
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let snapshot = self.clone();
        // On this thread, which may be named for a test.
        let request = self.request(None, None)?;
        thread::Builder::new()
            .name("sandboxed-db".to_owned())
            .spawn(move || drop(sender.send(snapshot.start_for(request))))
            .map_err(|error| failed().caused_by(error))?;
        receiver.await.map_err(|error| failed().caused_by(error))?
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: &str, hint: &str| {
            Err(Error::new(ErrorKind::InvalidConfig, format!("set `{what}`")).with_hint(hint))
        };
        environment::check()?;
        layer::check_registry()?;
        report::check()?;
        if !self.engine.is_opened_by_path() {
            isolation::wanted()?;
        }
        if self.tls {
            tls_is_possible()?;
        }
        if self.start_timeout.is_zero() {
            return refuse("start_timeout", "it must be longer than zero");
        }
        if self.build_timeout.is_zero() {
            return refuse("build_timeout", "it must be longer than zero");
        }
        if self.max_age.is_some_and(|age| age.is_zero()) {
            return refuse("max_age", "it must be longer than zero");
        }
        if self.disk < SMALLEST_DISK {
            return refuse("disk", "it is at least 4 MiB (4194304 bytes)");
        }
        if self.limits.memory < SMALLEST_MEMORY {
            return refuse("memory", "it is at least 32 MiB (33554432 bytes)");
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
