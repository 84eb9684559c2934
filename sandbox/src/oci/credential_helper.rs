//! Programs that keep credentials, `docker-credential-NAME`, run with a deadline.
//!
//! <https://github.com/docker/docker-credential-helpers>

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// How long a helper may take: some ask a service, or the user for a password.
const LIMIT: Duration = Duration::from_secs(60);
/// The most bytes of an answer.
const MOST: u64 = 1 << 20;
/// The user's name in an answer that has an identity token.
const TOKEN: &str = "<token>";

/// The answer of a helper.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Password { user: String, password: String },
    IdentityToken,
}

/// Asks the helper of that name for the credentials of a server.
pub(super) fn ask(name: &str, server: &str) -> Result<Answer, String> {
    if name.contains('/') {
        return Err(format!("`{name}` is no name of a credential helper"));
    }
    run(OsStr::new(&format!("docker-credential-{name}")), server, LIMIT)
}

fn run(program: &OsStr, server: &str, limit: Duration) -> Result<Answer, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Written {
        username: String,
        secret: String,
    }
    let shown = program.to_string_lossy();
    let deadline = Instant::now() + limit;
    let mut helper = Command::new(program);
    let helper = helper.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut helper = Helper(helper.spawn().map_err(|error| format!("run `{shown}`: {error}"))?);
    if let Some(mut stdin) = helper.0.stdin.take() {
        // It fits into the pipe. A helper that does not read it says why by its output.
        let _ = stdin.write_all(server.as_bytes());
    }
    let read = |stream: Option<Box<dyn Read + Send>>| {
        let (sender, receiver) = mpsc::channel();
        // A process that the helper left behind may hold the pipe for ever.
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.map(|stream| stream.take(MOST).read_to_end(&mut bytes));
            let _ = sender.send(bytes);
        });
        receiver
    };
    let output = read(helper.0.stdout.take().map(|pipe| Box::new(pipe) as _));
    let errors = read(helper.0.stderr.take().map(|pipe| Box::new(pipe) as _));
    let late = || format!("`{shown}` gives no answer within {} s", limit.as_secs_f32());
    let rest = || deadline.saturating_duration_since(Instant::now());
    let [output, errors] = [output, errors].map(|stream| stream.recv_timeout(rest()).map_err(|_| late()));
    let status = loop {
        match helper.0.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if rest().is_zero() => return Err(late()),
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    let (output, errors) = (output?, errors?);
    if !status.success() {
        let why = [output, errors].concat();
        return Err(format!("`{shown}` ended with {status}: {}", String::from_utf8_lossy(&why).trim()));
    }
    let written: Written =
        serde_json::from_slice(&output).map_err(|_| format!("the answer of `{shown}` cannot be read"))?;
    Ok(match written {
        Written { username, .. } if username == TOKEN => Answer::IdentityToken,
        Written { username: user, secret: password } => Answer::Password { user, password },
    })
}

/// A running helper, which ends with its request.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn outcome(script: &str, limit: Duration) -> Result<Answer, String> {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("helper");
        let pid = place.path().join("pid");
        let begin = format!("#!/bin/sh\necho $$ >{}\n", pid.display());
        fs::write(&program, begin + script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let outcome = run(program.as_os_str(), "registry.example", limit);
        let pid = fs::read_to_string(pid).unwrap_or_default();
        assert!(pid.is_empty() || !Path::new("/proc").join(pid.trim()).exists(), "the helper is left behind");
        outcome
    }

    #[test]
    fn a_helper_answers_for_its_server() {
        let limit = Duration::from_secs(20);
        let script = r#"read -r server; printf '{"ServerURL":"x","Username":"%s of %s","Secret":"word"}' "$1" "$server""#;
        let answer =
            Answer::Password { user: "get of registry.example".to_owned(), password: "word".to_owned() };
        assert_eq!(outcome(script, limit).unwrap(), answer);
        let token = r#"cat >/dev/null; echo '{"Username":"<token>","Secret":"x"}'"#;
        assert_eq!(outcome(token, limit).unwrap(), Answer::IdentityToken);
        let refused = outcome("echo credentials not found; exit 1", limit).unwrap_err();
        assert!(refused.ends_with("ended with exit status: 1: credentials not found"), "{refused}");
        assert!(outcome("echo x", limit).unwrap_err().ends_with("cannot be read"));
    }

    #[test]
    fn a_helper_that_hangs_is_ended_at_the_deadline() {
        let limit = Duration::from_millis(300);
        for script in ["exec sleep 600", "exec >&- 2>&-; exec sleep 600", "sleep 5 & exit 0"] {
            let late = outcome(script, limit).unwrap_err();
            assert!(late.ends_with("gives no answer within 0.3 s"), "{script}: {late}");
        }
    }

    #[test]
    fn a_helper_that_is_missing_is_named() {
        let missing = ask("no-such-helper", "registry.example").unwrap_err();
        assert!(missing.starts_with("run `docker-credential-no-such-helper`: "), "{missing}");
        assert!(ask("../x", "registry.example").is_err());
    }
}
