//! nextest kills a hanging test with everything that it has started, and reports no leak.

use std::fs;
use std::path::Path;
use std::process::Command;

use rstest::rstest;
use sandboxed_db_tests::{TestProcess, is_exhaustive, skip, skip_without_root};

use crate::lifecycle::SUBJECT;
use crate::requests::dirs_with_base;

/// A test program that executes `subject` as its only test.
const TEST: &str = r#"
    fn main() {
        use std::os::unix::process::CommandExt;
        let mut args = std::env::args().skip(1);
        if args.any(|arg| arg == "--list") {
            if !std::env::args().any(|arg| arg == "--ignored") {
                println!("it: test");
            }
            return;
        }
        let order = std::env::var("SUBJECT_ARGUMENTS").unwrap();
        panic!("{}", std::process::Command::new(env!("SUBJECT")).args(order.split(' ')).exec());
    }
"#;

const MANIFEST: &str = r#"
    [package]
    name = "hanging"
    version = "0.0.0"
    edition = "2021"
    [lib]
    path = "lib.rs"
    [[test]]
    name = "hanging"
    path = "test.rs"
    harness = false
    [workspace]
"#;

fn nextest(directory: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("nextest").current_dir(directory);
    // nextest and cargo, which may run this test, set variables for this package.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("NEXTEST") || text.starts_with("CARGO_") && text != "CARGO_HOME" {
            command.env_remove(&name);
        }
    }
    command
}

fn is_there() -> bool {
    let version = nextest(Path::new("/")).arg("--version").output();
    let there = version.is_ok_and(|output| output.status.success());
    if !there && !rustix::process::geteuid().is_root() {
        skip_without_root("runs cargo-nextest");
    } else if !there {
        skip("cargo-nextest is not installed");
    }
    there
}

#[rstest]
#[case::a_test_that_hangs_is_killed("--sandboxes 4 --threads 2 sleep", "0s", "TIMEOUT")]
#[case::a_test_that_hangs_is_terminated("--sandboxes 4 --threads 2 sleep", "10s", "TIMEOUT")]
#[case::a_test_that_hangs_amid_starts_is_killed("--threads 8 churn", "0s", "TIMEOUT")]
#[case::a_test_that_passes("--sandboxes 4 --threads 2 return", "0s", "PASS")]
#[case::a_test_that_exits_without_dropping("--sandboxes 4 --threads 2 exit", "0s", "FAIL")]
#[case::a_test_that_aborts("--sandboxes 4 --threads 2 abort", "0s", "SIGABRT")]
fn leaves_nothing_under_nextest(#[case] order: &str, #[case] grace: &str, #[case] outcome: &str) {
    let is_basic = grace == "0s" && ["TIMEOUT", "PASS"].contains(&outcome);
    if !is_there() || !is_basic && !is_exhaustive("compiles a package") {
        return;
    }
    let dirs = dirs_with_base();
    let package = dirs.path().join("package");
    fs::create_dir_all(package.join(".config")).unwrap();
    // The test that passes must not time out on a slow machine.
    let period = if outcome == "TIMEOUT" { "2s" } else { "100s" };
    let config = format!(
        "[profile.default]\n\
         slow-timeout = {{ period = \"{period}\", terminate-after = 1, grace-period = \"{grace}\" }}\n\
         leak-timeout = \"1s\"\nstatus-level = \"all\"\nfinal-status-level = \"all\"\nsuccess-output = \"immediate\"\n"
    );
    for (name, text) in
        [("Cargo.toml", MANIFEST), ("lib.rs", ""), ("test.rs", TEST), (".config/nextest.toml", &config)]
    {
        fs::write(package.join(name), text).unwrap();
    }

    let nextest = nextest(&package);
    let directories = dirs.command(nextest.get_program());
    let mut command = dirs.command(SUBJECT);
    command.args(["keep", "--program", "sh", "-c", "exec \"$0\" \"$@\" 2>&1"]);
    command.arg(nextest.get_program()).args(nextest.get_args());
    command.args(["run", "--offline", "--color", "never"]);
    for (name, value) in nextest.get_envs().chain(directories.get_envs()) {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // Toolchains are in the home directory.
    for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
        .current_dir(&package)
        .env("CARGO_TARGET_DIR", package.join("target"))
        .env("SUBJECT", SUBJECT)
        .env("SUBJECT_ARGUMENTS", order);
    let (ended, lines) = TestProcess::start(&mut command).gone();
    let text = lines.join("\n");
    assert_eq!(ended, if outcome == "PASS" { "code 0" } else { "code 100" }, "{text}");
    let line = text.lines().find(|line| line.contains("hanging::hanging it") && line.contains(outcome));
    assert!(line.is_some(), "no {outcome} in\n{text}");
    assert!(text.contains("started "), "no sandbox was started:\n{text}");
    assert!(!text.to_lowercase().contains("leak"), "{text}");
    dirs.assert_nothing_left();
}
