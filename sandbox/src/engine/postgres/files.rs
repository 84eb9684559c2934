//! Ways of files into a PostgreSQL server: psql, COPY, pg_restore.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::config::{DATA, LOCALE, SOCKETS, SUPERUSER};
use super::programs;
use super::psql;
use crate::engine::{Dialect, FileRun, Format, Installation};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Command;

pub(super) fn with_environment(command: Command) -> Command {
    command
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .path_env("HOME", "/tmp")
        .env("LANG", LOCALE)
        .env("TZ", "UTC")
        .path_env("PGDATA", DATA)
        .path_env("PGHOST", SOCKETS)
        .env("PGUSER", SUPERUSER)
}

/// psql for scripts of this library, which reads its script from the standard input.
///
/// The library's statements run under the library's settings, whatever `ALTER ROLE`, `ALTER
/// DATABASE` or the configuration say: options of a connection win over these. Passwords in
/// statements stay out of the log.
pub(super) fn own_client(installation: &Installation) -> Result<Command> {
    let since = |version, settings| if installation.major() >= version { settings } else { "" };
    let settings = [
        "role=none statement_timeout=0 lock_timeout=10s idle_in_transaction_session_timeout=0",
        "default_transaction_read_only=off synchronous_commit=on password_encryption=scram-sha-256",
        "log_statement=none log_duration=off log_min_duration_statement=-1 log_min_duration_sample=-1",
        "log_transaction_sample_rate=0 log_min_error_statement=panic",
        since(14, "idle_session_timeout=0"),
        since(17, "transaction_timeout=0 event_triggers=off"),
    ];
    let options = settings.iter().flat_map(|settings| settings.split_ascii_whitespace());
    let options: Vec<_> = options.map(|setting| format!("-c {setting}")).collect();
    // Without `--echo-errors`: a statement may hold a password.
    Ok(psql(installation, SUPERUSER)?.args(["--file", "-"]).env("PGOPTIONS", options.join(" ")))
}

/// psql on that database, which reads its script from the standard input.
pub(super) fn first_client(installation: &Installation, database: &str) -> Result<Command> {
    Ok(psql(installation, database)?.args(["--file", "-"]))
}

/// psql on that database, without its script.
fn psql(installation: &Installation, database: &str) -> Result<Command> {
    let quiet = ["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=on", "--pset", "pager=off"];
    Ok(connected(client(installation, "psql")?.args(quiet), database))
}

fn connected(client: Command, database: &str) -> Command {
    let database = psql::conninfo(database);
    client.arg("--host").path_arg(SOCKETS).args(["--username", SUPERUSER, "--dbname", &database])
}

fn client(installation: &Installation, name: &str) -> Result<Command> {
    let program = match (installation.has(name), installation.image()) {
        (true, _) => installation.program(name),
        (false, Some(image)) => {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("find `{name}` in the image {}", image.id()),
            )
            .with_hint("use an image with PostgreSQL's client programs: they run migrations and seeds"));
        }
        // A client of another version works, too.
        (false, None) => programs::newest_client(name).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("find `{name}` in `{}`", installation.bin().display()),
            )
            .with_hint("install PostgreSQL's client programs: they run migrations and seeds")
        })?,
    };
    Ok(with_environment(Command::new(program)))
}

/// First words of the server's message when a file ends in another database than it began in.
const ELSEWHERE: &str = "the file ends in the database ";

pub(super) fn run_file(installation: &Installation, database: &str, run: &FileRun) -> Result<Command> {
    let FileRun { path, format, from_stdin, transaction, before, after, requests: _ } = run;
    let run = match format {
        Format::Archive => {
            let restore = connected(client(installation, "pg_restore")?.arg("--exit-on-error"), database);
            return Ok(restore.arg(path.to_string_lossy()));
        }
        Format::Csv { table, columns } => {
            let [copy, sequences] = load_rows(table, columns);
            vec!["--command".to_owned(), copy, "--command".to_owned(), sequences]
        }
        Format::Sql => {
            let file = if *from_stdin { "-".into() } else { path.to_string_lossy() };
            vec!["--file".to_owned(), file.into_owned()]
        }
    };
    let commands =
        |sql: &Option<String>| sql.iter().flat_map(|sql| ["--command".to_owned(), sql.clone()]).collect();
    let (before, after): (Vec<_>, Vec<_>) = (commands(before), commands(after));
    let in_database = format!(
        "SELECT CASE WHEN current_database() <> {} THEN ('{ELSEWHERE}' || current_database())::int END",
        Dialect::Postgres.literal(database)
    );
    let end: &[&str] = match transaction {
        true => &["--single-transaction"],
        // Fails where the file left its database, or left a transaction open, which would be lost
        // silently.
        false => &["--command", &in_database, "--command", "DISCARD ALL"],
    };
    Ok(psql(installation, database)?
        .arg("--echo-errors")
        .args(before)
        .args(run)
        .args(after)
        .args(end.iter().copied())
        .current_dir(path.parent().unwrap_or(path)))
}

