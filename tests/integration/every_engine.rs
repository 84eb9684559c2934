//! The promises that no engine may break, each tested with every engine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{self, sleep};
use std::time::Instant;

use rustix::process::Signal;
use sandboxed_db::cache::{Kept, Layers};
use sandboxed_db::{Keep, Sandbox, ServerStart, Snapshot};
use sandboxed_db_tests::{
    CLEANUP_DEADLINE, DEADLINE, Namespaces, Random, ScratchDirs, TestProcess, TestedEngine, alone, children,
    eventually, is_alone, passed, processes_beside, rounds, seeded, status, wait_until,
};

use crate::lifecycle::{SUBJECT, kill, subject};

/// Makes a module for each engine, with every test of a list.
macro_rules! for_every_engine {
    ($tests:tt) => {
        for_engines!(Postgres postgres, Redis redis, MariaDb mariadb, MySql mysql, Sqlite sqlite; $tests);
    };
}

/// Makes a module for each engine with a server.
macro_rules! for_every_server {
    ($tests:tt) => {
        for_engines!(Postgres postgres, Redis redis, MariaDb mariadb, MySql mysql; $tests);
    };
}

macro_rules! for_engines {
    ($($engine:ident $module:ident),+; $tests:tt) => {
        $(for_engines!(@ $engine $module $tests);)+
    };
    (@ $engine:ident $module:ident [$($test:ident),+ $(,)?]) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    sandboxed_db_tests::skip_without!(sandboxed_db::$engine);
                    super::$test::<sandboxed_db::$engine>();
                }
            )+
        }
    };
}

mod isolation;
mod kept;
mod limits;

for_every_engine!([
    servers_that_live_together_are_pristine,
    a_lower_never_changes,
    many_sandboxes_leave_nothing,
    kills_at_random_moments_leave_nothing,
    killed_builds_leave_no_half_built_layer,
    a_damaged_layer_is_built_again,
    a_server_that_is_stopped_ends_cleanly,
    every_start_leads_to_the_same_data,
    a_server_runs_without_a_container,
]);

/// Makes a test of layers for each engine, which runs in a separate process.
macro_rules! alone {
    ($($engine:ident $test:ident),+) => {
        mod alone {
            $(
                #[test]
                #[ignore = "run with a separate cache, by tests of that cache"]
                fn $test() {
                    super::in_a_cache_of_its_own::<sandboxed_db::$engine>();
                }
            )+
        }
    };
}

alone!(Postgres postgres, Redis redis, MariaDb mariadb, MySql mysql, Sqlite sqlite);

/// Promises of servers.
mod servers {
    use super::{
        a_port_asks_for_the_password, a_setting_reaches_the_server, resumed_siblings_work_and_share_no_secret,
    };

    for_every_server!([
        a_port_asks_for_the_password,
        a_setting_reaches_the_server,
        resumed_siblings_work_and_share_no_secret,
    ]);
}

fn start<E: TestedEngine>(snapshot: &Snapshot<E>) -> Sandbox<E> {
    snapshot.start().unwrap_or_else(|error| panic!("{error:?}"))
}

fn name<E: TestedEngine>() -> String {
    E::engine().name().to_owned()
}

/// A process with sandboxes of an engine that hold its seed.
fn seeded_subject<E: TestedEngine>(dirs: &ScratchDirs, args: &[&str]) -> TestProcess {
    let seed = dirs.path().join(E::SEED_NAME);
    fs::write(&seed, E::SEED).unwrap();
    let (name, seed) = (name::<E>(), seed.to_str().unwrap().to_owned());
    subject(dirs, &[&["--engine", &name, "--seed", &seed], args].concat())
}

/// The data directories of the layers in a cache.
fn layers(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.join("layers")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("data")).collect()
}

/// All files below a directory with their contents.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => all.extend(contents(&path)),
            kind if kind.is_symlink() => {
                let target = fs::read_link(&path).unwrap();
                all.insert(path, target.into_os_string().into_encoded_bytes());
            }
            _ => drop(all.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    all
}

