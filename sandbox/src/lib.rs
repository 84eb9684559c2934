#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod admission;
mod connect;
mod diagnosis;
pub mod doctor;
pub mod engine;
pub mod environment;
mod error;
mod fix;
#[doc(hidden)]
pub mod harness;
mod isolation;
mod kept;
mod launch;
mod layer;
mod machine;
mod migration;
mod pool;
mod progress;
pub mod report;
mod sandbox;
mod snapshot;
mod step;
#[expect(unsafe_code, reason = "system calls that no safe library offers")]
mod sys;
mod tcp;
mod test_id;
mod timings;

pub use connect::{ConnectInfo, FromSandbox};
pub use doctor::doctor;
pub use engine::{Engine, Postgres};
pub use error::{Error, ErrorKind, Result};
pub use kept::Keep;
pub use migration::MigrationTool;
pub use sandbox::Sandbox;
pub use snapshot::Snapshot;
pub use tcp::Tcp;
pub use timings::Timings;

/// The cache directory, for programs that look after it: layers, and the data that tests left.
pub mod cache {
    mod directory;
    mod entry;
    pub(crate) mod iso_8601;
    mod tree;

    pub(crate) use directory::*;
    pub(crate) use entry::{DirectoryLock, LockFile, StagedDirectory, StagedFile, sweep};
    pub(crate) use tree::{copy_tree, copy_tree_by};

    pub use crate::kept::{Kept, KeptState};
    pub use crate::layer::{Damage, LayerInfo, Layers, Limit};
}

