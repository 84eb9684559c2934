//! Runs programs of the package client, with a deadline and their output.

use std::fs::{self, File};
use std::io::{self, Error};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The time between two looks at the progress of a program.
const WAIT: Duration = Duration::from_millis(500);

/// Runs a program to its end or to the deadline, and returns its success and its output. The output
/// goes to the file `scratch`, because a pipe that fills up would have to be read meanwhile. Calls
/// `on_wait` now and then.
pub(super) fn run(
    command: &mut Command,
    scratch: &Path,
    deadline: Instant,
    on_wait: &dyn Fn(),
) -> io::Result<(Result<(), String>, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = File::create(scratch)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
    let mut child =
        command.spawn().map_err(|error| Error::new(error.kind(), format!("run `{name}`: {error}")))?;
    let mut last = Instant::now();
    let done = loop {
        match child.try_wait()? {
            Some(status) if status.success() => break Ok(()),
            Some(status) => break Err(format!("`{name}` ended with {status}")),
            None if Instant::now() >= deadline => {
                child.kill()?;
                child.wait()?;
                break Err(format!("`{name}` was killed because it did not end in time"));
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
        if last.elapsed() >= WAIT {
            on_wait();
            last = Instant::now();
        }
    };
    Ok((done, String::from_utf8_lossy(&fs::read(scratch)?).into_owned()))
}

/// Returns the errors, warnings and unmet dependencies in the output of a package client, or else
/// its end.
pub(super) fn complaints(output: &str) -> String {
    const LIMIT: usize = 20;
    let lines: Vec<&str> = output.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let is_error = |line: &&str| {
        line.starts_with("E: ") || line.starts_with("W: ") || line.starts_with(' ') && line.contains(" : ")
    };
    let mut errors: Vec<&str> = lines.iter().copied().filter(is_error).collect();
    errors.dedup();
    let shown = if errors.is_empty() { lines } else { errors };
    shown[shown.len().saturating_sub(LIMIT)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn complaints_are_what_tells_why() {
        let output = "Err:1 http://mirror.example stable InRelease\n  Temporary failure resolving 'mirror.example'\n\
                      Reading package lists...\nW: Failed to fetch http://mirror.example/InRelease  Temporary failure\n\
                      The following packages have unmet dependencies:\n postgresql : Depends: postgresql-15 but it is missing\n\
                      E: Unable to locate package postgresql\nE: Unable to locate package postgresql\n";
        assert_eq!(
            complaints(output),
            "W: Failed to fetch http://mirror.example/InRelease  Temporary failure\n \
             postgresql : Depends: postgresql-15 but it is missing\nE: Unable to locate package postgresql"
        );
        assert_eq!(complaints("tar: a\n\ntar: b\n"), "tar: a\ntar: b");
        assert_eq!(complaints(&"line\n".repeat(99)).lines().count(), 20);
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_its_output_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo second >&2; exec sleep 600"]);
        let deadline = Instant::now() + Duration::from_millis(300);
        let (done, output) = run(&mut command, &dir.path().join("output"), deadline, &|| {}).unwrap();
        assert_eq!(done.unwrap_err(), "`sh` was killed because it did not end in time");
        assert_eq!(output, "first\nsecond\n");
    }

    #[test]
    fn a_program_that_fails_or_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("output");
        let (done, _) = run(Command::new("sh").args(["-c", "exit 3"]), &scratch, soon(), &|| {}).unwrap();
        assert_eq!(done.unwrap_err(), "`sh` ended with exit status: 3");
        let missing = run(&mut Command::new("no-such-client"), &scratch, soon(), &|| {}).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().starts_with("run `no-such-client`: "), "{missing}");
    }
}
