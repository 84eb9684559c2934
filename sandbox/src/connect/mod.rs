//! Parameters of a test: the trait, and one file per driver, each behind its features.

#[cfg(feature = "postgres")]
mod blocking;
#[cfg(feature = "deadpool-postgres")]
mod deadpool_postgres;
#[cfg(any(feature = "diesel", feature = "diesel-mysql"))]
mod diesel;
#[cfg(any(
    feature = "diesel-async",
    feature = "diesel-async-mysql",
    feature = "diesel-async-0-8",
    feature = "diesel-async-0-8-mysql",
    feature = "diesel-async-0-7",
    feature = "diesel-async-0-7-mysql"
))]
mod diesel_async;
#[cfg(any(feature = "diesel-r2d2", feature = "diesel-mysql-r2d2"))]
mod diesel_r2d2;
#[cfg(feature = "fred")]
mod fred;
mod info;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "mysql_async")]
mod mysql_async;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(
    feature = "sea-orm",
    feature = "sea-orm-mysql",
    feature = "sea-orm-1",
    feature = "sea-orm-1-mysql"
))]
mod sea_orm;
#[cfg(any(feature = "sqlx", feature = "sqlx-mysql", feature = "sqlx-0-8", feature = "sqlx-0-8-mysql"))]
mod sqlx;
#[cfg(feature = "tokio-postgres")]
mod tokio_postgres;

use std::convert::Infallible;
use std::error::Error;

use crate::engine::{Engine, Postgres};
use crate::sandbox::Sandbox;
use crate::tcp::Tcp;

#[cfg(all(feature = "postgres", feature = "tokio"))]
pub(crate) use blocking::AsyncTest;
pub use info::ConnectInfo;

