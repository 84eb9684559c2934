//! Steps that are the user's programs or code, the files they depend on, and extended snapshots.

use std::fs;
use std::time::Duration;

use sandboxed_db::{Error, ErrorKind, Sandbox, Snapshot, sandboxed_db};
use sandboxed_db_tests::{assert_says, fresh, refused, start, value_at};

use crate::requests::{TestCache, batch};

fn failure(snapshot: &Snapshot) -> (ErrorKind, String) {
    let error: Error = snapshot.start().expect_err("the step fails");
    (error.kind(), format!("{error:?}"))
}

// Programs.

#[sandboxed_db(run_tcp(
    "sh",
    "-c",
    "psql \"$DATABASE_URL\" -c \"create table reached as select inet_client_addr() is not null as tcp\""
))]
fn a_step_of_the_attribute_reaches_the_server_by_tcp(url: String) {
    assert!(value_at::<bool>(&url, "select tcp from reached"));
}

#[test]
fn a_program_prepares_the_database_once() {
    let cache = TestCache::new();
    let runs = cache.path("runs");
    let command = format!(
        "echo run >> '{runs}'; psql -c 'create table notes as select 7 as id' && psql \"$DATABASE_URL\" -c 'update notes set id = 8'"
    );
    let request = [("run", command.as_str()), ("sql", "select id::text from notes")];
    for built in [true, false] {
        cache.assert_response(&request, built, &["8"]);
    }
    assert_eq!(fs::read_to_string(&runs).unwrap(), "run\n");
}

/// A step must not prepare another server that the user works with.
#[test]
fn a_program_does_not_see_the_users_own_server() {
    let mut cache = TestCache::new();
    cache.environment = vec![
        ("PGHOST", "/nowhere"),
        ("PGHOSTADDR", "127.0.0.9"),
        ("PGSERVICE", "production"),
        ("PGPASSWORD", "secret"),
        ("PGSSLMODE", "require"),
        ("DATABASE_URL", "postgresql://production/"),
    ];
    let command = "test -z \"$PGPASSWORD\" && psql -c 'create table here ()' && psql \"$DATABASE_URL\" -c 'create table there ()'";
    let response = cache.ask(&[
        ("run", command),
        ("sql", "select count(*)::text from pg_tables where schemaname = 'public'"),
    ]);
    assert_eq!(response.answers, ["2"]);
}

#[test]
fn a_program_may_reach_the_server_by_tcp() {
    let command = "test \"$PGHOST\" = 127.0.0.1 && psql -w \"$DATABASE_URL\" -c 'create table notes ()' && \\
                   psql -w -c 'insert into notes select where inet_server_addr() is not null'";
    let db = fresh().run_tcp("sh", ["-c", command]).start().unwrap();
    // The step's password is not kept.
    let query = "select rolpassword is null from notes, pg_authid where rolname = 'postgres'";
    assert!(value_at::<bool>(db.url(), query));
}

#[test]
fn declared_files_decide_whether_a_program_runs() {
    let cache = TestCache::new();
    let directory = cache.path("tree");
    cache.write("tree/below/file", "one");
    let command = format!("psql -c \"create table seen as select '$(cat '{directory}/below/'*)' as text\"");
    let request = [("depends_on", directory.as_str()), ("run", &command), ("sql", "select text from seen")];
    assert_eq!(cache.ask(&request).answers, ["one"]);
    assert!(!cache.ask(&request).built);
    for (name, contents, expected) in
        [("tree/below/file", "two", "two"), ("tree/below/more", "three", "twothree")]
    {
        cache.write(name, contents);
        cache.assert_response(&request, true, &[expected]);
        assert!(!cache.ask(&request).built);
    }
    // A declaration alone makes no layer.
    let layers = cache.layers().len();
    cache.ask(&[("depends_on", &directory)]);
    assert_eq!(cache.layers().len(), layers);
}

#[test]
fn a_program_that_fails_is_reported_with_its_output() {
    let report = refused(&fresh().run("sh", ["-c", "echo out; echo err >&2; exit 3"]));
    let run = "could not run `sh -c echo out; echo err >&2; exit 3`";
    assert_says(&report, &[run, "exit status: 3", "out\n", "err"]);
    let report = refused(&fresh().depends_on(["no/such/file"]).run("true", [""; 0]));
    assert_says(&report, &["`no/such/file` is relative to `"]);
}

