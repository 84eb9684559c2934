//! Tests of the commands that use a registry, with Debian's docker-registry.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sandboxed_db::{Engine as _, Sqlite};
use serde_json::{Value, json};

use super::{PROGRAM, files, skip, text};

const PATIENCE: Duration = Duration::from_secs(60);

/// A registry on a port of the loopback.
struct Registry(Child, String);

impl Registry {
    /// Returns `None` where it is not installed.
    fn start(directory: &Path) -> Option<Self> {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = directory.join("registry.yml");
        let storage = format!("storage: {{filesystem: {{rootdirectory: {}}}}}", directory.display());
        std::fs::write(&config, format!("version: 0.1\n{storage}\nhttp: {{addr: \"{address}\"}}\n")).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self(command.spawn().ok()?, address);
        let begin = Instant::now();
        while TcpStream::connect(&registry.1).is_err() {
            assert!(begin.elapsed() < PATIENCE, "the registry listens");
            thread::sleep(Duration::from_millis(5));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn push_pull_and_update_print_json() {
    let place = files(&[("Cargo.lock", ""), ("users.sql", "create table users (name text);")]);
    let has_sqlite = Sqlite::new().locate().is_ok();
    let Some(registry) = has_sqlite.then(|| Registry::start(place.path())).flatten() else {
        return skip("there is no docker-registry or no sqlite3");
    };
    let run = |cache: &str, args: &[&str]| -> Output {
        let mut command = Command::new(PROGRAM);
        command.env("SANDBOXED_DB_CACHE", place.path().join(cache)).current_dir(place.path());
        command.args(args).stdin(Stdio::null()).output().unwrap()
    };
    let printed = |cache: &str, args: &[&str]| -> Value {
        let output = run(cache, &[args, &["--json"]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let layers = format!("{}/team/layers", registry.1);
    assert_eq!(printed("one", &["push", &layers]), json!([]));
    let built = run("one", &["run", "--engine", "sqlite", "--seed", "users.sql", "--", "true"]);
    assert!(built.status.success(), "{built:?}");

    let pushed = printed("one", &["push", &layers]);
    let all = pushed.as_array().unwrap();
    assert!(!all.is_empty(), "{pushed}");
    for transfer in all {
        assert!(transfer["digest"].is_string() && transfer["bytes"].is_u64(), "{transfer}");
        assert_eq!((&transfer["was_there"], &transfer["problem"]), (&json!(false), &Value::Null));
        assert_eq!(transfer.as_object().unwrap().len(), 4, "{transfer}");
    }
    // A layer brings those that led to it.
    assert!(all.iter().any(|transfer| transfer["bytes"] != 0), "{pushed}");
    let again = printed("one", &["push", &layers]);
    assert!(again.as_array().unwrap().iter().all(|transfer| transfer["was_there"] == true), "{again}");

    let digest = all[0]["digest"].as_str().unwrap();
    let one = format!("{layers}:{}", &digest[..12]);
    let pulled = printed("two", &["pull", &one]);
    assert_eq!((&pulled[0]["digest"], &pulled[0]["was_there"]), (&json!(digest), &json!(false)), "{pulled}");
    assert_eq!(run("two", &["pull", &format!("{layers}:zz"), "--json"]).status.code(), Some(2));

    // Any name in a registry can be recorded.
    let name = format!("{layers}:{digest}");
    for before in [false, true] {
        let updated = printed("one", &["update", &name]);
        let image = &updated["images"][0];
        assert_eq!(updated["file"], json!(place.path().join("sandboxed-db.lock")), "{updated}");
        assert!(image["after"].as_str().unwrap().starts_with("sha256:"), "{updated}");
        let expected = if before { &image["after"] } else { &Value::Null };
        assert_eq!((&image["name"], &image["before"]), (&json!(name), expected), "{updated}");
    }
    let text = text(&run("one", &["update"]).stdout).to_owned();
    assert!(text.starts_with(&format!("unchanged {name}: sha256:")), "{text}");
}
