//! The bounds of a description: times, sizes, and the data that is kept.

use std::time::Duration;

use super::Snapshot;
use crate::engine::Engine;
use crate::kept::Keep;

/// As good as no limit, without an overflow of `Instant`.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl<E: Engine> Snapshot<E> {
    /// Sets the time that a server may take from its execution until it is ready. Default 30 s; a
    /// start refuses zero.
    ///
    /// Servers start in some hundredths of a second, so one that takes 30 s runs on a badly
    /// overloaded machine or will never be ready. (pg_ctl(1) waits for 60 s by default.)
    #[must_use]
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = limit.min(LONGEST);
        self
    }

    /// Sets the time that one step may take when a layer is built, and the time to wait for another
    /// process that builds it. Default 30 minutes; a start refuses zero.
    #[must_use]
    pub fn build_timeout(mut self, limit: Duration) -> Self {
        self.build_timeout = limit.min(LONGEST);
        self
    }

    /// Sets the greatest age of the steps' data: a layer with an older step is rebuilt. Default
    /// unlimited; a start refuses zero.
    ///
    /// A layer stays as its steps have left it. A seed that calls `now()`, or makes data for the
    /// current month, keeps the time of the build. With a limit of a day such data is at most a day
    /// old.
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

    /// Sets the number of bytes that a sandbox may write into its data directory. Default 1 GiB.
    ///
    /// Written data is kept in memory, and a file of the layer counts in full as soon as a part of
    /// it is written. Nothing is reserved. There may be one file for each 4 KB, and at least 16,384
    /// files.
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.disk = bytes;
        self
    }

    /// Sets the memory that the processes of a sandbox may take, in bytes. Default 4 GiB; a start
    /// refuses less than 32 MB.
    ///
    /// Files are not counted: [`disk`](Self::disk) limits the data directory, `/dev/shm` is limited
    /// to 512 MB, and `/tmp`, `/run` and the log together to 64 MB. While a layer is built, the
    /// limit is at least the default.
    ///
    /// # Precision
    /// The limit applies to each process and to its private memory: files and shared memory such as
    /// `shared_buffers` do not count. A server that requests more memory gets an error and reports
    /// it; it is not killed.
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

    /// Sets the number of processes and threads that a sandbox may have at a time: those of the
    /// server, their children, and one of the sandbox itself. Default 512, or more if the server's
    /// settings need it: `max_connections = 1000` allows about 1300. A start refuses less than 16.
    /// While a layer is built, the limit is at least the default.
    ///
    /// # Precision
    /// The limit is exact, except for root without a control group (see [`memory`](Self::memory)),
    /// because the kernel exempts root from the usual limit. From Linux 6.14 on sandboxes of root
    /// may have up to 300 more; before, they have no limit.
    #[must_use]
    pub fn pids(mut self, count: u32) -> Self {
        self.limits.pids = Some(count);
        self
    }

    /// Sets the number of processors that a sandbox may use: `0.5` is half of one. Default all. The
    /// limit does not apply while a layer is built.
    ///
    /// # Precision
    /// With a control group (see [`memory`](Self::memory)) the limit is exact to a millisecond.
    /// Without one the number is rounded up, and the sandbox is bound to that many processors,
    /// chosen at random.
    #[must_use]
    pub fn cpu(mut self, cores: f64) -> Self {
        self.limits.cpu = Some(cores);
        self
    }

    /// Decides whether the data of a sandbox is kept after its end, as the test left it, for
    /// `sandboxed-db open`, `sandboxed-db diff` and [`Kept`](crate::cache::Kept). Default
    /// [`Keep::Never`]. `SANDBOXED_DB_KEEP` takes precedence: `never`, `on_failure` or `always`.
    ///
    /// # Contents
    /// The data directory is kept. The server is shut down first, so everything committed is in it.
    /// A server that has died leaves its files as after a crash; a server that does not end within
    /// 10 seconds is killed. Files that are equal to the layer's become hard links to them; the
    /// others are copied. This takes some hundredths of a second, and a few MB of the cache within
    /// the bounds of [`Kept`](crate::cache::Kept). If the data cannot be kept, the test's output
    /// says so in one line.
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
