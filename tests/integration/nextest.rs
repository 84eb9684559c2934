//! nextest kills a hanging test with everything that it has started, and reports no leak.

use std::fs;
use std::path::Path;
use std::process::Command;

use rstest::rstest;
use sandboxed_db::{MariaDb, MySql, Postgres, Redis, Sqlite};
use sandboxed_db_tests::{
    ScratchDirs, TestProcess, TestedEngine, is_exhaustive, is_missing, skip, skip_without_root,
};

use crate::lifecycle::SUBJECT;
use crate::requests::dirs_with_base;

/// A test program each of whose tests executes `subject`. `SUBJECT_TESTS` has a line for each: its
/// name, and the arguments.
const TEST: &str = r#"
    fn main() {
        use std::os::unix::process::CommandExt;
        let tests = std::env::var("SUBJECT_TESTS").unwrap();
        let tests = tests.lines().map(|line| line.split_once(' ').unwrap());
        let args: Vec<String> = std::env::args().skip(1).collect();
        let has = |wanted: &str| args.iter().any(|arg| arg == wanted);
        if has("--list") {
            tests.filter(|_| !has("--ignored")).for_each(|(name, _)| println!("{name}: test"));
            return;
        }
        let (_, order) = tests.filter(|(name, _)| has(name)).next().unwrap();
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

/// Runs tests by nextest with this configuration. Returns its end and its output.
fn run(dirs: &ScratchDirs, config: &str, tests: &str) -> (String, String) {
    let package = dirs.path().join("package");
    fs::create_dir_all(package.join(".config")).unwrap();
    let config = format!(
        "[profile.default]\nleak-timeout = \"10s\"\nstatus-level = \"all\"\n\
         final-status-level = \"all\"\nsuccess-output = \"immediate\"\n{config}"
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
    command.args(["run", "--offline", "--color", "never", "--no-fail-fast"]);
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
        .env("SUBJECT_TESTS", tests);
    let (ended, lines) = TestProcess::start(&mut command).gone();
    let text = lines.join("\n");
    assert!(text.contains("started "), "no sandbox was started:\n{text}");
    assert!(!text.to_lowercase().contains("leak"), "{text}");
    (ended, text)
}

#[track_caller]
fn assert_outcome(text: &str, test: &str, outcome: &str) {
    let name = format!("hanging::hanging {test}");
    let line = text.lines().find(|line| line.ends_with(&name) && line.contains(outcome));
    assert!(line.is_some(), "no {outcome} of {test} in\n{text}");
}

#[rstest]
#[case::a_test_that_hangs_is_killed("--sandboxes 4 --threads 2 sleep", "0s", "TIMEOUT")]
#[case::a_test_that_hangs_is_terminated("--sandboxes 4 --threads 2 sleep", "10s", "TIMEOUT")]
#[case::a_test_that_hangs_amid_starts_is_killed("--threads 8 churn", "0s", "TIMEOUT")]
#[case::a_test_that_exits_without_dropping("--sandboxes 4 --threads 2 exit", "0s", "FAIL")]
#[case::a_test_that_aborts("--sandboxes 4 --threads 2 abort", "0s", "SIGABRT")]
fn leaves_nothing_under_nextest(#[case] order: &str, #[case] grace: &str, #[case] outcome: &str) {
    if !is_there() || !order.ends_with("churn") && !is_exhaustive("compiles a package") {
        return;
    }
    let dirs = dirs_with_base();
    let config =
        format!("slow-timeout = {{ period = \"2s\", terminate-after = 1, grace-period = \"{grace}\" }}\n");
    let (ended, text) = run(&dirs, &config, &format!("it {order}"));
    assert_eq!(ended, "code 100", "{text}");
    assert_outcome(&text, "it", outcome);
    dirs.assert_nothing_left();
}

/// Tests of an engine: two that pass, of which one drops its sandboxes, and one that hangs.
fn tests<E: TestedEngine>(dirs: &ScratchDirs) -> Option<(String, String)> {
    if is_missing::<E>() {
        return None;
    }
    let name = E::engine().name().to_owned();
    let seed = dirs.path().join(&name).join(E::SEED_NAME);
    fs::create_dir(seed.parent().unwrap()).unwrap();
    fs::write(&seed, E::SEED).unwrap();
    let ends = [("stops", "stop"), ("drops", "return"), ("hangs", "sleep")];
    let test = |(test, end)| {
        let seed = seed.display();
        format!("{name}_{test} --engine {name} --seed {seed} --sandboxes 4 --threads 2 {end}\n")
    };
    Some((name.clone(), ends.map(test).concat()))
}

/// Processes of all engines share a cache, whose layers one of them builds, or is killed amid that.
#[test]
fn tests_of_every_engine_leave_nothing_under_nextest() {
    if !is_there() {
        return;
    }
    let dirs = dirs_with_base();
    let engines = [
        tests::<Postgres>(&dirs),
        tests::<Redis>(&dirs),
        tests::<MariaDb>(&dirs),
        tests::<MySql>(&dirs),
        tests::<Sqlite>(&dirs),
    ];
    let (names, tests): (Vec<_>, Vec<_>) = engines.into_iter().flatten().unzip();
    let config = "test-threads = 6\n[[profile.default.overrides]]\nfilter = 'test(hangs)'\n\
                  slow-timeout = { period = \"2s\", terminate-after = 1, grace-period = \"0s\" }\n";
    let (ended, text) = run(&dirs, config, &tests.concat());
    assert_eq!(ended, "code 100", "{text}");
    for name in names {
        assert_outcome(&text, &format!("{name}_stops"), "PASS");
        assert_outcome(&text, &format!("{name}_drops"), "PASS");
        assert_outcome(&text, &format!("{name}_hangs"), "TIMEOUT");
    }
    dirs.assert_nothing_left();
}