/// Turns a function that takes a database into a test with a pristine server of its own.
///
/// The function may be `async` if the feature `tokio` is on, which it is by default: it then runs on a tokio runtime of its
/// own, single-threaded unless `flavor` says otherwise. It may return `()`, a `Result<(), E>` whose `E` is `Debug`, or what
/// else implements [`Termination`](std::process::Termination). `#[ignore]`, `#[should_panic]`, `#[cfg]` and documentation work as on any test.
///
/// # Parameters
/// One or more, by value or by reference, of types that implement [`FromSandbox`]: `String` (the server's URL), the
/// connections and pools of drivers whose features are on, types of your own. Or the [`Sandbox`] itself, which the test may
/// [stop](Sandbox::stop) or drop. All are made from one server, which lives at least as long as the test runs.
///
/// A parameter that is named in the attribute, with a list, has a database of its own, described by that list alone:
/// `#[sandboxed_db(orders(snapshot = shop), audit(migrations = "audit"))] fn t(orders: Sandbox, audit: String)`. What stands
/// beside the lists describes the database of all other parameters.
///
/// # Arguments
/// All are optional; but for `snapshot`, `engine`, `flavor`, `worker_threads` and `crate`, each has a method of the same name on [`Snapshot`], where defaults and
/// errors are told.
///
/// - `snapshot = path::of::function`: the function returns the [`Snapshot`] that the other arguments extend; without it
///   they extend a fresh server. What a suite has in common is written once so.
/// - `engine = Postgres`, a type, of which the default is meant, or an expression: `engine = Postgres::new().locale("C")`. By
///   default PostgreSQL. A list makes a test of each, see [below](#several-servers). With `snapshot` it is refused, since
///   that has an engine already.
/// - `version = "17"`, or `17`: see [`Snapshot::version`]. A list makes a test of each.
/// - `migrations = "directory"`: see [`Snapshot::migrations`]. Steps run in the order they are written.
/// - `migrations_of(Sqlx, "directory")`: see [`Snapshot::migrations_of`]; the tool is a variant of [`MigrationTool`].
/// - `seed = "file.sql"` or `seed = ["a.sql", "b.csv"]`: see [`Snapshot::seed`].
/// - `run("program", "argument", …)`: see [`Snapshot::run`].
/// - `prepare("key", path::of::async_function)`: see [`Snapshot::prepare`].
/// - `depends_on = "path"` or `depends_on = ["a", "b"]`: see [`Snapshot::depends_on`].
/// - `settings(name = value, …)`: strings, numbers or booleans; see [`Snapshot::setting`]. Names with dots are written so:
///   `auto_explain.log_min_duration = 0`.
/// - `start_timeout = "30s"`: a number with `ms`, `s`, `m`, `h` or `d`; see [`Snapshot::start_timeout`].
/// - `max_age = "1d"`: a number with one of these units; see [`Snapshot::max_age`].
/// - `keep = "on_failure"`, `"always"` or `"never"`, which is the default: see [`Snapshot::keep`].
/// - `flavor = "multi_thread"`, or `"current_thread"`, which is the default: the runtime of an `async` test.
/// - `worker_threads = 4`: how many threads the runtime has; with `flavor = "multi_thread"`, by default one for each
///   processor.
/// - `name_of_a_parameter(…)`: any of the above, but for the last two and for lists of servers, for the database of that parameter. A parameter that
///   is to have one cannot be named like an argument.
/// - `crate = "path"`: where this crate is, if it is renamed in a way that Cargo.toml does not tell.
///
/// Relative paths start at the package's directory. Files are read when the test runs: an edited migration counts without
/// a new compilation. One that is not there when the test is compiled is an error at once, if cargo compiles it; what
/// something makes only later is named in a function, for `snapshot`.
///
/// # Several servers
/// With a list of versions or engines the function is a test for each, in a module of its name: `version = ["15", "17"]` above
/// `fn t` makes `t::postgres_15` and `t::postgres_17`, so `cargo test postgres_17` runs those of one version. An engine's tests
/// are named for its type, or for the function that returns it: `engine = [Postgres, with_checksums()]` makes `t::postgres` and
/// `t::with_checksums`, with both lists each of one with each of the other. With `snapshot`, whose engine only the compiler
/// knows, they are called `version_15`. Parameters with lists of their own are the same in all.
///
/// A version is found among the servers that are installed side by side, see [`Postgres`]. One that is not installed fails its
/// test, or with `SANDBOXED_DB_MISSING=skip` in the environment it passes and says on its output that it was skipped and why;
/// `fail` is the default.
///
/// # With rstest
/// Stand above `#[rstest]`: parameters with an attribute of rstest's (`#[case]`, `#[values]`, `#[from]`, `#[with]`, `#[files]`,
/// `#[future]`, …) are filled by rstest, all others are made from the database; each case has a server of its own. A fixture
/// found by its name alone needs `#[from(name)]`, since nothing else tells it from a database. `#[awt]` and `#[future(awt)]` work
/// in an `async fn`; `#[timeout]` counts the start of the server, too, and where it is reached the server goes on until the test
/// program ends. With a list of servers there are the cases of each: `t::postgres_15::case_1`. Below `#[rstest]` the
/// attribute is written `#[test_attr(sandboxed_db(…))]`, and a parameter made from the database `#[ignore] db: Sandbox`.
///
/// # Beside other attributes
/// `#[test_log::test]` works above and below. Those that run the function in a way of their own, such as `#[tokio::test]`, are
/// refused. What wraps the body of a function may stand below; if it gives names to the body, it must stand above.
///
/// # Failures
/// When the test fails, the end of the server's log is printed with its output, how long the start took, and how to get at
/// the data, which is kept if `keep` says so. When the server cannot be started the test
/// fails with the whole report of the [`Error`]; so does a `#[should_panic]` test, by not panicking.
///
/// # Example
/// ```no_run
/// use sandboxed_db::sandboxed_db;
///
/// #[sandboxed_db(settings(max_connections = 200, log_statement = "all"), flavor = "multi_thread")]
/// async fn answers(url: String) -> Result<(), std::io::Error> {
///     assert!(url.starts_with("postgresql://"));
///     Ok(())
/// }
/// # fn main() {}
/// ```
#[cfg(feature = "macros")]
pub use sandboxed_db_macros::sandboxed_db;
