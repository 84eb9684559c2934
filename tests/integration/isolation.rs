//! The server sees no host file beyond its programs, no host process and no network, and no other
//! user reaches it. `every_engine/isolation.rs` tests what /proc shows of each engine.
//!
//! The tests run programs inside, from a superuser's SQL: no test can do more.

use std::fs;
use std::path::Path;
use std::process::Command;

use postgres::Client;
use postgres::error::SqlState;
use rustix::io::{FdFlags, fcntl_setfd};
use sandboxed_db::Sandbox;
use sandboxed_db_fixtures::shop_snapshot;
use sandboxed_db_tests::{
    DEADLINE, bin, connect, continues_alone, eventually, processes_beside, skip, skip_without_root, start,
    status as status_of, value, wait_until,
};

/// Runs a shell command in the sandbox, as the server's child, and returns what it prints and its
/// exit code.
pub(crate) fn run(db: &Sandbox, command: &str) -> (String, i32) {
    let mut client = connect(db.url());
    client.batch_execute("create temporary table output (number bigserial, line text)").unwrap();
    // As CSV with characters that no program prints, a line of anything is one column. NUL, which
    // no text may hold, ends an entry of /proc/*/environ and /proc/*/cmdline.
    let script = format!("{{ {command}\n}} 2>&1 | tr '\\000' '\\n'; exit 0").replace('\'', "''");
    let script = script.replacen("{ ", "{ { ", 1).replacen("\n}", "\n}; echo \"exit $?\"; }", 1);
    client
        .batch_execute(&format!(
            "copy output (line) from program '{script}' (format csv, delimiter e'\\x01', quote e'\\x02')"
        ))
        .unwrap_or_else(|error| panic!("{command}: {error:?}"));
    let lines = client.query("select coalesce(line, '') from output order by number", &[]).unwrap();
    let mut lines: Vec<String> = lines.iter().map(|row| row.get(0)).collect();
    let exit = lines.pop().unwrap();
    let exit = exit.strip_prefix("exit ").unwrap_or_else(|| panic!("{command}: {lines:?} {exit}"));
    (lines.join("\n"), exit.parse().unwrap())
}

/// Returns the output of a command that must succeed.
pub(crate) fn shell(db: &Sandbox, command: &str) -> String {
    let (output, exit) = run(db, command);
    assert_eq!(exit, 0, "{command}: {output}");
    output
}

/// Runs a command that must fail; 127 says that there is no such program, which proves nothing.
pub(crate) fn fails(db: &Sandbox, command: &str, because: &str) {
    let (output, exit) = run(db, command);
    assert!(![0, 127].contains(&exit) && output.contains(because), "{command}: exit {exit}, {output}");
}

/// A line `Name:<tab>value` of a process's status.
fn status(db: &Sandbox, process: &str, name: &str) -> String {
    shell(db, &format!("grep '^{name}:' /proc/{process}/status | cut -f 2-"))
}

/// Returns `true` if the sandbox has a new /proc. In most containers the outer one is partly
/// hidden, and the kernel refuses a new one.
pub(crate) fn has_its_own_proc(db: &Sandbox) -> bool {
    let own = shell(db, "sh -c 'echo $$; exec readlink /proc/self'");
    let (inside, shown) = own.split_once('\n').unwrap();
    if inside != shown {
        skip("the machine refuses a fresh /proc to a sandbox");
    }
    inside == shown
}

const POSTMASTER: &str = "$(head -1 postmaster.pid)";

/// Init, the server's first process, a backend and its child.
const PROCESSES: [&str; 4] = ["1", POSTMASTER, "$PPID", "self"];

// Privileges.

#[test]
fn the_server_runs_as_an_ordinary_user() {
    let db = start();
    for process in PROCESSES {
        for name in ["Uid", "Gid"] {
            let ids = status(&db, process, name);
            let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert!(ids.len() == 4 && !ids.contains(&0), "{name} of {process}: {ids:?}");
        }
    }
    assert_ne!(shell(&db, "id -u"), "0");
    assert_eq!(shell(&db, "cut -d : -f 1 /etc/passwd"), "postgres");
    // The sandbox has one user id.
    fails(&db, "touch /tmp/mine && chown 0 /tmp/mine", "changing ownership");
}

#[test]
fn programs_cannot_make_namespaces_or_mounts() {
    let db = start();
    fails(&db, "mount -t tmpfs none /tmp", "");
    fails(&db, "hostname other", "");
    if has_its_own_proc(&db) {
        // A program has all capabilities in a new user namespace.
        fails(&db, "unshare --user true", "unshare");
    }
}

// Visible objects.

