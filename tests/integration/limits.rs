//! A sandbox that uses all that it can get does not affect others: its test's report names the
//! limit, its neighbour works, and nothing is left.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use postgres::error::SqlState;
use postgres::{Client, NoTls};
use sandboxed_db::{Sandbox, Snapshot, sandboxed_db};
use sandboxed_db_tests::{
    CLEANUP_DEADLINE, alone, assert_says, connect, eventually, failed, fresh, is_alone, pid_namespace,
    processes_beside, processes_in, rounds, skip, start, value, wait_until,
};

use crate::isolation::{fails, run, shell};

const PIDS: usize = 60;

fn small() -> Snapshot {
    fresh().pids(60).memory(256 << 20).disk(64 << 20)
}

/// A sandbox that must work throughout.
struct Neighbour(Sandbox, Client);

impl Neighbour {
    fn new() -> Self {
        let db = small().start().unwrap();
        let mut client = connect(db.url());
        client.batch_execute("create table t as select generate_series(1, 1000) i").unwrap();
        Self(db, client)
    }

    #[track_caller]
    fn is_well(&mut self) {
        assert_eq!(value::<i64>(&mut self.1, "select count(*) from t"), 1000);
        // A new connection is a new process, which has memory and writes.
        let mut another = connect(self.0.url());
        another.batch_execute("create table u as select repeat('x', 10000000) x; drop table u").unwrap();
    }
}

/// Drops a sandbox, and waits for the end of its processes.
#[track_caller]
fn ends(db: Sandbox) {
    let namespace = pid_namespace(db.pid()).unwrap();
    drop(db);
    wait_until(CLEANUP_DEADLINE, "its processes are gone", || processes_in(&namespace).is_empty());
}

/// Starts more lasting processes than a small sandbox can have.
const BOMB: &str =
    "copy (select where false) to program 'i=0; while [ $i -lt 700 ]; do sleep 60 & i=$((i+1)); done'";

/// Returns `true` if a limit holds; without one the host would be affected.
fn is_contained(db: &Sandbox) -> bool {
    // Not every shell's ulimit has processes.
    let inside = shell(db, "grep 'Max processes' /proc/self/limits; cat /proc/sys/kernel/pid_max");
    let number = |line: &str| line.split_ascii_whitespace().find_map(|word| word.parse::<usize>().ok());
    let limits: Vec<usize> = inside.lines().filter_map(number).collect();
    let root = rustix::process::geteuid().is_root();
    // The kernel exempts root from the first, and has had the second for each sandbox since 6.14.
    let limited = if root { limits.last() } else { limits.first() };
    let in_group =
        fs::read_to_string(format!("/proc/{}/cgroup", db.pid())).unwrap().contains("/sandboxed-db.");
    let contained = in_group || limited.is_some_and(|&limit| limit <= PIDS + 300);
    if !contained {
        skip("nothing limits the sandbox's processes here");
    }
    contained
}

#[test]
fn a_fork_bomb_stays_in_its_sandbox() {
    let db = small().start().unwrap();
    if !is_contained(&db) {
        return;
    }
    let mut neighbour = Neighbour::new();
    let pid_max = || fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let before = pid_max();
    let error = connect(db.url()).batch_execute(BOMB).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::EXTERNAL_ROUTINE_EXCEPTION), "{error:?}");
    let alive = processes_beside(db.pid()).len();
    assert!((PIDS / 2..=PIDS + 300).contains(&alive), "{alive} processes");
    neighbour.is_well();
    // The server cannot start a process either, and says so in its log.
    let mut clients = Vec::new();
    while let Ok(client) = Client::connect(db.url(), NoTls) {
        clients.push(client);
        assert!(clients.len() < PIDS, "there is room beside {alive} processes");
    }
    let log = db.log().unwrap();
    assert!(log.contains("could not fork new process for connection"), "{log}");
    ends(db);
    neighbour.is_well();
    assert_eq!(pid_max(), before, "the machine's limit was changed");
}

/// Statements that use memory: of the server, and of a program that it starts.
const HOGS: [&str; 2] = [
    "select length(repeat('x', 1000000000))",
    "copy (select where false) to program 'head -c 1G /dev/zero | tail -c 1G | cksum 1>&2; exit 3'",
];

