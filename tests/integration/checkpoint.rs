//! A server that is resumed from a checkpoint works as an executed one, and shares no secret with
//! its siblings.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use postgres::NoTls;
use postgres::error::SqlState;
use rustix::process::Signal;
use sandboxed_db::{Sandbox, ServerStart};
use sandboxed_db_tests::{
    DEADLINE, ScratchDirs, children, column, connect, continues_alone, eventually, fresh, printed,
    processes_beside, rounds, start, value, wait_until,
};

use super::lifecycle::{SUBJECT, kill};
use super::prelinked::{cache_with_its_own_images, described, flip_a_byte, server};

pub(crate) const VARIABLE: &str = "SANDBOXED_DB_START";

/// Starts sandboxes until there is a checkpoint.
pub(crate) fn start_resumed() -> Sandbox {
    eventually(DEADLINE, "a server is resumed", || Some(start()).filter(is_resumed))
}

fn is_resumed(db: &Sandbox) -> bool {
    db.timings().start == ServerStart::Resumed
}

/// Has a test continue in a process whose servers have checkpoints.
fn continues_resumed(test: impl Fn()) -> bool {
    continues_alone(test, |process| {
        process.env(VARIABLE, "checkpoint").env("SANDBOXED_DB_POOL", "0");
    })
}

#[test]
fn a_resumed_server_equals_an_executed_one() {
    let (executed, resumed) = (described("exec"), described("checkpoint"));
    assert!(executed.len() > 50, "{executed:#?}");
    assert_eq!(executed, resumed);
}

#[test]
fn a_resumed_server_does_all_that_a_server_does() {
    if !continues_resumed(a_resumed_server_does_all_that_a_server_does) {
        return;
    }
    let db = start_resumed();
    let mut client = connect(db.url());
    client
        .batch_execute(
            "create table t (a int primary key, b text);
            insert into t select n, repeat('x', 100) from generate_series(1, 20000) n;",
        )
        .unwrap();
    for statement in ["checkpoint", "vacuum analyze t", "create database other"] {
        client.batch_execute(statement).unwrap();
    }
    client
        .batch_execute(
            "set max_parallel_workers_per_gather = 2; set parallel_setup_cost = 0;
            set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0;",
        )
        .unwrap();
    let plan = column::<String>(&mut client, "explain (analyze) select count(*) from t").join("\n");
    assert!(plan.contains("Workers Launched: 2"), "{plan}");
    client.batch_execute("alter system set work_mem = '7MB'").unwrap();
    assert!(value::<bool>(&mut client, "select pg_reload_conf()"));
    let url = db.url();
    wait_until(DEADLINE, "a setting is read again", || {
        value::<String>(&mut connect(url), "show work_mem") == "7MB"
    });
    // A request to cancel goes to the backend of the right key.
    let cancel = client.cancel_token();
    let mut watcher = connect(db.url());
    let canceller = thread::spawn(move || {
        let sleeps = "select count(*) > 0 from pg_stat_activity where wait_event = 'PgSleep'";
        wait_until(DEADLINE, "the server sleeps", || value(&mut watcher, sleeps));
        cancel.cancel_query(NoTls).unwrap();
    });
    let error = client.batch_execute("select pg_sleep(60)").unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    canceller.join().unwrap();
    let tcp = db.tcp().unwrap();
    assert_eq!(value::<i64>(&mut connect(tcp.url()), "select count(*) from t"), 20_000);
    let mut other = connect(db.url());
    other.batch_execute("listen news").unwrap();
    client.batch_execute("notify news, 'hello'").unwrap();
    let mut notes = other.notifications();
    let note = postgres::fallible_iterator::FallibleIterator::next(&mut notes.timeout_iter(DEADLINE));
    assert_eq!(note.unwrap().unwrap().payload(), "hello");
}

