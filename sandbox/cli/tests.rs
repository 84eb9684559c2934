//! Tests of the program, run as users run it.

#[path = "tests/guide.rs"]
mod guide;
#[path = "tests/kept.rs"]
mod kept;
#[path = "tests/output.rs"]
mod output;
#[path = "tests/registry.rs"]
mod registry;
#[path = "tests/report.rs"]
mod report;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use sandboxed_db::{Keep, Snapshot};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sandboxed-db");

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("run").args(args).stdin(Stdio::null()).output().unwrap()
}

/// Says why a test is skipped; a failure where all tests must run, as in CI.
fn skip(reason: &str) {
    let must_run = "SANDBOXED_DB_TESTS_MUST_RUN";
    assert!(std::env::var_os(must_run).is_none(), "{must_run} is set, but: {reason}");
    note(&format!("skipped: {reason}"));
}

/// Prints a line that the test runner does not capture.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap().trim()
}

#[test]
fn a_program_finds_its_server() {
    for tcp in [&[][..], &["--tcp"]] {
        for command in ["psql -Atc", "psql \"$DATABASE_URL\" -Atc"] {
            let query = format!("{command} \"select current_setting('work_mem') || current_database()\"");
            let args = [tcp, &["--database", "shop", "--setting", "work_mem=5MB", "--", "sh", "-c", &query]]
                .concat();
            let output = run(&args);
            assert!(output.status.success(), "{output:?}");
            assert_eq!(text(&output.stdout), "5MBshop", "{query}");
        }
    }
}

#[test]
fn tls_encrypts_connections_by_tcp() {
    let query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let command = format!("echo $PGSSLMODE; psql -Atc '{query}'; psql \"$DATABASE_URL\" -Atc '{query}'");
    let output = run(&["--tls", "--", "sh", "-c", &command]);
    assert_eq!(text(&output.stdout), "verify-full\nt\nt", "{output:?}");
}

/// Runs `sandboxed-db run` in a directory of these files.
fn run_in(directory: &Path, args: &[&str], query: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("run").args(args).args(["--", "psql", "-Atc", query]).current_dir(directory);
    // Inherited from cargo; paths are relative to the working directory nevertheless.
    command.env("CARGO_MANIFEST_DIR", "/nonexistent").stdin(Stdio::null()).output().unwrap()
}

fn files(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }
    directory
}

#[test]
fn migrations_and_seeds_prepare_the_database() {
    let directory = files(&[
        ("migrations/1_users.sql", "create table users (id serial, name text);"),
        ("users.csv", "name\nAda\n"),
    ]);
    let args = ["--migrations", "migrations", "--tool", "sqlx", "--seed", "users.csv"];
    let query = "select name || (select count(*) from _sqlx_migrations) from users";
    let output = run_in(directory.path(), &args, query);
    assert_eq!(text(&output.stdout), "Ada1", "{output:?}");
}

