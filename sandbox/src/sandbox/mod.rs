//! The running server's handle.

mod start;

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::admission::Admission;
use crate::diagnosis::limits;
use crate::engine::{Engine, Installation, Postgres};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{Container, Exit, Limits, Log, Origin};
use crate::report;
use crate::tcp::Tcp;
use crate::timings::Timings;

pub(crate) use start::{Prepared, Start};

/// How many lines of the server's log an error carries.
pub(crate) const LOG_TAIL: usize = 20;
/// How long a failing test waits for the report of its server's death.
pub(crate) const PATIENCE: Duration = Duration::from_millis(50);
/// How long a server may take to shut down cleanly.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A running database server of its own, in a container of its own.
///
/// Dropping it kills the server and everything in the container; the kernel frees the rest. So does the end of the test
/// process, however it comes. Where its data may be [kept](crate::Snapshot::keep), it lives until that is done.
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
    engine: E,
    installation: Installation,
    container: Arc<Container>,
    limits: Limits,
    stop_signal: i32,
    url: String,
    timings: Timings,
    tcp: Mutex<Option<Tcp>>,
    last_words: Arc<LastWords>,
    /// The server was asked to stop, so its end is no news.
    stopped: bool,
    /// Whether the data directory is a layer in the making, in the cache.
    builds: bool,
    /// Dropped after the container, whose end it tells of.
    report: Arc<report::Ended>,
    /// Present where what is written may be kept. It holds the container, too.
    keeper: Option<Arc<dyn Keeper>>,
    /// What must not be given up while the sandbox lives: its layer, and its place among all.
    _layer: Option<Arc<dyn Any + Send + Sync>>,
    _admission: Option<Arc<Admission>>,
}

/// Who decides at the end of a sandbox whether its data is kept.
pub(crate) trait Keeper: fmt::Debug + Send + Sync {
    /// Nothing is to be done when the handle is dropped: the harness will tell how the test went.
    fn leave_to_harness(&self);

    /// The handle is being dropped, and the container lives.
    fn at_drop(&self);

    /// The test is over. Returns what is to be told of the data.
    fn at_end(&self, failed: bool) -> Option<String>;
}

impl<E: Engine> Sandbox<E> {
    /// How its server came to be.
    pub(crate) fn origin(&self) -> &Origin {
        self.container.origin()
    }

    /// What it was started from, and how long that took to get.
    pub(crate) fn with_layer(
        mut self,
        layer: Arc<dyn Any + Send + Sync>,
        admission: Arc<Admission>,
        before: Timings,
        report: report::Recorder,
    ) -> Self {
        match self.timings.pooled {
            None => report.ready(self.pid(), self.timings.server),
            Some(executed) => report.handed_over(self.pid(), executed),
        }
        self.report = Arc::new(report::Ended(report));
        self._layer = Some(layer);
        self._admission = Some(admission);
        let Timings { layer, layer_built, queue, .. } = before;
        self.timings = Timings { layer, layer_built, queue, ..self.timings };
        self
    }

    /// Belongs to who has asked for it from here on, though it was started before: for an equal description.
    pub(crate) fn handed_over(mut self, prepared: &Prepared<E>, timings: Timings) -> Self {
        (self.engine, self.installation) = (prepared.engine.clone(), prepared.installation.clone());
        self.url = self.engine.url(&self.container.root());
        self.timings = timings;
        self
    }

    pub(crate) fn with_keeper(mut self, keeper: Arc<dyn Keeper>) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// The data directory as this process reaches it.
    fn data_dir(&self) -> PathBuf {
        let data = self.engine.data_dir();
        self.container.root().join(data.strip_prefix("/").unwrap_or(&data))
    }

    /// Which limit the sandbox has reached, and what to do about it.
    fn exhausted(&self) -> Option<String> {
        let on_host = self.container.is_on_host();
        limits::disk(&self.data_dir(), self.builds || on_host)
            .or_else(|| if on_host { None } else { limits::scratch(&self.container.root()) })
            .or_else(|| limits::processes(self.container.reached(), self.container.log(), &self.limits))
    }

