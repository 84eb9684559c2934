//! Sandboxes asked for by processes of their own, with a cache of their own: the cache is named by the environment.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sandboxed_db::cache::Layers;
use sandboxed_db::{Postgres, Sandbox, Snapshot};
use sandboxed_db_tests::{alone, connect, is_alone};
use tempfile::TempDir;

/// A snapshot to be started and queries to be answered, one a line: a word, a tab, its argument.
const ASKED: &str = "LAYERS_TEST_ASKED";
/// Long beyond need, even where fifty build at once: who takes longer hangs.
const HANGS: Duration = Duration::from_secs(300);
/// Where the answers go.
const ANSWERS: &str = "LAYERS_TEST_ANSWERS";

/// Starts the sandbox that another process asks for, and answers.
#[test]
#[ignore = "run by tests of layers, with a cache of their own"]
fn another_process() {
    if !is_alone() {
        return;
    }
    let asked = std::env::var(ASKED).unwrap();
    let words = || asked.lines().filter_map(|line| line.split_once('\t'));
    if words().any(|(word, _)| word == "umask") {
        rustix::process::umask(rustix::fs::Mode::empty());
    }
    // Before anything is used, since what is damaged is set aside when it is.
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
        "work_mem" => snapshot.setting("work_mem", argument),
        _ => snapshot,
    });
    let tell = |lines: &[String]| fs::write(std::env::var_os(ANSWERS).unwrap(), lines.join("\n")).unwrap();
    let db = match snapshot.start() {
        Ok(db) => db,
        Err(error) => return tell(&["refused".to_owned(), format!("{error:?}")]),
    };
    let mut client = connect(db.url());
    let answers = words().filter(|(word, _)| *word == "sql").map(|(_, query)| -> String {
        client.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
    });
    let answers: Vec<_> = answers.collect();
    for (_, command) in words().filter(|(word, _)| *word == "then") {
        let status = Command::new("sh").args(["-c", command]).envs(db.env()).status().unwrap();
        assert!(status.success(), "{command}: {status}");
    }
    let built = if db.timings().layer_built { "built" } else { "found" };
    let lines: Vec<String> = [built.to_owned()].into_iter().chain(answers).collect();
    tell(&lines);
}

/// Runs statements by a driver that is asynchronous.
pub(crate) async fn batch(url: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(sql).await
}

/// A cache of the test's own, and a place for the files that its layers are made of.
pub(crate) struct TestCache {
    place: TempDir,
    pub(crate) cache: PathBuf,
    /// Further variables for those who ask.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

/// What another process had to tell.
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
    pub(crate) fn new() -> Self {
        Self::named("cache")
    }

    pub(crate) fn named(name: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let cache = place.path().join(name);
        Self { place, cache, environment: Vec::new() }
    }

    /// Writes a file, `migrations/1.sql` or the like, and returns its path.
    pub(crate) fn write(&self, name: &str, contents: &str) -> String {
        let path = self.place.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.place.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn begin(&self, asked: &[(&str, &str)]) -> Request {
        let answers = tempfile::NamedTempFile::new_in(self.place.path()).unwrap();
        let answers = answers.into_temp_path().keep().unwrap();
        let lines: Vec<_> = asked.iter().map(|(word, argument)| format!("{word}\t{argument}")).collect();
        let child = alone("requests::another_process")
            .env("SANDBOXED_DB_CACHE", &self.cache)
            // Each process is a run of its own, whoever runs this one, unless the test says otherwise.
            .env_remove("NEXTEST_RUN_ID")
            .envs(self.environment.iter().copied())
            .env(ASKED, lines.join("\n"))
            .env(ANSWERS, &answers)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Request { child, answers }
    }

    pub(crate) fn ask(&self, asked: &[(&str, &str)]) -> Response {
        self.begin(asked).end()
    }

    /// The layers' directories, by their names.
    pub(crate) fn layers(&self) -> BTreeMap<String, PathBuf> {
        let layers = fs::read_dir(self.cache.join("layers")).unwrap();
        layers
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.path().join("data")))
            .collect()
    }

    /// The data of the layers that `made` makes anew, in no order.
    pub(crate) fn made_by(&self, made: impl FnOnce()) -> Vec<PathBuf> {
        let before = if self.cache.exists() { self.layers() } else { BTreeMap::new() };
        made();
        self.layers()
            .into_iter()
            .filter(|(name, _)| !before.contains_key(name))
            .map(|(_, data)| data)
            .collect()
    }

    pub(crate) fn assert_no_build_is_left(&self) {
        let left: Vec<_> =
            fs::read_dir(self.cache.join("staging")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Request {
    /// What it tells; it must have got its sandbox.
    #[track_caller]
    pub(crate) fn end(self) -> Response {
        self.outcome().unwrap_or_else(|report| panic!("{report}"))
    }

    /// What it tells, or the report of why it got no sandbox.
    #[track_caller]
    pub(crate) fn outcome(self) -> Result<Response, String> {
        let Self { child, answers } = self;
        let process = Pid::from_child(&child);
        let (sender, ended) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let Ok(output) = ended.recv_timeout(HANGS) else {
            let _ = kill_process(process, Signal::KILL);
            panic!("it hangs");
        };
        let output = output.unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        let told = fs::read_to_string(&answers).unwrap();
        let (how, rest) = told.split_once('\n').unwrap_or((&told, ""));
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
