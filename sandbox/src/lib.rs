#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod admission;
mod cache;
pub mod doctor;
mod engine;
mod error;
mod exhausted;
#[doc(hidden)]
pub mod harness;
mod isolation;
mod launch;
mod layer;
mod migration;
mod progress;
mod remedy;
mod sandbox;
mod snapshot;
mod step;
#[expect(unsafe_code, reason = "system calls that no safe library offers")]
mod sys;
mod tcp;
mod tree;

pub use doctor::doctor;
pub use engine::{Engine, FileRun, Format, Installation, Postgres, ScriptError, Server, TcpAccess};
pub use error::{Error, ErrorKind, Result};
pub use launch::Command;
pub use layer::{Damage, LayerInfo, Layers, Limit};
pub use migration::MigrationTool;
pub use sandbox::{Sandbox, Timings};
pub use snapshot::Snapshot;
pub use tcp::Tcp;

/// Turns a function that takes a database into a test with a pristine server of its own.
///
/// The function may be `async` if the feature `tokio` is on, which it is by default: it then runs on a single-threaded
/// tokio runtime of its own. It may return `()` or a `Result<(), E>` whose `E` is `Debug`. `#[ignore]`, `#[should_panic]`,
/// `#[cfg]` and documentation work as on any test.
///
/// # Parameter
/// One, by value or by reference: [`Sandbox`], which the test may [stop](Sandbox::stop) or drop, or `String`, the
/// server's URL. The server lives at least as long as the test runs.
///
/// # Arguments
/// All are optional; but for `snapshot` and `crate`, each has a method of the same name on [`Snapshot`], where defaults and
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
/// - `crate = "path"`: where this crate is, if it is renamed in a way that Cargo.toml does not tell.
///
/// Relative paths start at the package's directory. Files are read when the test runs: an edited migration counts without
/// a new compilation.
///
/// # Failures
/// When the test fails, the end of the server's log is printed with its output. When the server cannot be started the test
/// fails with the whole report of the [`Error`]; so does a `#[should_panic]` test, by not panicking.
///
/// # Example
/// ```no_run
/// use sandboxed_db::sandboxed_db;
///
/// #[sandboxed_db(settings(max_connections = 200, log_statement = "all"), start_timeout = "10s")]
/// async fn answers(url: String) -> Result<(), std::io::Error> {
///     assert!(url.starts_with("postgresql://"));
///     Ok(())
/// }
/// # fn main() {}
/// ```
#[cfg(feature = "macros")]
pub use sandboxed_db_macros::sandboxed_db;
