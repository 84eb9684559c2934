//! Many at once, killed at any moment, and two hundred migrations: the store stays right and nothing piles up.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use rstest::rstest;
use rustix::process::Signal;
use sandboxed_db_tests::{CLEANUP_DEADLINE, Random, ScratchDirs, TestProcess, eventually, mounts, rounds};

use crate::layers::{RUNS, note, runs};
use crate::requests::{Request, Response, TestCache};

const SUBJECT: &str = env!("CARGO_BIN_EXE_subject");

/// One run of initdb makes one of these; layers have it from the one they are built on.
const SYSTEM: &str = "select system_identifier::text from pg_control_system()";

#[test]
fn layers_that_fifty_processes_ask_for_at_once_are_built_once_each() {
    const ASKING: usize = 50;
    let cache = TestCache::new();
    cache.write("migrations/1.sql", &note("first"));
    cache.write("migrations/2.sql", &note("second"));
    let (migrations, seed) = (cache.path("migrations"), cache.write("seed.sql", &note("seed")));
    let asked =
        [("migrations", migrations.as_str()), ("seed", seed.as_str()), ("sql", RUNS), ("sql", SYSTEM)];
    let asking: Vec<_> = (0..ASKING).map(|_| cache.begin(&asked)).collect();
    let told: Vec<_> = asking.into_iter().map(Request::end).collect();
    assert_eq!(runs(&told[0]).len(), 3, "{:?}", told[0]);
    for other in &told {
        assert_eq!(other.answers, told[0].answers, "another build was used");
    }
    // The fresh server, the migrations on it, the seed on them.
    assert_eq!(cache.layers().len(), 3);
    cache.assert_no_build_is_left();
    let built = told.iter().filter(|told| told.built).count();
    assert!(built >= 1, "nobody has built anything");
    // Each may have been built by another; whoever waited for all three has built nothing.
    assert!(built <= 3, "{built} of {ASKING} say that they have built something");
    assert_eq!(cache.ask(&[&asked[..], &[("verify", "")]].concat()).answers, told[0].answers);
}

/// The layers that a round begins without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    All,
    Migrations,
}

#[rstest]
#[case::of_a_fresh_server_and_migrations(Missing::All, rounds(2, 20))]
#[case::of_migrations_on_a_layer_in_use(Missing::Migrations, rounds(5, 80))]
fn kills_at_random_moments_of_a_build_leave_nothing_that_the_next_does_not_clear_away(
    #[case] missing: Missing,
    #[case] kills: u32,
) {
    let mut random = Random::new();
    let place = ScratchDirs::new();
    let mut cache = TestCache::new();
    cache.cache = place.cache().to_owned();
    cache.write("migrations/1.sql", "create table t (i int primary key, x text);\n");
    cache.write(
        "migrations/2.sql",
        "insert into t select i, repeat(md5(i::text), 10) from generate_series(1, 3000) i;\n",
    );
    cache.write("migrations/3.sql", "create table u as select i from t where i % 3 = 0;\n");
    let migrations = cache.path("migrations");
    let rows = "select concat_ws(' ', (select count(*) from t), (select sum(length(x)) from t), \
        (select count(*) from u), (select bool_and(exists (select from t where t.i = n)) from generate_series(1, 3000) n))";
    let next = [("verify", ""), ("migrations", migrations.as_str()), ("sql", rows)];
    let complete = |told: &Response| assert_eq!(told.answers, ["3000 960000 1000 t"]);
    let begin_build = || {
        let build = ["keep", "--migrations", &migrations, "return"];
        TestProcess::start(place.command(SUBJECT).args(build))
    };
    let base = cache.made_by(|| drop(cache.ask(&[])));
    let before = mounts();
    let make_room = || {
        for (_, data) in cache.layers() {
            if missing == Missing::All || !base.contains(&data) {
                fs::remove_dir_all(data.parent().unwrap()).unwrap();
            }
        }
    };

    make_room();
    let begin = Instant::now();
    let (ended, told) = begin_build().gone();
    assert_eq!(ended, "code 0", "{told:?}");
    let took = begin.elapsed();
    let (mut met, mut published) = (0, 0);
    for kill in 0..kills {
        make_room();
        let process = begin_build();
        let moment = random.within(took, kill, kills);
        std::thread::sleep(moment);
        process.kill(Signal::KILL, false);
        // All of its processes, too.
        let (ended, told) = process.gone();
        assert!(["signal 9", "code 0"].contains(&ended.as_str()), "{ended}: {told:?}");
        let left = place.leftovers();
        let staging = place.cache().join("staging");
        assert!(
            left.len() <= 1 && left.iter().all(|path| path.starts_with(&staging)),
            "more than the interrupted build after kill {kill} at {moment:?}: {left:?}"
        );
        let there = cache.layers().len();
        met += u32::from(!left.is_empty());
        published += u32::from(there == 2);
        let told = cache.ask(&next);
        complete(&told);
        assert_eq!(told.built, there < 2, "after kill {kill} at {moment:?}");
        // Built or found: what the killed one left is gone when somebody has built.
        if told.built {
            assert_eq!(place.leftovers(), Vec::<PathBuf>::new(), "after kill {kill} at {moment:?}");
        }
        assert_eq!(cache.layers().len(), 2, "after kill {kill} at {moment:?}");
    }
    assert!(met > kills / 10, "only {met} of {kills} kills met a build; {published} came too late");
    assert_eq!(place.leftovers(), Vec::<PathBuf>::new());
    eventually(CLEANUP_DEADLINE, "no mount is left", || mounts().is_subset(&before).then_some(()));
}

