//! The store stays right, and nothing piles up, when many processes build at once, when builds are
//! killed at any moment, and with hundreds of migrations.

use std::fs;
use std::time::Instant;

use rustix::process::Signal;
use sandboxed_db_tests::{CLEANUP_DEADLINE, Random, TestProcess, mounts, rounds, wait_until};

use crate::layers::{ALL_RUNS, RUNS, note, runs};
use crate::lifecycle::SUBJECT;
use crate::requests::{Request, TestCache, dirs_with_base};

/// Each run of initdb makes a new one; layers inherit it from their parent.
const SYSTEM: &str = "select system_identifier::text from pg_control_system()";

#[test]
fn processes_that_need_the_same_layers_build_each_once() {
    let processes = rounds(8, 50);
    let cache = TestCache::empty();
    cache.write("migrations/1.sql", &note("first"));
    cache.write("migrations/2.sql", &note("second"));
    cache.write("seed.sql", &note("seed"));
    let request = [("migrations", "migrations"), ("seed", "seed.sql"), ("sql", RUNS), ("sql", SYSTEM)];
    let requests: Vec<_> = (0..processes).map(|_| cache.begin(&request)).collect();
    let responses: Vec<_> = requests.into_iter().map(Request::end).collect();
    assert_eq!(runs(&responses[0]).len(), 3, "{:?}", responses[0]);
    for other in &responses {
        assert_eq!(other.answers, responses[0].answers, "another build was used");
    }
    // The base, the migrations and the seed.
    assert_eq!(cache.layers().len(), 3);
    cache.assert_no_build_is_left();
    let built = responses.iter().filter(|response| response.built).count();
    // One process may have built all three layers, or three processes one each.
    assert!((1..=3).contains(&built), "{built} of {processes} processes have built something");
    assert_eq!(cache.ask(&[&request[..], &[("verify", "")]].concat()).answers, responses[0].answers);
}

#[test]
fn the_next_build_removes_what_a_killed_build_left() {
    let kills = rounds(5, 80);
    let mut random = Random::new();
    let dirs = dirs_with_base();
    let mut cache = TestCache::empty();
    cache.cache = dirs.cache().to_owned();
    cache.write("migrations/1.sql", "create table t (i int primary key, x text);\n");
    cache.write(
        "migrations/2.sql",
        "insert into t select i, repeat(md5(i::text), 10) from generate_series(1, 3000) i;\n",
    );
    cache.write("migrations/3.sql", "create table u as select i from t where i % 3 = 0;\n");
    let migrations = cache.path("migrations");
    let rows = "select concat_ws(' ', (select count(*) from t), (select sum(length(x)) from t), \
        (select count(*) from u), (select bool_and(exists (select from t where t.i = n)) from generate_series(1, 3000) n))";
    let next = [("verify", ""), ("migrations", "migrations"), ("sql", rows)];
    let begin_build = || {
        let build = ["keep", "--migrations", &migrations, "return"];
        TestProcess::start(dirs.command(SUBJECT).args(build))
    };
    let base: Vec<_> = cache.layers().into_values().collect();
    let before = mounts();
    let make_room = || {
        for (_, data) in cache.layers() {
            if !base.contains(&data) {
                fs::remove_dir_all(data.parent().unwrap()).unwrap();
            }
        }
    };

    make_room();
    let begin = Instant::now();
    let (ended, lines) = begin_build().gone();
    assert_eq!(ended, "code 0", "{lines:?}");
    let took = begin.elapsed();
    let (mut met, mut published) = (0, 0);
    for kill in 0..kills {
        make_room();
        let process = begin_build();
        let moment = random.within(took, kill, kills);
        std::thread::sleep(moment);
        process.kill(Signal::KILL, false);
        let (ended, lines) = process.gone();
        assert!(["signal 9", "code 0"].contains(&ended.as_str()), "{ended}: {lines:?}");
        let left = dirs.leftovers();
        let staging = dirs.cache().join("staging");
        assert!(
            left.len() <= 1 && left.iter().all(|path| path.starts_with(&staging)),
            "kill {kill} at {moment:?} left more than its build: {left:?}"
        );
        let layers = cache.layers().len();
        met += u32::from(!left.is_empty());
        published += u32::from(layers == 2);
        let response = cache.ask(&next);
        assert_eq!(response.answers, ["3000 960000 1000 t"]);
        assert_eq!(response.built, layers < 2, "after kill {kill} at {moment:?}");
        if response.built {
            dirs.assert_no_leftovers();
        }
        assert_eq!(cache.layers().len(), 2, "after kill {kill} at {moment:?}");
    }
    assert!(met > kills / 10, "only {met} of {kills} kills met a build; {published} met its end");
    dirs.assert_no_leftovers();
    wait_until(CLEANUP_DEADLINE, "the mounts are gone", || mounts().is_subset(&before));
}

