//! PostgreSQL's configuration file: settings for a server that is started often and lives for one
//! test.

use crate::engine::Mode;
use crate::error::{Error, ErrorKind, Result};

pub(super) const CONFIG: &str = "/etc/postgresql/postgresql.conf";
pub(super) const ACCESS: &str = "/etc/postgresql/pg_hba.conf";
pub(super) const SUPERUSER: &str = "postgres";
pub(super) const LOCALE: &str = "C.UTF-8";
pub(super) const DATA: &str = "/var/lib/postgresql/data";
pub(super) const SOCKETS: &str = "/run/postgresql";
pub(super) const PORT: u16 = 5432;

/// Settings that name the server's files and sockets, given on the command line.
pub(super) const FIXED_PATHS: [(&str, &str); 3] =
    [("config_file", CONFIG), ("hba_file", ACCESS), ("unix_socket_directories", SOCKETS)];

/// Tuning that changes how fast SQL runs and how much memory an idle server takes, and never
/// whether SQL succeeds.
///
/// Limits (connections, locks, workers, replication) therefore keep PostgreSQL's own values. A
/// setting of the same name given by the user wins. The third column is the first version that
/// knows the setting.
const DEFAULTS: [(&str, &str, u32); 27] = [
    // The data ends with the test, so it need not survive a crash of the machine.
    ("fsync", "off", 0),
    ("full_page_writes", "off", 0),
    ("wal_recycle", "off", 0),
    ("checkpoint_timeout", "1h", 0),
    // Statistics change when a test analyses tables, not at some moment.
    ("autovacuum", "off", 0),
    // Workers would be further processes of each server.
    ("io_method", "sync", 18),
    // Idle processes sleep: a thousand servers would wake up ten thousand times a second. Nothing
    // waits for them: backends write what they evict, and commits write their own WAL.
    ("bgwriter_lru_maxpages", "0", 0),
    ("bgwriter_delay", "10s", 0),
    ("wal_writer_delay", "10s", 0),
    // Half of PostgreSQL's own, since a server writes all descriptors at its start. A scan pins a
    // buffer of each relation it reads and locks, and the lock table holds 64 × 122 = 7,808 locks:
    // 8,192 buffers suffice for each query that the locks allow.
    ("shared_buffers", "64MB", 0),
    // A server clears all of them at its start; loads and commits take as long as with four times
    // as many.
    ("wal_buffers", "64kB", 0),
    // The first parallel query asks for a megabyte and uses a little of it: /dev/shm would hold all
    // of it.
    ("min_dynamic_shared_memory", "2MB", 14),
    ("huge_pages", "off", 0),
    // Compiling a plan takes longer than most test queries.
    ("jit", "off", 0),
    ("unix_socket_permissions", "0700", 0),
    ("listen_addresses", "'127.0.0.1, ::1'", 0),
    ("password_encryption", "scram-sha-256", 0),
    ("logging_collector", "off", 0),
    // The same answers on every machine.
    ("timezone", "UTC", 0),
    ("log_timezone", "UTC", 0),
    ("datestyle", "'iso, mdy'", 0),
    ("lc_messages", "'C'", 0),
    ("lc_monetary", "'C'", 0),
    ("lc_numeric", "'C'", 0),
    ("lc_time", "'C'", 0),
    ("default_text_search_config", "'pg_catalog.english'", 0),
    ("log_line_prefix", "'%m [%p] '", 0),
];

/// The least and the most write-ahead log that is kept, for segments of that many MB. The server
/// wants two segments at least.
fn wal_sizes(segment: u32) -> [(&'static str, String); 2] {
    let least = segment.saturating_mul(2);
    [("min_wal_size", format!("{least}MB")), ("max_wal_size", format!("{}MB", least.max(128)))]
}

/// Settings that follow from the `wal_level` the user names, or from its absence.
fn replication(mode: Mode, settings: &[(String, String)]) -> &'static [(&'static str, &'static str)] {
    let level = setting(settings, "wal_level").map(str::to_ascii_lowercase);
    match level.as_deref() {
        // The server refuses senders at this level.
        Some("minimal") => &[("max_wal_senders", "0"), ("max_logical_replication_workers", "0")],
        // Senders stream an asynchronous commit once the WAL writer has written it.
        Some("replica" | "archive" | "hot_standby") if mode == Mode::Container => {
            &[("wal_writer_delay", "200ms"), ("max_logical_replication_workers", "0")]
        }
        Some(_) => &[("wal_writer_delay", "200ms")],
        // Without workers there is no launcher process, an eighth of a start. A subscription in a
        // container reaches only its own server, which publishes only at the level `logical`.
        None if mode == Mode::Container => &[("max_logical_replication_workers", "0")],
        None => &[],
    }
}