#[test]
fn a_resumed_server_recovers_from_a_killed_backend() {
    if !continues_resumed(a_resumed_server_recovers_from_a_killed_backend) {
        return;
    }
    let db = start_resumed();
    let before = children(server(&db));
    let mut client = connect(db.url());
    client.batch_execute("create table t as select n from generate_series(1, 1000) n").unwrap();
    let backend = children(server(&db)).into_iter().find(|child| !before.contains(child)).unwrap();
    kill(backend, Signal::KILL);
    let count = eventually(DEADLINE, "the server has recovered", || {
        let mut client = postgres::Client::connect(db.url(), NoTls).ok()?;
        client.query_one("select count(*) from t", &[]).ok()
    });
    assert_eq!(count.get::<_, i64>(0), 1000);
    let log = db.log().unwrap();
    assert!(log.contains("automatic recovery in progress"), "{log}");
    // A child that ends makes the server restart, too.
    kill(children(server(&db))[0], Signal::KILL);
    eventually(DEADLINE, "the server has recovered again", || {
        let mut client = postgres::Client::connect(db.url(), NoTls).ok()?;
        client.query_one("select count(*) from t", &[]).ok()
    });
    // The children end with their parent.
    kill(server(&db), Signal::KILL);
    wait_until(DEADLINE, "only init is left", || processes_beside(db.pid()) == [db.pid()]);
}

#[test]
fn a_resumed_server_stops_cleanly() {
    if !continues_resumed(a_resumed_server_stops_cleanly) {
        return;
    }
    let db = start_resumed();
    connect(db.url()).batch_execute("create table t (a int)").unwrap();
    kill(server(&db), Signal::INT);
    wait_until(DEADLINE, "the server has stopped", || {
        db.log().is_ok_and(|log| log.contains("database system is shut down"))
    });
    let root = PathBuf::from(format!("/proc/{}/root", db.pid()));
    assert_eq!(fs::read_dir(root.join("dev/shm")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.join("run/postgresql")).unwrap().count(), 0);
}

/// The secrets by which a client cancels a query: process and key of a fresh connection.
fn cancel_key(db: &Sandbox) -> [u8; 8] {
    let socket = format!("/proc/{}/root/run/postgresql/.s.PGSQL.5432", db.pid());
    let mut stream = UnixStream::connect(socket).unwrap();
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(8 + parameters.len()).unwrap();
    let packet = [&length.to_be_bytes()[..], &(3_u32 << 16).to_be_bytes(), parameters].concat();
    stream.write_all(&packet).unwrap();
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).unwrap();
        if head[0] == b'K' {
            return body.try_into().unwrap();
        }
        assert_ne!(head[0], b'Z', "no key came");
    }
}

#[test]
fn resumed_siblings_share_no_secret() {
    if !continues_resumed(resumed_siblings_share_no_secret) {
        return;
    }
    let servers: Vec<_> = (0..6).map(|_| start_resumed()).collect();
    let keys: BTreeSet<_> = servers.iter().map(|db| cancel_key(db)[4..].to_vec()).collect();
    assert_eq!(keys.len(), servers.len(), "{keys:?}");
    let mut drawn = BTreeSet::new();
    for db in &servers {
        let mut client = connect(db.url());
        for sql in ["select gen_random_uuid()::text", "select random()::text"] {
            drawn.insert(value::<String>(&mut client, sql));
        }
        client
            .batch_execute("set password_encryption = 'scram-sha-256'; create role r password 'p'")
            .unwrap();
        drawn.insert(value::<String>(&mut client, "select rolpassword from pg_authid where rolname = 'r'"));
    }
    assert_eq!(drawn.len(), 3 * servers.len(), "{drawn:#?}");
}

#[test]
fn every_start_is_resumed_once_there_is_a_checkpoint() {
    if !continues_resumed(every_start_is_resumed_once_there_is_a_checkpoint) {
        return;
    }
    drop(start_resumed());
    for number in 0..rounds(20, 1000) {
        let db = start();
        assert!(is_resumed(&db), "number {number}");
        assert_eq!(value::<i32>(&mut connect(db.url()), "select 1"), 1);
    }
}

