//! The bounds of a description: times, sizes, and the data that is kept.

use std::time::Duration;

use super::Snapshot;
use crate::engine::Engine;
use crate::kept::Keep;

/// As good as no limit, without an overflow of `Instant`.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl<E: Engine> Snapshot<E> {
    /// Sets how long a server may take from its execution until it is ready. Default 30 s; zero is
    /// refused at the start.
    ///
    /// Servers start in some hundredths of a second here, so 30 s means a badly overloaded machine
    /// or a server that will never be ready. (pg_ctl(1) waits for 60 s by default.)
    #[must_use]
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = limit.min(LONGEST);
        self
    }

    /// Sets how long one step may take when a layer is built, and how long to wait for another
    /// process that builds it. Default 30 minutes; zero is refused at the start.
    #[must_use]
    pub fn build_timeout(mut self, limit: Duration) -> Self {
        self.build_timeout = limit.min(LONGEST);
        self
    }

    /// Sets how old the data of the steps may be: a layer with an older step is rebuilt. Default
    /// unlimited; zero is refused at the start.
    ///
    /// A layer is kept as its steps have left it. A seed that calls `now()`, or makes data for the
    /// current month, holds the time of the build from then on. With a limit of a day such data is
    /// at most a day old.
    ///
    /// # Example
    /// ```no_run
    /// use std::time::Duration;
    /// use sandboxed_db::{Postgres, Snapshot};
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// let db = Snapshot::new(Postgres::new()).seed("orders_of_this_week.sql").max_age(day).start();
    /// ```
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Sets how many bytes a sandbox may write into its data directory. Default 1 GiB.
    ///
    /// Written data is kept in memory, and a file of the layer counts whole as soon as a part of it
    /// is written. Nothing is reserved. There may be one file for each 4 KB, and at least 16,384.
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.disk = bytes;
        self
    }

    /// Sets how much memory the processes of a sandbox may take, in bytes. Default 4 GiB; less than
    /// 32 MB is refused at the start.
    ///
    /// Files are not counted: [`disk`](Self::disk) limits the data directory, `/dev/shm` is limited
    /// to 512 MB, and `/tmp`, `/run` and the log together to 64 MB. While a layer is built at least
    /// the default applies.
    ///
    /// # Precision
    /// The limit applies to each process, for its own memory: not for files, nor for shared memory
    /// such as `shared_buffers`. A server that requests more gets and reports an error; it is not
    /// killed.
    ///
    /// The limit applies to the sandbox as a whole only if the tests have a control group with the
    /// controller `memory`, as under `systemd-run --user --scope -p Delegate=yes cargo test`. The
    /// kernel then kills the largest process once all processes and the files of the sandbox pass
    /// `memory` and the limits for files together. Otherwise many processes may take many times
    /// `memory`. In every case a machine that runs out of memory kills processes of sandboxes
    /// first.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.limits.memory = bytes;
        self
    }

    /// Sets how many processes and threads a sandbox may have at a time: those of the server, their
    /// children, and one of the sandbox itself. Default 512, or more if the server's settings need
    /// it: `max_connections = 1000` allows about 1300. Fewer than 16 are refused at the start.
    /// While a layer is built at least the default applies.
    ///
    /// # Precision
    /// Exact, except for root without a control group (see [`memory`](Self::memory)): the kernel
    /// exempts root from the usual limit. Sandboxes of root may have up to 300 more from Linux 6.14
    /// on, and have no limit before.
    #[must_use]
    pub fn pids(mut self, count: u32) -> Self {
        self.limits.pids = Some(count);
        self
    }

    /// Sets how many processors a sandbox may use: `0.5` is half of one. Default all. Not applied
    /// while a layer is built.
    ///
    /// # Precision
    /// To the millisecond with a control group (see [`memory`](Self::memory)). Without one it is
    /// rounded up, and the sandbox is bound to that many processors, chosen at random.
    #[must_use]
    pub fn cpu(mut self, cores: f64) -> Self {
        self.limits.cpu = Some(cores);
        self
    }

    /// Sets when the data of a sandbox is kept after its end, as the test left it, for
    /// `sandboxed-db open`, `sandboxed-db diff` and [`Kept`](crate::cache::Kept). Default
    /// [`Keep::Never`]. `SANDBOXED_DB_KEEP` takes precedence: `never`, `on_failure` or `always`.
    ///
    /// # Contents
    /// The data directory. The server is shut down first, so everything committed is in it. A
    /// server that has died leaves its files as after a crash; one that does not end within 10
    /// seconds is killed. Files that are equal to the layer's become hard links to them, the others
    /// are copied. This takes some hundredths of a second, and a few MB of the cache within the
    /// bounds of [`Kept`](crate::cache::Kept). If the data cannot be kept the test's output says so
    /// in one line.
    ///
    /// # Failure
    /// With the attribute, a failure is a failed test. The server survives a dropped handle, and
    /// the data survives [`stop`](crate::Sandbox::stop), until the test has ended. Without the
    /// attribute, a failure is a handle that is dropped while its thread panics. A test that is
    /// killed keeps nothing.
    #[must_use]
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Names the [kept](Self::keep) data. Default: the program, or the crate of a test, and the
    /// thread that starts the sandbox, which libtest names for its test, as in
    /// `shop::orders::can_be_dropped`.
    #[must_use]
    pub fn keep_as(mut self, name: impl Into<String>) -> Self {
        self.keep_as = Some(name.into());
        self
    }
}
