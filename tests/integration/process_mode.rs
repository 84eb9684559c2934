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
use rustix::process::{Signal, geteuid};
use sandboxed_db::Sandbox;
use sandboxed_db_fixtures::shop_snapshot;
use sandboxed_db_tests::{
    CLEANUP_DEADLINE, ScratchDirs, TestProcess, assert_says, children, connect, fresh, passed, printed,
    rounds, skip, skip_without_root, start, status, value, value_at, wait_until,
};

use crate::lifecycle::{SUBJECT, kill};

const MODE: &str = "SANDBOXED_DB_ISOLATION";
/// Set in a program that runs again, to the expected result of its first start.
const AGAIN: &str = "SANDBOXED_DB_TESTS_AGAIN";
const NOBODY: u32 = 65534;

/// Directories for a user other than root, or `None` if no such user can run the tests' programs.
pub(crate) fn unprivileged_dirs() -> Option<ScratchDirs> {
    let dirs = ScratchDirs::new();
    if geteuid().is_root() {
        for directory in ["", "home", "tmp", "work"] {
            chown(dirs.path().join(directory), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut probe = Command::new("test");
        if !probe.args(["-x", SUBJECT]).uid(NOBODY).gid(NOBODY).status().is_ok_and(|status| status.success())
        {
            skip("another user cannot execute the tests' programs");
            return None;
        }
    }
    Some(dirs)
}

/// A command that runs a program with these directories, not as root.
pub(crate) fn command(dirs: &ScratchDirs, program: impl AsRef<Path>) -> Command {
    let mut command = dirs.command(program.as_ref());
    command.env(MODE, "process");
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Runs a test of this file again, in process mode.
#[track_caller]
fn again(dirs: &ScratchDirs, test: &str, expected: &str, change: impl FnOnce(&mut Command)) {
    let mut command = command(dirs, std::env::current_exe().unwrap());
    let test = format!("process_mode::{test}");
    command.args(["--exact", &test, "--nocapture"]).env(AGAIN, expected);
    change(&mut command);
    passed(&mut command);
    wait_until(CLEANUP_DEADLINE, "nothing is left", || dirs.leftovers().is_empty());
}

fn runs_again() -> Option<String> {
    std::env::var(AGAIN).ok()
}

fn orders(client: &mut Client) -> i64 {
    value(client, "select count(*) from orders")
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
        let Some(dirs) = unprivileged_dirs() else { return };
        return again(&dirs, "every_server_is_pristine_and_nothing_is_left_of_it", "", |_| ());
    }
    let snapshot = shop_snapshot();
    let (one, other) = (snapshot.start().unwrap(), snapshot.start().unwrap());
    let (mut client, mut unharmed) = (connect(one.url()), connect(other.url()));
    let all = orders(&mut unharmed);
    assert!(all > 0);
    client.batch_execute("drop table orders cascade; create role intruder").unwrap();
    assert_eq!(orders(&mut unharmed), all);
    assert_eq!(orders(&mut connect(snapshot.start().unwrap().url())), all);

    // The link stands in place of the file that the first connection writes.
    unharmed
        .batch_execute("copy (select 1) to program 'cat > /dev/null; test -L global/pg_internal.init'")
        .unwrap();

    let psql = Command::new("psql").args(["-tAc", "select 7"]).envs(one.env()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&psql.stdout).trim(), "7");
    let tcp = one.tcp().unwrap();
    assert_eq!(value_at::<i32>(tcp.url(), "select 8"), 8);
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
    let Some(dirs) = unprivileged_dirs() else { return };
    let args = ["keep", "--shop", "--sandboxes", "3", "sleep"];
    let mut process = TestProcess::start(command(&dirs, SUBJECT).args(args));
    process.wait_for("all 3");
    process.killed();
    wait_until(CLEANUP_DEADLINE, "nothing is left", || dirs.leftovers().is_empty());
}

#[test]
fn a_kill_at_any_moment_leaves_nothing() {
    let Some(dirs) = unprivileged_dirs() else { return };
    // The kills meet starts, not builds.
    assert!(command(&dirs, SUBJECT).arg("return").output().unwrap().status.success());
    for kill in 0..rounds(3, 10) {
        let process = TestProcess::start(command(&dirs, SUBJECT).args(["keep", "--threads", "2", "churn"]));
        std::thread::sleep(std::time::Duration::from_millis(23) * kill);
        process.killed();
        wait_until(CLEANUP_DEADLINE, "nothing is left", || dirs.leftovers().is_empty());
    }
}

#[test]
fn a_killed_supervisor_ends_its_server_and_is_cleaned_up() {
    if runs_again().is_none() {
        let Some(dirs) = unprivileged_dirs() else { return };
        let test = "a_killed_supervisor_ends_its_server_and_is_cleaned_up";
        return again(&dirs, test, "", |_| ());
    }
    let db = start();
    let (processes, root) = (below(db.pid()), directory(&db));
    kill(db.pid(), Signal::KILL);
    wait_until(CLEANUP_DEADLINE, "the server ends", || processes.iter().all(|&pid| is_gone(pid)));
    assert!(root.exists());
    let next = start();
    assert!(!root.exists() && directory(&next).is_dir());
}

#[test]
fn layers_serve_both_modes() {
    if let Some(expected) = runs_again() {
        let (built, seed) = expected.split_once(' ').unwrap();
        let db = fresh().seed(seed).start().unwrap();
        assert_eq!(db.timings().layer_built, built == "built");
        assert_eq!(value_at::<i32>(db.url(), "select id from t"), 1);
        return;
    }
    let Some(dirs) = unprivileged_dirs() else { return };
    for (name, first, second) in [("a.sql", "process", "container"), ("b.sql", "container", "process")] {
        let seed = dirs.path().join(name);
        fs::write(&seed, format!("create table t (id int); insert into t values (1); -- {name}")).unwrap();
        for (mode, built) in [(first, "built"), (second, "found")] {
            let expected = format!("{built} {}", seed.display());
            again(&dirs, "layers_serve_both_modes", &expected, |command| {
                command.env(MODE, mode);
            });
        }
    }
}

#[test]
fn the_cache_may_have_a_long_path() {
    if runs_again().is_some() {
        let db = start();
        assert!(connect(db.url()).batch_execute("create table t ()").is_ok());
        let root = directory(&db);
        drop(db);
        return assert!(!root.is_symlink());
    }
    let Some(dirs) = unprivileged_dirs() else { return };
    again(&dirs, "the_cache_may_have_a_long_path", "", |command| {
        let parent = Path::new("x").join("y".repeat(90));
        command.env("SANDBOXED_DB_CACHE", dirs.cache().parent().unwrap().join(parent));
    });
}

#[test]
fn a_cache_may_have_any_name() {
    const TEST: &str = "a_cache_may_have_any_name";
    if runs_again().is_some() {
        let db = start();
        assert!(connect(db.url()).batch_execute("create table t ()").is_ok());
        let psql = Command::new("psql").args(["-Atc", "select 1"]).envs(db.env()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&psql.stdout), "1\n", "{psql:?}");
        return;
    }
    let Some(dirs) = unprivileged_dirs() else { return };
    for (name, temporary) in [("a%2Fb&c#d e", "tmp"), ("a,b", ""), (&*"x".repeat(100), "relative")] {
        again(&dirs, TEST, "", |command| {
            let cache = dirs.path().join("caches").join(name);
            command.env("SANDBOXED_DB_CACHE", cache).env("TMPDIR", temporary);
        });
    }
}

#[test]
fn the_cache_may_be_read_only() {
    const TEST: &str = "the_cache_may_be_read_only";
    if let Some(expected) = runs_again() {
        let db = start();
        assert_eq!(directory(&db).starts_with(std::env::temp_dir()), expected == "elsewhere");
        return assert!(connect(db.url()).batch_execute("create table t ()").is_ok());
    }
    let Some(dirs) = unprivileged_dirs() else { return };
    again(&dirs, TEST, "in the cache", |_| ());
    let allow = |mode| fs::set_permissions(dirs.cache(), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o500);
    again(&dirs, TEST, "elsewhere", |_| ());
    allow(0o700);
}

#[test]
fn root_is_refused() {
    if !geteuid().is_root() {
        return skip_without_root("only root can be refused for being root");
    }
    let dirs = ScratchDirs::new();
    let output = dirs.command(SUBJECT).env(MODE, "process").arg("return").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_says(&printed(&output), &["as root", "run the tests as another user"]);
}

#[test]
fn the_doctor_reports_the_mode() {
    let Some(dirs) = unprivileged_dirs() else { return };
    let output = command(&dirs, SUBJECT).arg("doctor").output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    assert!(report.contains("SANDBOXED_DB_ISOLATION=process is set"), "{report}");
}
