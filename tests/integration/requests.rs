//! Sandboxes requested by processes that share a cache with no other test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sandboxed_db::cache::Layers;
use sandboxed_db::report::Report;
use sandboxed_db::{Postgres, Sandbox, Snapshot};
use sandboxed_db_tests::{
    ScratchDirs, alone, connect, connect_async, eventually, is_alone, on_terminal, printed, value,
};
use tempfile::TempDir;

use crate::lifecycle::SUBJECT;

/// A snapshot to start and queries to answer, one a line: a word, a tab, its argument.
const REQUEST: &str = "SANDBOXED_DB_TESTS_REQUEST";
/// The file for the answers.
const ANSWERS: &str = "SANDBOXED_DB_TESTS_ANSWERS";
/// Fifty builds at once take less.
const DEADLINE: Duration = Duration::from_secs(300);

#[test]
#[ignore = "run by tests that send requests, with a separate cache"]
fn another_process() {
    if !is_alone() {
        return;
    }
    let request = std::env::var(REQUEST).unwrap();
    let words = || request.lines().filter_map(|line| line.split_once('\t'));
    if words().any(|(word, _)| word == "umask") {
        rustix::process::umask(rustix::fs::Mode::empty());
    }
    // First of all: a start sets damaged layers aside.
    if words().any(|(word, _)| word == "verify") {
        let damage = Layers::open().unwrap().verify().unwrap();
        assert!(damage.is_empty(), "{damage:?}");
    }
    let engine = words().fold(Postgres::new(), |engine, (word, argument)| match word {
        "database" => engine.database(argument),
        "locale" => engine.locale(argument),
        _ => engine,
    });
    let snapshot = words().fold(Snapshot::new(engine), |snapshot, (word, argument)| match word {
        "migrations" => snapshot.migrations(argument),
        "seed" => snapshot.seed(argument),
        "depends_on" => snapshot.depends_on([argument]),
        "run" => snapshot.run("sh", ["-c", argument]),
        "prepare" => {
            let (key, sql) = argument.split_once('|').expect("KEY|SQL");
            let sql = sql.to_owned();
            snapshot.prepare(key, async move |db: &Sandbox| batch(db.url(), &sql).await)
        }
        "extend" => snapshot.extend(),
        "max_age" => snapshot.max_age(Duration::from_millis(argument.parse().unwrap())),
        "package" => snapshot.package(argument),
        "work_mem" => snapshot.setting("work_mem", argument),
        _ => snapshot,
    });
    let answer = |lines: &[String]| fs::write(std::env::var_os(ANSWERS).unwrap(), lines.join("\n")).unwrap();
    let db = match snapshot.start() {
        Ok(db) => db,
        Err(error) => return answer(&["refused".to_owned(), format!("{error:?}")]),
    };
    let mut client = connect(db.url());
    let queries = words().filter(|(word, _)| *word == "sql");
    let answers: Vec<String> = queries.map(|(_, query)| value(&mut client, query)).collect();
    for (_, command) in words().filter(|(word, _)| *word == "then") {
        let status = Command::new("sh").args(["-c", command]).envs(db.env()).status().unwrap();
        assert!(status.success(), "{command}: {status}");
    }
    let built = if db.timings().layer_built { "built" } else { "found" };
    let lines: Vec<String> = [built.to_owned()].into_iter().chain(answers).collect();
    answer(&lines);
}

/// Runs statements through an asynchronous driver.
pub(crate) async fn batch(url: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
    connect_async(url).await?.batch_execute(sql).await
}

/// Copies the base layer of a default server, and all that the shared cache knows of its programs:
/// a cache of a test's own then needs no initdb.
pub(crate) fn copy_base(cache: &Path) {
    static BASE: OnceLock<(PathBuf, String)> = OnceLock::new();
    let (shared, digest) = BASE.get_or_init(|| {
        let dirs = ScratchDirs::with_shared_cache();
        let file = dirs.path().join("run.jsonl");
        let started = dirs.command(SUBJECT).env("SANDBOXED_DB_REPORT", &file).arg("return").output().unwrap();
        assert!(started.status.success(), "{started:?}");
        let record = Report::read(&file).unwrap().records.remove(0);
        (dirs.cache().to_owned(), record.layer.expect("a sandbox that started has a layer"))
    });
    fs::create_dir_all(cache).unwrap();
    let copied = |parts: &[&str]| {
        let mut copy = Command::new("cp");
        copy.current_dir(shared).args(["-a", "--reflink=auto", "--parents"]).args(parts).arg(cache).output()
    };
    // Other tests may seal the layer anew meanwhile, and write and replace the rest.
    eventually(DEADLINE, "the base layer is copied", || {
        let layer = copied(&[&format!("layers/{digest}")]).unwrap();
        layer.status.success().then_some(())
    });
    let _ = copied(&["servers", "linked"]);
}

