//! Engines as the tests of all engines use them: a store of keys and values.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use postgres::NoTls;
use sandboxed_db::engine::Scripts;
use sandboxed_db::{Engine, ErrorKind, Postgres, Redis, Sandbox, Snapshot, Sqlite, Tcp};

use crate::{connect, is_installed, printed, skip, skip_untested};

/// An engine that every promise is tested with.
pub trait TestedEngine: Engine + Scripts {
    /// Returns the engine with its defaults.
    fn engine() -> Self;

    /// The program of the host by which the tests reach the server, if they need one.
    const CLIENT: Option<&str> = None;

    /// `true` for a server that no distribution of CI has: its tests are skipped there.
    const IS_RARE: bool = false;

    /// A seed that stores `seeded` under the key `seed`.
    const SEED: &str;

    /// The name of the seed's file.
    const SEED_NAME: &str;

    /// A setting, and a value that is not its default, as the server shows it.
    const SETTING: (&str, &str);

    /// A setting by which the server has many threads from its start on, if it has few otherwise.
    const THREADS: Option<(&str, &str)> = None;

    /// Returns `true` if the server answers.
    fn answers(db: &Sandbox<Self>) -> bool;

    /// Stores a value of letters under a key.
    fn set(db: &Sandbox<Self>, key: &str, value: &str) -> Result<(), String>;

    /// Returns the value under a key.
    fn get(db: &Sandbox<Self>, key: &str) -> Result<Option<String>, String>;

    /// Returns the value of a setting in the running server.
    fn setting(db: &Sandbox<Self>, name: &str) -> String;

    /// Makes the server write `size` bytes to its data directory.
    fn write_to_disk(db: &Sandbox<Self>, size: usize) -> Result<(), String>;

    /// Makes the server write what it has acknowledged, if it does not at once: it may be killed.
    ///
    /// # Errors
    /// The server's message.
    fn save(db: &Sandbox<Self>) -> Result<(), String> {
        let _ = db;
        Ok(())
    }

    /// Makes the server check its data, or write it by a separate process or thread.
    fn check(db: &Sandbox<Self>) -> Result<(), String> {
        let _ = db;
        Ok(())
    }

    /// Returns values that the server draws, and that no other server may draw.
    fn draw(db: &Sandbox<Self>) -> Result<Vec<String>, String> {
        let _ = db;
        Ok(Vec::new())
    }

    /// Runs the database's check of data in files, of a stopped server or beside one that has it.
    fn check_files(db: &Sandbox<Self>, data: &Path) -> Result<(), String>;

    /// Makes the server take a gigabyte of memory, which it may survive.
    fn take_memory(db: &Sandbox<Self>);

    /// Makes the server have a hundred processes or threads.
    fn take_processes(db: &Sandbox<Self>);

    /// Returns the value under the key `seed`, asked through a port with a password.
    fn seed_by_tcp(tcp: &Tcp, password: &str) -> Result<String, String>;
}

/// Returns `true` without a server of this engine or without its client on the host, for which a
/// test is skipped.
#[must_use]
pub fn is_missing<E: TestedEngine>() -> bool {
    if runs_an_image::<E>() {
        return false;
    }
    let located = E::engine().locate();
    let missing = located.as_ref().err().filter(|error| error.kind() == ErrorKind::NotInstalled);
    if let Some(error) = missing {
        let reason = format!("no {} is installed: {error}", E::engine().name());
        if E::IS_RARE { skip_untested(&reason) } else { skip(&reason) }
    }
    let client = E::CLIENT.filter(|client| !is_installed(client));
    if let Some(client) = client {
        skip(&format!("no `{client}` is installed"));
    }
    missing.is_some() || client.is_some()
}

/// Skips the test that it stands in without a server of an engine, see [`is_missing`].
#[macro_export]
macro_rules! skip_without {
    ($engine:ty) => {
        if $crate::is_missing::<$engine>() {
            return;
        }
    };
}

