//! The identity of a test: its run, its program, its name.

use std::env;
use std::iter;
use std::os::unix::process::parent_id;
use std::sync::OnceLock;
use std::thread;

use crate::fix::quoted;
use crate::machine::process::{command_line, identity, parent};

/// The function of a test, with its module as the compiler names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
}

impl Function {
    /// Returns the path as libtest prints it: without the crate's name.
    fn path(self) -> String {
        match self.module.split_once("::") {
            Some((_, module)) => format!("{module}::{}", self.name),
            None => self.name.to_owned(),
        }
    }
}

/// The parts that all sandboxes of a process share.
#[derive(Debug)]
pub(crate) struct TestId {
    pub(crate) run: String,
    pub(crate) command: Option<String>,
    pub(crate) package: Option<String>,
    pub(crate) program: String,
}

pub(crate) fn of_process() -> &'static TestId {
    static ORIGIN: OnceLock<TestId> = OnceLock::new();
    ORIGIN.get_or_init(|| TestId {
        run: shared_run().map_or_else(|| identity(parent_id()), str::to_owned),
        command: command_of_run(),
        package: env::var("CARGO_PKG_NAME").ok(),
        program: env::current_exe()
            .ok()
            .and_then(|program| Some(without_hash(&program.file_name()?.to_string_lossy()).to_owned()))
            .unwrap_or_default(),
    })
}

/// The variables by which test runners name a run.
const RUN_VARIABLES: [&str; 2] = ["NEXTEST_RUN_ID", "PYTEST_XDIST_TESTRUNUID"];

/// How many processes between a test and cargo are searched: runners, shells, nextest.
const GENERATIONS: usize = 8;

/// Returns the command of the closest cargo above this process, else that of this process.
fn command_of_run() -> Option<String> {
    let ancestors = iter::successors(Some(parent_id()), |pid| parent(*pid)).take(GENERATIONS);
    let mut commands = ancestors.filter_map(command_line).map(|words| shown(&words));
    let of_cargo = commands.find(|command| command.starts_with("cargo "));
    of_cargo.or_else(|| Some(shown(&command_line(std::process::id())?)))
}

/// Returns a command as a user writes it: `cargo nextest run` for `/bin/cargo-nextest nextest run`.
fn shown(words: &[String]) -> String {
    let (program, arguments) = words.split_first().expect("a command line has a first word");
    let program = program.rsplit('/').next().unwrap_or_default();
    let is_part_of_cargo = program
        .strip_prefix("cargo-")
        .is_some_and(|part| arguments.first().is_some_and(|first| first == part));
    let program = if is_part_of_cargo { "cargo" } else { without_hash(program) };
    let words = iter::once(program).chain(arguments.iter().map(String::as_str));
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// The run of many processes that this one belongs to: of nextest, or of workers of pytest-xdist.
pub(crate) fn shared_run() -> Option<&'static str> {
    static RUN: OnceLock<Option<String>> = OnceLock::new();
    RUN.get_or_init(|| RUN_VARIABLES.iter().find_map(|name| env::var(name).ok())).as_deref()
}

/// Returns `integration` for cargo's `integration-0123456789abcdef`.
fn without_hash(program: &str) -> &str {
    match program.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => program,
    }
}

/// Returns the program and the test that run on this thread.
pub(crate) fn caller(function: Option<Function>) -> String {
    let program = &of_process().program;
    match of_thread(function).1 {
        Some(test) => format!("{program}::{test}"),
        None => program.clone(),
    }
}

/// Returns the name of this thread, and the path of its test.
pub(crate) fn of_thread(function: Option<Function>) -> (Option<String>, Option<String>) {
    let thread = thread::current().name().map(str::to_owned);
    let (function, nextest) = (function.map(Function::path), env::var("NEXTEST_TEST_NAME").ok());
    let test = test(function.as_deref(), nextest.as_deref(), thread.as_deref()).map(str::to_owned);
    (thread, test)
}

/// Returns the most exact name of a test. nextest gives it in the environment, and libtest in the
/// name of the thread; of several tests that rstest makes of one function only these know which one
/// runs. A process that a test has started inherits nextest's variable, which then names another
/// function.
fn test<'a>(function: Option<&'a str>, nextest: Option<&'a str>, thread: Option<&'a str>) -> Option<&'a str> {
    // Names of the main thread, of this library's threads and of a runtime's.
    let is_test = |name: &&str| !matches!(*name, "main" | "sandboxed-db") && !name.starts_with("tokio-");
    let mut names = [nextest, thread.filter(is_test)].into_iter().flatten();
    let Some(function) = function else { return names.next() };
    let is_of_function = |name: &&str| {
        name.strip_prefix(function).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    names.find(is_of_function).or(Some(function))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_has_no_hash() {
        assert_eq!(without_hash("integration-0123456789abcdef"), "integration");
        assert_eq!(without_hash("sandboxed-db"), "sandboxed-db");
        assert_eq!(without_hash("my-0123456789abcdeg"), "my-0123456789abcdeg");
    }

    #[test]
    fn a_command_is_shown_as_users_write_it() {
        for (words, expected) in [
            (&["/root/.cargo/bin/cargo", "test", "a b"][..], "cargo test 'a b'"),
            (&["/bin/cargo-nextest", "nextest", "run"], "cargo nextest run"),
            (&["/bin/cargo-nextest", "run"], "cargo-nextest run"),
            (&["target/debug/deps/orders-0123456789abcdef"], "orders"),
        ] {
            assert_eq!(shown(&words.iter().map(ToString::to_string).collect::<Vec<_>>()), expected);
        }
    }

    #[test]
    fn a_caller_is_program_and_test() {
        assert_eq!(caller(None), "sandboxed_db::test_id::tests::a_caller_is_program_and_test");
    }

    #[test]
    fn a_path_has_no_crate() {
        let path = |module, name| Function { module, name }.path();
        assert_eq!(path("shop", "sells"), "sells");
        assert_eq!(path("shop::orders::online", "sells"), "orders::online::sells");
    }

    #[test]
    fn the_most_exact_name_counts() {
        let case = Some("a::b::case_1");
        for (function, nextest, thread, expected) in [
            (Some("a::b"), None, case, case),
            (Some("a::b"), case, Some("main"), case),
            (Some("a::b"), Some("of::another"), Some("a::bc"), Some("a::b")),
            (Some("a::b"), None, Some("tokio-rt-worker"), Some("a::b")),
            (None, Some("a::b"), Some("worker"), Some("a::b")),
            (None, None, Some("a::b"), Some("a::b")),
            (None, None, Some("tokio-rt-worker"), None),
            (None, None, Some("main"), None),
            (None, None, None, None),
        ] {
            assert_eq!(test(function, nextest, thread), expected, "{function:?} {nextest:?} {thread:?}");
        }
    }
}
