//! What a test's parameters can be: the trait, and one file per driver, each behind its feature.

#[cfg(feature = "postgres")]
mod blocking;
#[cfg(feature = "deadpool-postgres")]
mod deadpool_postgres;
#[cfg(feature = "diesel")]
mod diesel;
#[cfg(feature = "diesel-async")]
mod diesel_async;
#[cfg(feature = "diesel-r2d2")]
mod diesel_r2d2;
mod info;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sea-orm")]
mod sea_orm;
#[cfg(feature = "sqlx")]
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

/// What a test takes as a parameter: it is made from the test's running server.
///
/// | type | feature |
/// |---|---|
/// | [`Sandbox`] itself | |
/// | `String` (the URL), [`ConnectInfo`], [`Tcp`] | |
/// | `sqlx::PgPool`, `sqlx::PgConnection`, `sqlx::postgres::PgConnectOptions`, the pair of `PgPoolOptions` and these | `sqlx` |
/// | `tokio_postgres::Client`, `tokio_postgres::Config` | `tokio-postgres` |
/// | `postgres::Client`, `postgres::Config` | `postgres` |
/// | `deadpool_postgres::Pool` | `deadpool-postgres` |
/// | `diesel::PgConnection` | `diesel` |
/// | `diesel::r2d2::Pool<ConnectionManager<PgConnection>>` | `diesel-r2d2` |
/// | `diesel_async::AsyncPgConnection` | `diesel-async` |
/// | `sea_orm::DatabaseConnection` | `sea-orm` |
///
/// All parameters of a test are made before its body begins, one after the other, and from one server unless the attribute
/// says otherwise. Those taken by value are dropped by the test's function as any function does it, the last parameter first;
/// the server lives longer, except where the test takes the `Sandbox` itself by value: written as the first parameter, it is
/// dropped last. A pool that is still open at the end neither delays nor fails the test.
///
/// # One trait for both kinds of tests
/// The construction is asynchronous so that pools and clients can connect. A test that is no `async fn` waits for it; where
/// it needs tokio, the harness has a runtime that runs until the test has ended. What needs no waiting is an `async fn`
/// without an `.await`. So a type is implemented once and fits every test.
///
/// # Example
/// An application's state, made of what is there already:
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
    message = "a test cannot have a parameter of type `{Self}`",
    label = "does not implement `FromSandbox`",
    note = "implement `sandboxed_db::FromSandbox` for it: `async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error>`",
    note = "`Sandbox`, `&Sandbox`, `String` (the URL), `ConnectInfo` and `Tcp` work as they are; the types of a driver need the \
            feature of `sandboxed-db` that is named for it, such as `sqlx` or `tokio-postgres`",
    note = "below `#[rstest]`, a fixture is marked by `#[from(name_of_the_fixture)]`"
)]
pub trait FromSandbox<E: Engine = Postgres>: Sized {
    /// Why it could not be made; the test then fails with that and the server's log.
    type Error: Into<Box<dyn Error + Send + Sync>>;

    /// Makes it, connecting if it is a connection.
    ///
    /// # Errors
    /// Whatever keeps it from being made.
    fn from_sandbox(sandbox: &Sandbox<E>) -> impl Future<Output = Result<Self, Self::Error>>;
}

/// The [URL](Sandbox::url).
impl<E: Engine> FromSandbox<E> for String {
    type Error = Infallible;

    async fn from_sandbox(sandbox: &Sandbox<E>) -> Result<Self, Self::Error> {
        Ok(sandbox.url().to_owned())
    }
}

/// A [port](Sandbox::tcp) with a password, for what knows no Unix sockets.
impl<E: Engine> FromSandbox<E> for Tcp {
    type Error = crate::Error;

    async fn from_sandbox(sandbox: &Sandbox<E>) -> Result<Self, Self::Error> {
        sandbox.tcp()
    }
}