/// Returns `true` if the servers of this run are those of an image.
#[must_use]
pub fn runs_an_image<E: TestedEngine>() -> bool {
    let variable = format!("SANDBOXED_DB_{}", E::engine().name().to_uppercase());
    std::env::var(variable).is_ok_and(|image| image.starts_with("oci:"))
}

/// A snapshot with the engine's seed, and the directory of that file.
#[must_use]
pub fn seeded<E: TestedEngine>() -> (tempfile::TempDir, Snapshot<E>) {
    let directory = crate::directory(&[(E::SEED_NAME, E::SEED)]);
    let snapshot = Snapshot::new(E::engine()).seed(directory.path().join(E::SEED_NAME));
    (directory, snapshot)
}

impl TestedEngine for Postgres {
    fn engine() -> Self {
        Self::new()
    }

    const SEED: &str = "create table store (key text primary key, value text);\ninsert into store values ('seed', 'seeded');\n";
    const SEED_NAME: &str = "store.sql";
    const SETTING: (&str, &str) = ("work_mem", "5MB");

    fn answers(db: &Sandbox<Self>) -> bool {
        let client = postgres::Client::connect(db.url(), NoTls);
        client.is_ok_and(|mut client| client.simple_query("select 1").is_ok())
    }

    fn set(db: &Sandbox<Self>, key: &str, value: &str) -> Result<(), String> {
        let sql = "insert into store values ($1, $2) on conflict (key) do update set value = excluded.value";
        connect(db.url()).execute(sql, &[&key, &value]).map(drop).map_err(|error| error.to_string())
    }

    fn get(db: &Sandbox<Self>, key: &str) -> Result<Option<String>, String> {
        let row = connect(db.url()).query_opt("select value from store where key = $1", &[&key]);
        Ok(row.map_err(|error| error.to_string())?.map(|row| row.get(0)))
    }

    fn setting(db: &Sandbox<Self>, name: &str) -> String {
        let row = connect(db.url()).query_one("select current_setting($1)", &[&name]);
        row.expect("the setting exists").get(0)
    }

    fn write_to_disk(db: &Sandbox<Self>, size: usize) -> Result<(), String> {
        // Random text does not compress.
        let sql = format!(
            "create table loot as select string_agg(md5(random()::text), '') from generate_series(1, {}) i group by i / 50",
            size / 32
        );
        connect(db.url()).batch_execute(&sql).map_err(|error| error.to_string())
    }

    fn check_files(db: &Sandbox<Self>, _data: &Path) -> Result<(), String> {
        let sql = "create extension if not exists amcheck; select bt_index_parent_check('store_pkey', true)";
        connect(db.url()).batch_execute(sql).map_err(|error| error.to_string())
    }

    fn take_memory(db: &Sandbox<Self>) {
        let _ = connect(db.url()).batch_execute("select length(repeat('x', 1000000000))");
    }

    fn take_processes(db: &Sandbox<Self>) {
        connections(&db.root().join("run/postgresql/.s.PGSQL.5432"));
    }

    fn draw(db: &Sandbox<Self>) -> Result<Vec<String>, String> {
        let row = connect(db.url()).query_one("select gen_random_uuid()::text, random()::text", &[]);
        row.map(|row| vec![row.get(0), row.get(1)]).map_err(|error| error.to_string())
    }

    fn seed_by_tcp(tcp: &Tcp, password: &str) -> Result<String, String> {
        let url = tcp.url().replace(tcp.password(), password);
        let mut client = postgres::Client::connect(&url, NoTls).map_err(|error| format!("{error:?}"))?;
        let row = client.query_one("select value from store where key = 'seed'", &[]);
        Ok(row.map_err(|error| error.to_string())?.get(0))
    }
}

impl TestedEngine for Redis {
    fn engine() -> Self {
        Self::new()
    }

