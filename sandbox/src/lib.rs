#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod admission;
mod cache;
mod connect;
pub mod doctor;
mod engine;
mod error;
mod exhausted;
#[doc(hidden)]
pub mod harness;
mod isolation;
mod kept;
mod launch;
mod layer;
mod migration;
mod origin;
mod progress;
mod refusal;
mod remedy;
pub mod report;
mod sandbox;
mod snapshot;
mod step;
#[expect(unsafe_code, reason = "system calls that no safe library offers")]
mod sys;
mod tcp;
mod timings;
mod tree;

pub use connect::{ConnectInfo, FromSandbox};
pub use doctor::doctor;
pub use engine::{Engine, FileRun, Format, Installation, Postgres, ScriptError, Server, TcpAccess};
pub use error::{Error, ErrorKind, Result};
pub use kept::{Keep, Kept, KeptState};
pub use launch::Command;
pub use layer::{Damage, LayerInfo, Layers, Limit};
pub use migration::MigrationTool;
pub use sandbox::Sandbox;
pub use snapshot::Snapshot;
pub use tcp::Tcp;
pub use timings::Timings;

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
/// All are optional; but for `snapshot`, `flavor`, `worker_threads` and `crate`, each has a method of the same name on [`Snapshot`], where defaults and
/// errors are told.
///
/// - `snapshot = path::of::function`: the function returns the [`Snapshot`] that the other arguments extend; without it
///   they extend a fresh server. What a suite has in common is written once so.
/// - `migrations = "directory"`: see [`Snapshot::migrations`]. Steps run in the order they are written.
/// - `migrations_of(Sqlx, "directory")`: see [`Snapshot::migrations_of`]; the tool is a variant of [`MigrationTool`].
/// - `seed = "file.sql"` or `seed = ["a.sql", "b.csv"]`: see [`Snapshot::seed`].
/// - `run("program", "argument", …)`: see [`Snapshot::run`].
/// - `prepare("key", path::of::async_function)`: see [`Snapshot::prepare`].
/// - `depends_on = "path"` or `depends_on = ["a", "b"]`: see [`Snapshot::depends_on`].
/// - `settings(name = value, …)`: strings, numbers or booleans; see [`Snapshot::setting`]. Names with dots are written so:
///   `auto_explain.log_min_duration = 0`.
/// - `start_timeout = "30s"`: a number with `ms`, `s` or `m`; see [`Snapshot::start_timeout`].
/// - `keep = "on_failure"`, `"always"` or `"never"`, which is the default: see [`Snapshot::keep`].
/// - `flavor = "multi_thread"`, or `"current_thread"`, which is the default: the runtime of an `async` test.
/// - `worker_threads = 4`: how many threads the runtime has; with `flavor = "multi_thread"`, by default one for each
///   processor.
/// - `name_of_a_parameter(…)`: any of the above, but for the last two, for the database of that parameter. A parameter that
///   is to have one cannot be named like an argument.
/// - `crate = "path"`: where this crate is, if it is renamed in a way that Cargo.toml does not tell.
///
/// Relative paths start at the package's directory. Files are read when the test runs: an edited migration counts without
/// a new compilation.
///
/// # With rstest
/// Stand above `#[rstest]`: parameters with an attribute of rstest's (`#[case]`, `#[values]`, `#[from]`, `#[with]`, `#[files]`,
/// `#[future]`, …) are filled by rstest, all others are made from the database; each case has a server of its own. A fixture
/// found by its name alone needs `#[from(name)]`, since nothing else tells it from a database. Below `#[rstest]` the
/// attribute is written `#[test_attr(sandboxed_db(…))]`, and a parameter made from the database `#[ignore] db: Sandbox`.
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