#[test]
fn processes_that_lose_their_parent_are_reaped() {
    let db = start();
    // In separate sessions, as daemons are.
    shell(&db, "for i in 1 2 3; do setsid sh -c 'setsid sleep 0.1 & exit' & done; wait");
    wait_until(DEADLINE, "no zombie is left", || {
        let beside = processes_beside(db.pid());
        let sleeping = |pid: &u32| status_of(*pid, "Name").is_none_or(|name| name == "sleep");
        let zombie = |pid: &u32| status_of(*pid, "State").is_none_or(|state| state.starts_with('Z'));
        !beside.iter().any(sleeping) && !beside.iter().any(zombie)
    });
}

#[test]
fn the_host_name_is_its_own() {
    let db = start();
    assert_eq!(shell(&db, "uname -n"), "sandbox");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_ne!(host.trim(), "sandbox", "renamed the host");
}

#[test]
fn lo_is_up() {
    let db = start();
    let mut client = connect(db.url());
    client
        .batch_execute(
            "copy (select where false) to program 'sed -i \"1i host all all 127.0.0.1/32 trust\" pg_hba.conf'",
        )
        .unwrap();
    client.batch_execute("select pg_reload_conf()").unwrap();
    let query = format!(
        "{}/psql -X -A -t -h 127.0.0.1 -U postgres -c 'select inet_server_addr()'",
        bin(&db).display()
    );
    let answer = eventually(DEADLINE, "the server listens on lo", || {
        let (output, exit) = run(&db, &query);
        (exit == 0).then_some(output)
    });
    assert_eq!(answer, "127.0.0.1");
    // The server does not listen on the host's lo.
    let tcp = fs::read_to_string("/proc/net/tcp").unwrap();
    let inside = shell(&db, "cat /proc/self/net/tcp");
    // A socket that listens (state 0A) and its inode.
    let listening = inside.lines().find(|line| line.contains(" 0A ")).unwrap();
    let inode = listening.split_whitespace().nth(9).unwrap();
    assert!(!tcp.contains(&format!(" {inode} ")), "{listening} is in\n{tcp}");
}

#[test]
fn the_root_is_read_only() {
    let db = start();
    for path in
        ["/new", "/etc/new", "/usr/new", "/dev/new", "/var/new", "/etc/passwd", "/bin/true", "/proc/new"]
    {
        let (output, exit) = run(&db, &format!("touch {path}"));
        assert!(exit != 0, "{path} was written");
        assert!(
            ["Read-only", "Permission denied", "No such file"].iter().any(|why| output.contains(why)),
            "{output}"
        );
    }
    fails(&db, "echo x > /etc/passwd", "Read-only file system");
    fails(&db, "rm /usr/bin/env", "");
    for directory in ["/tmp", "/run", "/dev/shm"] {
        let name = format!("{directory}/isolation-{}", std::process::id());
        assert_eq!(shell(&db, &format!("echo here > {name}; cat {name}")), "here");
        assert!(!Path::new(&name).exists(), "{name} is on the host");
    }
    fails(&db, "cp /bin/true /dev/shm/true && chmod +x /dev/shm/true && /dev/shm/true", "denied");
}

#[test]
fn a_secret_in_the_environment_is_hidden() {
    let set_up = |process: &mut Command| {
        process.env("ISOLATION_TEST_TOKEN", "xyzzy-4711");
    };
    if !continues_alone(a_secret_in_the_environment_is_hidden, set_up) {
        return;
    }
    let secret = std::env::var("ISOLATION_TEST_TOKEN").unwrap();
    let db = start();
    let found = shell(&db, &format!("cat /proc/[0-9]*/environ | grep -c {secret} || true"));
    assert_eq!(found, "0", "processes of the sandbox hold the secret");
}

