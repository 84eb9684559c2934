//! The configuration of a MariaDB or MySQL server in a sandbox.

use crate::error::{Error, ErrorKind, Result};

pub(super) const DATA: &str = "/var/lib/mysql";
pub(super) const TEMPORARY: &str = "#tmp";
pub(super) const SOCKETS: &str = "/run/mysqld";
pub(super) const SOCKET: &str = "/run/mysqld/mysqld.sock";
pub(super) const PID_FILE: &str = "/run/mysqld/mysqld.pid";
pub(super) const CONFIG: &str = "/etc/mysql/my.cnf";
pub(super) const PORT: u16 = 3306;
pub(super) const ACCOUNT: &str = "mysql";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    MariaDb,
    MySql,
}

/// Tuning that changes how fast SQL runs and how much memory an idle server takes, and never
/// whether SQL succeeds: limits keep the server's own values. A setting of the same name given by
/// the user wins. A server that does not know one of them leaves it out.
const DEFAULTS: &[(&str, &str)] = &[
    // As Debian's package and the official images set it. The server's own was latin1 up to 11.5.
    ("character_set_server", "utf8mb4"),
    // The data ends with the test, so it need not survive a crash of the machine.
    ("innodb_flush_log_at_trx_commit", "0"),
    ("innodb_doublewrite", "0"),
    ("sync_frm", "0"),
    ("sync_binlog", "0"),
    // The sandbox denies io_uring.
    ("innodb_use_native_aio", "0"),
    // Each sandbox copies the log up.
    ("innodb_log_file_size", "16M"),
    ("innodb_autoextend_increment", "1"),
    // A server touches all of these at its start.
    ("innodb_log_buffer_size", "2M"),
    ("key_buffer_size", "1M"),
    ("aria_pagecache_buffer_size", "8M"),
    ("innodb_buffer_pool_dump_at_shutdown", "0"),
    ("innodb_buffer_pool_load_at_startup", "0"),
];

/// Tuning of MariaDB: MySQL has the first value only for its own tests, and refuses the second.
const OF_MARIADB: &[(&str, &str)] = &[
    ("innodb_flush_method", "nosync"),
    // Each sandbox writes the beginning of the file of temporary tables.
    ("innodb_temp_data_file_path", "ibtmp1:1M:autoextend"),
];

/// Settings that the server's arguments set, or that would let clients in without a password.
const FIXED: &[&str] = &[
    "basedir", "bind_address", "chroot", "datadir", "log_error", "pid_file", "port", "skip_grant_tables",
    "skip_name_resolve", "skip_networking", "socket", "tmpdir", "user",
];

/// Returns the configuration file: defaults, then the user's settings.
pub(super) fn configuration(product: Product, settings: &[(String, String)]) -> Result<String> {
    let mut config = "[mysqld]\n".to_owned();
    let own = if product == Product::MariaDb { OF_MARIADB } else { &[] };
    for (name, value) in DEFAULTS.iter().chain(own) {
        config.push_str(&format!("loose_{name}={value}\n"));
    }
    for (name, value) in settings {
        let refused = |hint: &str| {
            Err(Error::new(ErrorKind::InvalidConfig, format!("set the server's setting `{name}`"))
                .with_hint(hint))
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(is_name) {
            return refused("the name of a setting consists of letters, digits, `_`, `-` and `.`");
        }
        if FIXED.contains(&variable(name).as_str()) {
            return refused("the sandbox depends on its value: leave the setting out");
        }
        if value.contains(['\n', '\r', '\0']) {
            return refused("the value of a setting is one line");
        }
        config.push_str(&format!("{name}=\"{}\"\n", value.replace('\\', "\\\\").replace('"', "\\\"")));
    }
    Ok(config)
}

/// Returns the value that the user gave a setting; of several the last.
pub(super) fn setting<'a>(settings: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = settings.iter().rfind(|(other, _)| variable(other) == name);
    found.map(|(_, value)| value.as_str())
}

/// Returns the name of a setting as variables of the server have it.
fn variable(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// Returns the number of threads that the settings allow.
pub(super) fn threads(settings: &[(String, String)]) -> u32 {
    // One a connection, and those in the background.
    const ALWAYS: u32 = 64;
    const CONNECTIONS: u32 = 151;
    let connections = setting(settings, "max_connections").and_then(|value| value.trim().parse().ok());
    connections.unwrap_or(CONNECTIONS).saturating_add(ALWAYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn the_settings_of_the_user_come_after_the_defaults() {
        let config = configuration(
            Product::MariaDb,
            &settings(&[("character-set-server", "latin1"), ("init_connect", "a \\ \"#\"")]),
        );
        let config = config.unwrap();
        assert!(
            config.find("loose_character_set_server=utf8mb4").unwrap()
                < config.find("server=\"latin1\"").unwrap(),
            "{config}"
        );
        assert!(config.ends_with("init_connect=\"a \\\\ \\\"#\\\"\"\n"), "{config}");
    }

    #[test]
    fn settings_on_which_the_sandbox_depends_are_refused() {
        for (name, value) in [
            ("port", "1"),
            ("Skip-Grant-Tables", "1"),
            ("a b", "1"),
            ("", "1"),
            ("x", "1\ndatadir=/x"),
            ("_x", "1"),
        ] {
            let error = configuration(Product::MariaDb, &settings(&[(name, value)])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.hint().is_some(), "{error:?}");
        }
    }

    #[test]
    fn threads_follow_the_connections() {
        assert_eq!(threads(&[]), 151 + 64);
        let set = |value: &str| threads(&settings(&[("max_connections", "9"), ("MAX-connections", value)]));
        assert_eq!((set("1000"), set("many")), (1064, 151 + 64));
    }
}
