//! Redis in a sandbox: data, seeds, settings, ports.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use rstest::rstest;
use sandboxed_db::{Engine, ErrorKind, Redis, Sandbox, ServerStart, Snapshot, sandboxed_db};
use sandboxed_db_tests::{
    DEADLINE, alone, continues_alone, eventually, passed, processes_beside, skip_without, wait_until,
};

fn start(snapshot: &Snapshot<Redis>) -> Sandbox<Redis> {
    snapshot.start().unwrap_or_else(|error| panic!("{error:?}"))
}

/// Sends commands, one a line, and returns the answers until the server has answered all of them.
fn talk(stream: &mut (impl Read + Write), commands: &str) -> String {
    stream.write_all(format!("{commands}\r\nECHO over\r\n").as_bytes()).unwrap();
    let mut answers = Vec::new();
    while !answers.ends_with(b"$4\r\nover\r\n") && !answers.ends_with(b"required.\r\n") {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "the server closed the connection");
        answers.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(answers).unwrap().replace("$4\r\nover\r\n", "")
}

pub(crate) fn ask(db: &Sandbox<Redis>, commands: &str) -> String {
    let path = PathBuf::from(db.url().strip_prefix("unix://").unwrap());
    assert_eq!(path, Redis::socket().below(&db.root()));
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    talk(&mut stream, commands)
}

/// A seed in a directory that lives as long as the test.
fn seed(name: &str, contents: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join(name);
    std::fs::write(&path, contents).unwrap();
    (place, path)
}

#[test]
fn a_command_that_redis_refuses_fails_with_its_line() {
    skip_without!(Redis);
    for (contents, expected) in [
        ("SET a 1\n# x\nLPUSH a x\nSET b 2\n", ":3`"),
        ("SET a 1\nNONSENSE x\n", "NONSENSE"),
        ("SET a 1\nSET b 'x\nSET c 3\n", ":2`"),
        ("insert into users values (1, 'ann');\n", "quotes do not match"),
        ("SET a 1\nMULTI\nSET b 2\n", "ends inside a transaction"),
    ] {
        let (_place, file) = seed("bad.redis", contents.as_bytes());
        let error = Snapshot::new(Redis::new()).seed(file).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(format!("{error:?}").contains(expected), "{error:?}");
    }
}

#[test]
fn an_rdb_file_is_a_seed() {
    skip_without!(Redis);
    let source = start(&Snapshot::new(Redis::new()));
    assert_eq!(ask(&source, "SET from rdb\r\nSAVE"), "+OK\r\n+OK\r\n");
    let rdb = std::fs::read(source.root().join("var/lib/redis/dump.rdb")).unwrap();
    let (_place, file) = seed("dump", &rdb);
    assert_eq!(ask(&start(&Snapshot::new(Redis::new()).seed(file)), "GET from"), "$3\r\nrdb\r\n");
}

#[test]
fn rows_are_no_seed_of_redis() {
    skip_without!(Redis);
    let (_place, file) = seed("users.csv", b"id,name\n1,ann\n");
    let error = Snapshot::new(Redis::new()).seed(file).start().unwrap_err();
    assert!(format!("{error:?}").contains("loads no rows"), "{error:?}");
}

#[rstest]
#[case::without_a_save_point("save", "\"\"")]
#[case::without_the_command("rename-command", "SHUTDOWN \"\"")]
#[case::without_the_permission("user", "default on nopass ~* +@all -shutdown")]
fn a_layer_holds_its_data_whatever_is_set(#[case] name: &str, #[case] value: &str) {
    skip_without!(Redis);
    let (_place, file) = seed("a.redis", b"SET seed seeded\n");
    let db = start(&Snapshot::new(Redis::new()).setting(name, value).seed(file));
    assert_eq!(ask(&db, "GET seed"), "$6\r\nseeded\r\n");
}

#[test]
fn a_setting_says_what_the_stop_signal_does() {
    skip_without!(Redis);
    if Redis::new().locate().unwrap().major() < 7 {
        return;
    }
    let (_place, file) = seed("a.redis", b"SET seed seeded\n");
    let snapshot = Snapshot::new(Redis::new()).setting("shutdown-on-sigterm", "nosave").seed(file);
    assert_eq!(ask(&start(&snapshot), "GET seed"), "$-1\r\n");
}

