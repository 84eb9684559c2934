//! PostgreSQL by TCP: the rules of access, and the password.

use std::net::SocketAddr;
use std::path::Path;

use super::config::{PORT, SUPERUSER};
use crate::engine::url::{encode_path, percent_encode};
use crate::engine::{Dialect, Mode, Task, TcpAccess};
use crate::launch::Command;

/// pg_hba.conf. Clients at the Unix socket belong to the user who runs the test.
///
/// The loopback of a container has no other clients than the sandbox itself and the forwarder.
/// Any user of the machine may reach the forwarder, whose address of 127.0.0.0/8 is its own; the
/// first match counts. In process mode every user of the machine reaches the host's loopback.
pub(super) fn access_rules(mode: Mode) -> String {
    let trusted = ["127.0.0.1/32", "::1/128"].map(|address| (address, "trust"));
    let trusted = trusted.iter().filter(|_| mode == Mode::Container);
    let rules = trusted.chain(&[("127.0.0.0/8", "scram-sha-256")]);
    let hosts = rules.map(|(address, method)| {
        format!("host all all {address} {method}\nhost replication all {address} {method}\n")
    });
    "local all all trust\nlocal replication all trust\n".to_owned() + &hosts.collect::<String>()
}

/// Returns the rules with TLS as a condition for everybody who needs a password.
pub(super) fn require_tls(rules: &str) -> String {
    let require = |rule: &str| match rule.ends_with("scram-sha-256") {
        true => rule.replacen("host ", "hostssl ", 1) + "\n",
        false => format!("{rule}\n"),
    };
    rules.lines().map(require).collect()
}

/// `client` is psql; without it the password cannot be set, and nobody gets in.
pub(super) fn access(
    database: &str,
    address: SocketAddr,
    password: &str,
    root_certificate: Option<&Path>,
    client: Option<Command>,
) -> TcpAccess {
    let path = percent_encode(database);
    let root = root_certificate.map(|path| path.display().to_string());
    let mode = if root.is_some() { "verify-full" } else { "disable" };
    let options = root.as_deref().map(|root| format!("sslmode={mode}&sslrootcert={}", encode_path(root)));
    let options =
        |separator| options.as_deref().map(|options| format!("{separator}{options}")).unwrap_or_default();
    // The client sends its settings with the statement, so that the password stays out of the log.
    let script = format!("ALTER ROLE {SUPERUSER} PASSWORD {};\n", Dialect::Postgres.literal(password));
    let url = format!("postgresql://{SUPERUSER}:{password}@{address}/{path}{}", options('?'));
    let user = format!("user={SUPERUSER}&password={password}");
    let access = TcpAccess::new(PORT, url)
        .jdbc_url(format!("jdbc:postgresql://{address}/{path}?{user}{}", options('&')))
        .env("PGHOST", address.ip().to_string())
        .env("PGPORT", address.port().to_string())
        .env("PGUSER", SUPERUSER)
        .env("PGPASSWORD", password)
        .env("PGDATABASE", database)
        .env("PGSSLMODE", mode);
    let access = match root {
        Some(root) => access.env("PGSSLROOTCERT", root),
        None => access,
    };
    let reset = format!("ALTER ROLE {SUPERUSER} PASSWORD NULL;\n");
    match client {
        Some(client) => access.task(Task::new(client.clone(), script)).reset(Task::new(client, reset)),
        None => access,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_names_password_address_and_database() {
        let access = access("a b", SocketAddr::from(([127, 0, 0, 1], 4711)), "0f", None, None);
        assert_eq!(access.url, "postgresql://postgres:0f@127.0.0.1:4711/a%20b");
        assert!(access.env.contains(&("PGDATABASE".to_owned(), "a b".to_owned())));
        assert!(access.env.contains(&("PGSSLMODE".to_owned(), "disable".to_owned())));
        assert!(!format!("{access:?}").contains("0f"));
    }

    #[test]
    fn with_tls_clients_check_the_certificate() {
        let root = Path::new("/proc/7/root/a b");
        let access = access("x", SocketAddr::from(([127, 0, 0, 1], 4711)), "0f", Some(root), None);
        let options = "sslmode=verify-full&sslrootcert=/proc/7/root/a%20b";
        assert_eq!(access.url, format!("postgresql://postgres:0f@127.0.0.1:4711/x?{options}"));
        let jdbc = format!("jdbc:postgresql://127.0.0.1:4711/x?user=postgres&password=0f&{options}");
        assert_eq!(access.jdbc_url, Some(jdbc));
        for (name, value) in [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", "/proc/7/root/a b")] {
            assert!(access.env.contains(&(name.to_owned(), value.to_owned())), "{name}");
        }
    }

    #[test]
    fn with_tls_no_password_travels_in_clear_text() {
        let rules = require_tls(&access_rules(Mode::Container));
        assert!(rules.contains("\nhostssl all all 127.0.0.0/8 scram-sha-256\n"), "{rules}");
        assert!(rules.lines().all(|rule| !rule.starts_with("host ") || rule.ends_with("trust")), "{rules}");
    }

    #[test]
    fn only_a_container_trusts_its_loopback() {
        let container = access_rules(Mode::Container);
        let trusted = container.find("host all all 127.0.0.1/32 trust").unwrap();
        assert!(trusted < container.find("host all all 127.0.0.0/8 scram-sha-256").unwrap());
        assert!(!TcpAccess::FORWARDED_FROM.to_string().starts_with("127.0.0.1"));
        let process = access_rules(Mode::Process { address: None });
        assert!(process.lines().all(|rule| rule.starts_with("local") || rule.ends_with("scram-sha-256")));
    }
}
