//! Gives every test its own database *server*: pristine, started in about ten milliseconds, gone
//! with the test.
//!
//! ```no_run
//! use sandboxed_db::{Sandbox, sandboxed_db};
//!
//! #[sandboxed_db(migrations = "migrations", seed = "orders.csv")]
//! fn orders_can_be_dropped(db: Sandbox) -> Result<(), postgres::Error> {
//!     let mut client = postgres::Client::connect(db.url(), postgres::NoTls)?;
//!     client.batch_execute("drop table orders cascade")
//! }
//! # fn main() {}
//! ```
//!
//! The steps that prepare the database run once. Their outcome is a *layer*, a data directory in a
//! cache that no test can change. Each test gets a server on a throw-away copy of it, in a rootless
//! container. A test may write, commit, drop tables, create roles, change settings or kill the
//! server; no other test notices. Nothing is left behind, not even after `kill -9`.
//!
//! # Where to go
//! | item | purpose |
//! |---|---|
//! | [`guide`] | a chapter for each question: [a first test](guide::getting_started), moving over [from `#[sqlx::test]`](guide::from_sqlx_test), [failures](guide::failures), [CI](guide::ci) |
//! | [`sandboxed_db`](macro@sandboxed_db) | the attribute, with all its arguments |
//! | [`Snapshot`] | describes a prepared database without the attribute, and starts servers |
//! | [`Sandbox`] | a running server: its URL, its log, its end |
//! | [`FromSandbox`] | the trait of a test's parameters, with the table of drivers |
//! | [`Postgres`], [`Engine`] | the server, and the trait of servers |
//! | [`doctor()`] | says whether this machine can run sandboxes |
//! | [`environment`] | the environment variables |
//! | [`cache`], [`report`] | layers and kept data; the record of a run |
//!
//! # Requirements
//! Linux 5.12 or later with unprivileged user namespaces, Rust 1.89 or later. An installed
//! PostgreSQL, 13 to 18, is used; without one, the packages of Debian or Ubuntu are fetched once.
//! Where a machine refuses a sandbox, the error names the switch and the command that changes it.
//!
//! # Features
//! | feature | adds | default |
//! |---|---|---|
//! | `macros` | the attribute | yes |
//! | `tokio` | `async` tests, code that prepares a layer | yes |
//! | `sqlx`, `sqlx-0-8`, `tokio-postgres`, `postgres`, `deadpool-postgres`, `diesel`, `diesel-r2d2`, `diesel-async`, `diesel-async-0-8`, `diesel-async-0-7`, `sea-orm`, `sea-orm-1` | [parameters](guide::parameters) of that driver | no |
//! | `sqlx-mysql`, `sqlx-0-8-mysql`, `mysql`, `mysql_async`, `diesel-mysql`, `diesel-mysql-r2d2`, `diesel-async-mysql`, `diesel-async-0-8-mysql`, `diesel-async-0-7-mysql`, `sea-orm-mysql`, `sea-orm-1-mysql` | the same of a [`MariaDb`] | no |
//! | `redis`, `fred` | parameters of drivers for [`Redis`] | no |
//! | `images`, `registries` | [servers from OCI and Docker images](guide::images): `images` for those in files, `registries` for those in registries too | no |
//! | `registries` | [layers in a registry](guide::layers_in_a_registry) | no |
//! | `toml` | [servers that a file describes](engine::Described) | no |
//! | `tls` | [TLS](guide::parameters#tls) for clients by TCP | no |
//! | `cli` | the program [`sandboxed-db`](guide::command_line) | no |

// rustdoc links other crates here where this one is not documented beside them.
#![doc(html_root_url = "https://docs.rs/sandboxed-db/latest")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod admission;
mod conformance;
mod connect;
mod diagnosis;
pub mod doctor;
pub mod engine;
pub mod environment;
mod error;
mod fix;
pub mod guide;
#[doc(hidden)]
pub mod harness;
mod isolation;
mod kept;
mod launch;
mod layer;
mod machine;
mod migration;
#[cfg(feature = "images")]
mod oci;
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
mod zstd;

pub use connect::{ConnectInfo, FromSandbox};
pub use doctor::doctor;
pub use engine::{Engine, MariaDb, MySql, Postgres, Redis, Sqlite};
pub use error::{Error, ErrorKind, Result};
pub use kept::Keep;
pub use migration::MigrationTool;
pub use sandbox::Sandbox;
pub use snapshot::Snapshot;
pub use tcp::Tcp;
pub use timings::{ServerStart, Timings};