    const SEED: &str = "SET seed seeded\n";
    const SEED_NAME: &str = "store.redis";
    const SETTING: (&str, &str) = ("maxmemory-samples", "7");
    const THREADS: Option<(&str, &str)> = Some(("io-threads", "64"));

    fn answers(db: &Sandbox<Self>) -> bool {
        let stream = UnixStream::connect(Self::socket().below(&db.root()));
        stream.is_ok_and(|mut stream| redis(&mut stream, &["PING"]).is_ok())
    }

    fn set(db: &Sandbox<Self>, key: &str, value: &str) -> Result<(), String> {
        redis(&mut unix(db), &["SET", key, value]).map(drop)
    }

    fn get(db: &Sandbox<Self>, key: &str) -> Result<Option<String>, String> {
        redis(&mut unix(db), &["GET", key])
    }

    fn setting(db: &Sandbox<Self>, name: &str) -> String {
        let mut stream = unix(db);
        // An array of the name and the value.
        assert_eq!(redis(&mut stream, &["CONFIG", "GET", name]), Ok(Some("2".to_owned())));
        assert_eq!(answer(&mut stream), Ok(Some(name.to_owned())));
        answer(&mut stream).unwrap().expect("a value")
    }

    fn write_to_disk(db: &Sandbox<Self>, size: usize) -> Result<(), String> {
        let mut stream = unix(db);
        // Zeros, which would take no space if they were compressed.
        redis(&mut stream, &["CONFIG", "SET", "rdbcompression", "no"])?;
        redis(&mut stream, &["SETRANGE", "loot", &(size - 1).to_string(), "x"])?;
        redis(&mut stream, &["SAVE"]).map(drop)
    }

    fn check_files(_db: &Sandbox<Self>, data: &Path) -> Result<(), String> {
        // A server without keys has no such file.
        let file = data.join("dump.rdb");
        if !file.exists() {
            return Ok(());
        }
        let check = Command::new("redis-check-rdb").arg(file).output().map_err(|error| error.to_string())?;
        match check.status.success() && printed(&check).contains("RDB looks OK!") {
            true => Ok(()),
            false => Err(printed(&check)),
        }
    }

    fn take_memory(db: &Sandbox<Self>) {
        // A value may have half of it.
        for key in ["one", "two"] {
            let stream = UnixStream::connect(Self::socket().below(&db.root()));
            let _ = stream.map(|mut stream| redis(&mut stream, &["SETRANGE", key, "500000000", "x"]));
        }
    }

    fn take_processes(_db: &Sandbox<Self>) {}

    fn save(db: &Sandbox<Self>) -> Result<(), String> {
        redis(&mut unix(db), &["SAVE"]).map(drop)
    }

    /// A forked process writes all data.
    fn check(db: &Sandbox<Self>) -> Result<(), String> {
        let mut stream = unix(db);
        redis(&mut stream, &["BGSAVE"])?;
        crate::wait_until(crate::DEADLINE, "the data is written", || {
            let info = redis(&mut stream, &["INFO", "persistence"]).expect("an answer").unwrap_or_default();
            ["rdb_bgsave_in_progress:0", "rdb_last_bgsave_status:ok"].iter().all(|line| info.contains(line))
        });
        Ok(())
    }

    fn seed_by_tcp(tcp: &Tcp, password: &str) -> Result<String, String> {
        let mut stream = TcpStream::connect(tcp.address()).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(crate::DEADLINE)).expect("a timeout");
        redis(&mut stream, &["AUTH", password])?;
        Ok(redis(&mut stream, &["GET", "seed"])?.unwrap_or_default())
    }
}

fn unix(db: &Sandbox<Redis>) -> UnixStream {
    let stream = UnixStream::connect(Redis::socket().below(&db.root())).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream
}

