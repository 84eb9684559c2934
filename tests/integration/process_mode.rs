//! The promises of process mode, which SANDBOXED_DB_ISOLATION=process selects.
//!
//! The variable is the whole process's, so most tests run their own program again with it; and as
//! another user where this one is root, as whom no server runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use sandboxed_db::{Postgres, Sandbox, Snapshot};
use sandboxed_db_fixtures::shop_snapshot;
use sandboxed_db_tests::{
    CLEANUP_DEADLINE, ScratchDirs, TestProcess, children, connect, eventually, rounds, skip,
    skip_without_root, status,
};

const SUBJECT: &str = env!("CARGO_BIN_EXE_subject");
const MODE: &str = "SANDBOXED_DB_ISOLATION";
/// Set in a program that runs again, to the expected result of its first start.
const AGAIN: &str = "SANDBOXED_DB_TESTS_AGAIN";
const NOBODY: u32 = 65534;

/// Directories for a user other than root, or `None` if no such user can run the tests' programs.
fn place() -> Option<ScratchDirs> {
    let place = ScratchDirs::new();
    if geteuid().is_root() {
        for directory in ["", "home", "tmp", "work"] {
            chown(place.path().join(directory), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut probe = Command::new("test");
        if !probe.args(["-x", SUBJECT]).uid(NOBODY).gid(NOBODY).status().is_ok_and(|status| status.success())
        {
            skip("another user cannot execute the tests' programs");
            return None;
        }
    }
    Some(place)
}

/// A command that runs a program with these directories, not as root.
fn command(place: &ScratchDirs, program: impl AsRef<Path>) -> Command {
    let mut command = place.command(program.as_ref());
    command.env(MODE, "process");
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Runs a test of this file again, in process mode.
#[track_caller]
fn again(place: &ScratchDirs, test: &str, expected: &str, change: impl FnOnce(&mut Command)) {
    let mut command = command(place, std::env::current_exe().unwrap());
    let test = format!("process_mode::{test}");
    command.args(["--exact", &test, "--nocapture"]).env(AGAIN, expected);
    change(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    eventually(CLEANUP_DEADLINE, "nothing is left", || place.leftovers().is_empty().then_some(()));
}

fn runs_again() -> Option<String> {
    std::env::var(AGAIN).ok()
}

#[track_caller]
fn start(snapshot: &Snapshot) -> Sandbox {
    snapshot.start().unwrap_or_else(|error| panic!("{error:?}"))
}

fn orders(client: &mut Client) -> i64 {
    client.query_one("select count(*) from orders", &[]).unwrap().get(0)
}

fn is_gone(pid: u32) -> bool {
    status(pid, "State").is_none_or(|state| state.starts_with('X'))
}

/// Everything below a process.
fn below(process: u32) -> Vec<u32> {
    let mut found = children(process);
    let mut next = 0;
    while next < found.len() {
        found.extend(children(found[next]));
        next += 1;
    }
    found
}

/// The private directory of a server, from its URL.
fn directory(db: &Sandbox) -> std::path::PathBuf {
    let (_, host) = db.url().split_once("host=").unwrap();
    let host = host.split('&').next().unwrap();
    Path::new(host).ancestors().nth(2).unwrap().to_owned()
}

/// The number of System V shared memory segments that these processes have created.
fn shared_memory(of: &[u32]) -> usize {
    let user = geteuid().as_raw().to_string();
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let is_theirs = |line: &&str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let maker = fields.get(4).and_then(|pid| pid.parse().ok());
        fields.get(7) == Some(&user.as_str()) && maker.is_some_and(|maker| of.contains(&maker))
    };
    table.lines().filter(is_theirs).count()
}

#[test]
fn every_server_is_pristine_and_nothing_is_left_of_it() {
    if runs_again().is_none() {
        let Some(place) = place() else { return };
        return again(&place, "every_server_is_pristine_and_nothing_is_left_of_it", "", |_| ());
    }
    let snapshot = shop_snapshot();
    let (one, other) = (start(&snapshot), start(&snapshot));
    let (mut client, mut unharmed) = (connect(one.url()), connect(other.url()));
    let all = orders(&mut unharmed);
    assert!(all > 0);
    client.batch_execute("drop table orders cascade; create role intruder").unwrap();
    assert_eq!(orders(&mut unharmed), all);
    assert_eq!(orders(&mut connect(start(&snapshot).url())), all);

    // The link stands in place of the file that the first connection writes.
    unharmed
        .batch_execute("copy (select 1) to program 'cat > /dev/null; test -L global/pg_internal.init'")
        .unwrap();

    let psql = Command::new("psql").args(["-tAc", "select 7"]).envs(one.env()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&psql.stdout).trim(), "7");
    let tcp = one.tcp().unwrap();
    let answer = Client::connect(tcp.url(), NoTls).unwrap().query_one("select 8", &[]).unwrap();
    assert_eq!(answer.get::<_, i32>(0), 8);
    let without = format!("postgresql://postgres:wrong@{}/postgres", tcp.address());
    assert!(Client::connect(&without, NoTls).is_err());
    assert!(client.batch_execute("select nonsense").is_err());
    assert!(one.log().unwrap().contains("nonsense"));

    let processes = below(one.pid());
    let root = directory(&one);
    assert!(processes.len() > 3 && root.is_dir());
    drop(client);
    one.stop().unwrap();
    assert!(!root.exists() && processes.into_iter().all(is_gone));

    // A client is connected during the drop.
    let (processes, root) = (below(other.pid()), directory(&other));
    assert_eq!(shared_memory(&processes), 1, "a server has one");
    drop(other);
    assert_eq!(shared_memory(&processes), 0);
    assert!(!root.exists() && processes.into_iter().all(is_gone));
}

#[test]
fn a_killed_test_process_leaves_nothing() {
    let Some(place) = place() else { return };
    let mut process = TestProcess::start(command(&place, SUBJECT).args([
        "keep",
        "--shop",
        "yes",
        "--sandboxes",
        "3",
        "sleep",
    ]));
    process.wait_for("all 3");
    process.kill(Signal::KILL, false);
    let (ended, _) = process.gone();
    assert_eq!(ended, "signal 9");
    eventually(CLEANUP_DEADLINE, "nothing is left", || place.leftovers().is_empty().then_some(()));
}

#[test]
fn a_kill_at_any_moment_leaves_nothing() {
    let Some(place) = place() else { return };
    // The kills meet starts, not builds.
    assert!(command(&place, SUBJECT).arg("return").output().unwrap().status.success());
    for kill in 0..rounds(3, 10) {
        let process = TestProcess::start(command(&place, SUBJECT).args(["keep", "--threads", "2", "churn"]));
        std::thread::sleep(std::time::Duration::from_millis(23) * kill);
        process.kill(Signal::KILL, false);
        let (ended, told) = process.gone();
        assert_eq!(ended, "signal 9", "{told:?}");
        eventually(CLEANUP_DEADLINE, "nothing is left", || place.leftovers().is_empty().then_some(()));
    }
}

#[test]
fn a_killed_supervisor_ends_its_server_and_is_cleaned_up() {
    if runs_again().is_none() {
        let Some(place) = place() else { return };
        let test = "a_killed_supervisor_ends_its_server_and_is_cleaned_up";
        return again(&place, test, "", |_| ());
    }
    let snapshot = Snapshot::new(Postgres::new());
    let db = start(&snapshot);
    let (processes, root) = (below(db.pid()), directory(&db));
    let supervisor = i32::try_from(db.pid()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(supervisor, Signal::KILL).unwrap();
    eventually(CLEANUP_DEADLINE, "the server ends", || {
        processes.iter().all(|&pid| is_gone(pid)).then_some(())
    });
    assert!(root.exists());
    let next = start(&snapshot);
    assert!(!root.exists() && directory(&next).is_dir());
}

#[test]
fn layers_serve_both_modes() {
    if let Some(expected) = runs_again() {
        let (built, seed) = expected.split_once(' ').unwrap();
        let db = start(&Snapshot::new(Postgres::new()).seed(seed));
        assert_eq!(db.timings().layer_built, built == "built");
        assert!(connect(db.url()).query_one("select id from t", &[]).is_ok());
        return;
    }
    let Some(place) = place() else { return };
    for (name, first, second) in [("a.sql", "process", "container"), ("b.sql", "container", "process")] {
        let seed = place.path().join(name);
        fs::write(&seed, format!("create table t (id int); insert into t values (1); -- {name}")).unwrap();
        for (mode, built) in [(first, "built"), (second, "found")] {
            let expected = format!("{built} {}", seed.display());
            again(&place, "layers_serve_both_modes", &expected, |command| {
                command.env(MODE, mode);
            });
        }
    }
}

#[test]
fn the_cache_may_have_a_long_path() {
    if runs_again().is_some() {
        let db = start(&Snapshot::new(Postgres::new()));
        assert!(connect(db.url()).batch_execute("create table t ()").is_ok());
        let root = directory(&db);
        drop(db);
        return assert!(!root.is_symlink());
    }
    let Some(place) = place() else { return };
    again(&place, "the_cache_may_have_a_long_path", "", |command| {
        let parent = Path::new("x").join("y".repeat(90));
        command.env("SANDBOXED_DB_CACHE", place.cache().parent().unwrap().join(parent));
    });
}

#[test]
fn a_cache_may_have_any_name() {
    const TEST: &str = "a_cache_may_have_any_name";
    if runs_again().is_some() {
        let db = start(&Snapshot::new(Postgres::new()));
        assert!(connect(db.url()).batch_execute("create table t ()").is_ok());
        let psql = Command::new("psql").args(["-Atc", "select 1"]).envs(db.env()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&psql.stdout), "1\n", "{psql:?}");
        return;
    }
    let Some(place) = place() else { return };
    for (name, temporary) in [("a%2Fb&c#d e", "tmp"), ("a,b", ""), (&*"x".repeat(100), "relative")] {
        again(&place, TEST, "", |command| {
            let cache = place.path().join("caches").join(name);
            command.env("SANDBOXED_DB_CACHE", cache).env("TMPDIR", temporary);
        });
    }
}

#[test]
fn the_cache_may_be_read_only() {
    const TEST: &str = "the_cache_may_be_read_only";
    if let Some(expected) = runs_again() {
        let db = start(&Snapshot::new(Postgres::new()));
        assert_eq!(directory(&db).starts_with(std::env::temp_dir()), expected == "elsewhere");
        return assert!(connect(db.url()).batch_execute("create table t ()").is_ok());
    }
    let Some(place) = place() else { return };
    again(&place, TEST, "in the cache", |_| ());
    let allow = |mode| fs::set_permissions(place.cache(), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o500);
    again(&place, TEST, "elsewhere", |_| ());
    allow(0o700);
}

fn refusal(mode: &str) -> String {
    let place = ScratchDirs::new();
    let output = place.command(SUBJECT).env(MODE, mode).arg("return").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn root_is_refused() {
    if !geteuid().is_root() {
        return skip_without_root("only root can be refused for being root");
    }
    let report = refusal("process");
    for part in ["as root", "run the tests as another user"] {
        assert!(report.contains(part), "{report}");
    }
}

#[test]
fn the_doctor_reports_the_mode() {
    let Some(place) = place() else { return };
    let output = command(&place, SUBJECT).arg("doctor").output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    assert!(report.contains("SANDBOXED_DB_ISOLATION=process is set"), "{report}");
}
