//! A server on a TCP port of the host, for clients that cannot use Unix sockets: on request, and
//! with a password.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::diagnosis;
use crate::engine::{Engine, Installation, Task, TcpRequest};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Container;
use crate::sandbox::run_task;

/// How long the client may take to set the password.
const TASK_TIMEOUT: Duration = Duration::from_secs(60);
/// How many connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// How many ports are tried until one is free for both protocols.
const TRIES: u32 = 64;

/// A TCP port of 127.0.0.1 at which a sandbox's server is reached; from
/// [`Sandbox::tcp`](crate::Sandbox::tcp).
///
/// The port closes when the sandbox ends, even if this value still exists.
#[derive(Clone)]
pub struct Tcp {
    address: SocketAddr,
    password: String,
    url: String,
    jdbc_url: Option<String>,
    env: Vec<(String, String)>,
    root_certificate: Option<PathBuf>,
    pub(crate) reset: Option<Task>,
}

impl Tcp {
    pub(crate) fn open<E: Engine>(
        engine: &E,
        installation: &Installation,
        container: &Container,
        root_certificate: Option<PathBuf>,
    ) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Control, "listen on a TCP port of the loopback interface").caused_by(error)
        };
        let password = password().map_err(|errno| failed(errno.into()))?;
        let (address, listeners) = listeners().map_err(failed)?;
        let name = engine.name();
        let refused = |cause: &str, hint: &str| {
            let error = Error::new(ErrorKind::InvalidConfig, format!("reach `{name}` by TCP"));
            Err(error.caused_by(cause.to_owned()).with_hint(hint))
        };
        let root = container.root();
        let root_certificate_path = root_certificate.as_deref();
        let request = TcpRequest {
            installation,
            address,
            password: &password,
            root_certificate: root_certificate_path,
            root: &root,
        };
        let Some(access) = engine.tcp(&request) else {
            return refused(
                "its engine does not say how",
                "`Engine::tcp` is for that; `url` works without it",
            );
        };
        let port = access.port;
        if !container.listens(port) && container.is_on_host() {
            return refused(
                &format!("without a container it shares the host's ports, where another program has {port}"),
                "end that program, or go without SANDBOXED_DB_ISOLATION=process",
            );
        }
        if !container.listens(port) {
            return refused(
                &format!("nothing listens on port {port} in the sandbox"),
                "the server has ended, or its settings keep it from 127.0.0.1: `listen_addresses` must hold that",
            );
        }
        if let Some(task) = &access.task
            && let Some(message) = run_task(container, task, TASK_TIMEOUT)?
        {
            let step = format!("set the password for TCP by `{}`", task.command.name());
            return Err(Error::new(ErrorKind::Control, step).caused_by(message));
        }
        container.forward(&listeners, port).map_err(diagnosis::explain)?;
        tracing::debug!(pid = container.pid(), %address, "TCP port opened");
        let mut env = vec![(engine.url_variable().to_owned(), access.url.clone())];
        env.extend(access.env);
        Ok(Self {
            address,
            password,
            url: access.url,
            jdbc_url: access.jdbc_url,
            env,
            root_certificate,
            reset: access.reset,
        })
    }

    /// Returns the URL for clients, with the superuser's password in it.
    ///
    /// With [TLS](crate::Snapshot::tls) its parameters `sslmode=verify-full` and `sslrootcert` make
    /// libpq, sqlx, Go's lib/pq and pgx check the server's certificate. The crates `postgres` and
    /// `tokio-postgres` refuse these parameters, and take a configuration of
    /// [`address`](Self::address), [`password`](Self::password) and a connector that trusts the
    /// [root certificate](Self::root_certificate).
    ///
    /// MariaDB's parameters are `ssl-mode=VERIFY_IDENTITY` and `ssl-ca`, which sqlx reads. The
    /// crates `mysql` and `mysql_async` refuse them, and take options with `SslOpts`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the URL for Java's database drivers, with the superuser's password in it; `None`
    /// where the engine has none.
    ///
    /// With [TLS](crate::Snapshot::tls) the drivers of PostgreSQL and MariaDB verify the server's
    /// certificate. MySQL's only encrypts: it reads root certificates from Java's key stores.
    ///
    /// # Example
    /// ```no_run
    /// # fn main() -> sandboxed_db::Result<()> {
    /// # let db = sandboxed_db::Snapshot::new(sandboxed_db::Postgres::new()).start()?;
    /// let tcp = db.tcp()?;
    /// // jdbc:postgresql://127.0.0.1:40123/postgres?user=postgres&password=6b1f…
    /// let url = tcp.jdbc_url().expect("PostgreSQL has a driver for Java");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn jdbc_url(&self) -> Option<&str> {
        self.jdbc_url.as_deref()
    }

    /// Returns the address: 127.0.0.1 and a port that was free. Where the machine has IPv6, the
    /// same port of `::1` is open too.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the superuser's password, which is random and made for this sandbox.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Returns the file, in PEM, by which clients verify the certificate of the server; `None`
    /// without [TLS](crate::Snapshot::tls).
    ///
    /// The file is removed with the sandbox. Only the user who runs the test can read it: copy it
    /// for programs of other users and other containers.
    #[must_use]
    pub fn root_certificate(&self) -> Option<&Path> {
        self.root_certificate.as_deref()
    }

    /// Returns environment variables by which a program finds the server at the port, as
    /// [`Sandbox::env`](crate::Sandbox::env) does for the Unix socket.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        self.env.clone()
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Output of tests is kept and shown: no password in it.
        f.debug_struct("Tcp").field("address", &self.address).finish_non_exhaustive()
    }
}

/// 160 random bits. Digits and letters `a` to `f` need no quotes anywhere.
fn password() -> Result<String, Errno> {
    let mut bytes = [0_u8; 20];
    // A request this short is never answered in part, getrandom(2).
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Sockets that listen on one port of 127.0.0.1 and, where the machine has IPv6, of ::1: programs
/// that connect to `localhost` may try either, and must not meet another's server.
fn listeners() -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let listen = |address: SocketAddr| {
        let listener = TcpListener::bind(address)?;
        rustix::net::listen(&listener, BACKLOG)?;
        io::Result::Ok(listener)
    };
    let mut taken = Vec::new();
    loop {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = listener.local_addr()?;
        match listen((Ipv6Addr::LOCALHOST, address.port()).into()) {
            Ok(second) => return Ok((address, vec![listener, second])),
            Err(error) => match Errno::from_io_error(&error) {
                // Kept, so that the kernel chooses another.
                Some(Errno::ADDRINUSE) if taken.len() < TRIES as usize => taken.push(listener),
                Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => return Ok((address, vec![listener])),
                _ => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_differ() {
        let (one, other) = (password().unwrap(), password().unwrap());
        assert_eq!(one.len(), 40);
        assert!(one.chars().all(|c| c.is_ascii_hexdigit()), "{one}");
        assert_ne!(one, other);
    }

    #[test]
    fn a_port_is_the_same_in_both_protocols() {
        let (address, listeners) = listeners().unwrap();
        assert!(address.ip().is_loopback());
        for listener in listeners {
            let own = listener.local_addr().unwrap();
            assert!(own.ip().is_loopback() && own.port() == address.port(), "{own}");
        }
    }
}
