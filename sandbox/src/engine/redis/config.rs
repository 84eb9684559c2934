//! The configuration of a Redis server in a sandbox.

use crate::error::{Error, ErrorKind, Result};

pub(super) const DATA: &str = "/var/lib/redis";
pub(super) const SOCKETS: &str = "/run/redis";
pub(super) const SOCKET: &str = "/run/redis/redis.sock";
pub(super) const CONFIG: &str = "/etc/redis.conf";
pub(super) const PORT: u16 = 6379;
pub(super) const ACCOUNT: &str = "redis";

/// Values that a user's settings may replace.
const DEFAULTS: &[(&str, &str)] = &[
    ("hz", "1"),
    ("dynamic-hz", "no"),
    // A shutdown writes the data where there is a save point; this one is reached by no test.
    ("save", "31536000 1"),
    ("stop-writes-on-bgsave-error", "no"),
    // Each start reads what one stop has written.
    ("rdbcompression", "no"),
    ("rdbchecksum", "no"),
    ("appendonly", "no"),
    ("tcp-keepalive", "0"),
];

/// A seed of an RDB file is loaded by `DEBUG RELOAD`, which servers before version 7 always allow.
const DEBUG: (&str, &str) = ("enable-debug-command", "local");

/// The setting of the stop signal, at which a server from version 7 on writes the data even without
/// a save point.
pub(super) const AT_SIGNAL: &str = "shutdown-on-sigterm";

/// Set by `tls`.
pub(super) const OF_TLS: &[&str] = &["tls-port", "tls-cert-file", "tls-key-file", "tls-auth-clients"];

/// Set by the arguments of the server.
const FIXED: &[&str] = &[
    "dir", "unixsocket", "unixsocketperm", "bind", "port", "daemonize", "supervised", "dbfilename", "include",
];

/// Returns `redis.conf` with the user's settings, for a server of that major version.
pub(super) fn configuration(settings: &[(String, String)], major: u32) -> Result<String> {
    let mut lines = vec!["dbfilename dump.rdb".to_owned()];
    let is_set = |name: &str| settings.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let since_7: &[_] = if major >= 7 { &[DEBUG, (AT_SIGNAL, "save")] } else { &[] };
    let defaults = DEFAULTS.iter().chain(since_7).filter(|(name, _)| !is_set(name));
    lines.extend(defaults.map(|(name, value)| format!("{name} {value}")));
    for (name, value) in settings {
        let refused = |cause: &str, hint: &str| {
            let error = Error::new(ErrorKind::InvalidConfig, format!("set the Redis setting `{name}`"));
            Err(error.caused_by(cause.to_owned()).with_hint(hint))
        };
        if FIXED.iter().any(|fixed| fixed.eq_ignore_ascii_case(name)) {
            return refused("the sandbox depends on its value", "leave the setting out");
        }
        let is_name =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !is_name || value.contains(['\n', '\r']) {
            return refused("it is no line of redis.conf", "names have letters, digits and `-`");
        }
        lines.push(format!("{name} {value}"));
    }
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_replace_defaults_and_no_fixed_ones() {
        let set = |name: &str, value: &str| configuration(&[(name.to_owned(), value.to_owned())], 7);
        let configured = set("HZ", "10").unwrap();
        assert!(configured.contains("\nHZ 10\n") && !configured.contains("\nhz 1\n"), "{configured}");
        let (older, newer) = (configuration(&[], 6).unwrap(), configuration(&[], 7).unwrap());
        assert!(older.contains("\nhz 1\n") && !older.contains("debug") && newer.contains("debug"));
        for (name, value) in [("dir", "/x"), ("Port", "1"), ("a b", "c"), ("hz", "1\ndir /x"), ("", "1")] {
            let error = set(name, value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name}");
        }
    }
}
