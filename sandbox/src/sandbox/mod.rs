//! The handle of a running server.

mod certificate;
mod client_files;
mod holdings;
mod image;
mod image_reference;
mod postmortem;
mod resume;
#[cfg(feature = "images")]
mod run_in_image;
mod start;
mod task;

use std::fmt;
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::cache;
use crate::diagnosis::{explain, limits};
use crate::engine::{Engine, Postgres};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{Container, Exit};
use crate::report;
use crate::tcp::Tcp;
use crate::timings::Timings;

pub(crate) use certificate::is_possible as tls_is_possible;
pub(crate) use holdings::{Holdings, quiet_since};
pub(crate) use image_reference::ImageReference;
pub(crate) use postmortem::Postmortem;
pub(crate) use start::{DataSource, Prepared, ReadyServer, StartOptions};
pub(crate) use task::run_task;

/// How many lines of the server's log an error carries.
pub(crate) const LOG_TAIL: usize = 20;
/// How long a failing test waits for the report of its server's death.
pub(crate) const EXIT_GRACE: Duration = Duration::from_millis(50);
/// How long a server may take to shut down cleanly.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A running database server in a separate container.
///
/// Dropping the handle kills the server and every other process in the container; the kernel frees
/// the rest. The end of the test process has the same effect, even by SIGKILL. Where the data may
/// be [kept](crate::Snapshot::keep), the container lives until that is done.
///
/// # Example
/// ```no_run
/// use sandboxed_db::{Postgres, Snapshot};
/// # fn main() -> sandboxed_db::Result<()> {
/// let db = Snapshot::new(Postgres::new()).start()?;
/// println!("psql '{}'", db.url());
/// # Ok(())
/// # }
/// ```
pub struct Sandbox<E: Engine = Postgres> {
    prepared: Prepared<E>,
    url: String,
    timings: Timings,
    tcp: Mutex<Option<Tcp>>,
    postmortem: Arc<Postmortem>,
    /// The server was asked to stop, so its end is no failure.
    stopped: bool,
    // Fields are dropped in this order: the keeper works on the container, which the holdings end.
    keeping: Keeping,
    holdings: Arc<Holdings>,
}

/// How the data of a sandbox is kept at its end.
#[derive(Debug)]
pub(crate) enum Keeping {
    Never,
    AtDrop(Box<dyn Keeper>),
    /// The harness has the keeper: it knows better than the handle how the test ends.
    ByHarness,
}

/// Keeps the data of one sandbox, whose container lives as long as the keeper.
///
/// A trait, since keeping needs layers, which are built with sandboxes.
pub(crate) trait Keeper: fmt::Debug + Send + Sync {
    /// Keeps the data of a sandbox whose handle is dropped, if its policy says so.
    fn at_drop(&self);

    /// Keeps the data of a test that is over, if its policy says so.
    fn at_end(&self, failed: bool) -> Option<KeepOutcome>;
}

/// The outcome of keeping data, printed as a sentence.
#[derive(Debug)]
pub enum KeepOutcome {
    /// The data is kept.
    Kept {
        /// The name of the data.
        name: String,
        /// The command that starts a server on it.
        open: String,
        /// The command that compares it with its snapshot.
        diff: String,
    },
    /// The data could not be kept, for this reason.
    NotKept(String),
}

impl fmt::Display for KeepOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept { open, .. } => write!(f, "its data is kept; to look into it: {open}"),
            Self::NotKept(reason) => write!(f, "its data could not be kept: {reason}"),
        }
    }
}

impl<E: Engine> Sandbox<E> {
    /// The handle of a server that is ready.
    pub(crate) fn new(
        prepared: Prepared<E>,
        timings: Timings,
        holdings: Arc<Holdings>,
        keeping: Keeping,
    ) -> Result<Self> {
        let container = &holdings.container;
        match timings.pooled {
            None => holdings.report.0.ready(container.pid(), timings.server),
            Some(executed) => holdings.report.0.handed_over(container.pid(), executed),
        }
        client_files::write(prepared.engine(), &container.root())?;
        let (url, tcp) = match prepared.engine().url(&container.root()) {
            Some(url) => (url, None),
            // The server listens on a port only.
            None => {
                let root_certificate = prepared.root_certificate(container);
                let tcp = Tcp::open(prepared.engine(), prepared.installation(), container, root_certificate)?;
                (tcp.url().to_owned(), Some(tcp))
            }
        };
        Ok(Self {
            url,
            timings,
            tcp: Mutex::new(tcp),
            postmortem: Arc::new(Postmortem::new(container.log().clone())),
            stopped: false,
            prepared,
            keeping,
            holdings,
        })
    }

