//! Says why: each failure names the step, the cause and the fix, comes at once and leaves nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rstest::rstest;
use sandboxed_db::engine::Installation;
use sandboxed_db::{Engine, ErrorKind, Postgres, Snapshot};
use sandboxed_db_tests::{
    ScratchDirs, TestProcess, assert_says, connect, fresh, is_exhaustive, skip, skip_without_root,
    without_progress,
};

use crate::lifecycle::SUBJECT;
use crate::requests::dirs_with_base;

/// A limit for every error, with a layer built before it on a busy machine. Most take milliseconds.
const AT_ONCE: Duration = Duration::from_secs(60);

/// Runs a subject whose start must fail and leave nothing, and returns the report.
#[track_caller]
fn report(dirs: &ScratchDirs, variables: &[(&str, &Path)], args: &[&str]) -> String {
    let begin = Instant::now();
    let errors = dirs.path().join("report");
    let mut command = dirs.command(SUBJECT);
    command
        .arg("keep")
        .args(args)
        .arg("return")
        .envs(variables.iter().copied())
        .stderr(fs::File::create(&errors).unwrap());
    let (ended, lines) = TestProcess::start(&mut command).gone();
    let report = without_progress(&fs::read_to_string(errors).unwrap());
    assert_eq!(ended, "code 2", "{lines:?}\n{report}");
    assert!(begin.elapsed() < AT_ONCE, "{:?}: {report}", begin.elapsed());
    assert!(report.starts_with("could not "), "{report}");
    dirs.assert_no_leftovers();
    report
}

