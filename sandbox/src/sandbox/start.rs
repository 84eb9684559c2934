//! From the options of a start to a server that is ready.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{LOG_TAIL, certificate, image};
use crate::cache;
use crate::diagnosis::{explain, limits, own_limit_too_low};
use crate::engine::{Engine, Image, Installation, Mode, Server, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::fix::Fix;
use crate::isolation;
use crate::launch::plan::{self, Data, Directory, File, Plan, Symlink};
use crate::launch::{Command, Container, Limits, ProcessOrigin, Stdin, distrust};
use crate::timings::Timings;

/// How long the program that fills an empty data directory may take.
const INITIALISE_TIMEOUT: Duration = Duration::from_secs(120);

/// Input of a start, before anything is decided.
pub(crate) struct StartOptions<'a, E> {
    pub(crate) engine: &'a E,
    pub(crate) installation: &'a Installation,
    pub(crate) settings: &'a [(String, String)],
    pub(crate) start_timeout: Duration,
    pub(crate) limits: Limits,
    /// `true` if clients by TCP use TLS.
    pub(crate) tls: bool,
    pub(crate) source: DataSource,
}

/// The data directory that a server starts on.
pub(crate) enum DataSource {
    /// An empty directory, which the engine initialises first.
    Empty { data: PathBuf },
    /// A copy of a layer's data, for steps that see the files at their own paths.
    Copy { data: PathBuf, visible: Vec<PathBuf> },
    /// Data that does not change, below an overlay for at most `upper_size` bytes. Links are made
    /// below the data directory once the server is ready; see [`Engine::links_when_ready`].
    Overlay { lower: PathBuf, upper_size: u64, links: Vec<(PathBuf, PathBuf)> },
}

/// All decisions about a start. One value starts any number of servers.
#[derive(Debug, Clone)]
pub(crate) struct Prepared<E> {
    engine: E,
    installation: Installation,
    plan: Plan,
    /// Names of the settings, for errors.
    settings: Vec<String>,
    start_timeout: Duration,
    /// Starts the server. The plan lacks it where the data directory is initialised first.
    command: Command,
    idle_memory: u64,
    stop: Stop,
    /// `true` if each sandbox gets a certificate.
    tls: bool,
    planning: Duration,
}

/// A container whose server is ready.
#[derive(Debug)]
pub(crate) struct ReadyServer {
    pub(crate) container: Container,
    pub(crate) executed: Instant,
    /// From the request to the executed server.
    launch: Duration,
    /// From the executed server to readiness.
    server: Duration,
}

impl ReadyServer {
    /// Timings of a server that was started for this request.
    pub(crate) fn timings<E: Engine>(&self, prepared: &Prepared<E>) -> Timings {
        let plan = prepared.planning;
        let start = self.container.origin().into();
        Timings { plan, launch: plan + self.launch, server: self.server, start, ..Timings::default() }
    }
}

impl<E: Engine> Prepared<E> {
    /// Returns the image that holds the server; `None` for the host's.
    pub(crate) fn image(&self) -> Option<&Image> {
        self.installation.image()
    }

    pub(crate) fn new(options: StartOptions<'_, E>) -> Result<Self> {
        let StartOptions { engine, installation, settings, start_timeout, limits, tls, source } = options;
        let is_empty = matches!(source, DataSource::Empty { .. });
        let (data, visible, links) = match source {
            DataSource::Empty { data } => (Data::Writable { source: data }, Vec::new(), Vec::new()),
            DataSource::Copy { data, visible } => (Data::Writable { source: data }, visible, Vec::new()),
            DataSource::Overlay { lower, upper_size, links } => {
                (Data::Overlay { lower, changes: None, upper_size }, Vec::new(), links)
            }
        };
        let mode = isolation::mode(engine, installation)?;
        let mut server = engine.server(installation, settings, mode)?;
        if tls {
            server = engine.tls(server, settings, &certificate::files())?;
        }
        let begin = Instant::now();
        let mut plan = match installation.image() {
            Some(image) => image::plan(image, installation.usr(), engine, data, &server.account),
            None => plan::root(installation.usr().to_vec(), data, engine.data_dir(), &server.account),
        };
        if let Some(image) = installation.image().filter(|_| is_empty) {
            plan.binds.extend(image::shell(image));
        }
        // Programs are in /usr, and so are directories that no sandbox may see. Images with Rust
        // keep cargo's directories there, with the token that publishes.
        let from_environment = |name| std::env::var_os(name).map(PathBuf::from);
        let private = [
            Some("/usr/src".into()),
            Some("/usr/local/cargo".into()),
            Some("/usr/local/rustup".into()),
            from_environment("CARGO_HOME"),
            from_environment("RUSTUP_HOME"),
            from_environment("CARGO_TARGET_DIR"),
            cache::directory().ok(),
            std::env::home_dir(),
            std::env::current_dir().ok(),
        ];
        let private = private.iter().flatten().filter(|path| !installation.bin().starts_with(path));
        private.for_each(|path| plan.hide(path));
        for path in installation.binds().iter().chain(&visible) {
            plan.bind(path);
        }
        let Server { command, directories, files, ready, io_uring, processes, stop, end_signal, .. } = server;
        if let Mode::Process { address } = mode {
            plan.process_mode = Some(isolation::on_host(engine, installation, address, end_signal)?);
            // They belong to a root file system, and process mode has none.
            plan.files.clear();
        }
        plan.limits = limits.settled(processes);
        plan.io_uring = io_uring;
        plan.ready = ready;
        plan.directories.extend(directories.into_iter().map(|(path, mode)| Directory { path, mode }));
        let links = links.into_iter();
        plan.when_ready =
            links.map(|(path, target)| Symlink { path: plan.data_dir.join(path), target }).collect();
        plan.files.extend(files.into_iter().map(|(path, contents)| File {
            path,
            mode: 0o644,
            contents: contents.into(),
        }));
        if !is_empty {
            plan.server = Some(command.clone());
            plan.prelink = true;
        }
        Ok(Self {
            engine: engine.clone(),
            installation: installation.clone(),
            plan,
            settings: settings.iter().map(|(name, _)| name.clone()).collect(),
            start_timeout,
            command,
            idle_memory: server.idle_memory,
            stop,
            tls,
            planning: begin.elapsed(),
        })
    }