/// Directories whose cache has the base layer.
pub(crate) fn dirs_with_base() -> ScratchDirs {
    let dirs = ScratchDirs::new();
    copy_base(dirs.cache());
    dirs
}

/// A cache of a test's own, and a directory for the files of its layers.
pub(crate) struct TestCache {
    directory: TempDir,
    pub(crate) cache: PathBuf,
    /// Further variables of the processes that send requests.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

/// The answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) built: bool,
    pub(crate) answers: Vec<String>,
}

pub(crate) struct Request {
    child: Child,
    answers: PathBuf,
}

impl TestCache {
    /// A cache with the base layer.
    pub(crate) fn new() -> Self {
        let cache = Self::empty();
        copy_base(&cache.cache);
        cache
    }

    pub(crate) fn empty() -> Self {
        Self::named("cache")
    }

    /// An empty cache in a directory with that name.
    pub(crate) fn named(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join(name);
        Self { directory, cache, environment: Vec::new() }
    }

    /// Writes a file, such as `migrations/1.sql`, and returns its path.
    pub(crate) fn write(&self, name: &str, contents: &str) -> String {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// Sends a request without waiting for its response. Its files are relative to the directory.
    pub(crate) fn begin(&self, request: &[(&str, &str)]) -> Request {
        let answers = tempfile::NamedTempFile::new_in(self.directory.path()).unwrap();
        let answers = answers.into_temp_path().keep().unwrap();
        let mut command = self.command(request, &answers);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Request { child, answers }
    }

    /// Sends a request from a terminal. Returns all that the terminal shows.
    pub(crate) fn ask_on_terminal(&self, request: &[(&str, &str)]) -> String {
        on_terminal(&self.command(request, &self.directory.path().join("answers")))
    }

    /// The command of a process that sends a request.
    fn command(&self, request: &[(&str, &str)], answers: &Path) -> Command {
        let lines = request.iter().map(|(word, argument)| match *word {
            "migrations" | "seed" | "depends_on" => format!("{word}\t{}", self.path(argument)),
            word => format!("{word}\t{argument}"),
        });
        let lines: Vec<_> = lines.collect();
        let mut command = alone("requests::another_process");
        command
            .env("SANDBOXED_DB_CACHE", &self.cache)
            // Each process is a run, unless the test says otherwise.
            .env_remove("NEXTEST_RUN_ID")
            .envs(self.environment.iter().copied())
            .env(REQUEST, lines.join("\n"))
            .env(ANSWERS, answers);
        command
    }

    #[track_caller]
    pub(crate) fn ask(&self, request: &[(&str, &str)]) -> Response {
        self.begin(request).end()
    }

    /// The data directories of the layers, by digest.
    pub(crate) fn layers(&self) -> BTreeMap<String, PathBuf> {
        let layers = fs::read_dir(self.cache.join("layers")).into_iter().flatten();
        layers
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.path().join("data")))
            .collect()
    }

    /// Asserts the response to a request.
    #[track_caller]
    pub(crate) fn assert_response(&self, request: &[(&str, &str)], built: bool, answers: &[&str]) {
        let response = self.ask(request);
        assert_eq!(
            (response.built, response.answers.iter().map(String::as_str).collect()),
            (built, answers.to_vec())
        );
    }

    /// The data directories of the layers that `build` adds, in no order, and its result.
    pub(crate) fn made_by<R>(&self, build: impl FnOnce() -> R) -> (Vec<PathBuf>, R) {
        let before = self.layers();
        let result = build();
        let mut made = self.layers();
        made.retain(|name, _| !before.contains_key(name));
        (made.into_values().collect(), result)
    }

    pub(crate) fn assert_no_build_is_left(&self) {
        let staging = fs::read_dir(self.cache.join("staging")).into_iter().flatten();
        let left: Vec<_> = staging.map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Request {
    /// Kills the process that sent the request.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the response to a request that must not be refused.
    #[track_caller]
    pub(crate) fn end(self) -> Response {
        self.outcome().unwrap_or_else(|report| panic!("{report}"))
    }

    /// Waits for the response, or the report of the error that refused the request.
    #[track_caller]
    pub(crate) fn outcome(self) -> Result<Response, String> {
        let Self { child, answers } = self;
        let process = Pid::from_child(&child);
        let (sender, ended) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let Ok(output) = ended.recv_timeout(DEADLINE) else {
            let _ = kill_process(process, Signal::KILL);
            panic!("the request was not answered within {DEADLINE:?}");
        };
        let output = output.unwrap();
        let text = printed(&output);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        let answer = fs::read_to_string(&answers).unwrap();
        let (how, rest) = answer.split_once('\n').unwrap_or((&answer, ""));
        let built = match how {
            "built" => true,
            "found" => false,
            "refused" => return Err(rest.to_owned()),
            other => panic!("{other:?}: {text}"),
        };
        Ok(Response { built, answers: rest.lines().map(str::to_owned).collect() })
    }
}

/// Every file below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            _ => found.push(entry.path()),
        }
    }
    found
}
