//! Tests of `sandboxed-db report`.

use std::process::{Command, Output};

use super::{PROGRAM, text};

fn report(args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("report").args(args).env_remove("SANDBOXED_DB_REPORT").output().unwrap()
}

/// Returns the record of a sandbox that lived for 93 ms; `test` is the content of a JSON string.
fn line(number: u64, test: &str, outcome: &str) -> String {
    let failure = if outcome == "failed" { "\"assertion failed: 1 < 0\"" } else { "null" };
    let asked = 1_700_000_000_000_000 + number * 10_000;
    let reopen = if outcome == "failed" { "\"sandboxed-db open a\"" } else { "null" };
    format!(
        r#"{{"version":1,"id":"{number}","run":"r","command":"cargo test","reopen":{reopen},"test":"{test}","thread":null,"package":"shop","program":"orders",
        "process":{number},"pid":7,"engine":"postgres","engine_version":"postgres (PostgreSQL) 15.18","layer":"ab",
        "layer_built":false,"asked_at_us":{asked},"layer_at_us":{},"admitted_at_us":{},"executed_at_us":{},
        "ready_at_us":{},"connected_at_us":null,"ended_at_us":{},"gone_at_us":{},"outcome":"{outcome}","error":null,"failure":{failure},
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
fn a_report_has_figures_and_tables() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("run.jsonl");
    let text_of_file = line(1, "a::sells", "passed") + "{\"cut\":" + "\n" + &line(2, "a::buys", "failed");
    std::fs::write(&file, text_of_file).unwrap();
    let file = file.to_str().unwrap();
    let output = report(&[file]);
    assert!(output.status.success(), "{output:?}");
    let shown = text(&output.stdout);
    for expected in [
        "2 sandboxes in 103 ms, 1 failed",
        "2023-11-14 22:13:20 UTC · cargo test",
        "postgres 15.18 · 2 processes",
        "a::buys  sandboxed-db open a  assertion failed: 1 < 0",
        "left out: 1 line that is not a record",
    ] {
        assert!(shown.contains(expected), "{expected} is not in\n{shown}");
    }
    let json: serde_json::Value = serde_json::from_slice(&report(&["--json", file]).stdout).unwrap();
    assert_eq!(
        (&json["failed"], &json["skipped_lines"], &json["start"]["median_us"]),
        (&1.into(), &1.into(), &30_000.into())
    );
    assert_eq!(json["records"][1]["test"], "a::buys");
}

#[test]
fn names_and_messages_cannot_break_a_picture() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    // A JSON string with quotation marks, a control character, the end of a comment and of CSS.
    let hostile = r#"<script>alert(1)</script> & \"a' \u0000 --> ]]> </style>"#;
    std::fs::write(at("run.jsonl"), line(1, hostile, "failed") + &line(2, hostile, "passed")).unwrap();
    let output = report(&[&at("run.jsonl"), "--html", &at("run.html"), "--svg", &at("run.svg")]);
    assert!(output.status.success(), "{output:?}");
    let (html, svg) = ["run.html", "run.svg"].map(|name| std::fs::read_to_string(at(name)).unwrap()).into();
    assert!(html.matches("<script").count() == 1 && html.contains("&lt;script&gt;alert(1)"), "{html}");
    assert_eq!(html.matches("</style>").count(), html.matches("<style>").count());
    let parsed = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{error}: {svg}"));
    let shown =
        parsed.descendants().filter(|node| node.has_tag_name("title")).filter_map(|title| title.text());
    assert!(
        shown.into_iter().any(|title| title.contains("<script>alert(1)</script> & \"a' \u{fffd} -->")),
        "{svg}"
    );
    assert!(!output.stdout.contains(&0), "{output:?}");
}