fn servers_that_live_together_are_pristine<E: TestedEngine>() {
    let (_directory, snapshot) = seeded::<E>();
    drop(start(&snapshot));
    let worker = |number: usize| {
        let db = start(&snapshot);
        assert_eq!(E::get(&db, "mine"), Ok(None));
        E::set(&db, "mine", &number.to_string()).unwrap();
        E::set(&db, "seed", "overwritten").unwrap();
        (number, db)
    };
    let alive: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|number| scope.spawn(move || worker(number))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    for (number, db) in &alive {
        assert_eq!(E::get(db, "mine"), Ok(Some(number.to_string())));
    }
    let another = start(&snapshot);
    assert_eq!(E::get(&another, "seed"), Ok(Some("seeded".to_owned())));
    assert_eq!(E::get(&another, "mine"), Ok(None));
}

/// Runs the ignored test of the engine with an empty cache, and returns the cache.
fn alone_in<E: TestedEngine>(dirs: &ScratchDirs, what: &str) {
    let mut command = alone(&format!("every_engine::alone::{}", name::<E>()));
    passed(command.env("SANDBOXED_DB_CACHE", dirs.cache()).env("SANDBOXED_DB_TESTS_WHAT", what));
}

fn in_a_cache_of_its_own<E: TestedEngine>() {
    if !is_alone() {
        return;
    }
    let cache = PathBuf::from(std::env::var_os("SANDBOXED_DB_CACHE").unwrap());
    let (_directory, snapshot) = seeded::<E>();
    let check = |db: &Sandbox<E>| assert_eq!(E::get(db, "seed"), Ok(Some("seeded".to_owned())));
    let first = start(&snapshot);
    check(&first);
    match std::env::var("SANDBOXED_DB_TESTS_WHAT").unwrap().as_str() {
        "writes" => {
            let before: Vec<_> = layers(&cache).iter().map(|layer| contents(layer)).collect();
            assert!(before.iter().any(|layer| !layer.is_empty()));
            E::set(&first, "seed", "overwritten").unwrap();
            E::write_to_disk(&first, 4 << 20).unwrap();
            first.stop().unwrap();
            let after: Vec<_> = layers(&cache).iter().map(|layer| contents(layer)).collect();
            assert!(before == after, "a layer has changed");
            let another = start(&snapshot);
            check(&another);
            layers(&cache).iter().for_each(|layer| assert_eq!(E::check_files(&another, layer), Ok(())));
        }
        "damage" => {
            assert!(first.timings().layer_built, "a damaged layer is served");
            assert_eq!(Layers::open().unwrap().verify().unwrap(), []);
        }
        "resumed" => {
            drop(first);
            eventually(DEADLINE, "a server is resumed", || is_resumed(&start(&snapshot)).then_some(()));
            let siblings: Vec<_> = (0..6).map(|_| start(&snapshot)).collect();
            let mut drawn = BTreeSet::new();
            for db in &siblings {
                assert!(is_resumed(db));
                check(db);
                E::set(db, "mine", "well").unwrap();
                E::write_to_disk(db, 1 << 20).unwrap();
                E::check(db).unwrap();
                assert_eq!(E::get(db, "mine"), Ok(Some("well".to_owned())));
                let values = E::draw(db).unwrap();
                let count = drawn.len() + values.len();
                drawn.extend(values);
                assert_eq!(drawn.len(), count, "two servers draw the same: {drawn:?}");
            }
            siblings.into_iter().for_each(|db| db.stop().unwrap());
            recovers(&snapshot);
            let another = start(&snapshot);
            assert!(is_resumed(&another));
            assert_eq!(E::get(&another, "mine"), Ok(None));
        }
        other => panic!("no such check: {other}"),
    }
}

