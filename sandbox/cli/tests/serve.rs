//! Tests of `sandboxed-db serve`, through the program.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal, kill_process};
use sandboxed_db::cache::Kept;
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sandboxed-db");
/// The longest wait for an answer or an end, which includes the build of a layer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The lines of a reader, with a deadline for each.
struct Lines(Receiver<String>);

impl Lines {
    fn of(reader: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(reader).lines().map_while(Result::ok);
            lines.map_while(|line| sender.send(line).ok()).for_each(drop);
        });
        Self(receiver)
    }

    fn next(&self) -> Value {
        let line = self.0.recv_timeout(PATIENCE).expect("an answer comes");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Waits for the end of the output.
    fn end(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.0.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(Instant::now() < deadline, "the output ends");
    }
}

/// A client of the program.
struct Serve {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines,
}

impl Serve {
    fn new() -> Self {
        Self::run(Command::new(PROGRAM).arg("serve"))
    }

    fn run(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let lines = Lines::of(child.stdout.take().unwrap());
        let greeting = lines.next();
        assert_eq!(greeting["serve"], 1, "{greeting}");
        Self { child, input, lines }
    }

    fn write(&mut self, line: &str) {
        self.input.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn send(&mut self, id: u64, method: &str, params: Value) {
        self.write(&json!({ "id": id, "method": method, "params": params }).to_string());
    }

    fn request(&mut self, method: &str, params: Value) -> Value {
        self.send(1, method, params);
        self.lines.next()
    }

    /// Returns the result of a start.
    fn start(&mut self, params: Value) -> Value {
        let answer = self.request("start", params);
        assert!(answer["result"].is_object(), "{answer}");
        answer["result"].clone()
    }

    /// Closes the input and returns the exit status.
    fn end(&mut self) -> ExitStatus {
        self.input = None;
        self.lines.end();
        self.child.wait().unwrap()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn query(sandbox: &Value, statement: &str) -> String {
    let mut client = Client::connect(sandbox["url"].as_str().unwrap(), NoTls).unwrap();
    client.query_one(statement, &[]).unwrap().get(0)
}

/// Waits until the socket of a sandbox is gone.
fn assert_gone(sandbox: &Value) {
    let directory = sandbox["env"]["PGHOST"].as_str().unwrap().to_owned();
    let deadline = Instant::now() + PATIENCE;
    while Path::new(&directory).exists() {
        assert!(Instant::now() < deadline, "{directory} goes away");
        thread::sleep(Duration::from_millis(5));
    }
}

fn files(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        fs::write(directory.path().join(name), contents).unwrap();
    }
    directory
}

#[test]
fn a_sandbox_is_started_used_and_stopped() {
    let mut serve = Serve::new();
    let place = files(&[("users.sql", "create table users (name text); insert into users values ('Ada');")]);
    let params = json!({
        "snapshot": { "settings": { "work_mem": "5MB", "jit": false }, "database": "shop",
            "initdb_args": ["--data-checksums"], "disk": "96MiB", "memory": 1 << 30,
            "steps": [{ "seed": "users.sql" }], "tls": true },
        "directory": place.path(), "tcp": true,
    });
    let sandbox = serve.start(params);
    let statement = "select concat_ws(' ', name, current_database(), current_setting('work_mem'), \
                     current_setting('jit'), current_setting('data_checksums')) from users";
    assert_eq!(query(&sandbox, statement), "Ada shop 5MB off on");
    let root = Path::new(sandbox["env"]["PGHOST"].as_str().unwrap()).ancestors().nth(2).unwrap();
    let data = root.join(query(&sandbox, "show data_directory").trim_start_matches('/'));
    let size = rustix::fs::statvfs(&data).unwrap();
    assert_eq!(size.f_blocks * size.f_frsize, 96 << 20);
    let limits = fs::read_to_string(root.with_file_name("limits")).unwrap();
    let memory = limits.lines().find(|line| line.starts_with("Max data size")).unwrap();
    assert!(memory.contains(&format!(" {} ", 1 << 30)), "{limits}");
    let mut by_tcp = Command::new("psql");
    let encrypted = by_tcp
        .arg(sandbox["tcp_url"].as_str().unwrap())
        .args(["-Atc", "select ssl from pg_stat_ssl where pid = pg_backend_pid()"])
        .output();
    assert_eq!(String::from_utf8_lossy(&encrypted.unwrap().stdout), "t\n");
    assert!(sandbox["timings"]["started_ms"].as_f64().unwrap() > 0.0, "{sandbox}");
    let number = json!({ "sandbox": sandbox["sandbox"] });
    let log = serve.request("log", number.clone());
    assert!(log["result"]["log"].as_str().unwrap().contains("ready to accept connections"), "{log}");
    assert_eq!(serve.request("stop", number.clone())["result"], json!({ "report": "", "kept": null }));
    assert_gone(&sandbox);
    let again = serve.request("stop", number);
    assert_eq!(again["error"]["kind"], "request", "{again}");
    assert_eq!(serve.request("end", json!({}))["result"], json!({}));
    assert_eq!(serve.end().code(), Some(0));
}

#[test]
fn twenty_pipelined_starts_are_all_answered() {
    let mut serve = Serve::new();
    (0..20).for_each(|id| serve.send(id, "start", json!({ "test": format!("t{id}") })));
    let answers: Vec<_> = (0..20).map(|_| serve.lines.next()).collect();
    let ids: BTreeSet<_> = answers.iter().map(|answer| answer["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (0..20).collect());
    let clients = answers.into_iter().map(|answer| {
        thread::spawn(move || {
            let url = answer["result"]["url"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
            // Each has the table once.
            Client::connect(&url, NoTls).unwrap().batch_execute("create table t ()").unwrap();
            answer["result"].clone()
        })
    });
    let sandboxes: Vec<_> = clients.collect::<Vec<_>>().into_iter().map(|it| it.join().unwrap()).collect();
    for (id, sandbox) in (0..).zip(&sandboxes) {
        serve.send(id, "stop", json!({ "sandbox": sandbox["sandbox"] }));
    }
    (0..20).for_each(|_| assert_eq!(serve.lines.next()["result"]["report"], ""));
    sandboxes.iter().for_each(assert_gone);
}

#[test]
fn a_failed_test_is_reported_and_kept() {
    let place = tempfile::tempdir().unwrap();
    let report = place.path().join("run.jsonl");
    let mut command = Command::new(PROGRAM);
    // The workers of pytest-xdist have a run in common.
    command.env_remove("NEXTEST_RUN_ID").env("PYTEST_XDIST_TESTRUNUID", "shared");
    let mut serve = Serve::run(command.arg("serve").env("SANDBOXED_DB_REPORT", &report));
    let name = format!("serve::{}::fails", std::process::id());
    let sandbox = serve.start(json!({ "test": name, "keep": "on_failure" }));
    let url = sandbox["url"].as_str().unwrap();
    Client::connect(url, NoTls).unwrap().batch_execute("select nonsense").unwrap_err();
    let params = json!({ "sandbox": sandbox["sandbox"], "failed": true, "message": "1 is not 2" });
    let ended = serve.request("stop", params)["result"].clone();
    let text = ended["report"].as_str().unwrap();
    assert!(text.contains(&name) && text.contains("column \"nonsense\" does not exist"), "{text}");
    assert!(text.contains("its data is kept"), "{text}");
    assert_eq!(ended["kept"]["name"], name);
    assert!(ended["kept"]["open"].as_str().unwrap().contains("sandboxed-db open"), "{ended}");
    let kept = Kept::open().unwrap();
    kept.remove(&kept.find(&name).unwrap()).unwrap();
    serve.end();
    let records = sandboxed_db::report::Report::read(&report).unwrap().records;
    assert_eq!(records[0].run, "shared");
    assert_eq!(
        (records[0].test.as_deref(), records[0].failure.as_deref()),
        (Some(&*name), Some("1 is not 2"))
    );
}

#[test]
fn errors_have_a_kind_a_place_and_a_hint() {
    let mut serve = Serve::new();
    let place = files(&[("bad.sql", "select 1;\n\nselect nonsense;\n")]);
    let mut fails = |snapshot: Value| {
        let answer = serve.request("start", json!({ "snapshot": snapshot, "directory": place.path() }));
        assert!(answer["error"].is_object(), "{answer}");
        answer["error"].clone()
    };
    let bad = fails(json!({ "steps": [{ "seed": "bad.sql" }] }));
    let file = place.path().join("bad.sql");
    assert_eq!((&bad["kind"], &bad["line"]), (&json!("invalid-config"), &json!(3)), "{bad}");
    assert_eq!(bad["file"], json!(file), "{bad}");
    assert!(bad["message"].as_str().unwrap().contains("column \"nonsense\" does not exist"), "{bad}");
    let missing = fails(json!({ "steps": [{ "seed": "none.sql" }] }));
    assert_eq!(missing["file"], json!(place.path().join("none.sql")), "{missing}");
    assert!(missing["hint"].is_string(), "{missing}");
    let slow = fails(json!({ "build_timeout": "300ms", "steps": [{ "prepare": ["sleep", "60"] }] }));
    assert_eq!((&slow["kind"], &slow["hint"]), (&json!("timeout"), &json!("raise `build_timeout`")));
    let program = fails(json!({ "steps": [{ "prepare": ["sh", "-c", "echo no luck; exit 3"] }] }));
    assert!(program["message"].as_str().unwrap().contains("no luck"), "{program}");
    for (step, expected) in [
        (json!({}), "a step is empty"),
        (json!({ "seed": "a", "migrations": "b" }), "a step is several steps"),
        (json!({ "seed": "a", "tcp": true }), "belong to `prepare`"),
        (json!({ "prepare": [] }), "`prepare` is empty"),
        (json!({ "migrations_of": ["rails", "db"] }), "expected `plain`, `sqlx`"),
        (json!({ "sead": "a" }), "unknown field `sead`, expected one of `migrations`"),
    ] {
        let refused = fails(json!({ "steps": [step] }));
        assert_eq!(refused["kind"], "request", "{refused}");
        assert!(refused["message"].as_str().unwrap().contains(expected), "{refused}");
    }
}

/// Each key of a snapshot, with a value that is refused for what the key means.
#[test]
fn each_key_of_a_snapshot_has_its_meaning() {
    let mut serve = Serve::new();
    let mut refused = |snapshot: Value| {
        let answer = serve.request("start", json!({ "snapshot": snapshot }));
        answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let values = [
        ("engine", json!("oracle"), json!({}), "unknown engine `oracle`"),
        ("version", json!("9"), json!({}), "could not find PostgreSQL 9"),
        ("packages", json!(["-y"]), json!({}), "could not use `-y` as a package"),
        ("database", json!("a"), json!({ "engine": "redis" }), "could not set `database` of `redis`"),
        ("image", json!("oci:/absent"), json!({}), "could not use the image `oci:/absent`"),
        // Nothing listens there, and nothing is asked.
        ("locked", json!(true), json!({ "image": "localhost:1/db:17" }), "allows recorded names only"),
        ("steps", json!([{}]), json!({}), "a step is empty"),
        ("settings", json!({ "jit": null }), json!({}), "the setting `jit` is no string"),
        (
            "initdb_args",
            json!(["-k"]),
            json!({ "engine": "redis" }),
            "could not set `initdb_args` of `redis`",
        ),
        ("start_timeout", json!("0s"), json!({}), "could not set `start_timeout`"),
        ("build_timeout", json!("0s"), json!({}), "could not set `build_timeout`"),
        ("disk", json!(1024), json!({}), "could not set `disk`"),
        ("memory", json!("1KiB"), json!({}), "could not set `memory`"),
        ("pids", json!(1), json!({}), "could not set `pids`"),
        ("tls", json!(true), json!({ "engine": "sqlite" }), "could not turn on TLS for `sqlite`"),
    ];
    let unknown = refused(json!({ "key": 1 }));
    let all: BTreeSet<_> = unknown.split_once("expected one of ").unwrap().1.split(", ").collect();
    let tested: Vec<_> = values.iter().map(|(key, ..)| format!("`{key}`")).collect();
    assert_eq!(tested.iter().map(String::as_str).collect::<BTreeSet<_>>(), all);
    for (key, value, mut snapshot, expected) in values {
        snapshot[key] = value;
        let message = refused(snapshot);
        assert!(message.contains(expected), "{key}: {message}");
    }
}

#[test]
fn malformed_lines_are_answered_and_not_fatal() {
    let mut serve = Serve::new();
    let long = format!("{{\"id\": \"{}\"}}", "x".repeat(2 << 20));
    for line in ["", "nonsense", "[]", "{\"id\": 1", "{\"method\": \"end\"}", &long] {
        serve.write(line);
        let answer = serve.lines.next();
        assert_eq!((&answer["id"], &answer["error"]["kind"]), (&Value::Null, &json!("request")), "{answer}");
    }
    assert_eq!(serve.request("end", json!({}))["result"], json!({}));
}

#[test]
fn a_preparing_program_is_cached_by_its_inputs() {
    let mut serve = Serve::new();
    let place = files(&[]);
    let unique = place.path().file_name().unwrap().to_str().unwrap();
    let command = "echo run >> runs; psql -c \"create table input as select '$(cat input)$NAME' as value\"";
    let step = json!({ "prepare": ["sh", "-c", command], "depends_on": ["input"], "env": { "NAME": "!" } });
    let params = json!({ "directory": place.path(), "snapshot": { "steps": [step] } });
    for (number, runs) in [(1, 1), (1, 1), (2, 2)] {
        let input = format!("{unique} {number}");
        fs::write(place.path().join("input"), &input).unwrap();
        let sandbox = serve.start(params.clone());
        assert_eq!(query(&sandbox, "select value from input"), format!("{input}!"));
        let log = fs::read_to_string(place.path().join("runs")).unwrap();
        assert_eq!(log.lines().count(), runs, "{input}");
    }
}

#[test]
fn the_end_of_the_input_ends_all_sandboxes() {
    let mut serve = Serve::new();
    let sandbox = serve.start(json!({}));
    // A start in progress does not delay the end.
    serve.send(2, "start", json!({ "snapshot": { "steps": [{ "prepare": ["sleep", "3600"] }] } }));
    assert_eq!(serve.end().code(), Some(0));
    assert_gone(&sandbox);
}

#[test]
fn a_killed_server_of_sandboxes_leaves_none() {
    let mut serve = Serve::new();
    let sandboxes: Vec<_> = (0..20).map(|_| serve.start(json!({}))).collect();
    serve.child.kill().unwrap();
    serve.lines.end();
    sandboxes.iter().for_each(assert_gone);
}

#[test]
fn a_killed_client_leaves_nothing() {
    // The input stays open: its other end is held here.
    let mut serve = Serve::run(Command::new("sh").args(["-c", "\"$0\" serve; exit 1", PROGRAM]));
    let sandbox = serve.start(json!({}));
    serve.child.kill().unwrap();
    serve.lines.end();
    assert_gone(&sandbox);
}

#[test]
fn interrupts_are_left_to_the_tests() {
    let mut serve = Serve::new();
    let pid = Pid::from_child(&serve.child);
    for signal in [Signal::INT, Signal::QUIT, Signal::HUP] {
        kill_process(pid, signal).unwrap();
    }
    let sandbox = serve.start(json!({}));
    assert_eq!(query(&sandbox, "select 'alive'"), "alive");
    kill_process(pid, Signal::TERM).unwrap();
    serve.lines.end();
    assert_gone(&sandbox);
    assert_eq!(serve.child.wait().unwrap().code(), Some(0));
}

/// A client of a socket.
struct Connected {
    stream: UnixStream,
    lines: Lines,
}

impl Connected {
    fn to(socket: &Path) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        let lines = Lines::of(stream.try_clone().unwrap());
        assert_eq!(lines.next()["serve"], 1);
        Self { stream, lines }
    }

    fn start(&mut self) -> Value {
        self.stream.write_all(b"{\"id\": 1, \"method\": \"start\"}\n").unwrap();
        self.lines.next()["result"].clone()
    }
}

#[test]
fn connections_of_a_socket_have_their_own_sandboxes() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("socket");
    let mut child =
        Command::new(PROGRAM).args(["serve", "--socket"]).arg(&socket).stdin(Stdio::piped()).spawn().unwrap();
    let (mut one, mut other) = (Connected::to(&socket), Connected::to(&socket));
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let (first, second) = (one.start(), other.start());
    assert_ne!(first["sandbox"], second["sandbox"]);
    one.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert_gone(&first);
    assert_eq!(query(&second, "select 'alive'"), "alive");
    let taken = Command::new(PROGRAM).args(["serve", "--socket"]).arg(&socket).output().unwrap();
    assert_eq!(taken.status.code(), Some(2), "{taken:?}");
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_gone(&second);
    assert!(!socket.exists());
}

#[test]
fn a_socket_of_a_killed_program_is_replaced() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("socket");
    for _ in 0..2 {
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--socket"])
            .arg(&socket)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Connected::to(&socket);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(socket.exists());
    }
}
