//! Servers on kept states, and on the layers that these started from.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::state::KeptState;
use crate::admission::admit;
use crate::cache::DirectoryLock;
use crate::engine::version::Version;
use crate::engine::{Engine, Postgres};
use crate::environment;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Limits;
use crate::layer;
use crate::report;
use crate::sandbox::{DataSource, Holdings, ImageReference, Keeping, Prepared, Sandbox, StartOptions};

/// Recovery from a crash takes longer than a start from a layer.
const START_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The number of bytes that may be written in a look at a state.
const DISK: u64 = 4 << 30;

impl KeptState {
    /// Starts a server on the state as the test left it. Its writes are lost with the sandbox; the
    /// state does not change.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a state that was removed, whose engine is not PostgreSQL,
    /// or whose version is not installed; all other errors are those of
    /// [`Snapshot::start`](crate::Snapshot::start).
    pub fn start(&self) -> Result<Sandbox> {
        self.start_as(self.postgres())
    }

    /// Starts a server of another engine on the state, as [`start`](Self::start) does.
    ///
    /// # Errors
    /// As [`start`](Self::start), and [`ErrorKind::InvalidConfig`] for the state of another engine.
    ///
    /// # Example
    /// ```no_run
    /// # fn main() -> sandboxed_db::Result<()> {
    /// use sandboxed_db::Redis;
    /// let kept = sandboxed_db::cache::Kept::open()?;
    /// let cache = kept.find("sessions_expire")?.start_as(Redis::new())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_as<E: Engine>(&self, engine: E) -> Result<Sandbox<E>> {
        self.start_on(engine, self.data(), Arc::new(self.lock()?))
    }

    /// Starts a server on the state as the test found it: on the layer of its snapshot.
    ///
    /// # Errors
    /// As [`start`](Self::start), and [`ErrorKind::InvalidConfig`] if the layer was removed.
    pub fn start_before(&self) -> Result<Sandbox> {
        self.start_before_as(self.postgres())
    }

    /// Starts a server of another engine on the state as the test found it.
    ///
    /// # Errors
    /// As [`start_as`](Self::start_as) and [`start_before`](Self::start_before).
    pub fn start_before_as<E: Engine>(&self, engine: E) -> Result<Sandbox<E>> {
        let layer = layer::find(&self.layer)?.ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, format!("find the layer that `{}` started from", self.name))
                .caused_by(format!("layer {} is no longer in the cache", self.layer))
                .with_hint("run the test again")
        })?;
        self.start_on(engine, layer.data(), layer.lock().clone())
    }

    /// Returns `true` if a file of the data directory is a hard link to the layer's, and therefore
    /// unchanged.
    #[must_use]
    pub fn is_untouched(&self, file: &Path) -> bool {
        let original = layer::data_of(&self.layer).and_then(|data| fs::metadata(data.join(file)).ok());
        let now = fs::metadata(self.data().join(file)).ok();
        let number = |file: &fs::Metadata| (file.dev(), file.ino());
        original.zip(now).is_some_and(|(original, now)| number(&original) == number(&now))
    }

    fn start_on<E: Engine>(&self, engine: E, lower: PathBuf, lock: Arc<DirectoryLock>) -> Result<Sandbox<E>> {
        environment::check()?;
        report::check()?;
        if self.engine != engine.name() {
            let step = format!("start a server of `{}` on `{}`", engine.name(), self.name);
            return Err(Error::new(ErrorKind::InvalidConfig, step)
                .caused_by(format!("it is the data of a server of `{}`", self.engine)));
        }
        let report = report::Recorder::asked(engine.name(), None);
        let installation = match &self.image {
            None => engine.locate()?,
            Some(image) => engine.locate_in(&ImageReference::absolute(image).obtain(false)?)?,
        };
        let installation = installation.with_packages(&self.packages)?;
        let prepared = Prepared::new(StartOptions {
            engine: &engine,
            installation: &installation,
            settings: &self.settings,
            start_timeout: START_TIMEOUT,
            limits: Limits::default(),
            tls: false,
            // No links: the test may have changed the catalogues that the layer's files describe.
            source: DataSource::Overlay { lower, upper_size: DISK, links: Vec::new() },
        })?;
        let slot = admit(Some(thread::current().id()), prepared.idle_memory())?;
        let server = prepared.start()?;
        let timings = server.timings(&prepared);
        let holdings = Holdings::for_test(server.container, report, lock, slot);
        Sandbox::new(prepared, timings, Arc::new(holdings), Keeping::Never)
    }

    /// The engine for an initialised server: data of one major version is read by no other.
    fn postgres(&self) -> Postgres {
        let engine = Postgres::new();
        let engine = match Version(&self.version).major() {
            Some(major) => engine.version(major.to_string()),
            None => engine,
        };
        let database = self.identity.iter().find(|(name, _)| name == "database");
        database.map_or(engine.clone(), |(_, database)| engine.database(database))
    }
}