/// Copies rows from the standard input, and sets the sequences of their columns to go on after
/// them.
fn load_rows(table: &str, columns: &[String]) -> [String; 2] {
    let name =
        table.splitn(2, '.').map(|part| Dialect::Postgres.identifier(part)).collect::<Vec<_>>().join(".");
    let columns: Vec<_> = columns.iter().map(|column| Dialect::Postgres.identifier(column)).collect();
    let copy = format!("COPY {name} ({}) FROM STDIN WITH (FORMAT csv, HEADER true)", columns.join(", "));
    let table = Dialect::Postgres.literal(&name);
    let sequences = format!(
        "DO $do$
        DECLARE owned record;
        BEGIN
            FOR owned IN
                -- Columns of a partition take values from sequences of the partitioned table.
                WITH RECURSIVE tables(id) AS (
                    SELECT {table}::regclass::oid UNION SELECT inhparent FROM pg_inherits JOIN tables ON inhrelid = id
                )
                SELECT attname AS name, pg_get_serial_sequence(id::regclass::text, attname) AS sequence
                FROM tables JOIN pg_attribute ON attrelid = id JOIN pg_type ON pg_type.oid = atttypid
                WHERE attnum > 0 AND NOT attisdropped AND typcategory = 'N'
                AND pg_get_serial_sequence(id::regclass::text, attname) IS NOT NULL
            LOOP
                EXECUTE format(
                    'SELECT setval(%L, max(%I)::bigint) FROM %s HAVING max(%I) >= (SELECT last_value FROM %s)',
                    owned.sequence, owned.name, {table}::regclass, owned.name, owned.sequence);
            END LOOP;
        END
        $do$"
    );
    [copy, sequences]
}

/// First bytes of pg_dump's custom format, and of the table of contents in its two other formats.
const MAGIC: &[u8] = b"PGDMP";
const CONTENTS: &str = "toc.dat";

pub(super) fn is_archive(path: &Path) -> bool {
    let begins = |path: &Path| {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(512).read_to_end(&mut bytes));
        read.map(|_| bytes).unwrap_or_default()
    };
    if path.is_dir() {
        return begins(&path.join(CONTENTS)).starts_with(MAGIC);
    }
    let bytes = begins(path);
    // The first entry of a tar archive: its name, and the mark of the format at byte 257 (POSIX,
    // "ustar").
    let is_tar = bytes.get(257..262).is_some_and(|mark| mark == b"ustar");
    bytes.starts_with(MAGIC) || is_tar && bytes.starts_with(format!("{CONTENTS}\0").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_and_columns_are_quoted() {
        let [copy, sequences] = load_rows("shop.it's \"x\".y", &["a b".to_owned(), "C".to_owned()]);
        assert_eq!(
            copy,
            "COPY \"shop\".\"it's \"\"x\"\".y\" (\"a b\", \"C\") FROM STDIN WITH (FORMAT csv, HEADER true)"
        );
        assert!(sequences.contains("E'\"shop\".\"it''s \"\"x\"\".y\"'::regclass"), "{sequences}");
    }

    #[test]
    fn archives_are_recognised_by_their_first_bytes() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, contents: &[u8]| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, contents).unwrap();
            path
        };
        let mut tar = vec![0; 512];
        tar[..7].copy_from_slice(b"toc.dat");
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&write("custom", b"PGDMP\x01\x0e")));
        assert!(is_archive(write("directory/toc.dat", b"PGDMP\x01\x0e").parent().unwrap()));
        assert!(is_archive(&write("tar", &tar)));
        tar[0] = b'x';
        for other in
            [write("other.tar", &tar), write("a.sql", b"-- PGDMP"), write("empty", b""), root.path().into()]
        {
            assert!(!is_archive(&other), "{}", other.display());
        }
    }
}
