//! Tests of the form of the output: JSON, colours, completions, manual pages, help.

use std::process::{Command, Stdio};

use sandboxed_db::Snapshot;
use serde_json::Value;

use super::kept::KeptData;
use super::{PROGRAM, program, text};

#[test]
fn commands_print_json_or_refuse_the_option() {
    for arguments in [&["doctor"][..], &["layers"], &["open"], &["verify"], &["prune", "--size", "1000GiB"]] {
        let output = program(&[arguments, &["--json"]].concat());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert!(json.is_object() || json.is_array(), "{json}");
    }
    for arguments in [&["run"][..], &["serve"], &["completions", "bash"], &["man"]] {
        let output = program(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains("unexpected argument '--json'"), "{output:?}");
    }
}

#[test]
fn kept_data_in_json_has_no_internals() {
    let snapshot = Snapshot::new(sandboxed_db::Postgres::new()).setting("work_mem", "5MB");
    let _kept = KeptData::new("output::in json", snapshot, "select 1");
    let list: Value = serde_json::from_slice(&program(&["open", "--json"]).stdout).unwrap();
    let states = list.as_array().unwrap();
    let state = states.iter().find(|state| state["name"] == "output::in json").unwrap();
    assert!(state["format"].is_null(), "{state}");
    assert_eq!(state["settings"]["work_mem"], "5MB", "{state}");
    let kept = state["kept"].as_str().unwrap();
    assert!(kept.starts_with("20") && kept.contains('T') && kept.ends_with('Z'), "{kept}");
}

#[test]
fn colours_are_for_terminals_unless_the_environment_decides() {
    for (variable, coloured) in [(None, false), (Some("CLICOLOR_FORCE"), true), (Some("NO_COLOR"), false)] {
        let mut command = Command::new(PROGRAM);
        command.env_remove("CLICOLOR_FORCE").env_remove("NO_COLOR");
        command.envs(variable.map(|name| (name, "1")));
        let output = command.args(["open", "no such test"]).output().unwrap();
        assert_eq!(output.stderr.contains(&0x1b), coloured, "{variable:?}: {output:?}");
    }
}

#[test]
fn completions_are_scripts_that_know_the_options() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = program(&["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("depends-on"), "{shell}");
    }
    let unknown = program(&["completions", "csh"]);
    assert!(text(&unknown.stderr).contains("[possible values: bash, elvish, fish"), "{unknown:?}");
    // A shell reads its script without an error.
    let script = program(&["completions", "bash"]).stdout;
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut bash.stdin.take().unwrap(), &script).unwrap();
    assert!(bash.wait().unwrap().success());
}

#[test]
fn manual_pages_describe_the_program_and_its_commands() {
    let page = program(&["man"]);
    assert!(text(&page.stdout).contains(".TH sandboxed-db 1"), "{page:?}");
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("man1");
    let written = program(&["man", "--directory", directory.to_str().unwrap()]);
    assert!(written.status.success(), "{written:?}");
    let run = std::fs::read_to_string(directory.join("sandboxed-db-run.1")).unwrap();
    assert!(run.contains("prepare"), "{run}");
}

#[test]
fn short_help_is_shorter_than_long_help() {
    for command in [&[][..], &["run"]] {
        let lines = |option| text(&program(&[command, &[option]].concat()).stdout).lines().count();
        assert!(lines("-h") < lines("--help"), "{command:?}");
    }
}
