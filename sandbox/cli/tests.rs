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

fn report(args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("report").args(args).env_remove("SANDBOXED_DB_REPORT").output().unwrap()
}

/// A sandbox that was started and ended within a tenth of a second; `test` is of JSON.
fn line(number: u64, test: &str, outcome: &str) -> String {
    let asked = 1_700_000_000_000_000 + number * 10_000;
    format!(
        r#"{{"version":1,"id":"{number}","run":"r","test":"{test}","thread":null,"package":"shop","program":"orders",
        "process":{number},"pid":7,"engine":"postgres","engine_version":"postgres (PostgreSQL) 15.18","layer":"ab",
        "layer_built":false,"asked_at_us":{asked},"layer_at_us":{},"admitted_at_us":{},"executed_at_us":{},
        "ready_at_us":{},"connected_at_us":null,"ended_at_us":{},"gone_at_us":{},"outcome":"{outcome}","error":null,
        "disk_bytes":4096,"memory_peak_bytes":null}}"#,
        asked + 400,
        asked + 500,
        asked + 3_000,
        asked + 30_000,
        asked + 90_000,
        asked + 93_000
    )
    .replace('\n', "")
        + "\n"
}

#[test]
fn a_run_is_told_of_in_figures_and_tables() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("run.jsonl");
    let text_of_file = line(1, "a::sells", "passed") + "{\"cut\":" + "\n" + &line(2, "a::buys", "failed");
    std::fs::write(&file, text_of_file).unwrap();
    let file = file.to_str().unwrap();
    let output = report(&[file]);
    assert!(output.status.success(), "{output:?}");
    let told = text(&output.stdout);
    for expected in [
        "2 sandboxes in 103 ms, 1 failed",
        "postgres 15.18 · 2 processes",
        "a::buys",
        "left out: 1 line that was no record",
    ] {
        assert!(told.contains(expected), "{expected} is not in\n{told}");
    }
    let json: serde_json::Value = serde_json::from_slice(&report(&["--json", file]).stdout).unwrap();
    assert_eq!(
        (&json["failed"], &json["skipped_lines"], &json["start"]["median_us"]),
        (&1.into(), &1.into(), &30_000.into())
    );
    assert_eq!(json["records"][1]["test"], "a::buys");
}

#[test]
fn what_a_run_is_called_cannot_break_a_picture() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    // As JSON has it: quotation marks, a control character, an end of comments and of CSS.
    let hostile = r#"<script>alert(1)</script> & \"a' \u0000 --> ]]> </style>"#;
    std::fs::write(at("run.jsonl"), line(1, hostile, "failed") + &line(2, hostile, "passed")).unwrap();
    let output = report(&[&at("run.jsonl"), "--html", &at("run.html"), "--svg", &at("run.svg")]);
    assert!(output.status.success(), "{output:?}");
    let (html, svg) = ["run.html", "run.svg"].map(|name| std::fs::read_to_string(at(name)).unwrap()).into();
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;alert(1)"), "{html}");
    assert_eq!(html.matches("</style>").count(), html.matches("<style>").count());
    let parsed = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{error}: {svg}"));
    let told =
        parsed.descendants().filter(|node| node.has_tag_name("title")).filter_map(|title| title.text());
    assert!(
        told.into_iter().any(|title| title.contains("<script>alert(1)</script> & \"a' \u{fffd} -->")),
        "{svg}"
    );
    assert!(!output.stdout.contains(&0), "{output:?}");
}

#[test]
fn only_the_latest_run_of_a_file_is_told_of_unless_all_are_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("run.jsonl");
    let earlier = line(1, "a", "failed").replace("\"run\":\"r\"", "\"run\":\"earlier\"");
    std::fs::write(&file, earlier + &line(100, "b", "passed")).unwrap();
    let file = file.to_str().unwrap();
    let told = report(&[file]);
    assert!(
        text(&told.stdout).starts_with("1 sandbox in")
            && text(&told.stdout).contains("1 earlier run in the file"),
        "{told:?}"
    );
    assert!(text(&report(&[file, "--all"]).stdout).starts_with("2 sandboxes in"));
}

#[test]
fn a_file_that_tells_of_nothing_is_said_to() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("run.jsonl");
    let missing = report(&[file.to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(2));
    let told = text(&missing.stderr);
    assert!(told.contains("could not read") && told.contains("hint: have the tests write it"), "{told}");
    for contents in ["", "no record\n"] {
        std::fs::write(&file, contents).unwrap();
        let empty = report(&[file.to_str().unwrap()]);
        assert_eq!(empty.status.code(), Some(2));
        assert!(text(&empty.stderr).contains("tells of no sandbox"), "{empty:?}");
    }
    let unnamed = report(&[]);
    assert!(text(&unnamed.stderr).contains("SANDBOXED_DB_REPORT=run.jsonl"), "{unnamed:?}");
}

#[test]
fn the_program_itself_tells_of_its_sandboxes() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("run.jsonl");
    let run =
        Command::new(PROGRAM).args(["run", "--", "true"]).env("SANDBOXED_DB_REPORT", &file).status().unwrap();
    assert!(run.success());
    let told = Command::new(PROGRAM).arg("report").env("SANDBOXED_DB_REPORT", &file).output().unwrap();
    assert!(text(&told.stdout).starts_with("1 sandbox in"), "{told:?}");
}