// Two hundred migrations.

/// A hundred, ninety and ten migrations, as such sets grow: what was there when the tests were run last is a layer.
struct Grown {
    cache: TestCache,
    /// The runs of all two hundred.
    runs: Vec<String>,
}

impl Grown {
    const ALL: usize = 200;

    fn new() -> Self {
        let mut grown = Self { cache: TestCache::new(), runs: Vec::new() };
        let mut last = 0;
        for count in [100, 190, Self::ALL] {
            (last + 1..=count).for_each(|number| grown.write(number, &text(number)));
            let runs = grown.ask();
            assert_eq!(runs.len(), count);
            grown.assert_rerun_from(last + 1, &runs);
            (grown.runs, last) = (runs, count);
        }
        grown
    }

    fn write(&self, number: usize, text: &str) {
        self.cache.write(&format!("migrations/{number:04}.sql"), text);
    }

    fn ask(&self) -> Vec<String> {
        let migrations = self.cache.path("migrations");
        let told = self.cache.ask(&[("migrations", migrations.as_str()), ("sql", RUNS)]);
        runs(&told).iter().map(|&run| run.to_owned()).collect()
    }

    /// Every migration was run once, in the order of the numbers; that one and those after it lately, no other.
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
fn of_two_hundred_migrations_only_those_are_run_that_were_added_or_changed_and_those_after() {
    let mut grown = Grown::new();
    // One more.
    grown.write(201, &text(201));
    let more = grown.ask();
    assert_eq!(more.len(), 201);
    grown.assert_rerun_from(201, &more);
    fs::remove_file(grown.cache.path("migrations/0201.sql")).unwrap();
    // One in the middle with another statement, comment or white space, the first that was not there before.
    for (number, changed) in [
        (101, text(101).replace("clock_timestamp()", "statement_timestamp()")),
        (191, text(191) + "-- noted\n"),
        (191, text(191) + "\n"),
    ] {
        assert_ne!(changed, text(number));
        grown.write(number, &changed);
        grown.assert_rerun_from(number, &grown.ask());
        // Undone, it is the layer of before.
        grown.write(number, &text(number));
        assert_eq!(grown.ask(), grown.runs);
    }
    // One that was never the first after a layer: those before it are run, too, since no layer ends there; once.
    grown.write(150, &(text(150) + "-- noted\n"));
    grown.assert_rerun_from(101, &grown.ask());
    grown.runs = grown.ask();
    for note in ["-- noted again\n", "-- and again\n"] {
        grown.write(150, &(text(150) + note));
        grown.assert_rerun_from(150, &grown.ask());
    }
    // One after it is run alone with those that follow, from the same layer or a later one.
    grown.runs = grown.ask();
    grown.write(170, &(text(170) + "-- noted\n"));
    grown.assert_rerun_from(150, &grown.ask());
    grown.write(170, &(text(170) + "-- noted again\n"));
    grown.runs = grown.ask();
    grown.write(170, &(text(170) + "-- and again\n"));
    grown.assert_rerun_from(170, &grown.ask());
}