/// Sends a command, and returns the answer.
fn redis(stream: &mut (impl Read + Write), command: &[&str]) -> Result<Option<String>, String> {
    let mut request = format!("*{}\r\n", command.len());
    for word in command {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    answer(stream)
}

/// Reads a text, a number, the length of an array, or `None` for no value.
fn answer(stream: &mut impl Read) -> Result<Option<String>, String> {
    let mut line = |length: Option<usize>| {
        let mut bytes = Vec::new();
        while length.map_or_else(|| !bytes.ends_with(b"\r\n"), |length| bytes.len() < length + 2) {
            let mut byte = [0];
            stream.read_exact(&mut byte).map_err(|error| error.to_string())?;
            bytes.push(byte[0]);
        }
        Ok::<_, String>(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned())
    };
    let answer = line(None)?;
    match answer.split_at_checked(1) {
        Some(("-", error)) => Err(error.to_owned()),
        Some(("$", "-1")) => Ok(None),
        Some(("$", length)) => line(Some(length.parse().expect("a length"))).map(Some),
        Some((_, text)) => Ok(Some(text.to_owned())),
        None => Err("an empty answer".to_owned()),
    }
}

/// A server has settings and ports, which the tests of SQLite leave out.
impl TestedEngine for Sqlite {
    fn engine() -> Self {
        Self::new()
    }

    const SEED: &str = "create table store (key text primary key, value text);\ninsert into store values ('seed', 'seeded');\n";
    const SEED_NAME: &str = "store.sql";
    const SETTING: (&str, &str) = ("", "");

    fn answers(db: &Sandbox<Self>) -> bool {
        sqlite(db, "select 1").is_ok()
    }

    fn set(db: &Sandbox<Self>, key: &str, value: &str) -> Result<(), String> {
        sqlite(db, &format!("insert or replace into store values ('{key}', '{value}')")).map(drop)
    }

    fn get(db: &Sandbox<Self>, key: &str) -> Result<Option<String>, String> {
        let value = sqlite(db, &format!("select value from store where key = '{key}'"))?;
        Ok(value.strip_suffix('\n').map(str::to_owned))
    }

    fn setting(_db: &Sandbox<Self>, _name: &str) -> String {
        panic!("SQLite has no settings");
    }

    fn write_to_disk(db: &Sandbox<Self>, size: usize) -> Result<(), String> {
        sqlite(
            db,
            &format!("create table if not exists loot (x); insert into loot values (randomblob({size}))"),
        )
        .map(drop)
    }

    fn check_files(_db: &Sandbox<Self>, data: &Path) -> Result<(), String> {
        // A layer without steps has no file yet.
        let file = data.join("database.sqlite");
        match sqlite_file(&file, "pragma integrity_check")?.as_str() {
            "ok\n" => Ok(()),
            faults => Err(faults.to_owned()),
        }
    }

    fn take_memory(_db: &Sandbox<Self>) {
        panic!("SQLite has no server");
    }

    fn take_processes(_db: &Sandbox<Self>) {
        panic!("SQLite has no server");
    }

    fn seed_by_tcp(_tcp: &Tcp, _password: &str) -> Result<String, String> {
        panic!("SQLite has no ports");
    }
}

/// Runs SQL in this process's namespaces, as a test's own library does.
pub fn sqlite(db: &Sandbox<Sqlite>, sql: &str) -> Result<String, String> {
    sqlite_file(&Sqlite::file().below(&db.root()), sql)
}

fn sqlite_file(file: &Path, sql: &str) -> Result<String, String> {
    let mut command = Command::new("sqlite3");
    let output = command.args(["-batch", "-bail", "-init", "/dev/null"]).arg(file).arg(sql).output();
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Connects a hundred times, and waits for the answer to the last: a server with a process or a
/// thread for each client has refused it.
pub(crate) fn connections(socket: &Path) {
    let mut all: Vec<_> = (0..100).map_while(|_| UnixStream::connect(socket).ok()).collect();
    if let Some(last) = all.last_mut() {
        last.set_read_timeout(Some(crate::DEADLINE)).expect("a timeout");
        let _ = last.read(&mut [0]);
    }
}
