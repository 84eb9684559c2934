//! A suite in partitions, each on a machine, whose layers a job has prepared.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use sandboxed_db::{Postgres, Redis};
use sandboxed_db_tests::{assert_says, is_exhaustive, is_installed, is_missing, skip};

use super::machines::{Machines, SHARED, registry};

/// A suite of two parts, which the test of partitions runs.
mod suite {
    use std::io::Write;
    use std::path::PathBuf;

    use sandboxed_db::{Redis, Sandbox, Snapshot, sandboxed_db};
    use sandboxed_db_tests::{TestedEngine, is_alone};

    use super::SHARED;

    /// Layers that all tests share, and one that the part has to itself.
    fn shop(part: &str) -> Snapshot<Redis> {
        let shared = PathBuf::from(std::env::var(SHARED).unwrap_or_default());
        let step = |name: &str| ["-c".to_owned(), format!("echo {name} >> {}/built", shared.display())];
        let snapshot = Snapshot::new(Redis::new());
        // A user who runs all ignored tests has no directory.
        if !is_alone() {
            return snapshot;
        }
        snapshot.seed(shared.join(Redis::SEED_NAME)).run("sh", step("shared")).run("sh", step(part))
    }

    fn first() -> Snapshot<Redis> {
        shop("first")
    }

    fn second() -> Snapshot<Redis> {
        shop("second")
    }

    /// Notes that the body of a test was run.
    fn ran(db: &Sandbox<Redis>) {
        if is_alone() {
            assert_eq!(Redis::get(db, "seed"), Ok(Some("seeded".to_owned())));
            let path = PathBuf::from(std::env::var(SHARED).unwrap()).join("ran");
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(b"x").unwrap();
        }
    }

    mod part_1 {
        use super::{Redis, Sandbox, first, ran, sandboxed_db};

        #[sandboxed_db(snapshot = first)]
        #[ignore = "runs as a part of a suite, with its own cache"]
        fn one(db: &Sandbox<Redis>) {
            ran(db);
        }

        #[sandboxed_db(snapshot = first)]
        #[ignore = "runs as a part of a suite, with its own cache"]
        #[should_panic(expected = "as it should")]
        fn two(db: &Sandbox<Redis>) {
            ran(db);
            panic!("as it should");
        }
    }

    mod part_2 {
        use super::{Redis, Sandbox, ran, sandboxed_db, second};

        #[sandboxed_db(snapshot = second)]
        #[ignore = "runs as a part of a suite, with its own cache"]
        fn one(db: &Sandbox<Redis>) {
            ran(db);
        }
    }
}