#[test]
fn a_port_of_redis_refuses_clients_that_give_no_password() {
    skip_without!(Redis);
    let db = start(&Snapshot::new(Redis::new()));
    assert!(db.env().contains(&("REDIS_URL".to_owned(), db.url().to_owned())));
    let tcp = db.tcp().unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(tcp.url(), format!("redis://default:{}@{}", tcp.password(), tcp.address()));
    let mut stream = TcpStream::connect(tcp.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(talk(&mut stream, "PING").contains("NOAUTH"));
}

/// An attribute cannot skip a test.
#[test]
fn attributes_start_redis() {
    skip_without!(Redis);
    for test in ["redis::postgres_and_redis_serve_one_test", "redis::an_attribute_names_redis"] {
        passed(&mut alone(test));
    }
    #[cfg(feature = "drivers")]
    for test in [
        "plain_connections_of_redis_are_parameters",
        "asynchronous_connections_of_redis_are_parameters",
        "clients_of_fred_are_parameters",
    ] {
        passed(&mut alone(&format!("redis::connections::{test}")));
    }
}

/// Two servers of different kinds in one test.
#[sandboxed_db(db(migrations = none), cache(engine = Redis))]
#[ignore = "needs Redis, run by `attributes_start_redis`"]
fn postgres_and_redis_serve_one_test(db: Sandbox, cache: Sandbox<Redis>) {
    assert!(db.url().starts_with("postgresql:"));
    assert_eq!(ask(&cache, "DBSIZE"), ":0\r\n");
}

#[sandboxed_db(engine = Redis)]
#[ignore = "needs Redis, run by `attributes_start_redis`"]
async fn an_attribute_names_redis(url: String) {
    assert!(url.starts_with("unix:///"));
}

#[cfg(feature = "drivers")]
mod connections {
    use redis::AsyncCommands as _;
    use redis::Commands as _;
    use redis::aio::{ConnectionManager, MultiplexedConnection};
    use sandboxed_db::{Redis, sandboxed_db};

    #[sandboxed_db(engine = Redis)]
    #[ignore = "needs Redis, run by `attributes_start_redis`"]
    fn plain_connections_of_redis_are_parameters(client: redis::Client, mut one: redis::Connection) {
        let mut other = client.get_connection().unwrap();
        one.set::<_, _, ()>("key", "value").unwrap();
        assert_eq!(other.get::<_, String>("key").unwrap(), "value");
    }

    #[sandboxed_db(engine = Redis)]
    #[ignore = "needs Redis, run by `attributes_start_redis`"]
    async fn asynchronous_connections_of_redis_are_parameters(
        mut one: MultiplexedConnection,
        mut other: ConnectionManager,
    ) {
        one.set::<_, _, ()>("key", 7).await.unwrap();
        assert_eq!(other.get::<_, u32>("key").await.unwrap(), 7);
    }

    #[sandboxed_db(engine = Redis)]
    #[ignore = "needs Redis, run by `attributes_start_redis`"]
    async fn clients_of_fred_are_parameters(one: fred::clients::Client, config: fred::types::config::Config) {
        use fred::interfaces::{ClientLike as _, KeysInterface as _};
        use fred::types::Builder;

        one.set::<(), _, _>("key", "value", None, None, false).await.unwrap();
        let other = Builder::from_config(config).build().unwrap();
        other.init().await.unwrap();
        assert_eq!(other.get::<String, _>("key").await.unwrap(), "value");
    }
}

#[test]
fn an_executed_redis_shuts_down_on_request() {
    skip_without!(Redis);
    if continues_alone(an_executed_redis_shuts_down_on_request, started("exec")) {
        shuts_down(ServerStart::Executed);
    }
}

#[test]
fn a_resumed_redis_shuts_down_on_request() {
    skip_without!(Redis);
    if continues_alone(a_resumed_redis_shuts_down_on_request, started("checkpoint")) {
        shuts_down(ServerStart::Resumed);
    }
}

/// Prepares a process whose servers are started in that way.
fn started(way: &str) -> impl FnOnce(&mut Command) {
    move |process| {
        process.env("SANDBOXED_DB_START", way).env("SANDBOXED_DB_POOL", "0");
    }
}

fn shuts_down(way: ServerStart) {
    let snapshot = Snapshot::new(Redis::new());
    let db = eventually(DEADLINE, "a server is started in this way", || {
        Some(start(&snapshot)).filter(|db| db.timings().start == way)
    });
    assert_eq!(ask(&db, "SET mine left"), "+OK\r\n");
    let mut stream = UnixStream::connect(Redis::socket().below(&db.root())).unwrap();
    stream.write_all(b"SHUTDOWN SAVE\r\n").unwrap();
    // It closes the connection instead of an answer.
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    wait_until(DEADLINE, "only init is left", || processes_beside(db.pid()).len() == 1);
    let log = db.log().unwrap();
    assert!(log.contains("User requested shutdown") && log.contains("bye bye"), "{log}");
    let saved = std::fs::read(db.root().join("var/lib/redis/dump.rdb")).unwrap();
    assert!(saved.windows(4).any(|bytes| bytes == b"left"), "nothing is saved");
    db.stop().unwrap();
}