/// Runs a subject whose start must work.
#[track_caller]
fn succeeds(dirs: &ScratchDirs, variables: &[(&str, &Path)], args: &[&str]) {
    let mut command = dirs.command(SUBJECT);
    command.args(args).arg("return").envs(variables.iter().copied());
    let output = command.output().expect("subject runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn real() -> Installation {
    Postgres::new().locate().unwrap_or_else(|error| panic!("{error:?}"))
}

/// A directory of programs with a script as `postgres`, and otherwise the real ones.
pub(crate) fn with_server(dirs: &ScratchDirs, script: &str) -> PathBuf {
    let bin = dirs.path().join("server/bin");
    fs::create_dir_all(&bin).unwrap();
    for name in ["initdb", "psql"] {
        symlink(real().program(name), bin.join(name)).unwrap();
    }
    fs::write(bin.join("postgres"), script).unwrap();
    fs::set_permissions(bin.join("postgres"), fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

/// A script that runs the real server, or `instead` if the configuration says so.
fn server_that_may(instead: &str) -> String {
    let real = real().program("postgres");
    let real = real.display();
    format!(
        "#!/bin/sh\ncase \"$*\" in *config_file*) grep -q test.misbehave /etc/postgresql/postgresql.conf && {{ {instead}; }};; \
         esac\nexec {real} \"$@\"\n"
    )
}

#[test]
fn a_dump_that_is_newer_than_psql_is_advised_on() {
    let dirs = ScratchDirs::new();
    let bin = with_server(&dirs, &server_that_may("true"));
    let seed = dirs.path().join("dump.sql");
    fs::write(&seed, "\\restrict 6b1f\ncreate table a ();\n\\unrestrict 6b1f\n").unwrap();
    // A psql of before August 2025.
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *dump.sql*) printf '%s\\n' 'psql:{0}:1: error: invalid command \\restrict' >&2; exit 3;; \
         esac\nexec {1} \"$@\"\n",
        seed.display(),
        real().program("psql").display()
    );
    fs::remove_file(bin.join("psql")).unwrap();
    fs::write(bin.join("psql"), script).unwrap();
    fs::set_permissions(bin.join("psql"), fs::Permissions::from_mode(0o755)).unwrap();
    let seed = seed.to_str().unwrap();
    let report = report(&dirs, &[("SANDBOXED_DB_POSTGRES", &bin)], &["--seed", seed]);
    assert_says(&report, &["invalid command \\restrict", "a pg_dump newer than psql wrote the file"]);
}

#[test]
fn the_cache_of_another_user_is_reported() {
    if !rustix::process::geteuid().is_root() {
        return skip_without_root("runs as two users");
    }
    let (one, other) = (ScratchDirs::new(), ScratchDirs::new());
    succeeds(&one, &[], &[]);
    fs::set_permissions(one.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = other.give_to(65534, SUBJECT.as_ref());
    for (mode, part) in [("go-rwx", "the cache is not writable"), ("go=rX", "could not use the layer")] {
        let changed = Command::new("chmod").args(["-R", mode]).arg(one.cache()).status().unwrap();
        assert!(changed.success());
        let mut command = other.command("runuser");
        command.args(["-u", "nobody", "--"]).arg(&program).arg("return");
        let output = command.env("SANDBOXED_DB_CACHE", one.cache()).output().unwrap();
        let report = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{mode}: {output:?}");
        assert_says(&report, &[part, "belongs to user 0", "set SANDBOXED_DB_CACHE to another directory"]);
        assert!(!report.contains("chmod") && !report.contains("chown"), "{report}");
    }
    // The layers of the first user stay usable.
    succeeds(&one, &[], &[]);
}

#[rstest]
#[case::that_fails("#!/bin/sh\necho broken >&2\nexit 1\n", 0o755, &["exit status: 1", "broken"])]
#[case::that_may_not_be_run("#!/bin/sh\n", 0o644, &["cause: Permission denied"])]
#[case::that_is_no_program("not a program\n", 0o755, &["cause: Exec format error"])]
#[case::that_says_nothing("#!/bin/sh\n", 0o755, &["`--version` ended with exit status: 0 and printed ``"])]
fn a_server_program_is_refused(#[case] contents: &str, #[case] mode: u32, #[case] parts: &[&str]) {
    let dirs = ScratchDirs::new();
    let bin = with_server(&dirs, contents);
    fs::set_permissions(bin.join("postgres"), fs::Permissions::from_mode(mode)).unwrap();
    let report = report(&dirs, &[("SANDBOXED_DB_POSTGRES", &bin)], &[]);
    assert_says(&report, &["cause: could not use `", bin.join("postgres").to_str().unwrap()]);
    assert_says(&report, parts);
    assert_says(&report, &["hint: SANDBOXED_DB_POSTGRES takes"]);
}

#[test]
fn a_copy_of_debians_layout_shows_its_share_directory() {
    let installed = real();
    let Ok(below_lib) = installed.bin().strip_prefix("/usr/lib") else {
        return skip("PostgreSQL is not installed as Debian installs it");
    };
    let share = Path::new("/usr/share").join(below_lib.parent().unwrap());
    if !share.is_dir() {
        return skip("PostgreSQL is not installed as Debian installs it");
    }
    let dirs = ScratchDirs::new();
    let copy = dirs.path().join("copy");
    let prefix = installed.bin().parent().unwrap();
    fs::create_dir(&copy).unwrap();
    let mut command = Command::new("cp");
    let copied = command.args(["-r", "--parents"]).args([prefix, &share, &copy]).status().unwrap();
    assert!(copied.success());
    let bin = copy.join("usr/lib").join(below_lib);
    succeeds(&dirs, &[("SANDBOXED_DB_POSTGRES", &bin)], &[]);
}

#[test]
fn a_server_program_that_hangs_is_an_error() {
    if !is_exhaustive("waits for ten seconds") {
        return;
    }
    let dirs = ScratchDirs::new();
    let bin = with_server(&dirs, "#!/bin/sh\nexec sleep 1000\n");
    let report = report(&dirs, &[("SANDBOXED_DB_POSTGRES", &bin)], &[]);
    assert_says(&report, &["could not use ", "`--version` did not end within 10s", "hint: "]);
}

#[test]
fn a_report_has_the_end_of_a_long_output() {
    let dirs = ScratchDirs::new();
    let directory = dirs.path().join("migrations");
    fs::create_dir(&directory).unwrap();
    let much = "do $$ begin for i in 1..400 loop raise notice '%', repeat('x', 10000); end loop; end $$;\n";
    fs::write(directory.join("1.sql"), format!("{much}select 1/0;\n")).unwrap();
    let report = report(&dirs, &[], &["--migrations", directory.to_str().unwrap()]);
    assert_says(&report, &["migrations/1.sql:2`", "division by zero"]);
}

#[test]
fn a_child_of_a_server_program_is_not_waited_for() {
    let dirs = ScratchDirs::new();
    let bin =
        with_server(&dirs, "#!/bin/sh\nsleep 100 &\necho $! > \"${0%/*}/left\"\necho postgres 9.6.24\n");
    let mut command = dirs.command(SUBJECT);
    let begin = Instant::now();
    let output = command.arg("return").env("SANDBOXED_DB_POSTGRES", &bin).output().unwrap();
    let left = fs::read_to_string(bin.join("left")).unwrap();
    assert!(Command::new("kill").arg(left.trim()).status().unwrap().success(), "it has been waited for");
    let report = String::from_utf8_lossy(&output.stderr);
    assert_says(&report, &["could not use PostgreSQL 9.6.24", "hint: versions 13 to 18 are supported"]);
    assert!(begin.elapsed() < AT_ONCE);
}

#[test]
fn a_missing_version_is_reported_with_the_installed_ones() {
    let error = Snapshot::new(Postgres::new().version("9")).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInstalled);
    let report = format!("{error:?}");
    let version = real().version().split(' ').nth(2).unwrap().to_owned();
    assert_says(&report, &["could not find PostgreSQL 9\n", "; found: ", &version]);
    assert_says(&report, &["hint: install it, or set SANDBOXED_DB_POSTGRES to the directory"]);
    let list = report.split("; found: ").nth(1).unwrap();
    let mut versions: Vec<_> = list.split(", ").collect();
    let count = versions.len();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(count, versions.len(), "one version is listed twice: {report}");
}

#[test]
fn a_missing_program_beside_the_server_is_named() {
    let dirs = ScratchDirs::new();
    let bin = with_server(&dirs, &server_that_may("exit 3"));
    fs::remove_file(bin.join("initdb")).unwrap();
    let report = report(&dirs, &[("SANDBOXED_DB_POSTGRES", &bin)], &[]);
    assert_says(&report, &["initdb", "No such file or directory", "hint: "]);
}

/// SQL files that fail: their content, the line at fault, and parts of the report.
const FAILING: [(&str, &str, &str, &[&str]); 9] = [
    (
        "a syntax error",
        "create table a (x int);\n\ncreate tabel b (x int);\n",
        ":3`",
        &["syntax error at or near \"tabel\"", "create tabel b (x int);"],
    ),
    (
        "a type that does not exist, in the third line of its statement",
        "select 1;\ncreate table b (\n  x int,\n  y nosuchtype\n);\n",
        ":4`",
        &["type \"nosuchtype\" does not exist", "create table b ("],
    ),
    (
        "a row that breaks a rule",
        "create table a (x int check (x > 0));\ninsert into a values (1);\ninsert into a values (-1);\n",
        ":3`",
        &["violates check constraint", "insert into a values (-1)", "Failing row contains (-1)"],
    ),
    (
        "a run-time error within a block",
        "do $$\nbegin\n  perform 1 / 0;\nend\n$$;\n",
        ":1`",
        &["division by zero", "perform 1 / 0"],
    ),
    (
        // psql counts lines to the end of the data, the server from their beginning.
        "wrong data after a copy",
        "create table a (x int);\ncopy a from stdin;\n1\nnot a number\n3\n\\.\nselect 1;\n",
        ":6`",
        &["invalid input syntax for type integer", "line 2", "not a number", "copy a from stdin"],
    ),
    (
        "a transaction that is not ended",
        "begin;\ncreate table a (x int);\n",
        ".sql`",
        &["the file ends inside a transaction", "hint: end it with `commit;`"],
    ),
    (
        "a command that psql does not know",
        "select 1;\n\\nosuchcommand\n",
        ":2`",
        &["invalid command \\nosuchcommand"],
    ),
    (
        "an included file that is missing",
        "select 1;\n\\ir missing.sql\n",
        ":2`",
        &["missing.sql", "No such file or directory"],
    ),
    (
        "a connection that is ended",
        "select 1;\nselect pg_terminate_backend(pg_backend_pid());\n",
        ":2`",
        &["terminating connection due to administrator command"],
    ),
];

#[test]
fn a_failed_migration_is_reported_with_its_line_and_statement() {
    let dirs = dirs_with_base();
    for (index, (what, sql, line, parts)) in FAILING.into_iter().enumerate() {
        let directory = dirs.path().join(format!("migrations {index}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("0001_good.sql"), "create table good (x int);\n").unwrap();
        fs::write(directory.join("0002_bad.sql"), sql).unwrap();
        fs::write(directory.join("0003_never.sql"), "create table never (x int);\n").unwrap();
        let report = report(&dirs, &[], &["--migrations", directory.to_str().unwrap()]);
        let file = fs::canonicalize(directory.join("0002_bad.sql")).unwrap();
        let beginning = format!("could not run `{}", file.display());
        assert!(
            report.starts_with(&beginning)
                && report.lines().next().unwrap().ends_with(line.trim_start_matches(".sql")),
            "{what}: {report}"
        );
        assert_says(&report, parts);
        assert!(!report.contains("server log"), "the log adds nothing: {report}");
    }
    // Fixing the file is enough.
    let directory = dirs.path().join("migrations 0");
    fs::write(directory.join("0002_bad.sql"), "create table b (x int);\n").unwrap();
    succeeds(&dirs, &[], &["--migrations", directory.to_str().unwrap()]);
}

#[test]
fn an_error_in_a_long_file_is_reported_shortly() {
    let directory = tempfile::tempdir().unwrap();
    let mut sql = "insert into pg_temp.t values (1);\n".repeat(5000);
    sql.insert_str(0, "create temp table t (x int);\n");
    let long = format!("insert into pg_temp.t values {}('x');\n", "\n(1),".repeat(5000));
    sql.push_str(&long);
    sql.push_str(&"insert into pg_temp.t values (1);\n".repeat(5000));
    let file = directory.path().join("long.sql");
    fs::write(&file, sql).unwrap();
    let error = fresh().seed(&file).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let report = format!("{error:?}");
    // The server counts within the statement: it begins at line 5002, and line 5001 of it is wrong.
    assert_says(&report, &["long.sql:10002`", "invalid input syntax for type integer: \"x\""]);
    assert!(report.lines().count() < 50, "{report}");
}

#[test]
fn an_error_in_an_included_file_names_that_file() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("parts")).unwrap();
    let inner = directory.path().join("parts/inner.sql");
    fs::write(&inner, "select 1;\nselect nosuchcolumn;\n").unwrap();
    let outer = directory.path().join("outer.sql");
    fs::write(&outer, "\\ir parts/inner.sql\n").unwrap();
    let error = fresh().seed(&outer).start().unwrap_err();
    let report = format!("{error:?}");
    assert_says(&report, &["inner.sql:2`", "column \"nosuchcolumn\" does not exist"]);
}

#[rstest]
#[case::migrations_directory("--migrations", "nowhere", &["could not read `", "nowhere`", "No such file"])]
#[case::seed("--seed", "nowhere.sql", &["could not read `", "nowhere.sql`", "No such file"])]
fn a_missing_file_is_reported_with_its_path(
    #[case] option: &str,
    #[case] path: &str,
    #[case] parts: &[&str],
) {
    let dirs = ScratchDirs::new();
    let report = report(&dirs, &[], &[option, path]);
    assert_says(&report, parts);
    assert_says(&report, &[&format!("hint: `{path}` is relative to `"), "the package of `tests/subject.rs`"]);
    assert!(!dirs.cache().join("layers").exists(), "something was built first");
}

#[rstest]
#[case::unknown("no_such_setting", "1", ErrorKind::Exited, &["unrecognized configuration parameter \"no_such_setting\""])]
#[case::of_a_bad_value("work_mem", "plenty", ErrorKind::Exited, &["invalid value for parameter \"work_mem\": \"plenty\""])]
#[case::refused("port", "5433", ErrorKind::InvalidConfig, &["setting `port`", "the sandbox is reached by this setting"])]
#[case::refused_however_written("Data_Directory", "/", ErrorKind::InvalidConfig, &["setting `Data_Directory`"])]
fn a_setting_is_an_error(
    #[case] name: &str,
    #[case] value: &str,
    #[case] kind: ErrorKind,
    #[case] parts: &[&str],
) {
    let error = fresh().setting(name, value).start().unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    let report = format!("{error:?}");
    assert_says(&report, parts);
    assert_says(&report, &["hint: ", name]);
}

#[test]
fn limits_of_zero_are_errors() {
    for (snapshot, name) in [
        (fresh().start_timeout(Duration::ZERO), "start_timeout"),
        (fresh().build_timeout(Duration::ZERO), "build_timeout"),
        (fresh().disk(0), "disk"),
        (fresh().memory(31 << 20), "memory"),
        (fresh().pids(15), "pids"),
        (fresh().cpu(0.0), "cpu"),
        (fresh().cpu(f64::NAN), "cpu"),
    ] {
        let error = snapshot.start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_says(&format!("{error:?}"), &[&format!("could not set `{name}`"), "hint: it "]);
    }
}

#[test]
fn a_server_that_is_never_ready_is_an_error() {
    let dirs = ScratchDirs::new();
    let bin = with_server(&dirs, &server_that_may("echo still thinking >&2; exec sleep 1000"));
    let server: &[(&str, &Path)] = &[("SANDBOXED_DB_POSTGRES", &bin)];
    // Without the misbehaviour, for the layer.
    succeeds(&dirs, server, &[]);
    // On a busy machine the server may not even begin in the shorter time.
    let shows_the_log = [("700", "700ms"), ("20000", "20s")].into_iter().any(|(limit, shown)| {
        let limits = ["--start-timeout-ms", limit, "--setting", "test.misbehave=1"];
        let report = report(&dirs, server, &limits);
        let failed = format!("could not start the server within {shown}");
        assert_says(&report, &[&failed, "hint: raise `start_timeout`"]);
        report.contains("| still thinking")
    });
    assert!(shows_the_log);
}

#[test]
fn a_server_that_dies_at_its_start_is_reported_with_its_log() {
    let dirs = ScratchDirs::new();
    let bin = with_server(&dirs, &server_that_may("echo FATAL: out of luck >&2; exit 3"));
    // Before the layer is built, and after.
    let server: &[(&str, &Path)] = &[("SANDBOXED_DB_POSTGRES", &bin)];
    for round in ["building", "starting"] {
        let report = report(&dirs, server, &["--setting", "test.misbehave=1"]);
        assert_says(
            &report,
            &["could not start the server: it ended with exit status 3", "| FATAL: out of luck"],
        );
        assert_says(&report, &["hint: check the name and the value of the setting `test.misbehave`"]);
        if round == "building" {
            succeeds(&dirs, server, &[]);
        }
    }
}

#[rstest]
#[case(64 << 10)]
#[case(512 << 10)]
#[case(4 << 20)]
fn a_disk_is_refused_or_large_enough_for_a_query(#[case] bytes: u64) {
    match fresh().disk(bytes).start() {
        Ok(sandbox) => connect(sandbox.url()).batch_execute("select 1").unwrap(),
        Err(error) => assert_says(&format!("{error:?}"), &["hint: ", "`disk`"]),
    }
}

#[test]
fn a_full_disk_at_the_start_is_reported() {
    let dirs = ScratchDirs::new();
    let bin = with_server(&dirs, &server_that_may("cat /dev/zero > $PGDATA/big 2> /dev/null"));
    let server: &[(&str, &Path)] = &[("SANDBOXED_DB_POSTGRES", &bin)];
    succeeds(&dirs, server, &[]);
    let full = ["--disk", "16777216", "--setting", "test.misbehave=1"];
    let report = report(&dirs, server, &full);
    assert_says(&report, &["could not start the server: it ended with", "No space left on device"]);
    assert_says(&report, &["hint: the sandbox's disk of 16 MB is full: raise `disk`"]);
}