#[test]
fn descriptors_are_not_inherited() {
    if !continues_alone(descriptors_are_not_inherited, |_| ()) {
        return;
    }
    // C libraries open files without close-on-exec. The launcher has not started yet.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inherited");
    fs::write(&path, "of the host").unwrap();
    let file = fs::File::open(&path).unwrap();
    fcntl_setfd(&file, FdFlags::empty()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl_setfd(&writer, FdFlags::empty()).unwrap();
    let inherited = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
    assert!(String::from_utf8_lossy(&inherited.stdout).contains("/inherited"));

    let db = start();
    for process in PROCESSES {
        let open = shell(&db, &format!("ls -l /proc/{process}/fd"));
        assert!(!open.contains("/inherited"), "{process}: {open}");
    }
    // The pipe ends when no process holds its other end, not even the launcher.
    drop(writer);
    drop(db);
    let mut rest = Vec::new();
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    std::io::Read::read_to_end(&mut &reader, &mut rest).expect("the launcher holds no end of the pipe");
}

// Apart from others.

#[test]
fn shared_memory_is_not_shared() {
    let (one, other) = (start(), start());
    shell(&one, "ipcmk -M 4096; echo here > /dev/shm/isolation; echo here > /tmp/isolation");
    assert_eq!(
        shell(&other, "ls /dev/shm/isolation /tmp/isolation 2>&1 | grep -vc 'No such file' || true"),
        "0"
    );
    let segments =
        |db: &Sandbox| shell(db, "tail -n +2 /proc/sysvipc/shm | wc -l").trim().parse::<u32>().unwrap();
    if has_its_own_proc(&one) {
        // Each server has one segment.
        assert_eq!((segments(&one), segments(&other)), (2, 1));
    }
}

#[test]
fn no_other_user_reaches_the_server() {
    if !rustix::process::geteuid().is_root() {
        return skip_without_root("runs psql as another user");
    }
    let db = start();
    let psql = bin(&db).join("psql");
    let runs_as_nobody =
        |args: &[&std::ffi::OsStr]| Command::new("runuser").args(["-u", "nobody", "--"]).args(args).output();
    if !runs_as_nobody(&[psql.as_ref(), "--version".as_ref()]).is_ok_and(|output| output.status.success()) {
        return skip("`runuser -u nobody -- psql` does not run");
    }
    let query = ["-X", "-A", "-t", "-c", "select 'reached'", db.url()].map(std::ffi::OsStr::new);
    let own = Command::new(&psql).args(query).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&own.stdout).trim(), "reached", "{own:?}");

    let other = runs_as_nobody(&[&[psql.as_os_str()], &query[..]].concat()).unwrap();
    let complaint = String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success() && complaint.contains("Permission denied"), "{other:?}");
    let root = format!("/proc/{}/root/", db.pid());
    let listing = runs_as_nobody(&["ls".as_ref(), root.as_ref()]).unwrap();
    assert!(!listing.status.success(), "{listing:?}");
}

// Limits.

fn disk_of_32_mb() -> Sandbox {
    shop_snapshot().disk(32 << 20).start().unwrap()
}

const FILL: &str =
    "create unlogged table loot as select i, repeat(md5(i::text), 30) from generate_series(1, 100000) i";

/// The last page on a full disk may be written in part.
fn says_full(log: &str) -> bool {
    log.contains("No space left on device") || log.contains("wrote only")
}

fn neighbour_is_well(client: &mut Client) {
    client
        .batch_execute(
            "create table fine as select i, repeat(md5(i::text), 30) from generate_series(1, 10000) i",
        )
        .unwrap();
    assert_eq!(value::<i64>(client, "select count(*) from customers"), 2500);
}

#[test]
fn a_full_disk_is_an_error_and_the_server_goes_on() {
    let (db, neighbour) = (disk_of_32_mb(), disk_of_32_mb());
    let (mut client, mut other) = (connect(db.url()), connect(neighbour.url()));
    // The first write copies a segment of the write-ahead log from the layer. Without space for it
    // the server would restart and end the session.
    client.batch_execute("create table first (i int)").unwrap();
    client.batch_execute("checkpoint").unwrap();
    let error = client.batch_execute(FILL).expect_err("32 MB are filled by 100 MB");
    assert_eq!(error.code(), Some(&SqlState::DISK_FULL), "{error:?}\n{}", db.log().unwrap());
    assert!(says_full(&db.log().unwrap()));
    neighbour_is_well(&mut other);
    assert!(!says_full(&neighbour.log().unwrap()));
    // The failed statement freed its space.
    assert_eq!(value::<i64>(&mut client, "select count(*) from customers"), 2500);
    client
        .batch_execute("create table small as select generate_series(1, 10000) i; select count(*) from small")
        .unwrap();
}

/// A server without space for its write-ahead log ends, and its log says why.
#[test]
fn a_disk_filled_by_logged_writes_is_in_the_log() {
    let (db, neighbour) = (disk_of_32_mb(), disk_of_32_mb());
    let mut other = connect(neighbour.url());
    let mut client = connect(db.url());
    client.batch_execute("create table loot (i int, x text)").unwrap();
    let filled = (0..1000).find_map(|_| {
        client
            .batch_execute(
                "insert into loot select i, repeat(md5(i::text), 30) from generate_series(1, 1000) i",
            )
            .err()
    });
    let error = filled.expect("32 MB are filled by 1,000,000 rows of 1 kB");
    let log = db.log().unwrap();
    assert!(says_full(&log), "{error:?}\n{log}");
    neighbour_is_well(&mut other);
    db.stop().unwrap();
}

#[test]
fn scratch_space_is_limited() {
    let (db, neighbour) = (start(), start());
    for directory in ["/tmp", "/run", "/dev/shm"] {
        fails(&db, &format!("head -c 2G /dev/zero > {directory}/large"), "No space left on device");
        shell(&db, &format!("rm {directory}/large"));
    }
    assert_eq!(shell(&neighbour, "echo fine > /tmp/fine && cat /tmp/fine"), "fine");
    assert_eq!(shell(&db, "echo fine > /tmp/fine && cat /tmp/fine"), "fine");
}