#[test]
fn a_trace_has_a_span_for_each_sandbox_and_phase() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("run.jsonl"), line(1, "sells", "passed") + &line(2, "buys", "failed")).unwrap();
    assert!(report(&[&at("run.jsonl"), "--trace", &at("run.json")]).status.success());
    let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(at("run.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let spans = |category: &str| {
        events.iter().filter(|event| event["ph"] == "X" && event["cat"] == category).collect::<Vec<_>>()
    };
    let sandboxes = spans("sandbox");
    let [sells, buys] = sandboxes[..] else { panic!("{events:?}") };
    assert_eq!((&sells["name"], &sells["ts"], &sells["dur"]), (&"sells".into(), &0.into(), &93_000.into()));
    assert_eq!((&buys["ts"], &buys["args"]["outcome"]), (&10_000.into(), &"failed".into()));
    assert_eq!(buys["args"]["reopen"], "sandboxed-db open a");
    // Both sandboxes went through all phases but one, and each phase lies within its sandbox.
    let phases = spans("phase");
    assert_eq!(phases.len(), 12);
    for sandbox in [sells, buys] {
        let within: Vec<_> = phases
            .iter()
            .filter(|phase| phase["pid"] == sandbox["pid"] && phase["tid"] == sandbox["tid"])
            .collect();
        let total: u64 = within.iter().map(|phase| phase["dur"].as_u64().unwrap()).sum();
        assert_eq!(
            (within[0]["ts"].as_u64(), Some(total)),
            (sandbox["ts"].as_u64(), sandbox["dur"].as_u64())
        );
    }
    let counters = events.iter().filter(|event| event["ph"] == "C");
    assert_eq!(counters.map(|event| event["args"]["test"].as_u64()).max(), Some(Some(2)));
}

#[test]
fn the_latest_run_of_a_file_is_reported_unless_all_are_wanted() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("run.jsonl");
    let earlier = line(1, "a", "failed").replace("\"run\":\"r\"", "\"run\":\"earlier\"");
    std::fs::write(&file, earlier + &line(100, "b", "passed")).unwrap();
    let file = file.to_str().unwrap();
    let shown = report(&[file]);
    assert!(
        text(&shown.stdout).starts_with("1 sandbox in")
            && text(&shown.stdout).contains("1 earlier run in the file"),
        "{shown:?}"
    );
    assert!(text(&report(&[file, "--all"]).stdout).starts_with("2 sandboxes in"));
}

#[test]
fn the_runs_of_several_machines_are_one_report() {
    let place = tempfile::tempdir().unwrap();
    // Records of two machines may have one id and one process.
    let parts = [("shard-1", line(1, "a", "failed")), ("shard-2", line(1, "b", "passed"))];
    let files = parts.map(|(machine, contents)| {
        let directory = place.path().join(machine);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("run.jsonl"), contents).unwrap();
        directory.join("run.jsonl").display().to_string()
    });
    let [first, second] = files.each_ref();
    let page = place.path().join("run.svg");
    let shown = report(&[first, second, "--svg", page.to_str().unwrap()]);
    let shown = text(&shown.stdout);
    for expected in ["2 sandboxes in 93", "2 machines · 2 processes", "Machines\n", "shard-1", "shard-2"] {
        assert!(shown.contains(expected), "{expected} is not in\n{shown}");
    }
    let picture = std::fs::read_to_string(page).unwrap();
    assert!(picture.contains(">shard-1</text>") && picture.contains(">shard-2</text>"), "{picture}");
    let json: serde_json::Value = serde_json::from_slice(&report(&["--json", first, second]).stdout).unwrap();
    let records = json["records"].as_array().unwrap();
    let machines: Vec<_> = records.iter().map(|record| (&record["machine"], &record["test"])).collect();
    assert_eq!(machines, [(&"shard-1".into(), &"a".into()), (&"shard-2".into(), &"b".into())]);
    assert!(json.get("machine").is_none());
}

#[test]
fn a_file_without_records_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("run.jsonl");
    let missing = report(&[file.to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(2));
    let shown = text(&missing.stderr);
    assert!(shown.contains("could not read") && shown.contains("hint: "), "{shown}");
    for contents in ["", "no record\n"] {
        std::fs::write(&file, contents).unwrap();
        let empty = report(&[file.to_str().unwrap()]);
        assert_eq!(empty.status.code(), Some(2));
        assert!(text(&empty.stderr).contains("holds no record of a sandbox"), "{empty:?}");
    }
    let unnamed = report(&[]);
    assert!(text(&unnamed.stderr).contains("SANDBOXED_DB_REPORT=run.jsonl"), "{unnamed:?}");
}

#[test]
fn run_records_its_sandbox() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("run.jsonl");
    let run =
        Command::new(PROGRAM).args(["run", "--", "true"]).env("SANDBOXED_DB_REPORT", &file).status().unwrap();
    assert!(run.success());
    let shown = Command::new(PROGRAM).arg("report").env("SANDBOXED_DB_REPORT", &file).output().unwrap();
    assert!(text(&shown.stdout).starts_with("1 sandbox in"), "{shown:?}");
}