/// A type that a test takes as a parameter. Its value is made from the test's running server.
///
/// | type | feature |
/// |---|---|
/// | [`Sandbox`] itself | |
/// | `String` (the URL), [`ConnectInfo`], [`Tcp`] | |
/// | `sqlx::PgPool`, `PgConnection`, `pool::PoolConnection<Postgres>`, `postgres::PgConnectOptions`, `postgres::PgPoolOptions` | `sqlx` for sqlx 0.9, `sqlx-0-8` for 0.8 |
/// | `sea_orm::DatabaseConnection` | `sea-orm` for SeaORM 2, `sea-orm-1` for 1.1 |
/// | `tokio_postgres::Client`, `tokio_postgres::Config` | `tokio-postgres` for 0.7 |
/// | `postgres::Client`, `postgres::Config` | `postgres` for 0.19 |
/// | `deadpool_postgres::Pool` | `deadpool-postgres` for 0.14 |
/// | `diesel::PgConnection` | `diesel` for Diesel 2.3 |
/// | `diesel::r2d2::Pool<ConnectionManager<PgConnection>>` | `diesel-r2d2` for the same |
/// | `diesel_async::AsyncPgConnection` | `diesel-async` for 0.9, `diesel-async-0-8`, `diesel-async-0-7` |
///
/// Of a [`MariaDb`](crate::MariaDb), with `engine = MariaDb`:
///
/// | type | feature |
/// |---|---|
/// | `sqlx::MySqlPool`, `MySqlConnection`, `pool::PoolConnection<MySql>`, `mysql::MySqlConnectOptions`, `mysql::MySqlPoolOptions` | `sqlx-mysql` for sqlx 0.9, `sqlx-0-8-mysql` for 0.8 |
/// | `sea_orm::DatabaseConnection` | `sea-orm-mysql` for SeaORM 2, `sea-orm-1-mysql` for 1.1 |
/// | `mysql::Conn`, `mysql::Pool`, `mysql::Opts` | `mysql` for 28 |
/// | `mysql_async::Conn`, `mysql_async::Pool`, `mysql_async::Opts` | `mysql_async` for 0.37 |
/// | `diesel::MysqlConnection` | `diesel-mysql` for Diesel 2.3 |
/// | `diesel::r2d2::Pool<ConnectionManager<MysqlConnection>>` | `diesel-mysql-r2d2` for the same |
/// | `diesel_async::AsyncMysqlConnection` | `diesel-async-mysql` for 0.9, `diesel-async-0-8-mysql`, `diesel-async-0-7-mysql` |
///
/// Of a [`Redis`](crate::Redis), with `engine = Redis`:
///
/// | type | feature |
/// |---|---|
/// | `redis::Client`, `redis::Connection`, `redis::aio::MultiplexedConnection`, `redis::aio::ConnectionManager` | `redis` for 1 |
/// | `fred::clients::Client`, `fred::types::config::Config` | `fred` for 10 |
///
/// Features for several versions of a driver may be on together. For a driver or a version that is
/// missing, connect to the `String`, or implement this trait in the suite.
///
/// All parameters of a test are made before its body begins, in their order, from one server unless
/// the attribute gives them several. The test's function drops parameters that it takes by value as
/// any function does, the last one first. The server outlives them, unless the test takes the
/// `Sandbox` itself by value: as the first parameter it is dropped last. A pool that is still open
/// at the end of the test neither delays nor fails it.
///
/// # Plain and `async` tests
/// The method is `async`, so that pools and clients can connect. A plain test waits for it, and has
/// a tokio runtime until the test ends. One implementation therefore serves every test.
///
/// # Example
/// The state of an application:
/// ```no_run
/// use sandboxed_db::{FromSandbox, Sandbox, sandboxed_db};
///
/// struct Shop {
///     url: String,
/// }
///
/// impl FromSandbox for Shop {
///     type Error = sandboxed_db::Error;
///
///     async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error> {
///         Ok(Self { url: sandbox.url().to_owned() })
///     }
/// }
///
/// #[sandboxed_db(migrations = "migrations")]
/// async fn sells(shop: Shop) {
///     assert!(shop.url.starts_with("postgresql://"));
/// }
/// # fn main() {}
/// ```
#[diagnostic::on_unimplemented(
    message = "a test with `{E}` cannot have a parameter of type `{Self}`",
    label = "does not implement `FromSandbox<{E}>`",
    note = "implement `sandboxed_db::FromSandbox` for it: `async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error>`",
    note = "`Sandbox`, `&Sandbox`, `String` (the URL), `ConnectInfo` and `Tcp` need no feature",
    note = "the types of a driver need the feature of `sandboxed-db` for its version:\n\
            sqlx 0.9: `sqlx`, 0.8: `sqlx-0-8`\n\
            sea-orm 2: `sea-orm`, 1.1: `sea-orm-1`\n\
            diesel 2.3: `diesel` and `diesel-r2d2`\n\
            diesel-async 0.9: `diesel-async`, 0.8: `diesel-async-0-8`, 0.7: `diesel-async-0-7`\n\
            tokio-postgres 0.7: `tokio-postgres`; postgres 0.19: `postgres`; deadpool-postgres 0.14: `deadpool-postgres`\n\
            of MariaDB: sqlx, sea-orm, diesel and diesel-async with `-mysql` at the end, such as `sqlx-mysql`; `diesel-mysql-r2d2`\n\
            mysql 28: `mysql`; mysql_async 0.37: `mysql_async`; of Redis: redis 1: `redis`; fred 10: `fred`\n\
            any other version: take `url: String`",
    note = "beside `#[rstest]` or `#[test_case]`, `#[sandboxed_db]` stands above, and `#[from(fixture)]` marks a fixture"
)]
pub trait FromSandbox<E: Engine = Postgres>: Sized {
    /// The error of a value that cannot be made. The test fails with this error and the server's
    /// log.
    type Error: Into<Box<dyn Error + Send + Sync>>;

    /// Makes the value. A connection is connected.
    ///
    /// # Errors
    /// The reason why the value cannot be made.
    fn from_sandbox(sandbox: &Sandbox<E>) -> impl Future<Output = Result<Self, Self::Error>>;
}

/// The [URL](Sandbox::url).
#[diagnostic::do_not_recommend]
impl<E: Engine> FromSandbox<E> for String {
    type Error = Infallible;

    async fn from_sandbox(sandbox: &Sandbox<E>) -> Result<Self, Self::Error> {
        Ok(sandbox.url().to_owned())
    }
}

/// A [port](Sandbox::tcp) with a password, for clients that cannot use Unix sockets.
#[diagnostic::do_not_recommend]
impl<E: Engine> FromSandbox<E> for Tcp {
    type Error = crate::Error;

    async fn from_sandbox(sandbox: &Sandbox<E>) -> Result<Self, Self::Error> {
        sandbox.tcp()
    }
}