#[test]
fn locked_refuses_an_image_that_is_not_recorded() {
    let directory = files(&[("Cargo.lock", ""), ("sandboxed-db.lock", "version = 1\n[images]\n")]);
    let run = |args: &[&str]| {
        let output = Command::new(PROGRAM).args(args).current_dir(directory.path()).output().unwrap();
        (output.status.code(), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
    };
    // Nothing listens there, and nothing is asked.
    let (code, _, error) = run(&["run", "--image", "localhost:1/db:17", "--locked", "--", "true"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("sandboxed-db.lock` does not record it"), "{error}");
    assert!(
        error.contains("hint: record it, and commit the file: `sandboxed-db update localhost:1/db:17`"),
        "{error}"
    );
    let (code, shown, _) = run(&["update"]);
    assert!(code == Some(0) && shown.ends_with("sandboxed-db.lock` records no image"), "{shown}");
    let (code, _, error) = run(&["update", "oci:images"]);
    assert!(code == Some(2) && error.contains("it is no name in a registry"), "{error}");
    let outside = files(&[]);
    let output = Command::new(PROGRAM).arg("update").current_dir(outside.path()).output().unwrap();
    assert!(text(&output.stderr).contains("touch sandboxed-db.lock"), "{output:?}");
}

#[test]
fn steps_run_in_the_order_they_are_written() {
    let directory = files(&[
        (
            "first.sql",
            "create table steps (id serial, name text); insert into steps (name) values ('first');",
        ),
        ("second/1.sql", "insert into steps (name) values ('second');"),
        ("steps.csv", "name\nfourth\n"),
    ]);
    let third = "psql -c \"insert into steps (name) select 'thi' || 'rd'\"";
    let args = ["--seed", "first.sql", "--migrations", "second", "--prepare", third, "--seed", "steps.csv"];
    let query = "select string_agg(name, ' ' order by id) from steps";
    let output = run_in(directory.path(), &args, query);
    assert_eq!(text(&output.stdout), "first second third fourth", "{output:?}");
}

#[test]
fn steps_by_tcp_run_in_their_order() {
    let directory = files(&[("first.sql", "create table steps (id serial, by_tcp bool);")]);
    let insert =
        "psql \"$DATABASE_URL\" -c 'insert into steps (by_tcp) select inet_client_addr() is not null'";
    let args = ["--seed", "first.sql", "--prepare-tcp", insert, "--prepare", insert];
    let query = "select string_agg(by_tcp::text, ' ' order by id) from steps";
    let output = run_in(directory.path(), &args, query);
    assert_eq!(text(&output.stdout), "true false", "{output:?}");
}

/// A server in Perl for any engine: it answers `hello`, and holds a setting in a file.
const DESCRIBED: &str = r#"
name = "perl-server"
program = "perl"
version = false
args = ["{/etc/server.pl}", "{socket}", "{data}"]
socket = "/run/server.sock"
ready = { expect = "hello" }
url = "perl://{socket}"
url_variable = "PERL_URL"
settings = { args = ["{name}={value}"] }
[files]
"/etc/server.pl" = """
use IO::Socket::UNIX; $SIG{TERM} = sub { exit 0 }; $SIG{PIPE} = "IGNORE";
my $s = IO::Socket::UNIX->new(Listen => 9, Local => shift); my $data = shift;
open my $out, ">", "$data/settings"; print $out @ARGV; close $out;
while (1) { my $c = $s->accept or next; print $c "hello @ARGV"; close $c }"""
[seed]
command = ["perl", "-ne", "exit 1 if /bad/"]
"#;

/// Prints what the server at `PERL_URL` says.
const HELLO: &str =
    "use IO::Socket::UNIX; print IO::Socket::UNIX->new(Peer => substr $ENV{PERL_URL}, 7)->getline";

#[test]
fn a_file_describes_the_engine() {
    let directory = files(&[("perl.toml", DESCRIBED), ("seed", "good\n"), ("bad", "bad\n")]);
    let run = |args: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(args).current_dir(directory.path()).stdin(Stdio::null()).output().unwrap()
    };
    let engine = ["run", "--engine", "perl.toml"];
    let output =
        run(&[&engine[..], &["--setting", "a=1", "--seed", "seed", "--", "perl", "-e", HELLO]].concat());
    assert_eq!(text(&output.stdout), "hello a=1", "{output:?}");
    for (args, expected) in [
        (
            ["--migrations", "m"],
            "migrations are SQL, which this engine does not speak; postgres, mariadb, mysql and sqlite do",
        ),
        (["--database", "shop"], "could not set `--database` of `perl-server`"),
        (["--seed", "bad"], "could not run `"),
    ] {
        let output = run(&[&engine[..], &args, &["--", "true"]].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(expected), "{output:?}");
    }
    let output = run(&["layers", "--engine", "perl.toml"]);
    assert!(text(&output.stdout).lines().skip(1).all(|line| line.contains("perl-server")), "{output:?}");
    assert!(text(&output.stdout).lines().count() > 1, "{output:?}");
    let output = run(&["doctor", "--engine", "perl.toml"]);
    assert!(text(&output.stdout).contains("perl-server"), "{output:?}");
    let output = run(&["run", "--engine", "oracle", "--", "true"]);
    assert!(
        text(&output.stderr)
            .contains("expected `postgres`, `mariadb`, `mysql`, `redis`, `sqlite`, or a file of TOML"),
        "{output:?}"
    );
}

#[test]
fn kept_data_of_any_engine_is_opened() {
    let directory = files(&[("perl.toml", DESCRIBED)]);
    let engine = sandboxed_db::engine::Described::from_toml(directory.path().join("perl.toml")).unwrap();
    let snapshot = Snapshot::new(engine).setting("b", 2).keep(Keep::Always);
    drop(snapshot.keep_as("kept_data_of_any_engine_is_opened").start().unwrap());
    // The state has the description.
    drop(directory);
    let open = |args: &[&str]| {
        Command::new(PROGRAM).args(["open", "kept_data_of_any_engine_is_opened"]).args(args).output().unwrap()
    };
    let output = open(&["--", "perl", "-e", HELLO]);
    assert_eq!(text(&output.stdout), "hello b=2", "{output:?}");
    let output = open(&[]);
    assert!(text(&output.stderr).contains("the engine `perl-server` names no client"), "{output:?}");
    let output = open(&["--engine", "redis"]);
    assert!(text(&output.stderr).contains("it is data of `perl-server`"), "{output:?}");
    let output = Command::new(PROGRAM).args(["diff", "kept_data_of_any_engine_is_opened"]).output().unwrap();
    assert!(text(&output.stderr).contains("not perl-server"), "{output:?}");
}

#[test]
fn redis_serves_a_program() {
    use sandboxed_db::Engine as _;
    if sandboxed_db::Redis::new().locate().is_err() {
        return skip("there is no redis-server");
    }
    let directory = files(&[("seed.redis", "SET key seeded\n")]);
    let seed = directory.path().join("seed.redis");
    let seed = seed.to_str().unwrap();
    let command = "redis-cli -s \"${REDIS_URL#unix://}\" GET key";
    let output = run(&["--engine", "redis", "--seed", seed, "--", "sh", "-c", command]);
    assert_eq!(text(&output.stdout), "seeded", "{output:?}");
    let output = Command::new(PROGRAM).args(["doctor", "--engine", "redis"]).output().unwrap();
    assert!(output.status.success() && text(&output.stdout).contains("redis "), "{output:?}");
}

#[test]
fn mariadb_serves_a_program_and_its_data_is_opened() {
    use sandboxed_db::{Engine as _, MariaDb};
    if MariaDb::new().locate().is_err() {
        return skip("there is no mariadbd");
    }
    let directory =
        files(&[("migrations/1_users.sql", "create table users (name text);"), ("users.csv", "name\nAda\n")]);
    let query = "mariadb --no-defaults -u root -S \"$MYSQL_UNIX_PORT\" -N -e 'select name from users' \"$MYSQL_DATABASE\"";
    let mut command = Command::new(PROGRAM);
    command.args([
        "run", "--engine", "mariadb", "--database", "shop", "--migrations", "migrations", "--seed",
        "users.csv",
    ]);
    let output = command.args(["--", "sh", "-c", query]).current_dir(directory.path()).output().unwrap();
    assert_eq!(text(&output.stdout), "Ada", "{output:?}");
    let name = "mariadb_serves_a_program_and_its_data_is_opened";
    let snapshot =
        Snapshot::new(MariaDb::new().database("shop")).relative_to(directory.path()).migrations("migrations");
    drop(snapshot.keep(Keep::Always).keep_as(name).start().unwrap());
    let mut open = Command::new(PROGRAM)
        .args(["open", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut open.stdin.take().unwrap(), b"show tables;\n").unwrap();
    let output = open.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "Tables_in_shop\nusers", "{output:?}");
}

#[test]
fn a_small_stack_is_reported() {
    let script = "ulimit -S -s 100 && exec \"$0\" run -- true";
    let output = Command::new("sh").args(["-c", script, PROGRAM]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("this process may have a stack of 100 KB"), "{output:?}");
}

#[test]
fn a_missing_program_is_not_found_beside_unreadable_directories() {
    if rustix::process::geteuid().is_root() {
        return note("skipped, needs an unprivileged user: root can search every directory");
    }
    let directory = files(&[("closed/file", "")]);
    let closed = directory.path().join("closed");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    let path = format!("{}:{}", closed.display(), std::env::var("PATH").unwrap());
    for args in [["--", "no-such-program"].as_slice(), &["--prepare", "no-such-program", "--", "true"]] {
        let output = Command::new(PROGRAM).arg("run").args(args).env("PATH", &path).output().unwrap();
        assert!(!text(&output.stderr).contains("Permission denied"), "{output:?}");
        assert!(text(&output.stderr).contains("not found") || text(&output.stderr).contains("No such file"));
    }
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_command_runs_again_when_its_input_changes() {
    let directory = files(&[]);
    // The cache may hold layers of earlier runs of this test.
    let unique = directory.path().file_name().unwrap().to_str().unwrap();
    let command = "echo run >> runs; psql -c \"create table input as select '$(cat input)' as value\"";
    // An input counts for the command before it, too.
    for (number, runs, args) in [
        (1, 1, ["--depends-on", "input", "--prepare", command]),
        (1, 1, ["--prepare", command, "--depends-on", "input"]),
        (2, 2, ["--prepare", command, "--depends-on", "input"]),
        (2, 2, ["--run", command, "--depends-on", "input"]),
    ] {
        let input = format!("{unique} {number}");
        std::fs::write(directory.path().join("input"), &input).unwrap();
        let output = run_in(directory.path(), &args, "select value from input");
        assert_eq!(text(&output.stdout), input, "{output:?}");
        let log = std::fs::read_to_string(directory.path().join("runs")).unwrap();
        assert_eq!(log.lines().count(), runs, "{input}");
    }
}

#[test]
fn initdb_takes_arguments() {
    let output = run(&["--initdb-arg=--data-checksums", "--", "psql", "-Atc", "show data_checksums"]);
    assert_eq!(text(&output.stdout), "on", "{output:?}");
}

#[test]
fn hints_name_options_of_the_command_line() {
    let directory = files(&[]);
    let slow = run_in(directory.path(), &["--build-timeout", "300ms", "--prepare", "sleep 60"], "select 1");
    assert_eq!(slow.status.code(), Some(2), "{slow:?}");
    assert!(text(&slow.stderr).contains("hint: raise `--build-timeout`"), "{slow:?}");
    let small = run(&["--disk", "1KiB", "--", "true"]);
    assert!(text(&small.stderr).contains("could not set `--disk`"), "{small:?}");
    let directory = files(&[("all/shop/1.sql", "create table t ();")]);
    let nested = run_in(directory.path(), &["--migrations", "all"], "select 1");
    let message = text(&nested.stderr);
    let expected = format!("as in `--migrations {}`", directory.path().join("all/shop").display());
    assert!(message.ends_with(&expected), "{message}");
}

#[test]
fn a_missing_path_is_reported_with_its_directory() {
    let directory = files(&[]);
    let output = run_in(directory.path(), &["--seed", "none.sql"], "select 1");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let message = text(&output.stderr);
    assert!(message.starts_with("sandboxed-db: could not read `"), "{message}");
    let expected = format!("hint: `none.sql` is relative to `{}`", directory.path().display());
    assert!(message.contains(&expected), "{message}");
    // An option has that name, too.
    let output = run_in(directory.path(), &["--migrations", "migrations"], "select 1");
    let expected = format!("hint: `migrations` is relative to `{}`", directory.path().display());
    assert!(text(&output.stderr).contains(&expected), "{output:?}");
}

#[test]
fn errors_name_the_operation_and_a_fix() {
    for (args, step) in [
        (&["run", "--", "no-such-program"][..], "could not run `no-such-program`"),
        (&["open", "no such test"], "could not "),
        (&["report"], "could not report a run"),
        (&["report", "/nonexistent/run.jsonl"], "could not read `/nonexistent/run.jsonl`"),
    ] {
        let output = Command::new(PROGRAM).args(args).env_remove("SANDBOXED_DB_REPORT").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let message = text(&output.stderr);
        assert!(message.starts_with(&format!("sandboxed-db: {step}")), "{args:?}: {message}");
        assert!(message.contains("\n  hint: "), "{args:?}: {message}");
    }
    let wrong = program(&["run", "--setting", "work_mem", "--", "true"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("expected NAME=VALUE"), "{wrong:?}");
}

#[test]
fn layers_are_listed_with_readable_times() {
    assert!(run(&["--", "true"]).status.success());
    let output = program(&["layers", "--json"]);
    let layers: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let used = layers[0]["last_used"].as_str().unwrap();
    assert!(used.starts_with("20") && used.contains('T') && used.ends_with('Z'), "{used}");
    assert!(text(&program(&["layers"]).stdout).contains("fresh server"));
}

#[test]
fn help_documents_exit_codes() {
    let output = program(&["--help"]);
    assert!(text(&output.stdout).contains("Exit codes:\n  0    success\n  1 "), "{output:?}");
}

#[test]
fn run_exits_as_its_program_does() {
    assert_eq!(run(&["--", "sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(run(&["--", "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    let failed = run(&["--", "sh", "-c", "psql -c 'select nonsense'"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("server log, its end:"), "{failed:?}");
}

#[test]
fn variables_of_another_server_are_removed() {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--", "psql", "-Atc", "select current_user"]);
    let output =
        command.env("PGHOSTADDR", "127.0.0.9").env("PGUSER", "me").env("PGSERVICE", "mine").output().unwrap();
    assert_eq!(text(&output.stdout), "postgres", "{output:?}");
}

#[test]
fn a_program_may_handle_the_stop_signal() {
    let script = "trap 'psql -Atc \"select 42\"; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child =
        Command::new(PROGRAM).args(["run", "--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut output, &mut rest).unwrap();
    // The server was alive while the program handled the signal.
    assert_eq!((rest.trim(), child.wait().unwrap().code()), ("42", Some(3)));
}

fn program(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().unwrap()
}
