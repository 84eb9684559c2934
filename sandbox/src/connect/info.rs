//! How a server is reached, in parts.

use std::convert::Infallible;

use super::FromSandbox;
use crate::engine::{Engine as _, Postgres};
use crate::sandbox::Sandbox;

/// How a PostgreSQL server is reached, in parts, for what takes no URL.
///
/// # Example
/// ```no_run
/// use sandboxed_db::{ConnectInfo, sandboxed_db};
///
/// #[sandboxed_db]
/// fn is_reached(info: ConnectInfo) {
///     let options = format!("host={} port={} user={} dbname={}", info.host, info.port, info.user, info.database);
///     assert!(postgres::Client::connect(&options, postgres::NoTls).is_ok());
/// }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectInfo {
    /// The whole as a URL, the same as [`Sandbox::url`].
    pub url: String,
    /// The directory of the server's Unix socket; clients take a host that begins with a slash for such.
    pub host: String,
    /// The number in the socket's name.
    pub port: u16,
    /// The superuser.
    pub user: String,
    /// Empty: the socket asks for none, since nobody else can reach it.
    pub password: String,
    /// The test's database.
    pub database: String,
}

impl FromSandbox for ConnectInfo {
    type Error = Infallible;

    async fn from_sandbox(sandbox: &Sandbox<Postgres>) -> Result<Self, Self::Error> {
        let mut info = Self {
            url: sandbox.url().to_owned(),
            host: String::new(),
            port: 5432,
            user: String::new(),
            password: String::new(),
            database: String::new(),
        };
        for (name, value) in sandbox.engine().env(&sandbox.container().root()) {
            match name.as_str() {
                "PGHOST" => info.host = value,
                "PGPORT" => info.port = value.parse().unwrap_or(info.port),
                "PGUSER" => info.user = value,
                "PGDATABASE" => info.database = value,
                _ => {}
            }
        }
        Ok(info)
    }
}