#[test]
fn a_statement_that_needs_too_much_memory_fails() {
    let mut neighbour = Neighbour::new();
    let db = small().start().unwrap();
    let mut client = connect(db.url());
    let error = client.batch_execute(HOGS[0]).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::OUT_OF_MEMORY), "{error:?}");
    neighbour.is_well();
    client.batch_execute(HOGS[1]).unwrap_err();
    let log = db.log().unwrap();
    assert!(log.contains("memory exhausted"), "{log}");
    // The server goes on.
    assert_eq!(value::<i32>(&mut client, "select 1"), 1);
    neighbour.is_well();
    ends(db);
    // A smaller amount is available.
    let mut client = connect(neighbour.0.url());
    client.batch_execute("select length(repeat('x', 50000000))").unwrap();
}

#[test]
fn files_without_contents_are_limited() {
    let (db, mut neighbour) = (small().start().unwrap(), Neighbour::new());
    for directory in ["/tmp", "/run"] {
        let many = format!("mkdir {directory}/many && cd {directory}/many && seq 17000 | xargs touch");
        fails(&db, &many, "No space left on device");
        shell(&db, &format!("rm -r {directory}/many"));
    }
    neighbour.is_well();
    assert_eq!(shell(&db, "echo fine > /tmp/fine && cat /tmp/fine"), "fine");
}

#[test]
fn a_flood_of_connections_is_refused_and_ebbs() {
    let attempts = rounds(300, 3_000);
    const THREADS: usize = 16;
    let (db, mut neighbour) = (start(), Neighbour::new());
    let mut first = connect(db.url());
    // All connections are in use, those for superusers included.
    let mut held = Vec::new();
    let full = (0..200).find_map(|_| match Client::connect(db.url(), NoTls) {
        Ok(client) => {
            held.push(client);
            None
        }
        Err(error) => Some(error),
    });
    assert_eq!(full.and_then(|error| error.code().cloned()), Some(SqlState::TOO_MANY_CONNECTIONS));

    let socket = format!("/proc/{}/root/run/postgresql/.s.PGSQL.5432", db.pid());
    let (next, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let attempt = || -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&socket)?;
        // A start-up packet of protocol 3.0, PostgreSQL documentation, "Message Formats".
        stream.write_all(b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < attempts {
                    // Either an error of the server, or a closed connection.
                    let answered = attempt().is_ok_and(|answer| answer.starts_with(b"E"));
                    refused.fetch_add(usize::from(answered), Ordering::Relaxed);
                }
            });
        }
        neighbour.is_well();
        assert_eq!(value::<i32>(&mut first, "select 1"), 1);
    });
    let refused = refused.into_inner();
    assert!(refused > attempts / 2, "{refused} of {attempts} got an error");
    assert_eq!(value::<i32>(&mut first, "select 1"), 1);
    drop(held);
    eventually(CLEANUP_DEADLINE, "there is room again", || Client::connect(db.url(), NoTls).ok());
    neighbour.is_well();
    ends(db);
}

#[test]
fn processors_are_limited() {
    let db = fresh().cpu(0.5).start().unwrap();
    let one_processor =
        shell(&db, "grep Cpus_allowed_list /proc/self/status | cut -f 2").parse::<u32>().is_ok();
    let in_group = group_of(&db).is_some_and(|group| group.join("cpu.max").exists());
    assert!(one_processor || in_group);
    // A greater number selects all processors.
    let all = fresh().cpu(100_000.0).start().unwrap();
    assert_eq!(shell(&all, "nproc"), thread::available_parallelism().unwrap().to_string());
}

/// The control group of a sandbox, if these tests run in a delegated group, as under
/// `systemd-run --user --scope -p Delegate=yes`.
fn group_of(db: &Sandbox) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", db.pid())).unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let paths = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|root| Path::new(root).join(&own));
    paths.into_iter().find(|path| own.contains("sandboxed-db.") && path.exists())
}