    /// The URL for clients, in the form that libpq, tokio-postgres, sqlx and diesel accept unchanged.
    ///
    /// It leads through the Unix socket, so it holds no password: only the user who runs the test can open it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Variables of the environment by which a program that this process starts finds the server: `DATABASE_URL`, and those
    /// that the database's own clients know, such as `PGHOST`.
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
        let mut variables = vec![("DATABASE_URL".to_owned(), self.url.clone())];
        variables.extend(self.engine.env(&self.container.root()));
        variables
    }

    /// Opens a TCP port of 127.0.0.1 to the server, for clients that cannot use its Unix socket: JDBC, programs in other
    /// containers of the host's network. The port is one that is free. Further calls return the same.
    ///
    /// Every user of the machine can reach the port, so the server asks for a password there: the superuser gets one of 160
    /// random bits at the first call, and roles that a test makes need one of their own. The Unix socket goes on without.
    /// The port is closed when the sandbox ends.
    ///
    /// The first call takes as long as a client needs to set the password, some hundredths of a second; without a call
    /// there is no port and no cost. In code that [prepares](crate::Snapshot::prepare) a layer it works, too: the
    /// password then stays in the layer until the next call.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an engine without TCP, or settings that keep the server from it,
    /// [`ErrorKind::Exited`] for a sandbox that has ended, and [`ErrorKind::Control`] where no port can be had or the password
    /// cannot be set.
    ///
    /// # Example
    /// ```no_run
    /// # fn main() -> sandboxed_db::Result<()> {
    /// # let db = sandboxed_db::Snapshot::new(sandboxed_db::Postgres::new()).start()?;
    /// let tcp = db.tcp()?;
    /// let jdbc = format!("jdbc:postgresql://{}/postgres?user=postgres&password={}", tcp.address(), tcp.password());
    /// # Ok(())
    /// # }
    /// ```
    pub fn tcp(&self) -> Result<Tcp> {
        // A thread that panicked while it held the lock opened nothing.
        let mut opened = self.tcp.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tcp) = &*opened {
            return Ok(tcp.clone());
        }
        let tcp = Tcp::open(&self.engine, &self.installation, &self.container).map_err(|error| match self
            .container
            .server_exit(Duration::ZERO)
        {
            Some(_) => error.with_log(self.container.log().tail(LOG_TAIL).unwrap_or_default()),
            None => error,
        })?;
        Ok(opened.insert(tcp).clone())
    }

    /// What the server has written to its log so far.
    ///
    /// # Errors
    /// [`ErrorKind::Control`] when the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let read = self.container.log().read();
        read.map_err(|error| Error::new(ErrorKind::Control, "read the server's log").caused_by(error))
    }

    /// How long each part of the start took. `SANDBOXED_DB_REPORT` has the same of [all sandboxes](crate::report) of a run.
    #[must_use]
    pub fn timings(&self) -> Timings {
        self.last_words.timings(self.timings)
    }

    /// Notes how long it took to make a parameter of the test.
    pub(crate) fn note_connect(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.last_words.connect.fetch_add(nanoseconds, Ordering::Relaxed);
        self.report.0.connected();
    }

    /// What the report of the run gets to know of this sandbox.
    pub(crate) fn report(&self) -> &report::Recorder {
        &self.report.0
    }

    /// To be dropped by whoever holds the container longest.
    pub(crate) fn ended(&self) -> &Arc<report::Ended> {
        &self.report
    }

    /// Tells the report of the run that the end begins.
    fn report_ending(&self) {
        self.report.0.ending(|| {
            let disk = (!self.container.is_on_host()).then(|| limits::disk_used(&self.data_dir())).flatten();
            (disk, self.container.memory_peak())
        });
    }

    /// The process id of the sandbox's init, PID 1 inside, in the pid namespace of the caller.
    ///
    /// `nsenter(1)` and `/proc/<pid>/root` lead into the sandbox by it. Without a container, where
    /// `SANDBOXED_DB_ISOLATION=process` is set, it is that of the process above the server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.container.pid()
    }

    /// Shuts the server down cleanly and ends the sandbox. A server that has ended by itself is no error.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when the server does not end within 60 seconds; the sandbox is killed all the same.
    pub fn stop(mut self) -> Result<()> {
        self.stopped = true;
        self.report_ending();
        self.stop_server()?;
        match self.keeper {
            // What is kept is in the container, which ends with it.
            Some(_) => Ok(()),
            None => self.container.kill(),
        }
    }

    pub(crate) fn stop_server(&self) -> Result<Exit> {
        let log = || self.container.log().tail(LOG_TAIL).unwrap_or_default();
        self.container.stop_server(self.stop_signal, STOP_TIMEOUT).map_err(|error| error.with_log(log()))
    }

    pub(crate) fn engine(&self) -> &E {
        &self.engine
    }

    pub(crate) fn installation(&self) -> &Installation {
        &self.installation
    }

    pub(crate) fn container(&self) -> &Arc<Container> {
        &self.container
    }

    pub(crate) fn stop_signal(&self) -> i32 {
        self.stop_signal
    }

    pub(crate) fn keeper(&self) -> Option<&Arc<dyn Keeper>> {
        self.keeper.as_ref()
    }

    /// What can still be told of the sandbox once it is gone.
    pub(crate) fn last_words(&self) -> Arc<LastWords> {
        self.last_words.clone()
    }

    /// Notes what went wrong besides the log: a server that died, a limit that was reached.
    ///
    /// A server's death takes init a moment to report; `patience` is how long that is waited for.
    pub(crate) fn diagnose(&self, patience: Duration) {
        let ended =
            || self.container.server_exit(patience).map(|exit| format!("the server has ended with {exit}"));
        if let Some(diagnosis) = self.exhausted().or_else(ended) {
            // The first diagnosis is the nearest to the failure.
            let _ = self.last_words.diagnosis.set(diagnosis);
        }
    }
}

impl<E: Engine> Drop for Sandbox<E> {
    fn drop(&mut self) {
        if !self.container.is_own() {
            return;
        }
        // A failing test is told why, though its sandbox is gone by then.
        let patience = if std::thread::panicking() { PATIENCE } else { Duration::ZERO };
        if !self.stopped {
            self.diagnose(patience);
        }
        self.report_ending();
        if let Some(keeper) = &self.keeper {
            keeper.at_drop();
        }
    }
}

/// What outlives a sandbox.
#[derive(Debug)]
pub(crate) struct LastWords {
    pub(crate) log: Arc<Log>,
    pub(crate) diagnosis: OnceLock<String>,
    /// Nanoseconds of [`Timings::connect`] so far.
    connect: AtomicU64,
}

impl LastWords {
    fn of(container: &Container) -> Self {
        Self { log: container.log().clone(), diagnosis: OnceLock::new(), connect: AtomicU64::new(0) }
    }

    /// Those of the start, with what connections have taken since.
    pub(crate) fn timings(&self, start: Timings) -> Timings {
        Timings { connect: Duration::from_nanos(self.connect.load(Ordering::Relaxed)), ..start }
    }
}

impl<E: Engine> fmt::Debug for Sandbox<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("engine", &self.engine.name())
            .field("version", &self.installation.version())
            .field("pid", &self.pid())
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