/// Kills a resumed server, and starts another one on the data that it has left.
fn recovers<E: TestedEngine>(snapshot: &Snapshot<E>) {
    let test = format!("every_engine::recovers::{}", name::<E>());
    let snapshot = snapshot.clone().keep(Keep::OnFailure).keep_as(&test);
    let killed = thread::spawn(move || {
        let db = start(&snapshot);
        assert!(is_resumed(&db));
        E::set(&db, "mine", "acknowledged").unwrap();
        E::save(&db).unwrap();
        children(db.pid()).into_iter().for_each(|server| kill(server, Signal::KILL));
        wait_until(DEADLINE, "only init is left", || processes_beside(db.pid()).len() == 1);
        panic!("as the test expects");
    });
    killed.join().unwrap_err();
    let kept = Kept::open().unwrap();
    let state = kept.find(&test).unwrap_or_else(|error| panic!("{error:?}"));
    assert!(!state.clean, "{state:?}");
    let db = state.start_as(E::engine()).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(E::get(&db, "seed"), Ok(Some("seeded".to_owned())));
    assert_eq!(E::get(&db, "mine"), Ok(Some("acknowledged".to_owned())));
    E::check(&db).unwrap();
    drop(db);
    kept.remove(&state).unwrap();
}

fn is_resumed<E: TestedEngine>(db: &Sandbox<E>) -> bool {
    db.timings().start == ServerStart::Resumed
}

fn resumed_siblings_work_and_share_no_secret<E: TestedEngine>() {
    let dirs = ScratchDirs::with_shared_cache();
    let mut command = alone(&format!("every_engine::alone::{}", name::<E>()));
    command.env("SANDBOXED_DB_CACHE", dirs.cache()).env("SANDBOXED_DB_TESTS_WHAT", "resumed");
    passed(command.env("SANDBOXED_DB_START", "checkpoint").env("SANDBOXED_DB_POOL", "0"));
}

fn a_lower_never_changes<E: TestedEngine>() {
    alone_in::<E>(&ScratchDirs::new(), "writes");
}

