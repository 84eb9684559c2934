//! Environment variables: a value that cannot be used is an error with the accepted values.

use rstest::rstest;
use sandboxed_db_tests::{ScratchDirs, assert_says};

use crate::lifecycle::SUBJECT;

const NUMBER: &str = "a whole number from";

#[rstest]
#[case::cache("SANDBOXED_DB_CACHE", &["/etc/passwd", "/etc/passwd/cache"], "a directory, which need not exist")]
#[case::isolation("SANDBOXED_DB_ISOLATION", &["none", "PROCESS"], "`container` or `process`")]
#[case::keep("SANDBOXED_DB_KEEP", &["yes"], "`never`, `on_failure` or `always`")]
#[case::start("SANDBOXED_DB_START", &["no", "1"], "`checkpoint`, `linked` or `exec`")]
#[case::max("SANDBOXED_DB_MAX", &["0", "-1", "many", "1.5"], NUMBER)]
#[case::missing("SANDBOXED_DB_MISSING", &["ignore"], "`fail` or `skip`")]
#[case::only("SANDBOXED_DB_ONLY", &["tests"], "`layers`")]
#[case::pool("SANDBOXED_DB_POOL", &["-1", "many", "1.5"], NUMBER)]
#[case::postgres("SANDBOXED_DB_POSTGRES", &["/no/such/directory", "/etc"], "`packages`, an image such as")]
#[case::push("SANDBOXED_DB_PUSH", &["yes"], "`0` or `1`")]
#[case::rebuild("SANDBOXED_DB_REBUILD", &["true"], "`0` or `1`")]
#[case::report("SANDBOXED_DB_REPORT", &["/no/such/directory/run.jsonl", "/etc"], "a file, which need not exist")]
fn an_unusable_value_is_refused(#[case] name: &str, #[case] values: &[&str], #[case] accepted: &str) {
    let dirs = ScratchDirs::with_shared_cache();
    for value in values {
        let output = dirs.command(SUBJECT).env(name, value).arg("return").output().unwrap();
        let report = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{report}");
        assert!(report.contains(&format!("could not use {name}={value}\n")), "{report}");
        assert!(report.contains(&format!("\n  hint: {name} takes {accepted}")), "{report}");
    }
}

/// Returns what a start with these variables reports.
fn refused(variables: &[(&str, &str)]) -> String {
    let dirs = ScratchDirs::with_shared_cache();
    let output = dirs.command(SUBJECT).envs(variables.iter().copied()).arg("return").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_server_started_by_hand_starts_where_only_layers_are() {
    let dirs = ScratchDirs::with_shared_cache();
    let mut subject = dirs.command(SUBJECT);
    let output = subject.env("SANDBOXED_DB_ONLY", "layers").arg("return").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_says(&String::from_utf8_lossy(&output.stdout), &["started "]);
}

#[test]
#[cfg(not(feature = "images"))]
fn a_registry_without_its_feature_is_refused_with_the_fix() {
    for variables in [("SANDBOXED_DB_REGISTRY", "ghcr.io/team/layers"), ("SANDBOXED_DB_PUSH", "1")] {
        let report = refused(&[variables]);
        let cause = "cause: sandboxed-db is built without its feature `registries`";
        assert_says(&report, &[cause, "--features registries`, or unset the variable"]);
    }
}

#[test]
#[cfg(feature = "images")]
fn a_registry_is_a_repository_without_a_tag() {
    for value in ["ghcr.io/team/layers:1", "oci:layers", "http://ghcr.io/team/layers", "Team/layers"] {
        let report = refused(&[("SANDBOXED_DB_REGISTRY", value)]);
        let hint = "hint: SANDBOXED_DB_REGISTRY takes a repository, such as `ghcr.io/team/test-layers`";
        assert_says(&report, &[&format!("could not use SANDBOXED_DB_REGISTRY={value}\n"), "cause: ", hint]);
    }
    let report = refused(&[("SANDBOXED_DB_REGISTRY_KEY", "/etc/passwd")]);
    assert_says(&report, &["cause: it is no public key of ECDSA on P-256", "takes a file with a public key"]);
    let report = refused(&[("SANDBOXED_DB_PUSH", "1")]);
    assert_says(
        &report,
        &["cause: SANDBOXED_DB_REGISTRY is not set", "hint: set SANDBOXED_DB_REGISTRY to a"],
    );
}

#[rstest]
fn an_empty_variable_counts_as_unset(
    #[values("ISOLATION", "KEEP", "MAX", "MISSING", "POOL", "POSTGRES", "REBUILD", "REPORT")] name: &str,
) {
    let dirs = ScratchDirs::with_shared_cache();
    let output =
        dirs.command(SUBJECT).env(format!("SANDBOXED_DB_{name}"), "").arg("return").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
