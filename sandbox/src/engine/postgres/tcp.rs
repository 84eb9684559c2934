//! PostgreSQL by TCP: who gets in, and by which password.

use std::net::SocketAddr;

use super::config::SUPERUSER;
use crate::engine::TcpAccess;

/// The port inside, as `FIXED` sets it.
const PORT: u16 = 5432;

/// pg_hba.conf: whoever opens the Unix socket is the user who runs the test; whoever comes by TCP may be anybody.
pub(super) const ACCESS: &str = "\
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
";

pub(super) fn access(database: &str, address: SocketAddr, password: &str) -> TcpAccess {
    let path = percent_encode(database);
    let url = format!("postgresql://{SUPERUSER}:{password}@{address}/{path}");
    TcpAccess::new(PORT, url)
        .script(set_password(password))
        .env("PGHOST", address.ip().to_string())
        .env("PGPORT", address.port().to_string())
        .env("PGUSER", SUPERUSER)
        .env("PGPASSWORD", password)
        .env("PGDATABASE", database)
}

/// Whatever the test's settings are: the statement succeeds, the password is kept as SCRAM wants it and stays out of the
/// log, which a failing test shows.
fn set_password(password: &str) -> String {
    format!(
        "SET default_transaction_read_only = off;
SET password_encryption = 'scram-sha-256';
SET log_statement = 'none';
SET log_duration = off;
SET log_min_duration_statement = -1;
SET log_min_duration_sample = -1;
SET log_transaction_sample_rate = 0;
SET log_min_error_statement = 'panic';
ALTER ROLE {SUPERUSER} PASSWORD '{password}';
"
    )
}

/// Everything that is not unreserved in a URL, RFC 3986.
pub(super) fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_names_password_address_and_database() {
        let access = access("a b", SocketAddr::from(([127, 0, 0, 1], 4711)), "0f");
        assert_eq!(access.url, "postgresql://postgres:0f@127.0.0.1:4711/a%20b");
        assert!(access.env.contains(&("PGDATABASE".to_owned(), "a b".to_owned())));
        assert!(!format!("{access:?}").contains("0f"));
    }
}
