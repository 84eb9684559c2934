//! Servers that files of TOML describe: those of the examples, and mistakes.

use std::io::{BufRead, BufReader, Error, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use sandboxed_db::doctor::doctor_of;
use sandboxed_db::engine::conformance::Conformance;
use sandboxed_db::engine::{Described, Description, SandboxPath, Signal};
use sandboxed_db::{Engine, ErrorKind, Sandbox, ServerStart, Snapshot, sandboxed_db};
use sandboxed_db_tests::{DEADLINE, alone, assert_says, continues_alone, eventually, failed, passed, skip};

/// Reads the description of an example. `None` without its server, for which the test is skipped.
fn example(name: &str) -> Option<Described> {
    let file = format!("{}/../examples/engines/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let engine = Described::from_toml(file).unwrap_or_else(|error| panic!("{error:?}"));
    match engine.locate() {
        Ok(_) => Some(engine),
        Err(error) => {
            skip(&format!("{name} is not installed: {error}"));
            None
        }
    }
}

/// Runs a client of the host, and returns its output.
fn client(program: &str, args: &[&str], db: &Sandbox<Described>) -> Result<String, Error> {
    let output = Command::new(program).args(args).envs(db.env()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// Sends a command to memcached and returns the first line of the answer.
fn memcached(db: &Sandbox<Described>, command: &str) -> Result<String, Error> {
    let mut stream = UnixStream::connect(SandboxPath::new("/run/memcached.sock").below(&db.root()))?;
    stream.write_all(command.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

#[test]
fn memcached_by_a_file_keeps_the_contract() {
    let Some(engine) = example("memcached") else { return };
    Conformance::new(engine)
        .reads(|db| memcached(db, "get key\r\n"))
        .writes(|db| memcached(db, "set key 0 0 1\r\nx\r\n").map(drop))
        .volatile()
        .setting("memory-limit", "32")
        .check_all()
        .unwrap();
}

#[test]
fn etcd_by_a_file_keeps_the_contract() {
    let Some(engine) = example("etcd") else { return };
    Conformance::new(engine)
        .reads(|db| client("etcdctl", &["get", "", "--prefix"], db))
        .writes(|db| client("etcdctl", &["put", "key", "written"], db).map(drop))
        .setting("max-txn-ops", "64")
        .script("put key seeded\nput other 1\n")
        .broken_script_without_line("put key 1\nputt key 2\n")
        .without_transactions()
        .check_all()
        .unwrap();
}

fn clickhouse(db: &Sandbox<Described>, sql: &str) -> Result<String, Error> {
    let port = db.tcp().map_err(Error::other)?.port().to_string();
    client("clickhouse-client", &["--host=127.0.0.1", "--port", &port, "--query", sql], db)
}

#[test]
fn clickhouse_by_a_file_keeps_the_contract() {
    let Some(engine) = example("clickhouse") else { return };
    Conformance::new(engine)
        .reads(|db| clickhouse(db, "SELECT name FROM system.tables WHERE database = 'default' ORDER BY name"))
        .writes(|db| clickhouse(db, "CREATE TABLE written (n UInt8) ENGINE = Log").map(drop))
        .script("CREATE TABLE seeded (n UInt8) ENGINE = Log;\nINSERT INTO seeded VALUES (1), (2);\n")
        .broken_script_without_line("CREATE TABLE a (n UInt8) ENGINE = Log;\nINSERT INTO none VALUES (1);\n")
        .without_transactions()
        .check_all()
        .unwrap();
}

/// An attribute cannot skip a test.
#[test]
fn attributes_name_files() {
    if example("memcached").is_none() {
        return;
    }
    for test in ["a_file_is_the_engine_of_a_test", "files_make_a_matrix::memcached"] {
        passed(&mut alone(&format!("described::{test}")));
    }
    let report = failed(&mut alone("described::a_file_with_a_mistake"));
    let parts =
        ["could not read the engine `", "mistakes.toml:2`", "unknown field `prgram`, expected one of"];
    assert_says(&report, &parts);
}

#[sandboxed_db(engine = "../examples/engines/memcached.toml", settings("memory-limit" = 32))]
#[ignore = "needs memcached, run by `attributes_name_files`"]
fn a_file_is_the_engine_of_a_test(db: Sandbox<Described>, url: String) {
    assert_eq!(memcached(&db, "set key 0 0 1\r\nx\r\n").unwrap(), "STORED");
    assert_eq!((url.as_str(), db.engine().url_variable()), (db.url(), "MEMCACHE_URL"));
}

#[sandboxed_db(engine = ["../examples/engines/memcached.toml"])]
#[ignore = "needs memcached, run by `attributes_name_files`"]
async fn files_make_a_matrix(url: String) {
    assert!(url.starts_with("memcache:///proc/"), "{url}");
}

#[sandboxed_db(engine = "data/mistakes.toml")]
#[ignore = "fails, run by `attributes_name_files`"]
fn a_file_with_a_mistake(url: String) {
    panic!("{url}");
}

/// A server in Perl: it answers `hello`, and names itself in a file.
const SCRIPT: &str = "use IO::Socket::UNIX; $SIG{{TERM}} = sub {{ exit 0 }}; \
    my $s = IO::Socket::UNIX->new(Listen => 9, Local => shift); open my $o, '>', \"$ENV{{DATA}}/args\"; \
    print $o join(' ', @ARGV); close $o; while (1) {{ my $c = $s->accept or next; print $c 'hello'; close $c }}";

fn described() -> Description {
    perl("perl-server", SCRIPT)
}

fn perl(name: &str, script: &str) -> Description {
    Description::new(name, "perl")
        .version(None)
        .args(["-e", script, "{socket}"])
        .env("DATA", "{data}")
        .socket("/run/perl/server.sock")
        .directory("/run/perl")
        .answers("", "hello")
        .setting_args(["--{name}", "{value}"])
        .default_setting("size", "1")
        .fixed_setting("port")
        .url("perl://{socket}")
        .client_env("PERL_SOCKET", "{socket}")
}

fn start(description: Description) -> Sandbox<Described> {
    let engine = Described::new(description).unwrap_or_else(|error| panic!("{error:?}"));
    Snapshot::new(engine).start().unwrap_or_else(|error| panic!("{error:?}"))
}

#[test]
fn a_server_is_described_in_rust() {
    let db = start(described());
    let socket = db.root().join("run/perl/server.sock");
    assert_eq!(db.url(), format!("perl://{}", socket.display()));
    assert!(db.env().contains(&("PERL_SOCKET".to_owned(), socket.display().to_string())));
    assert_eq!(std::io::read_to_string(UnixStream::connect(socket).unwrap()).unwrap(), "hello");
}

#[test]
fn settings_become_arguments_or_lines() {
    let with = |description: Description, settings: &[(&str, &str)]| {
        Snapshot::new(Described::new(description).unwrap()).settings(settings.iter().copied()).start()
    };
    let read = |db: &Sandbox<Described>, path: &str| std::fs::read_to_string(db.root().join(path)).unwrap();
    let db = with(described(), &[("b", "2")]).unwrap();
    assert_eq!(read(&db, "data/args"), "--size 1 --b 2");
    let db = with(described(), &[("size", "3")]).unwrap();
    assert_eq!(read(&db, "data/args"), "--size 3");
    let lines =
        described().file("/etc/server.conf", "first").setting_line("/etc/server.conf", "{name} = {value}");
    let db = with(lines, &[("b", "x y")]).unwrap();
    assert_eq!(read(&db, "etc/server.conf"), "first\nsize = 1\nb = x y\n");
    for (setting, expected) in
        [(("port", "1"), "`port` is `fixed`"), (("a b", "1"), "no name"), (("a", "1\n2"), "several")]
    {
        let error = with(described(), &[setting]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_says(&format!("{error:?}"), &[expected]);
    }
}

#[test]
fn a_changed_description_makes_other_layers() {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_string();
    let built = |description: Description| start(description).timings().layer_built;
    assert!(built(described().env("NOW", &now)));
    assert!(!built(described().env("NOW", &now)));
    assert!(built(described().env("NOW", &now).client_env("OTHER", "1")));
}

#[test]
fn what_is_missing_is_named() {
    let error = |description: Description| {
        let started = Described::new(description).and_then(|engine| Snapshot::new(engine).start());
        format!("{:?}", started.unwrap_err())
    };
    let missing = Description::new("none", "no-such-server").package("none-server").socket("/run/x").url("x");
    assert_says(&error(missing), &["`no-such-server`", "install the package `none-server`"]);
    let program = described().initialise(["no-such-program", "{data}"]);
    assert_says(
        &error(program),
        &["`no-such-program` is neither beside the server nor in PATH", "program_directories"],
    );
    assert_says(&error(described().args(["{prt}"])), &["unknown placeholder `{prt}`", "`{port}`"]);
    let seed = Snapshot::new(Described::new(described()).unwrap()).seed(PathBuf::from("Cargo.toml")).start();
    assert_says(&format!("{:?}", seed.unwrap_err()), &["load a seed into `perl-server`", "`[seed]`"]);
}

/// A client that answers each line, and reports failures among the answers.
const CLIENT: &str = "while (<STDIN>) { print /^bad/ ? \"ERROR at line $.\\n\" : \"ok\\n\" }";

#[test]
fn failures_of_a_client_are_recognised() {
    let client = ["perl".to_owned(), "-e".to_owned(), CLIENT.replace('{', "{{").replace('}', "}}")];
    let description =
        described().seed(client).seed_failure("ERROR").seed_end("end\n", "ok").seed_line("at line {line}");
    let place = tempfile::tempdir().unwrap();
    let seed = |text: &str| {
        let file = place.path().join("seed");
        std::fs::write(&file, text).unwrap();
        Snapshot::new(Described::new(description.clone()).unwrap()).seed(file).start()
    };
    seed("good\n").unwrap_or_else(|error| panic!("{error:?}"));
    // A client's later output must not hide an early failure.
    for text in ["good\nbad\n".to_owned(), format!("good\nbad\n{}", "good\n".repeat(1 << 20))] {
        let error = seed(&text).unwrap_err();
        assert_eq!((error.kind(), error.line()), (ErrorKind::InvalidConfig, Some(2)));
        assert_says(&format!("{error:?}"), &["ERROR at line 2"]);
    }
    let early = description.clone().seed(["sh", "-c", "echo ok; echo over"]).seed_end("end\n", "ok");
    let file = place.path().join("seed");
    let error = Snapshot::new(Described::new(early).unwrap()).seed(file).start().unwrap_err();
    assert_says(&format!("{error:?}"), &["does not end with `ok`"]);
}

/// Has a test continue in a process whose servers have checkpoints.
fn continues_resumed(test: impl Fn()) -> bool {
    continues_alone(test, |process| {
        process.env("SANDBOXED_DB_START", "checkpoint").env("SANDBOXED_DB_POOL", "0");
    })
}

/// Returns servers of one checkpoint.
fn siblings(engine: Described) -> [Sandbox<Described>; 3] {
    let snapshot = Snapshot::new(engine);
    let start = || snapshot.start().unwrap_or_else(|error| panic!("{error:?}"));
    let is_resumed = |db: &Sandbox<Described>| db.timings().start == ServerStart::Resumed;
    eventually(DEADLINE, "a server is resumed", || Some(start()).filter(is_resumed));
    let siblings = [start(), start(), start()];
    assert!(siblings.iter().all(is_resumed));
    siblings
}

#[test]
fn a_described_server_is_resumed() {
    if !continues_resumed(a_described_server_is_resumed) {
        return;
    }
    for description in
        [described().checkpoint(None), described().checkpoint(None).checkpoint_client(["true"])]
    {
        for db in siblings(Described::new(description).unwrap()) {
            let socket = db.root().join("run/perl/server.sock");
            assert_eq!(std::io::read_to_string(UnixStream::connect(socket).unwrap()).unwrap(), "hello");
            db.stop().unwrap();
        }
    }
}

#[test]
fn a_described_server_with_threads_is_resumed() {
    if !continues_resumed(a_described_server_with_threads_is_resumed) {
        return;
    }
    if let Some(engine) = example("memcached") {
        let caches = siblings(engine);
        for (number, db) in caches.iter().enumerate() {
            assert_eq!(memcached(db, "get key\r\n").unwrap(), "END");
            assert_eq!(memcached(db, &format!("set key 0 0 1\r\n{number}\r\n")).unwrap(), "STORED");
        }
        caches.into_iter().for_each(|db| db.stop().unwrap());
    }
}

#[test]
fn a_server_without_a_checkpoint_has_a_reason() {
    if !continues_resumed(a_server_without_a_checkpoint_has_a_reason) {
        return;
    }
    let way = |description: Description| {
        let report = doctor_of(&Described::new(description).unwrap());
        report.to_string().lines().find(|line| line.contains(" start ")).unwrap_or_default().to_owned()
    };
    assert_says(&way(described()), &["without a checkpoint: its engine has no checkpoints"]);
    let locks = SCRIPT.replacen("close $o;", "flock $o, 2;", 1);
    let locked = perl("perl-with-a-lock", &locks).checkpoint(None);
    assert_says(&way(locked), &["without a checkpoint: it holds a lock of an unknown kind"]);
    // The third one asks the resumed server.
    let mortal = SCRIPT.replacen("print $c 'hello'", "exit 3 if ++$n > 2; print $c 'hello'", 1);
    let mortal = perl("perl-that-answers-twice", &mortal).checkpoint(None);
    assert_says(&way(mortal), &["without a checkpoint: its first client failed"]);
}

/// Its runtime allocates stacks beside other data.
#[test]
fn a_server_in_go_has_no_checkpoint() {
    if !continues_resumed(a_server_in_go_has_no_checkpoint) {
        return;
    }
    let nats = Description::new("nats", "nats-server")
        .args(["--addr={listen}", "--port={port}"])
        .port(4222)
        .answers("", "INFO")
        .stop_signal(Signal::Interrupt)
        .tcp("nats://{address}")
        .checkpoint(None);
    let nats = Described::new(nats).unwrap();
    match nats.locate() {
        Err(error) => skip(&format!("no NATS is installed: {error}")),
        Ok(_) => assert_says(
            &doctor_of(&nats).to_string(),
            &["one of its threads has a stack without a guard mapping"],
        ),
    }
}

#[test]
fn servers_that_share_values_are_resumed_on_request() {
    if std::env::var_os("SANDBOXED_DB_START").is_none() {
        let shares = described().checkpoint(Some("the seed of its hash table"));
        let report = doctor_of(&Described::new(shares).unwrap()).to_string();
        assert_says(&report, &["resumed servers share the seed of its hash table"]);
    }
}
