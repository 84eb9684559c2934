//! Who asks for a sandbox: the run, the program, the test.

use std::env;
use std::os::unix::process::parent_id;
use std::sync::OnceLock;
use std::thread;

/// The function of a test, by the module as the compiler names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
}

impl Function {
    /// As libtest prints it: without the crate's name.
    fn path(self) -> String {
        match self.module.split_once("::") {
            Some((_, module)) => format!("{module}::{}", self.name),
            None => self.name.to_owned(),
        }
    }
}

/// What is the same for all sandboxes of a process.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) run: String,
    pub(super) package: Option<String>,
    pub(super) program: String,
}

pub(super) fn of_process() -> &'static Origin {
    static ORIGIN: OnceLock<Origin> = OnceLock::new();
    ORIGIN.get_or_init(|| Origin {
        run: env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| parent()),
        package: env::var("CARGO_PKG_NAME").ok(),
        program: env::current_exe()
            .ok()
            .and_then(|program| Some(without_hash(&program.file_name()?.to_string_lossy()).to_owned()))
            .unwrap_or_default(),
    })
}

/// The process that started this one. Its id alone comes again.
fn parent() -> String {
    let parent = parent_id();
    let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
    // Field 22 is the time the process started, proc_pid_stat(5).
    let start = stat.rsplit(')').next().and_then(|fields| fields.split_ascii_whitespace().nth(19));
    format!("process {parent} {}", start.unwrap_or("0"))
}

/// `integration` of cargo's `integration-0123456789abcdef`.
fn without_hash(program: &str) -> &str {
    match program.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => program,
    }
}

/// The name of the thread, and the path of the test that it runs.
pub(super) fn of_thread(function: Option<Function>) -> (Option<String>, Option<String>) {
    let thread = thread::current().name().map(str::to_owned);
    let nextest = || env::var("NEXTEST_TEST_NAME").ok();
    let function = function.map(Function::path);
    let test = test(function.as_deref(), thread.as_deref()).map(str::to_owned).or_else(nextest);
    (thread, test)
}

/// libtest names a test's thread for the test, and rstest makes several tests of one function: then the thread knows more.
fn test<'a>(function: Option<&'a str>, thread: Option<&'a str>) -> Option<&'a str> {
    match (function, thread) {
        (Some(function), Some(thread)) if thread.starts_with(function) => Some(thread),
        (Some(function), _) => Some(function),
        // The first has no name of a test where libtest runs tests one after the other, the second is this library's own.
        (None, Some("main" | "sandboxed-db")) => None,
        (None, thread) => thread,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_cargo_is_no_part_of_a_name() {
        assert_eq!(without_hash("integration-0123456789abcdef"), "integration");
        assert_eq!(without_hash("sandboxed-db"), "sandboxed-db");
        assert_eq!(without_hash("my-0123456789abcdeg"), "my-0123456789abcdeg");
    }

    #[test]
    fn a_path_has_no_crate_in_it() {
        let path = |module, name| Function { module, name }.path();
        assert_eq!(path("shop", "sells"), "sells");
        assert_eq!(path("shop::orders::online", "sells"), "orders::online::sells");
    }

    #[test]
    fn the_most_exact_name_of_a_test_counts() {
        assert_eq!(test(Some("a::b"), Some("a::b::case_1")), Some("a::b::case_1"));
        assert_eq!(test(Some("a::b"), Some("main")), Some("a::b"));
        assert_eq!(test(Some("a::b"), Some("worker")), Some("a::b"));
        assert_eq!(test(None, Some("a::b")), Some("a::b"));
        assert_eq!(test(None, Some("main")), None);
        assert_eq!(test(None, None), None);
    }
}