/// The contents of shared memory that a launcher has read lie there in its memory.
fn holds_pages(process: u32) -> bool {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    maps.lines().any(|line| line.starts_with("400000000-"))
}

#[test]
fn only_the_launcher_keeps_the_memory_of_a_checkpoint() {
    if !continues_resumed(only_the_launcher_keeps_the_memory_of_a_checkpoint) {
        return;
    }
    let db = start_resumed();
    let [launcher] = children(std::process::id()).try_into().unwrap();
    wait_until(DEADLINE, "a launcher has read pages", || {
        let db = start();
        assert!(!holds_pages(db.pid()) && !holds_pages(server(&db)));
        assert_eq!(value::<i32>(&mut connect(db.url()), "select 1"), 1);
        holds_pages(launcher)
    });
    // The next container inherits them, and one of another checkpoint does not.
    let next = start();
    assert!(is_resumed(&next) && !holds_pages(next.pid()) && !holds_pages(server(&next)));
    assert_eq!(value::<String>(&mut connect(next.url()), "show work_mem"), "4MB");
    let other = eventually(DEADLINE, "a server with a setting is resumed", || {
        let db = fresh().setting("work_mem", "9MB").start().unwrap();
        is_resumed(&db).then_some(db)
    });
    assert!(!holds_pages(other.pid()) && !holds_pages(server(&other)));
    assert_eq!(value::<String>(&mut connect(other.url()), "show work_mem"), "9MB");
    assert_eq!(value::<String>(&mut connect(db.url()), "show work_mem"), "4MB");
}

#[test]
fn settings_have_checkpoints_of_their_own() {
    if !continues_resumed(settings_have_checkpoints_of_their_own) {
        return;
    }
    drop(start_resumed());
    let other = eventually(DEADLINE, "a server with a setting is resumed", || {
        let db = fresh().setting("work_mem", "9MB").start().unwrap();
        is_resumed(&db).then_some(db)
    });
    assert_eq!(value::<String>(&mut connect(other.url()), "show work_mem"), "9MB");
    assert_ne!(value::<String>(&mut connect(start_resumed().url()), "show work_mem"), "9MB");
}

/// A process that starts sandboxes one by one, from checkpoints.
pub(crate) fn one_by_one(cache: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(SUBJECT);
    command.args(arguments).args(["--sandboxes", "3", "one_by_one"]);
    command.env("SANDBOXED_DB_CACHE", cache).env("SANDBOXED_DB_POOL", "0").env(VARIABLE, "checkpoint");
    command
}

pub(crate) fn start_some(cache: &Path, arguments: &[&str]) {
    let output = one_by_one(cache, arguments).output().unwrap();
    assert!(output.status.success(), "{}", printed(&output));
}

/// The checkpoints of a cache.
pub(crate) fn checkpoints(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

#[test]
fn a_changed_checkpoint_is_refused_and_made_anew() {
    let dirs = ScratchDirs::with_shared_cache();
    let cache = cache_with_its_own_images(&dirs);
    start_some(&cache, &[]);
    let [checkpoint] = checkpoints(&cache).try_into().unwrap();
    let image = checkpoint.join("image");
    let seal = || fs::read(checkpoint.join("seal")).unwrap();
    let sealed = seal();
    start_some(&cache, &[]);
    assert_eq!(seal(), sealed, "it is used again");
    let cut = |path: &Path| {
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    let control = checkpoint.join("changes/global/pg_control");
    type Damage<'a> = (&'a str, &'a dyn Fn());
    let damages: [Damage<'_>; 4] = [
        ("a byte of the image", &|| flip_a_byte(&image)),
        ("half of the image", &|| cut(&image)),
        ("a byte of the data", &|| flip_a_byte(&control)),
        ("a seal", &|| cut(&checkpoint.join("seal"))),
    ];
    for (what, damage) in damages {
        let sealed = seal();
        damage();
        start_some(&cache, &[]);
        assert_ne!(seal(), sealed, "{what}");
        assert_eq!(checkpoints(&cache), std::slice::from_ref(&checkpoint), "{what}");
    }
}
