//! The address of a server, in parts.

use std::convert::Infallible;

use super::FromSandbox;
use crate::engine::{Engine as _, Postgres};
use crate::sandbox::Sandbox;

/// The address of a PostgreSQL server in parts, for clients that take no URL.
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
    /// The URL, as [`Sandbox::url`] returns it.
    pub url: String,
    /// The directory of the server's Unix socket. Clients recognise it by its leading slash.
    pub host: String,
    /// The number in the name of the socket.
    pub port: u16,
    /// The superuser.
    pub user: String,
    /// Empty: the socket needs no password, since only this user can reach it.
    pub password: String,
    /// The test's database.
    pub database: String,
}

#[diagnostic::do_not_recommend]
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