// Many migrations.

/// Migrations that were added in three batches, as sets of migrations grow: each batch ends with a
/// layer.
struct Growing {
    cache: TestCache,
    /// Migrations in a twentieth of the set.
    unit: usize,
    /// The last run of each migration.
    runs: Vec<String>,
}

impl Growing {
    fn new() -> Self {
        let mut growing = Self { cache: TestCache::new(), unit: rounds(1, 10), runs: Vec::new() };
        let mut last = 0;
        for count in [10, 19, 20].map(|units| units * growing.unit) {
            (last + 1..=count).for_each(|number| growing.write(number, &text(number)));
            let runs = growing.run();
            assert_eq!(runs.len(), count);
            growing.assert_rerun_from(last + 1, &runs);
            (growing.runs, last) = (runs, count);
        }
        growing
    }

    fn write(&self, number: usize, text: &str) {
        self.cache.write(&format!("migrations/{number:04}.sql"), text);
    }

    fn run(&self) -> Vec<String> {
        runs(&self.cache.ask(&ALL_RUNS)).iter().map(|&run| run.to_owned()).collect()
    }

    /// Every migration has run once, in order, and of them those from `number` on since
    /// [`Self::runs`].
    #[track_caller]
    fn assert_rerun_from(&self, number: usize, now: &[String]) {
        let numbers: Vec<_> = now.iter().map(|run| run.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(numbers, (1..=now.len()).map(|number| number.to_string()).collect::<Vec<_>>());
        let rerun: Vec<_> =
            (0..now.len()).filter(|&index| self.runs.get(index) != Some(&now[index])).collect();
        assert_eq!(rerun, (number - 1..now.len()).collect::<Vec<_>>(), "rerun, counted from zero");
    }
}

fn text(number: usize) -> String {
    note(&number.to_string())
}

#[test]
fn a_build_runs_only_migrations_from_the_first_change_on() {
    let mut growing = Growing::new();
    let unit = growing.unit;
    let added = 20 * unit + 1;
    growing.write(added, &text(added));
    let more = growing.run();
    assert_eq!(more.len(), added);
    growing.assert_rerun_from(added, &more);
    fs::remove_file(growing.cache.path(&format!("migrations/{added:04}.sql"))).unwrap();
    // Changes of a statement, a comment and white space, each in the first migration of a batch.
    let (second, third) = (10 * unit + 1, 19 * unit + 1);
    for (number, changed) in [
        (second, text(second).replace("clock_timestamp()", "statement_timestamp()")),
        (third, text(third) + "-- noted\n"),
        (third, text(third) + "\n"),
    ] {
        assert_ne!(changed, text(number));
        growing.write(number, &changed);
        growing.assert_rerun_from(number, &growing.run());
        // Undoing the change leads back to the old layer.
        growing.write(number, &text(number));
        assert_eq!(growing.run(), growing.runs);
    }
    // No layer ends before a migration in the middle of a batch, so the batch runs from its
    // beginning, once.
    let middle = 15 * unit;
    growing.write(middle, &(text(middle) + "-- noted\n"));
    growing.assert_rerun_from(second, &growing.run());
    growing.runs = growing.run();
    for note in ["-- noted again\n", "-- and again\n"] {
        growing.write(middle, &(text(middle) + note));
        growing.assert_rerun_from(middle, &growing.run());
    }
    // The same holds for a later migration, from the layer that now ends before the middle.
    let later = 17 * unit;
    growing.runs = growing.run();
    growing.write(later, &(text(later) + "-- noted\n"));
    growing.assert_rerun_from(middle, &growing.run());
    growing.write(later, &(text(later) + "-- noted again\n"));
    growing.runs = growing.run();
    growing.write(later, &(text(later) + "-- and again\n"));
    growing.assert_rerun_from(later, &growing.run());
}
