//! PostgreSQL's configuration file: settings for a server that is started often and lives for one test.

use crate::error::{Error, ErrorKind, Result};

pub(super) const CONFIG: &str = "/etc/postgresql/postgresql.conf";
pub(super) const SUPERUSER: &str = "postgres";
pub(super) const LOCALE: &str = "C.UTF-8";
pub(super) const DATA: &str = "/var/lib/postgresql/data";
pub(super) const SOCKETS: &str = "/run/postgresql";

/// The settings a sandbox is reached by, given on the command line.
pub(super) const FIXED: [(&str, &str); 2] = [("unix_socket_directories", SOCKETS), ("port", "5432")];

/// Settings for a server that is started often, lives for one test and loses nothing of value when killed.
///
/// A setting of the same name given by the user takes their place. The third column is the first version that knows it.
const DEFAULTS: [(&str, &str, u32); 38] = [
    // The data dies with the test, so nothing need survive a crash of the machine.
    ("fsync", "off", 0),
    ("full_page_writes", "off", 0),
    ("wal_level", "minimal", 0),
    ("max_wal_senders", "0", 0),
    ("wal_recycle", "off", 0),
    ("min_wal_size", "2MB", 0),
    ("max_wal_size", "128MB", 0),
    ("checkpoint_timeout", "1h", 0),
    // Processes that a short test has no use for.
    ("autovacuum", "off", 0),
    ("autovacuum_max_workers", "1", 0),
    ("max_logical_replication_workers", "0", 0),
    ("io_method", "sync", 18),
    // Those that remain sleep: a thousand servers would wake up ten thousand times a second. Nothing waits for them, since
    // backends write what they evict, and a commit its own WAL, which without fsync is as fast.
    ("bgwriter_lru_maxpages", "0", 0),
    ("bgwriter_delay", "10s", 0),
    ("wal_writer_delay", "10s", 0),
    // Small, since a thousand servers may run at once.
    ("shared_buffers", "8MB", 0),
    // A server clears all of them at its start; loads of rows and commits take as long as with four times as many.
    ("wal_buffers", "64kB", 0),
    // The first connection asks for a megabyte, of which it uses a little: in /dev/shm all of it would be there at once.
    ("min_dynamic_shared_memory", "2MB", 14),
    ("max_connections", "32", 0),
    // Half of PostgreSQL's own, since half of them are made at the start; but as many as ever before a lock of a relation takes
    // the place of its rows' and pages', so that serializable transactions meet the same conflicts.
    ("max_pred_locks_per_transaction", "32", 0),
    ("max_pred_locks_per_relation", "32", 0),
    ("huge_pages", "off", 0),
    // At its start a server probes how many files it may open, one by one.
    ("max_files_per_process", "64", 0),
    // Compiling a plan takes longer than most test queries.
    ("jit", "off", 0),
    // Reached by the Unix socket, which only the user can open, and on the sandbox's own loopback by whom tcp() lets in.
    ("unix_socket_permissions", "0700", 0),
    ("listen_addresses", "'127.0.0.1'", 0),
    ("password_encryption", "scram-sha-256", 0),
    ("logging_collector", "off", 0),
    ("log_line_prefix", "'%m [%p] '", 0),
    // The same answers on every machine.
    ("timezone", "UTC", 0),
    ("log_timezone", "UTC", 0),
    ("datestyle", "'iso, mdy'", 0),
    ("lc_messages", "'C'", 0),
    ("lc_monetary", "'C'", 0),
    ("lc_numeric", "'C'", 0),
    ("lc_time", "'C'", 0),
    ("default_text_search_config", "'pg_catalog.english'", 0),
    ("dynamic_shared_memory_type", "posix", 0),
];

fn is_fixed(name: &str) -> bool {
    let fixed = FIXED.iter().map(|(fixed, _)| *fixed);
    fixed.chain(["data_directory", "config_file", "hba_file"]).any(|fixed| fixed.eq_ignore_ascii_case(name))
}

/// The configuration file: defaults, then the user's settings.
pub(super) fn configuration(major: u32, settings: &[(String, String)]) -> Result<String> {
    let mut config = String::new();
    for (name, value, since) in DEFAULTS {
        if major >= since {
            config.push_str(&format!("{name} = {value}\n"));
        }
    }
    for (name, value) in settings {
        let wrong = |hint: String| {
            Err(Error::new(ErrorKind::InvalidConfig, format!("set the PostgreSQL setting `{name}`"))
                .with_hint(hint))
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$');
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(valid) {
            return wrong("a setting's name consists of letters, digits, `_` and `.`".into());
        }
        if is_fixed(name) {
            return wrong("the sandbox is reached by it: it cannot be changed".into());
        }
        if value.contains(['\n', '\r', '\0']) {
            return wrong("a setting's value is one line".into());
        }
        config.push_str(&format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''")));
    }
    Ok(config)
}

/// What the user set, the last of a name.
pub(super) fn setting<'a>(settings: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = settings.iter().rfind(|(other, _)| other.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_settings_come_after_the_defaults() {
        let settings = [("fsync".to_owned(), "on".to_owned()), ("a.b".to_owned(), "it's".to_owned())];
        let config = configuration(15, &settings).unwrap();
        assert!(config.find("fsync = off").unwrap() < config.find("fsync = 'on'").unwrap());
        assert!(config.contains("a.b = 'it''s'\n"));
        assert!(!config.contains("io_method"));
        assert!(configuration(18, &[]).unwrap().contains("io_method = sync"));
    }

    #[test]
    fn settings_that_cannot_be_set_are_refused() {
        for (name, value) in
            [("port", "1"), ("PORT", "1"), ("a b", "1"), ("", "1"), ("work_mem", "1\nfsync = on")]
        {
            let error = configuration(15, &[(name.to_owned(), value.to_owned())]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.hint().is_some(), "{error:?}");
        }
    }
}