/// The cache directory, for programs that look after it: layers, and the data that tests left.
pub mod cache {
    mod directory;
    mod entry;
    pub(crate) mod iso_8601;
    mod listed;
    mod state;
    mod tree;

    pub(crate) use directory::*;
    pub(crate) use entry::{DirectoryLock, LockFile, StagedDirectory, StagedFile, sweep};
    pub(crate) use listed::Listed;
    pub(crate) use state::{add_state, add_states};
    pub(crate) use tree::{copy_tree, copy_tree_by};

    pub use crate::kept::{Kept, KeptState};
    #[cfg(feature = "registries")]
    pub use crate::layer::Transfer;
    pub use crate::layer::{Damage, LayerInfo, Layers, Limit};
}

/// Turns a function that takes a database into a test with its own pristine server.
///
/// The function may be `async` with the feature `tokio`, which is on by default: it runs on a tokio
/// runtime, single-threaded unless `flavor` says otherwise. It returns `()`, a `Result<(), E>` with
/// an `E` that implements `Debug`, or another type that implements
/// [`Termination`](std::process::Termination). `#[ignore]`, `#[should_panic]`, `#[cfg]` and doc
/// comments work as on any test.
///
/// # Parameters
/// A test takes one or more parameters, by value or by reference. Their types implement
/// [`FromSandbox`]: `String` (the server's URL), connections and pools of drivers whose features
/// are on, and types of the suite. A parameter may also be the [`Sandbox`] itself, which the test
/// may [stop](Sandbox::stop) or drop. All parameters are made from one server, which lives at least
/// as long as the test runs.
///
/// A list in the attribute with the name of a parameter describes a database for that parameter
/// alone: `#[sandboxed_db(orders(snapshot = shop), audit(migrations = "audit"))] fn t(orders:
/// Sandbox, audit: String)`. Arguments beside the lists describe the database of all other
/// parameters.
///
/// The databases may have different engines: `#[sandboxed_db(cache(engine = Redis))] fn t(db:
/// PgPool, cache: redis::Connection)`. The default engine is PostgreSQL. If an argument names
/// another engine, a parameter that several engines can make, such as a `String`, is a compile
/// error until its own engine is named.
///
/// # Arguments
/// All arguments are optional. [`Snapshot`] has a method of the same name for each, which documents
/// its default and its errors, except for `snapshot`, `engine`, `flavor`, `worker_threads` and
/// `crate`.
///
/// - `snapshot = path::of::function`: the function returns the [`Snapshot`] that the other
///   arguments extend, such as one that a suite shares. Default: a fresh server.
/// - `engine = Postgres`, a type with a default, or an expression: `engine =
///   Postgres::new().locale("C")`, or a file that [describes](engine::Described) a server, with the
///   feature `toml`: `engine = "memcached.toml"`. Default: PostgreSQL, see [above](#parameters) for
///   tests with several. A list makes a test of each, see [below](#several-servers). The argument
///   is refused beside `snapshot`, which already has an engine.
/// - `version = "17"`, or `17`: see [`Snapshot::version`]. A list makes a test of each.
/// - `packages = "package"` or `packages = ["a", "b"]`, of the distribution: see
///   [`Snapshot::package`].
/// - `image = "oci:images/postgres:17"`: see [`Snapshot::image`].
/// - `migrations = "directory"`: see [`Snapshot::migrations`]. Steps run in the order they are
///   written. Default: `migrations` in the test's package, before all other steps, if the directory
///   holds files of SQL when the test runs. `migrations = none` leaves the directory out. It is
///   also left out beside `snapshot`, `engine`, `migrations_of`, `run`, `run_tcp` and `prepare`,
///   and in the list of a parameter.
/// - `migrations_of(Sqlx, "directory")`, or `migrations_of = (Sqlx, "directory")` as for each
///   argument with a list: see [`Snapshot::migrations_of`]; the tool is a variant of
///   [`MigrationTool`].
/// - `seed = "file.sql"` or `seed = ["a.sql", "b.csv"]`: see [`Snapshot::seed`].
/// - `run("program", "argument", …)`: see [`Snapshot::run`]; `run_tcp("program", "argument", …)`:
///   see [`Snapshot::run_tcp`].
/// - `prepare("key", path::of::async_function)`: see [`Snapshot::prepare`].
/// - `depends_on = "path"` or `depends_on = ["a", "b"]`: see [`Snapshot::depends_on`].
/// - `settings(name = value, …)`: strings, numbers or booleans; see [`Snapshot::setting`]. A name
///   may have dots: `auto_explain.log_min_duration = 0`.
/// - `tls`, without a value: see [`Snapshot::tls`].
/// - `start_timeout = "30s"`: a number with `ms`, `s`, `m`, `h` or `d`; see
///   [`Snapshot::start_timeout`].
/// - `max_age = "1d"`: a number with one of these units; see [`Snapshot::max_age`].
/// - `keep = "on_failure"`, `"always"` or `"never"`: see [`Snapshot::keep`]. Default: `"never"`.
/// - `flavor = "multi_thread"` or `"current_thread"`: the runtime of an `async` test. Default:
///   `"current_thread"`.
/// - `worker_threads = 4`: the number of threads of the runtime, with `flavor = "multi_thread"`.
///   Default: one for each processor.
/// - `name_of_a_parameter(…)`: the arguments above, except the last two and lists of servers, for
///   the database of this parameter. Such a parameter cannot have the name of an argument.
/// - `crate = "path"`: the path of this crate, if it has another name than `sandboxed_db`: `crate =
///   "db"` for `db = { package = "sandboxed-db" }` in Cargo.toml. Default: `::sandboxed_db`.
///
/// Relative paths start at the directory of the test's package; those of a function for `snapshot`
/// start at the package of the function. Files are read when the test runs, so an edited migration
/// needs no new compilation. A file that is missing when cargo compiles the test is a compile
/// error. A file that is generated later is named in a function for `snapshot`.
///
/// # Several servers
/// A list of versions or engines makes a test of each, in a module with the name of the function:
/// `version = ["15", "17"]` above `fn t` makes `t::postgres_15` and `t::postgres_17`, so `cargo
/// test postgres_17` runs the tests of one version. The tests of an engine are named for its type,
/// or for the function that returns it: `engine = [Postgres, with_checksums()]` makes `t::postgres`
/// and `t::with_checksums`. Both lists together make a test of each pair. Beside `snapshot` the
/// tests are called `version_15`, since only the compiler knows the engine. Parameters with
/// separate lists are the same in all tests.
///
/// The server of a version is searched among those that are installed side by side, see
/// [`Postgres`] and [`Redis`]. If it is missing, its test fails. With `SANDBOXED_DB_MISSING=skip`
/// in the environment that test passes, and its output says that it was skipped and why; the
/// default is `fail`.
///
/// # With rstest and test_case
/// `#[sandboxed_db]` stands above `#[rstest]` and `#[test_case]`. Each case has a server of its
/// own, and each server of a list has all cases: `t::postgres_15::case_1`.
///
/// With rstest, parameters with an attribute of rstest (`#[case]`, `#[values]`, `#[from]`,
/// `#[with]`, `#[files]`, `#[future]`, …) are filled by rstest, all others from the database. A
/// fixture that is found by its name alone needs `#[from(name)]`. `#[awt]` and `#[future(awt)]`
/// work in an `async fn`. `#[timeout]` includes the start of the server; a server whose test has
/// timed out runs until the test program ends. Below `#[rstest]` the attribute is written
/// `#[test_attr(sandboxed_db(…))]`, and a parameter from the database `#[ignore] db: Sandbox`.
///
/// With test_case, the arguments of a case fill the first parameters, and the database fills all
/// others. `#[test_case(1 => 2)]` is refused, because the harness judges the result before
/// test_case can compare it: pass the expected value as a further argument.
///
/// # Beside other attributes
/// `#[test_log::test]` works above and below. Attributes that run the function themselves, such as
/// `#[tokio::test]`, are refused. Attributes that wrap the body of a test, such as `#[serial]` of
/// serial_test, stand below; an attribute that adds names to the body stands above.
///
/// # Failures
/// The output of a failed test contains the end of the server's log, the duration of the start, and
/// the command that opens the data if `keep` has kept it. If the server cannot be started, the test
/// fails with its place and the full report of the [`Error`]. A `#[should_panic]` test then fails
/// too, because it does not panic. No panic hook runs then, and there is no backtrace.
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