    pub(crate) fn engine(&self) -> &E {
        &self.engine
    }

    pub(crate) fn installation(&self) -> &Installation {
        &self.installation
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Bytes of memory that the idle server holds.
    pub(crate) fn idle_memory(&self) -> u64 {
        self.idle_memory
    }

    /// How long the decisions took.
    pub(crate) fn planning(&self) -> Duration {
        self.planning
    }

    /// The data directory as this process reaches it.
    pub(crate) fn data_dir(&self, container: &Container) -> PathBuf {
        self.plan.data_dir.below(&container.root())
    }

    /// `true` if each sandbox gets a certificate.
    pub(super) fn tls(&self) -> bool {
        self.tls
    }

    /// The host's path of the certificate by which clients check the server's, with TLS.
    pub(super) fn root_certificate(&self, container: &Container) -> Option<PathBuf> {
        self.tls.then(|| certificate::root(container))
    }

    /// Starts a server and waits until it is ready.
    pub(crate) fn start(&self) -> Result<ReadyServer> {
        let begin = Instant::now();
        let plan = match self.tls {
            true => Cow::Owned(certificate::add_to(&self.plan)?),
            false => Cow::Borrowed(&self.plan),
        };
        let mut container = match self.resume(&plan)? {
            Ok(container) => container,
            Err(why) => {
                tracing::debug!(?why, "a server is not resumed");
                Container::launch(&plan).map_err(explain)?.not_resumed_since(why)
            }
        };
        let launch = begin.elapsed();
        if self.plan.server.is_none() {
            self.initialise(&container)?;
            container.start_server(self.command.clone()).map_err(explain)?;
        }
        let mut executed = Instant::now();
        let mut ready = self.wait_ready(&container);
        // A restored server may fail because of its image: another one, executed, shows whether it
        // did.
        if *container.origin() == ProcessOrigin::Linked
            && ready.as_ref().is_err_and(|error| error.kind() == ErrorKind::Exited)
        {
            let exit = container.server_exit(Duration::ZERO);
            // A server that was killed, or whose init was, says nothing about its image. Nor does
            // one that met a limit.
            let by_itself =
                exit.is_some_and(|exit| !exit.was_killed()) && self.limit_reached(&container).is_none();
            let plan = Plan { prelink: false, ..plan.into_owned() };
            container = Container::launch(&plan).map_err(explain)?;
            executed = Instant::now();
            ready = self.wait_ready(&container);
            if ready.is_ok() && by_itself {
                distrust(&plan);
            }
        }
        ready.map_err(|error| self.explained(error, &container))?;
        let server = executed.elapsed();
        tracing::debug!(pid = container.pid(), ?launch, ?server, "server ready");
        Ok(ReadyServer { container, executed, launch, server })
    }

    fn initialise(&self, container: &Container) -> Result<()> {
        let Some(command) = self.engine.initialise(&self.installation) else { return Ok(()) };
        let program = command.name();
        let run = container.run(command, Stdin::Text(""), INITIALISE_TIMEOUT).map_err(explain)?;
        if run.exit.success() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Layer,
            format!("initialise the data directory by `{program}`: {}", run.exit),
        )
        .caused_by(run.stderr.trim().to_owned())
        .or_hint(|| self.installation.image().and_then(image::shell_hint))
        .or_fix(own_limit_too_low)
        .or_hint(|| if container.is_on_host() { isolation::nameless_hint() } else { None }))
    }

    pub(super) fn wait_ready(&self, container: &Container) -> Result<()> {
        container.wait_ready(self.start_timeout).map_err(explain)
    }

    /// The limit that the sandbox has reached, or the cause that its log shows, and the fix.
    pub(super) fn limit_reached(&self, container: &Container) -> Option<Fix> {
        let on_host = container.is_on_host();
        let in_cache = on_host || matches!(self.plan.data, Data::Writable { .. });
        limits::disk(&self.data_dir(container), in_cache)
            .or_else(|| if on_host { None } else { limits::scratch(&container.root()) })
            .or_else(|| limits::processes(container.reached(), container.log(), &self.plan.limits, !on_host))
            .or_else(|| {
                let log = container.log().tail(limits::LOG_LINES).unwrap_or_default();
                self.engine.cause_in_log(&log).map(Fix::none)
            })
    }

    /// Adds the end of the log, and the fix for the usual causes of a failed start.
    fn explained(&self, error: Error, container: &Container) -> Error {
        let log = container.log().tail(LOG_TAIL).unwrap_or_default();
        let error = error.with_log(log).or_fix(|| self.limit_reached(container)).or_fix(own_limit_too_low);
        let kind = error.kind();
        error.or_hint(|| {
            if kind == ErrorKind::Timeout {
                return Some("raise `start_timeout`, or run fewer tests at a time".into());
            }
            let names: Vec<_> = self.settings.iter().map(|name| format!("`{name}`")).collect();
            match &names[..] {
                [] => None,
                [name] => Some(format!("check the name and the value of the setting {name}")),
                names => Some(format!("check the names and the values of the settings {}", names.join(", "))),
            }
        })
    }
}