#[test]
fn a_suite_in_two_partitions_builds_each_layer_once() {
    let (Some(registry), false) = (registry(), is_missing::<Redis>()) else { return };
    let machines = Machines::of::<Redis>("redis");
    // A run that rebuilds everything does so once, on one of its machines.
    let run = |machine: &str, tests: &str, pipeline: &str, variables: &[(&str, &str)]| {
        let mut command =
            machines.command_of(machine, &format!("layer_registry::partitions::suite::{tests}"));
        command.env("SANDBOXED_DB_REGISTRY", registry.layers()).env("CI_PIPELINE_ID", pipeline);
        command.env("SANDBOXED_DB_REBUILD", "1").envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let prepare = |pipeline: &str| {
        let said =
            run("preparing", "", pipeline, &[("SANDBOXED_DB_PUSH", "1"), ("SANDBOXED_DB_ONLY", "layers")]);
        assert_says(&said, &["3 passed"]);
    };
    let ran = || fs::read(machines.place.path().join("ran")).unwrap_or_default().len();
    prepare("1");
    assert_eq!((machines.built(), ran()), (["shared", "first", "second"].map(str::to_owned).to_vec(), 0));
    assert_says(&run("one", "part_1", "1", &[]), &["2 passed"]);
    assert_says(&run("two", "part_2", "1", &[]), &["1 passed"]);
    assert_eq!((machines.built().len(), ran()), (3, 3));
    assert!(machines.all_pulled("one") && machines.all_pulled("two"));
    // Layers of another run are not used where all are rebuilt, and are replaced.
    prepare("2");
    assert_eq!(machines.built().len(), 6);
    assert_says(&run("three", "part_1", "2", &[]), &["2 passed"]);
    assert_eq!(machines.built().len(), 6);
}

/// A suite of 400 tests of the shop, in two parts.
mod large {
    use rstest::rstest;
    use sandboxed_db::{Sandbox, sandboxed_db};
    use sandboxed_db_fixtures::shop_snapshot;
    use sandboxed_db_tests::{is_alone, value_at};

    fn writes(db: &Sandbox) {
        if is_alone() {
            let update = "with gone as (delete from reviews returning 1) select count(*) from gone";
            assert!(value_at::<i64>(db.url(), update) > 0);
        }
    }

    macro_rules! parts {
        ($($part:ident),+) => {$(
            mod $part {
                use super::{Sandbox, rstest, sandboxed_db, shop_snapshot, writes};

                #[sandboxed_db(snapshot = shop_snapshot)]
                #[rstest]
                #[ignore = "runs as a part of a suite, with its own cache"]
                fn test(
                    #[values(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)] _one: u8,
                    #[values(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)] _other: u8,
                    db: &Sandbox,
                ) {
                    writes(db);
                }
            }
        )+};
    }

    parts!(part_1, part_2);
}

/// Runs a command for each machine, all at once, each on a separate processor. Prints the time
/// and the processor time that the whole machine has spent.
#[expect(clippy::print_stderr, reason = "the figures are for people")]
fn at_once(what: &str, commands: Vec<Command>) {
    let busy = || {
        let text = fs::read_to_string("/proc/stat").unwrap();
        let ticks: Vec<f64> = text.lines().next().unwrap().split_whitespace().flat_map(str::parse).collect();
        // User, nice, system; a tick is a hundredth of a second.
        ticks[..3].iter().sum::<f64>() / 100.0
    };
    let (began, before) = (Instant::now(), busy());
    let run = |(number, command): (usize, Command)| {
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", &number.to_string()]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => pinned.env(name, value),
                None => pinned.env_remove(name),
            };
        }
        pinned.stdout(Stdio::piped()).spawn().unwrap()
    };
    let running: Vec<_> = commands.into_iter().enumerate().map(run).collect();
    for machine in running {
        let output = machine.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    eprintln!("{what}: {:.1?}, {:.1} s of processors", began.elapsed(), busy() - before);
}

/// Run it alone for its figures:
///
/// ```sh
/// SANDBOXED_DB_TESTS=all cargo test -p sandboxed-db-tests --features images --test integration \
///     a_large_suite -- --nocapture
/// ```
#[test]
fn a_large_suite_in_two_partitions_builds_each_layer_once() {
    if !is_exhaustive("runs 400 tests twice") || is_missing::<Postgres>() {
        return;
    }
    let Some(registry) = registry() else { return };
    if !is_installed("taskset") || std::thread::available_parallelism().unwrap().get() < 2 {
        return skip("each machine needs a separate processor");
    }
    let machines = Machines::of::<Postgres>("postgres");
    let part = |machine: &str, tests: &str, registry: &str| {
        let mut command =
            machines.command_of(machine, &format!("layer_registry::partitions::large::{tests}"));
        command.env("SANDBOXED_DB_REGISTRY", registry);
        command
    };
    at_once("one machine alone", vec![part("alone", "", "")]);
    let mut prepare = part("preparing", "", &registry.layers());
    prepare.env("SANDBOXED_DB_PUSH", "1").env("SANDBOXED_DB_ONLY", "layers");
    at_once("a job that prepares the layers", vec![prepare]);
    let parts = ["part_1", "part_2"].map(|name| part(name, name, &registry.layers()));
    at_once("two machines", parts.into());
    assert!(machines.all_pulled("part_1") && machines.all_pulled("part_2"));
    assert_eq!(machines.layers("part_1").len(), machines.layers("preparing").len());
}
