//! From what a sandbox is started from to a server that is ready.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{LOG_TAIL, LastWords, Sandbox};
use crate::cache;
use crate::engine::{Engine, Installation, Server};
use crate::error::{Error, ErrorKind, Result};
use crate::isolation::{self, Isolation};
use crate::launch::plan::{self, Birth, Data, Directory, File, Plan, Symlink};
use crate::launch::{Command, Container, Exit, Limits, Origin, Readiness, Stdin, distrust};
use crate::timings::Timings;

/// What a sandbox is started from.
pub(crate) struct Start<'a, E> {
    pub(crate) engine: &'a E,
    pub(crate) installation: &'a Installation,
    pub(crate) settings: &'a [(String, String)],
    pub(crate) start_timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) data: Data,
    /// Links to make below the data directory once the server is ready; see [`Engine::links_when_ready`].
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// Whether the data directory is empty and must be filled first.
    pub(crate) initialise: bool,
    /// Files of the host that show in the sandbox at their own paths.
    pub(crate) visible: Vec<PathBuf>,
}

/// A sandbox that can be started, any number of times: all decisions are taken.
#[derive(Debug, Clone)]
pub(crate) struct Prepared<E> {
    pub(super) engine: E,
    pub(super) installation: Installation,
    plan: Plan,
    /// Names of the settings, for errors.
    settings: Vec<String>,
    start_timeout: Duration,
    initialise: bool,
    /// The server, which a plan that initialises lacks.
    command: Command,
    notifies: bool,
    stop_signal: i32,
    /// How long it took to decide.
    planned: Duration,
}

impl<E: Engine> Prepared<E> {
    pub(crate) fn new(start: Start<'_, E>) -> Result<Self> {
        let Start { engine, installation, settings, start_timeout, limits, data, links, initialise, visible } =
            start;
        let server = engine.server(installation, settings)?;
        let begin = Instant::now();
        let mut plan = plan::root(installation.usr().to_vec(), data, engine.data_dir());
        // Programs are in /usr, and sometimes other things, which are nobody's business inside. Images with Rust have
        // cargo's directories there, with what it needs to publish.
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
        let Server { command, directories, files, notifies, io_uring, processes, stop_signal, on_host } =
            server;
        let mut command = command;
        if isolation::wanted()? == Isolation::Process {
            let (host, arguments) = isolation::on_host(engine, installation, on_host)?;
            command = command.args(arguments);
            plan.on_host = Some(host);
            // Those of a root, which there is none of.
            plan.files.clear();
        }
        plan.limits = limits.settled(processes);
        plan.io_uring = io_uring;
        plan.directories.extend(directories.into_iter().map(|(path, mode)| Directory { path, mode }));
        let links = links.into_iter();
        plan.when_ready =
            links.map(|(path, target)| Symlink { path: plan.data_dir.join(path), target }).collect();
        plan.files.extend(files.into_iter().map(|(path, contents)| File { path, mode: 0o644, contents }));
        if !initialise {
            plan.server = Some(command.clone());
            plan.birth = Birth::Restore;
        }
        Ok(Self {
            engine: engine.clone(),
            installation: installation.clone(),
            plan,
            settings: settings.iter().map(|(name, _)| name.clone()).collect(),
            start_timeout,
            initialise,
            command,
            notifies,
            stop_signal,
            planned: begin.elapsed(),
        })
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn engine(&self) -> &E {
        &self.engine
    }

    /// How long it took to decide.
    pub(crate) fn planned(&self) -> Duration {
        self.planned
    }

    pub(crate) fn start(&self) -> Result<Sandbox<E>> {
        let Self { engine, installation, plan, planned, notifies, .. } = self;
        let begin = Instant::now();
        let container = Arc::new(Container::launch(plan)?);
        let mut sandbox = Sandbox {
            url: engine.url(&container.root()),
            engine: engine.clone(),
            installation: installation.clone(),
            last_words: Arc::new(LastWords::of(&container)),
            stopped: false,
            tcp: Mutex::new(None),
            limits: plan.limits,
            container,
            stop_signal: self.stop_signal,
            timings: Timings { plan: *planned, launch: *planned + begin.elapsed(), ..Timings::default() },
            builds: matches!(plan.data, Data::Writable { .. }),
            report: Arc::default(),
            keeper: None,
            _layer: None,
            _admission: None,
        };
        if self.initialise {
            sandbox.initialise()?;
            sandbox.container.start_server(self.command.clone())?;
        }
        let mut executed = Instant::now();
        let mut ready = sandbox.wait_ready(*notifies, self.start_timeout);
        // It need not have ended because it was restored; another that is executed tells.
        if *sandbox.origin() == Origin::Restored
            && ready.as_ref().is_err_and(|error| error.kind() == ErrorKind::Exited)
        {
            let exit = sandbox.container.server_exit(Duration::ZERO);
            // One that was killed, or whose init was, tells nothing of its image.
            let by_itself = exit.is_some_and(|exit| exit != Exit::Signal(libc::SIGKILL));
            let plan = Plan { birth: Birth::Execute, ..plan.clone() };
            sandbox.move_to(Container::launch(&plan)?);
            executed = Instant::now();
            ready = sandbox.wait_ready(*notifies, self.start_timeout);
            if ready.is_ok() && by_itself {
                distrust(&plan);
            }
        }
        ready.map_err(|error| sandbox.explained(error, &self.settings))?;
        sandbox.timings.server = executed.elapsed();
        tracing::debug!(pid = sandbox.pid(), timings = ?sandbox.timings, "sandbox started");
        Ok(sandbox)
    }
}

impl<E: Engine> Sandbox<E> {
    pub(crate) fn start(start: Start<'_, E>) -> Result<Self> {
        Prepared::new(start)?.start()
    }

    /// Goes on with another container, and ends the one it had.
    fn move_to(&mut self, container: Container) {
        self.url = self.engine.url(&container.root());
        self.last_words = Arc::new(LastWords::of(&container));
        self.container = Arc::new(container);
    }

    fn initialise(&self) -> Result<()> {
        const TIMEOUT: Duration = Duration::from_secs(120);
        let command = self.engine.initialise(&self.installation);
        let program = command.name();
        let run = self.container.run(command, Stdin::Text(""), TIMEOUT)?;
        if run.exit.success() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Layer,
            format!("initialise the data directory by `{program}`: {}", run.exit),
        )
        .caused_by(run.stderr.trim().to_owned())
        .or_hint(|| if self.container.is_on_host() { isolation::nameless_hint() } else { None }))
    }

    fn wait_ready(&self, notifies: bool, timeout: Duration) -> Result<()> {
        let root = self.container.root();
        let probe = || self.engine.is_ready(&root);
        let readiness = if notifies { Readiness::Notify(&probe) } else { Readiness::Probe(&probe) };
        self.container.wait_ready(readiness, timeout)
    }

    /// Adds the log's end, and the fix for the usual causes of a server that does not start.
    fn explained(&self, error: Error, settings: &[String]) -> Error {
        let hint = || {
            if let Some(hint) = self.exhausted() {
                return Some(hint);
            }
            if error.kind() == ErrorKind::Timeout {
                return Some("raise `start_timeout`, or run fewer tests at a time".into());
            }
            let names: Vec<_> = settings.iter().map(|name| format!("`{name}`")).collect();
            (!names.is_empty()).then(|| format!("check the settings {}", names.join(", ")))
        };
        let hint = hint();
        error.or_hint(|| hint).with_log(self.container.log().tail(LOG_TAIL).unwrap_or_default())
    }
}