/// Returns the report of a build that takes too long, and that does so in the step, as `reached`
/// finds out: on a busy machine the shorter time may end before.
#[track_caller]
fn timed_out(snapshot: &Snapshot, reached: impl Fn(&str) -> bool) -> String {
    for seconds in [1, 20] {
        let (kind, report) = failure(&snapshot.clone().build_timeout(Duration::from_secs(seconds)));
        assert_eq!(kind, ErrorKind::Timeout);
        if reached(&report) {
            assert!(report.contains("raise `build_timeout`"), "{report}");
            return report;
        }
    }
    panic!("the step was not reached");
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children() {
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    let command = format!("echo waiting; sleep 1000 & echo $! > '{}'; wait", pid.display());
    let snapshot = fresh().run("sh", ["-c", &command]);
    // The layer of the fresh server may take longer.
    drop(start());
    let report = timed_out(&snapshot, |_| pid.exists());
    assert!(report.contains("waiting"), "{report}");
    let child = fs::read_to_string(pid).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
    // Its new parent may not have reaped it yet.
    assert!(state.is_err() || state.as_ref().is_ok_and(|stat| stat.contains(") Z ")), "{state:?}");
}

// Code.

#[test]
fn code_prepares_the_database_once_for_its_key() {
    let cache = TestCache::new();
    // Other code with the same key does not run.
    for (key, version, built, expected) in
        [("v1", "one", true, "one"), ("v1", "two", false, "one"), ("v2", "two", true, "two")]
    {
        let code = format!("{key}|create table made as select '{version}' as version");
        let request = [("prepare", code.as_str()), ("sql", "select version from made")];
        cache.assert_response(&request, built, &[expected]);
    }
}

/// Python does so with its sources.
#[test]
fn a_program_may_write_into_a_declared_directory() {
    let cache = TestCache::new();
    cache.write("tree/a.py", "");
    let tree = cache.path("tree");
    let command = format!("mkdir -p '{tree}/__pycache__' && date > '{tree}/__pycache__/a.pyc'");
    let request = [("depends_on", tree.as_str()), ("run", command.as_str())];
    assert!(cache.ask(&request).built);
    assert!(!cache.ask(&request).built);
}

#[test]
fn children_of_a_program_end_with_it() {
    let cache = TestCache::new();
    let pid = cache.path("pid");
    cache.ask(&[("run", &format!("sleep 1000 & echo $! > '{pid}'"))]);
    let child = fs::read_to_string(pid).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
    assert!(state.is_err() || state.as_ref().is_ok_and(|stat| stat.contains(") Z ")), "{state:?}");
}

#[test]
fn code_runs_again_when_a_declared_file_changes() {
    let cache = TestCache::new();
    let source = cache.write("migrator.rs", "// one");
    let made = ("prepare", "v1|create table made as select clock_timestamp()::text as at");
    let request = [("depends_on", source.as_str()), made, ("sql", "select at from made")];
    let first = cache.ask(&request);
    assert_eq!(cache.ask(&request).answers, first.answers);
    cache.write("migrator.rs", "// two");
    let second = cache.ask(&request);
    assert!(second.built);
    assert_ne!(second.answers, first.answers);
}

#[test]
fn code_that_fails_or_panics_or_hangs_is_reported() {
    let fails = fresh().prepare("fails", async |db: &Sandbox| batch(db.url(), "select 1/0").await);
    assert_says(&refused(&fails), &["the code of the key `fails`", "division by zero"]);

    let panics =
        fresh().prepare("panics", async |_: &Sandbox| -> Result<(), Error> { panic!("at the {}", "disco") });
    assert_says(&refused(&panics), &["it panicked: at the disco"]);

    drop(start());
    // Code that blocks cannot be stopped, but the start does not wait for it.
    let blocks = fresh()
        .prepare("blocks", async |_: &Sandbox| -> Result<(), Error> {
            std::thread::sleep(Duration::from_secs(1000));
            Ok(())
        })
        .build_timeout(Duration::from_secs(1));
    assert_eq!(failure(&blocks).0, ErrorKind::Timeout);
    let hangs =
        fresh().prepare("hangs", async |_: &Sandbox| -> Result<(), Error> { std::future::pending().await });
    timed_out(&hangs, |report| report.contains("`hangs` within the time"));
}

/// Code runs in another runtime than the caller's.
#[tokio::test]
async fn code_runs_within_a_runtime_of_the_caller() {
    let cache = tempfile::tempdir().unwrap();
    let key = cache.path().display().to_string();
    let snapshot = fresh().prepare(key, async |db: &Sandbox| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        batch(db.url(), "create table made as select 7 as id").await
    });
    let db = snapshot.start_async().await.unwrap();
    batch(db.url(), "select id from made").await.unwrap();
}

// Extension.

#[test]
fn an_extended_snapshot_shares_its_layers() {
    let cache = TestCache::new();
    let schema = cache.write("schema.sql", "create table notes as select clock_timestamp()::text as body;");
    let scenario = cache.write("scenario.sql", "insert into notes values ('scenario');");
    let all = ("sql", "select string_agg(body, ', ' order by body) from notes");
    let plain = cache.ask(&[("seed", &schema), all]);
    let (made, extended) =
        cache.made_by(|| cache.ask(&[("seed", &schema), ("extend", ""), ("seed", &scenario), all]));
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(extended.answers, [format!("{}, scenario", plain.answers[0])]);
    // The extended snapshot has not changed.
    assert_eq!(cache.ask(&[("seed", &schema), all]).answers, plain.answers);
}
