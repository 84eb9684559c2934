//! The program as its users run it.

use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sandboxed-db");

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("run").args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap().trim()
}

#[test]
fn a_program_finds_a_server_of_its_own() {
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
fn migrations_and_seeds_are_there() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("migrations");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("1_users.sql"), "create table users (id serial, name text);").unwrap();
    std::fs::write(place.path().join("users.csv"), "name\nAda\n").unwrap();
    let args = ["--migrations", "migrations", "--tool", "sqlx", "--seed", "users.csv", "--", "psql", "-Atc"];
    let query = "select name || (select count(*) from _sqlx_migrations) from users";
    let output = Command::new(PROGRAM)
        .arg("run")
        .args(args)
        .arg(query)
        .current_dir(&place)
        .env_remove("CARGO_MANIFEST_DIR")
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), "Ada1");
}

#[test]
fn it_ends_as_the_program_does() {
    assert_eq!(run(&["--", "sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(run(&["--", "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    let failed = run(&["--", "sh", "-c", "psql -c 'select nonsense'"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("the server's log, its end:"), "{failed:?}");
    let missing = run(&["--", "no-such-program"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("run `no-such-program`"), "{missing:?}");
}

#[test]
fn the_users_own_server_is_not_reached() {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--", "psql", "-Atc", "select current_user"]);
    let output =
        command.env("PGHOSTADDR", "127.0.0.9").env("PGUSER", "me").env("PGSERVICE", "mine").output().unwrap();
    assert_eq!(text(&output.stdout), "postgres", "{output:?}");
}

#[test]
fn a_program_may_end_in_its_own_way_when_it_is_told_to() {
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
    // The server was still there.
    assert_eq!((rest.trim(), child.wait().unwrap().code()), ("42", Some(3)));
}