/// The configuration file: defaults, then the user's settings. `segment` is the size of a segment
/// of the write-ahead log, in MB.
pub(super) fn configuration(
    major: u32,
    mode: Mode,
    segment: u32,
    settings: &[(String, String)],
) -> Result<String> {
    let defaults = DEFAULTS.iter().filter(|(_, _, since)| major >= *since);
    let defaults = defaults.map(|(name, value, _)| (*name, *value));
    let mut config: String = defaults
        .chain(replication(mode, settings).iter().copied())
        .map(|(name, value)| format!("{name} = {value}\n"))
        .chain(wal_sizes(segment).map(|(name, value)| format!("{name} = {value}\n")))
        .collect();
    for (name, value) in settings {
        let refused = |hint: &str| {
            Err(Error::new(ErrorKind::InvalidConfig, format!("set the PostgreSQL setting `{name}`"))
                .with_hint(hint))
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$');
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(valid) {
            return refused("the name of a setting consists of letters, digits, `_` and `.`");
        }
        if is_fixed(name) {
            return refused("the sandbox is reached by this setting: leave it out");
        }
        if value.contains(['\n', '\r', '\0']) {
            return refused("the value of a setting is one line");
        }
        config.push_str(&format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''")));
    }
    Ok(config)
}

fn is_fixed(name: &str) -> bool {
    let fixed = FIXED_PATHS.iter().map(|(fixed, _)| *fixed);
    fixed.chain(["data_directory", "port"]).any(|fixed| fixed.eq_ignore_ascii_case(name))
}

/// The value that the user gave a setting; of several the last.
pub(super) fn setting<'a>(settings: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = settings.iter().rfind(|(other, _)| other.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn the_settings_of_the_user_come_after_the_defaults() {
        let config =
            configuration(15, Mode::Container, 1, &settings(&[("fsync", "on"), ("a.b", "it's")])).unwrap();
        assert!(config.find("fsync = off").unwrap() < config.find("fsync = 'on'").unwrap());
        assert!(config.contains("a.b = 'it''s'\n"));
        assert!(!config.contains("io_method"));
        assert!(configuration(18, Mode::Container, 1, &[]).unwrap().contains("io_method = sync"));
    }

    #[test]
    fn two_segments_of_the_log_are_kept_at_least() {
        let sizes = |segment| wal_sizes(segment).map(|(_, size)| size);
        assert_eq!(sizes(1), ["2MB", "128MB"]);
        assert_eq!(sizes(1024), ["2048MB", "2048MB"]);
        let config = configuration(15, Mode::Container, 4, &settings(&[("min_wal_size", "1GB")])).unwrap();
        assert!(config.find("min_wal_size = 8MB").unwrap() < config.find("min_wal_size = '1GB'").unwrap());
    }

    #[test]
    fn replication_settings_follow_the_wal_level() {
        let of = |mode, list: &[(&str, &str)]| configuration(15, mode, 1, &settings(list)).unwrap();
        let process = Mode::Process { address: None };
        let workers = "max_logical_replication_workers = 0";
        assert!(of(Mode::Container, &[]).contains(workers) && !of(process, &[]).contains(workers));
        for level in ["logical", "LOGICAL"] {
            let logical = of(Mode::Container, &[("wal_level", "minimal"), ("WAL_LEVEL", level)]);
            assert!(!logical.contains(workers) && logical.contains("wal_writer_delay = 200ms"), "{logical}");
            assert!(!logical.contains("max_wal_senders"), "{logical}");
        }
        assert!(of(Mode::Container, &[("wal_level", "replica")]).contains("wal_writer_delay = 200ms"));
        assert!(of(Mode::Container, &[("wal_level", "minimal")]).contains("max_wal_senders = 0"));
    }

    #[test]
    fn settings_that_cannot_be_set_are_refused() {
        for (name, value) in
            [("port", "1"), ("HBA_file", "/x"), ("a b", "1"), ("", "1"), ("work_mem", "1\nfsync = on")]
        {
            let error = configuration(15, Mode::Container, 1, &settings(&[(name, value)])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.hint().is_some(), "{error:?}");
        }
    }
}
