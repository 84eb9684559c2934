//! Hosts that refuse something, simulated by scripts in new namespaces and by seccomp filters.

use std::process::{Command, Output};

use sandboxed_db_tests::{ScratchDirs, skip};

use crate::lifecycle::SUBJECT;

const DENY_SYSCALLS: &str = env!("CARGO_BIN_EXE_deny_syscalls");

/// A machine that is made to refuse: a script that prepares it, run in namespaces in which it may
/// mount, and the program through which it then runs `subject`.
pub(crate) struct SimulatedHost {
    dirs: ScratchDirs,
    script: String,
    /// Arguments of unshare(1).
    namespaces: &'static [&'static str],
}

impl SimulatedHost {
    /// `script` ends with what is put before the program and its arguments.
    pub(crate) fn new(script: impl Into<String>) -> Self {
        Self {
            dirs: ScratchDirs::with_shared_cache(),
            script: script.into(),
            namespaces: &["--user", "--map-root-user", "--mount"],
        }
    }

    /// The machine as it is, but for the filter.
    pub(crate) fn filtered(calls: &[&str]) -> Self {
        Self::new(format!("exec \"$DENY_SYSCALLS\" {} --", quoted(calls)))
    }

    pub(crate) fn in_namespaces(mut self, namespaces: &'static [&'static str]) -> Self {
        self.namespaces = namespaces;
        self
    }

    pub(crate) fn with_an_empty_cache(mut self) -> Self {
        self.dirs = ScratchDirs::new();
        self
    }

    pub(crate) fn run(&self, args: &str) -> Output {
        // The directories of tests may lie below one that the script mounts over.
        let script = format!(
            "set -e\nPATH=$PATH:/usr/sbin:/sbin\nexec 9< \"$SUBJECT\"\n{} /proc/self/fd/9 {args}",
            self.script
        );
        let mut command = self.dirs.command("unshare");
        command.args(self.namespaces).args(["sh", "-c", &script]);
        command.env("SUBJECT", SUBJECT).env("DENY_SYSCALLS", DENY_SYSCALLS).env("CACHE", self.dirs.cache());
        command.env("TOP", self.dirs.path()).env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        command.output().expect("unshare runs")
    }

    /// The doctor's report. Nothing is left of it.
    #[track_caller]
    pub(crate) fn doctor(&self, works: bool) -> String {
        let output = self.run("doctor");
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(i32::from(!works)), "{report}{errors}");
        assert!(!errors.contains("panicked"), "{errors}");
        self.dirs.assert_no_leftovers();
        report
    }

    /// Both the doctor and a launch must fail with those words.
    #[track_caller]
    pub(crate) fn refuses(&self, check: &str, sentence: &str, how: &str, command: &str) {
        let report = self.doctor(false);
        assert_check(&report, "FAILED", check, sentence, how, command);
        let verdict = match command {
            "" => format!("Sandboxes do not work here: {sentence}."),
            command => format!("Sandboxes do not work here: {sentence}. To fix it, {how}: {command}"),
        };
        assert_eq!(report.lines().last(), Some(verdict.as_str()), "{report}");
        self.fails(sentence, how, command);
    }

    #[track_caller]
    pub(crate) fn fails(&self, sentence: &str, how: &str, command: &str) {
        let output = self.run("return");
        let report = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{report}");
        let hint = match command {
            "" => format!("\n  hint: {sentence}\n"),
            command => format!("\n  hint: {sentence}: {how} `{command}`\n"),
        };
        assert!(report.contains(&hint), "`{hint}` is not in\n{report}");
        self.dirs.assert_no_leftovers();
    }

    /// Sandboxes start all the same.
    #[track_caller]
    pub(crate) fn starts(&self) -> String {
        let report = self.doctor(true);
        let output = self.run("return");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        report
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
}

/// A line of a report and the one below it, whatever their columns.
#[track_caller]
pub(crate) fn assert_check(
    report: &str,
    outcome: &str,
    check: &str,
    sentence: &str,
    how: &str,
    command: &str,
) {
    let words = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = report.lines().map(words).collect();
    let line = words(&format!("{outcome} {check} {sentence}"));
    let found = lines.iter().position(|found| *found == line);
    let found = found.unwrap_or_else(|| panic!("`{line}` is not in\n{report}"));
    if !command.is_empty() {
        assert_eq!(lines[found + 1], words(&format!("{how}: {command}")), "{report}");
    }
}

/// Returns `true` if this machine lets a test simulate others.
pub(crate) fn can() -> bool {
    let can = Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output();
    let can = can.is_ok_and(|output| output.status.success());
    if !can {
        skip("unshare(1) cannot make namespaces here");
    }
    can
}

/// Files of /proc/sys/kernel as another machine has them.
pub(crate) fn with_kernel_files(files: &[(&str, &str)], then: &str) -> SimulatedHost {
    let files = files.iter().map(|(name, text)| format!("echo '{text}' > /proc/sys/kernel/{name}\n"));
    let files: String = files.collect();
    SimulatedHost::new(format!(
        "release=$(uname -r)\nmount -t tmpfs tmpfs /proc/sys/kernel\necho $release > /proc/sys/kernel/osrelease\n{files}{then}"
    ))
}