#[test]
fn a_control_group_lasts_as_long_as_its_sandbox() {
    let db = small().cpu(1.5).start().unwrap();
    let Some(group) = group_of(&db) else { return };
    let read = |name: &str| fs::read_to_string(group.join(name)).map(|text| text.trim().to_owned());
    for (name, expected) in [("pids.max", "60"), ("cpu.max", "150000 100000")] {
        if let Ok(value) = read(name) {
            assert_eq!(value, expected, "{name}");
        }
    }
    let mut inside: Vec<u32> =
        read("cgroup.procs").unwrap().lines().map(|pid| pid.parse().unwrap()).collect();
    let mut all = processes_beside(db.pid());
    inside.sort_unstable();
    all.sort_unstable();
    assert_eq!(inside, all);
    let other = small().start().unwrap();
    assert_ne!(group_of(&other).as_ref(), Some(&group));
    ends(db);
    wait_until(CLEANUP_DEADLINE, "its group is gone", || !group.exists());
    assert!(group_of(&other).is_some());
}

/// Processes that stay below the limit of a process, and together exceed that of the sandbox, for
/// control groups.
const MANY_HOGS: &str = "copy (select where false) to program \
    'for i in 1 2 3 4 5 6 7 8; do (head -c 200M /dev/zero | tail -c 200M > /dev/null) & done; wait; exit 3'";

#[test]
fn many_memory_hogs_are_held_together_by_a_group() {
    let db = small().start().unwrap();
    if !group_of(&db).is_some_and(|group| group.join("memory.max").exists()) {
        return;
    }
    let mut neighbour = Neighbour::new();
    let _ = connect(db.url()).batch_execute(MANY_HOGS);
    neighbour.is_well();
    ends(db);
    reports("fails_by_many_memory_hogs", "may take 256 MB of memory and wanted more: raise `memory`");
}

// Reports of tests that fail, each in a separate process.

/// Fails after the database has been used.
fn fail_after(url: &str, body: impl FnOnce(&str)) {
    if is_alone() {
        body(url);
        panic!("as requested");
    }
}

#[track_caller]
fn reports(test: &str, diagnosis: &str) {
    assert_says(&failed(&mut alone(&format!("limits::{test}"))), &["as requested", diagnosis]);
}

#[sandboxed_db(snapshot = small)]
#[ignore = "run by `a_report_names_the_limit_that_was_reached`"]
fn fails_by_a_fork_bomb(url: String) {
    fail_after(&url, |url| drop(connect(url).batch_execute(BOMB)));
}

#[sandboxed_db(snapshot = small)]
#[ignore = "run by `many_memory_hogs_are_held_together_by_a_group`"]
fn fails_by_many_memory_hogs(url: String) {
    fail_after(&url, |url| drop(connect(url).batch_execute(MANY_HOGS)));
}

#[sandboxed_db(snapshot = small)]
#[ignore = "run by `a_report_names_the_limit_that_was_reached`"]
fn fails_by_too_many_files(url: String) {
    let many = "copy (select where false) to program 'mkdir many && cd many && seq 17000 | xargs touch'";
    fail_after(&url, |url| drop(connect(url).batch_execute(many)));
}

#[sandboxed_db(snapshot = small)]
#[ignore = "run by `a_report_names_the_limit_that_was_reached`"]
fn fails_by_itself(url: String) {
    fail_after(&url, |url| drop(connect(url)));
}

fn few_connections() -> Snapshot {
    fresh().setting("max_connections", 5)
}

#[sandboxed_db(snapshot = few_connections)]
#[ignore = "run by `a_report_names_the_limit_that_was_reached`"]
fn fails_by_too_many_clients(url: String) {
    fail_after(&url, |url| drop((0..6).map(|_| Client::connect(url, NoTls)).collect::<Vec<_>>()));
}

#[test]
fn a_report_names_the_limit_that_was_reached() {
    let db = small().start().unwrap();
    if is_contained(&db) {
        reports("fails_by_a_fork_bomb", "the sandbox has as many processes as it may, 60: raise `pids`");
    }
    reports(
        "fails_by_too_many_files",
        "the sandbox's disk of 64 MB holds 16384 files, as many as it may: raise `disk`",
    );
    reports(
        "fails_by_too_many_clients",
        "no connection left for a client: raise the setting `max_connections`",
    );
    reports(
        "fails_by_itself",
        "sandboxed-db: the sandbox of `integration::limits::fails_by_itself` had the pid",
    );
    // The neighbour still starts processes.
    assert_eq!(run(&db, "true").1, 0);
}