fn a_damaged_layer_is_built_again<E: TestedEngine>() {
    let dirs = ScratchDirs::new();
    assert_eq!(seeded_subject::<E>(&dirs, &["return"]).gone().0, "code 0");
    for layer in layers(dirs.cache()) {
        let largest = contents(&layer).into_iter().max_by_key(|(_, bytes)| bytes.len());
        if let Some((path, bytes)) = largest {
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    alone_in::<E>(&dirs, "damage");
}

fn many_sandboxes_leave_nothing<E: TestedEngine>() {
    let dirs = ScratchDirs::with_shared_cache();
    let count = rounds("60", "200");
    let process = seeded_subject::<E>(&dirs, &["--sandboxes", count, "--threads", "16", "stop"]);
    let (ended, lines) = process.gone();
    assert_eq!(ended, "code 0", "{lines:?}");
    fs::remove_file(dirs.path().join(E::SEED_NAME)).unwrap();
    dirs.assert_nothing_left();
}

fn kills_at_random_moments_leave_nothing<E: TestedEngine>() {
    let kills = rounds(6, 200);
    let mut random = Random::new();
    let dirs = ScratchDirs::new();
    let begin = Instant::now();
    let mut first = seeded_subject::<E>(&dirs, &["churn"]);
    first.wait_for("started ");
    let built = begin.elapsed();
    (0..16).for_each(|_| drop(first.wait_for("started ")));
    let run = begin.elapsed() - built;
    first.killed();
    let (mut met, mut seen) = (0, 0);
    for kill in 0..kills {
        let process = seeded_subject::<E>(&dirs, &["--threads", rounds("6", "16"), "churn"]);
        sleep(random.within(run, kill, kills));
        let namespaces = Namespaces::of(&process.processes());
        let lines = process.killed();
        wait_until(CLEANUP_DEADLINE, "no namespace is in use", || namespaces.users().is_empty());
        dirs.assert_no_leftovers();
        met += u32::from(lines.iter().any(|line| line.starts_with("started ")));
        seen += namespaces.count();
    }
    assert!(met > 0, "no kill met a server");
    assert!(seen > 0 || E::engine().is_opened_by_path(), "no namespace of a sandbox was open");
    dirs.assert_nothing_left();
}

fn killed_builds_leave_no_half_built_layer<E: TestedEngine>() {
    let kills = rounds(4, 40);
    let mut random = Random::new();
    let dirs = ScratchDirs::new();
    let begin = Instant::now();
    assert_eq!(seeded_subject::<E>(&dirs, &["return"]).gone().0, "code 0");
    let build = begin.elapsed();
    for kill in 0..kills {
        let dirs = ScratchDirs::new();
        let process = seeded_subject::<E>(&dirs, &["sleep"]);
        sleep(random.within(build, kill, kills));
        process.killed();
        let verified = dirs.command(SUBJECT).arg("verify").output().unwrap();
        assert!(verified.status.success() && verified.stdout.is_empty(), "{verified:?}");
        let (ended, lines) = seeded_subject::<E>(&dirs, &["return"]).gone();
        assert_eq!(ended, "code 0", "{lines:?}");
        dirs.assert_nothing_left();
    }
}

fn a_port_asks_for_the_password<E: TestedEngine>() {
    let (_directory, snapshot) = seeded::<E>();
    let (db, other) = (start(&snapshot), start(&snapshot));
    let (tcp, other) = (db.tcp().unwrap(), other.tcp().unwrap());
    assert_eq!(E::seed_by_tcp(&tcp, tcp.password()), Ok("seeded".to_owned()));
    for wrong in [other.password(), "wrong", ""] {
        assert!(E::seed_by_tcp(&tcp, wrong).is_err(), "a wrong password is accepted");
    }
}

fn a_setting_reaches_the_server<E: TestedEngine>() {
    let (name, value) = E::SETTING;
    assert_ne!(E::setting(&start(&Snapshot::new(E::engine())), name), value);
    let db = start(&Snapshot::new(E::engine()).setting(name, value));
    assert_eq!(E::setting(&db, name), value);
    let unknown = Snapshot::new(E::engine()).setting("no_such_setting", 1).start().unwrap_err();
    assert!(format!("{unknown:?}").contains("no_such_setting"), "{unknown:?}");
}

fn a_server_that_is_stopped_ends_cleanly<E: TestedEngine>() {
    let (_directory, snapshot) = seeded::<E>();
    let db = start(&snapshot);
    E::set(&db, "mine", "kept").unwrap();
    let pid = db.pid();
    db.stop().unwrap_or_else(|error| panic!("{error:?}"));
    wait_until(CLEANUP_DEADLINE, "its first process is gone", || status(pid, "State").is_none());
}

fn every_start_leads_to_the_same_data<E: TestedEngine>() {
    let dirs = ScratchDirs::new();
    for way in ["checkpoint", "linked", "exec"] {
        let seed = dirs.path().join(E::SEED_NAME);
        fs::write(&seed, E::SEED).unwrap();
        let mut command = dirs.command(SUBJECT);
        command.args(["keep", "--engine", &name::<E>(), "--seed"]).arg(&seed).arg("obey");
        let mut process = TestProcess::start(command.env("SANDBOXED_DB_START", way));
        for _ in 0..3 {
            process.order("start").unwrap();
            assert_eq!(process.order("query").unwrap(), ["answered true"]);
            process.order("stop").unwrap();
        }
        assert_eq!(process.gone().0, "code 0");
    }
    dirs.assert_nothing_left();
}

fn a_server_runs_without_a_container<E: TestedEngine>() {
    let Some(dirs) = crate::process_mode::unprivileged_dirs() else { return };
    let mut command = crate::process_mode::command(&dirs, SUBJECT);
    command.args(["keep", "--engine", &name::<E>(), "obey"]);
    let mut process = TestProcess::start(&mut command);
    for _ in 0..2 {
        process.order("start").unwrap();
        assert_eq!(process.order("query").unwrap(), ["answered true"]);
    }
    process.order("stop").unwrap();
    process.killed();
    wait_until(CLEANUP_DEADLINE, "nothing is left", || dirs.leftovers().is_empty());
}