    /// Starts the server in which a layer is built.
    pub(crate) fn for_build(options: StartOptions<'_, E>) -> Result<Self> {
        let prepared = Prepared::new(options)?;
        let server = prepared.start()?;
        let timings = server.timings(&prepared);
        let holdings = Holdings::for_build(server.container);
        Self::new(prepared, timings, Arc::new(holdings), Keeping::Never)
    }

    /// Returns the URL for clients, in a form that libpq, tokio-postgres, sqlx and diesel accept.
    ///
    /// It names the server's Unix socket and no password: only the user who runs the test can open
    /// the socket.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns environment variables with which a child process finds the server: `DATABASE_URL`,
    /// and those of the database's clients, such as `PGHOST`.
    ///
    /// # Example
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let db = sandboxed_db::Snapshot::new(sandboxed_db::Postgres::new()).start()?;
    /// std::process::Command::new("psql").args(["-c", "select 1"]).envs(db.env()).status()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        if self.engine().url(&self.container().root()).is_none() {
            let opened = self.tcp.lock().unwrap_or_else(PoisonError::into_inner);
            return opened.as_ref().map(Tcp::env).unwrap_or_default();
        }
        let mut variables = vec![(self.engine().url_variable().to_owned(), self.url.clone())];
        variables.extend(self.engine().env(&self.container().root()));
        variables
    }

    /// Opens a TCP port of 127.0.0.1 that leads to the server, for clients without Unix
    /// sockets: JDBC, programs in containers that share the host's network. The kernel chooses a
    /// free port. Further calls return the same port.
    ///
    /// Every user of the machine can reach the port, so the server asks for a password there. The
    /// first call gives the superuser a password of 160 random bits; roles that a test makes need a
    /// separate password. The Unix socket needs none. The port closes when the sandbox ends.
    ///
    /// The first call takes some hundredths of a second, because a client sets the password;
    /// without a call there is no port and no cost. A call in code that
    /// [prepares](crate::Snapshot::prepare) a layer works too: the password then stays in the layer
    /// until the next call.
    ///
    /// [`Snapshot::tls`](crate::Snapshot::tls) encrypts the connections.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an engine without TCP, or settings that turn TCP off,
    /// [`ErrorKind::Exited`] for a sandbox that has ended, and [`ErrorKind::Control`] if no port is
    /// free or the password cannot be set.
    ///
    /// # Example
    /// ```no_run
    /// # fn main() -> sandboxed_db::Result<()> {
    /// # let db = sandboxed_db::Snapshot::new(sandboxed_db::Postgres::new()).start()?;
    /// let tcp = db.tcp()?;
    /// std::process::Command::new("flyway").arg(format!("-url={}", tcp.jdbc_url().unwrap())).arg("migrate").status();
    /// # Ok(())
    /// # }
    /// ```
    pub fn tcp(&self) -> Result<Tcp> {
        // A thread that panicked while it held the lock opened nothing.
        let mut opened = self.tcp.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tcp) = &*opened {
            return Ok(tcp.clone());
        }
        let container = self.container();
        let root_certificate = self.prepared.root_certificate(container);
        let tcp = Tcp::open(self.engine(), self.prepared.installation(), container, root_certificate);
        let tcp = tcp.map_err(|error| match container.server_exit(Duration::ZERO) {
            Some(_) => error.with_log(container.log().tail(LOG_TAIL).unwrap_or_default()),
            None => error,
        })?;
        Ok(opened.insert(tcp).clone())
    }

    /// Returns the server's log so far.
    ///
    /// # Errors
    /// [`ErrorKind::Control`] if the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let read = self.container().log().read();
        read.map_err(|error| Error::new(ErrorKind::Control, "read the server's log").caused_by(error))
    }

    /// Returns the duration of each part of the start. `SANDBOXED_DB_REPORT` records it for [all
    /// sandboxes](crate::report) of a run.
    #[must_use]
    pub fn timings(&self) -> Timings {
        self.postmortem.timings(self.timings)
    }

    /// Returns the process id of the sandbox's init, which is PID 1 inside, in the pid namespace of
    /// the caller.
    ///
    /// `nsenter(1)` and `/proc/<pid>/root` accept the id. In process mode
    /// (`SANDBOXED_DB_ISOLATION=process`) it is that of the server's supervisor.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.container().pid()
    }

    /// Shuts the server down cleanly and ends the sandbox. A server that has already ended is no
    /// error.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the server does not end within 60 seconds; the sandbox is killed
    /// nevertheless.
    pub fn stop(mut self) -> Result<()> {
        self.stopped = true;
        self.report_ending();
        self.stop_server()?;
        match self.keeping {
            Keeping::Never => self.container().kill(),
            // The data to keep is in the container.
            Keeping::AtDrop(_) | Keeping::ByHarness => Ok(()),
        }
    }

    pub(crate) fn stop_server(&self) -> Result<Exit> {
        let log = || self.container().log().tail(LOG_TAIL).unwrap_or_default();
        let stop = self.prepared.stop();
        let requested = stop.request(&self.root());
        let stopped = self.container().stop_server(stop.signal, requested, STOP_TIMEOUT);
        stopped.map_err(|error| explain(error).with_log(log()))
    }

    /// Returns the engine of the description.
    #[must_use]
    pub fn engine(&self) -> &E {
        self.prepared.engine()
    }

    /// Returns the sandbox's root as a path that this process can use. The server's Unix socket is
    /// below it, for drivers that take a path instead of a URL.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.container().root()
    }

    pub(crate) fn prepared(&self) -> &Prepared<E> {
        &self.prepared
    }

    pub(crate) fn container(&self) -> &Container {
        &self.holdings.container
    }

    pub(crate) fn report(&self) -> &report::Recorder {
        &self.holdings.report.0
    }

    pub(crate) fn postmortem(&self) -> &Arc<Postmortem> {
        &self.postmortem
    }

    /// Leaves the decision whether data is kept to the caller, if there is one to take.
    pub(crate) fn take_keeper(&mut self) -> Option<Box<dyn Keeper>> {
        match mem::replace(&mut self.keeping, Keeping::ByHarness) {
            Keeping::AtDrop(keeper) => Some(keeper),
            other => {
                self.keeping = other;
                None
            }
        }
    }

    /// Notes how long it took to make a parameter of the test.
    pub(crate) fn note_connect(&self, time: Duration) {
        self.postmortem.connected(time);
        self.report().connected();
    }

    /// Notes a cause of failure besides the log: a server that died, a limit that was reached.
    ///
    /// Init needs a moment to report the death of the server; `patience` bounds the wait for it.
    pub(crate) fn diagnose(&self, patience: Duration) {
        let ended = || {
            let exit = self.container().server_exit(patience)?;
            Some(format!("the server has ended with {exit}"))
        };
        let removed = || self.holdings.lower_is_removed().then(|| cache::removed().to_string());
        let limit = || self.prepared.limit_reached(self.container()).map(|fix| fix.to_string());
        if let Some(diagnosis) = removed().or_else(limit).or_else(ended) {
            self.postmortem.diagnosed(diagnosis);
        }
    }

    /// Records in the report that the end begins, and how much the sandbox has used.
    fn report_ending(&self) {
        self.report().ending(|| {
            let container = self.container();
            let disk = (!container.is_on_host())
                .then(|| limits::disk_used(&self.prepared.data_dir(container)))
                .flatten();
            (disk, container.memory_peak())
        });
    }
}

impl<E: Engine> Drop for Sandbox<E> {
    fn drop(&mut self) {
        if !self.container().is_own() {
            return;
        }
        if !self.stopped {
            // A failing test prints the diagnosis after its sandbox is gone.
            let patience = if std::thread::panicking() { EXIT_GRACE } else { Duration::ZERO };
            self.diagnose(patience);
        }
        self.report_ending();
        if let Keeping::AtDrop(keeper) = &self.keeping {
            keeper.at_drop();
        }
    }
}

impl<E: Engine> fmt::Debug for Sandbox<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("engine", &self.engine().name())
            .field("version", &self.prepared.installation().version())
            .field("pid", &self.pid())
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
