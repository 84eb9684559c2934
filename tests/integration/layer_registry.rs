//! Layers that machines share by a registry: machines with caches of their own, Debian's
//! docker-registry between them, and a proxy that makes it misbehave.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sandboxed_db::cache::Layers;
use sandboxed_db::{MariaDb, Postgres, Redis, Snapshot, Sqlite};
use sandboxed_db_tests::{
    TestedEngine, alone, alone_in, assert_says, is_alone, is_exhaustive, is_installed, is_missing, passed,
    sha256, skip,
};
use tempfile::TempDir;

use crate::registries::DockerRegistry;
use crate::simulated_host::SUBJECT;

/// The directory of a test, which all its machines share: seeds, and a line for each build.
const SHARED: &str = "SANDBOXED_DB_TEST_SHARED";
/// A further step of one machine.
const MORE: &str = "SANDBOXED_DB_TEST_MORE";

/// The repository that a test by hand uses.
const PLACE: &str = "SANDBOXED_DB_TEST_PLACE";

macro_rules! machines {
    ($($engine:ident $name:ident),+) => {
        mod machine {
            $(
                #[test]
                #[ignore = "runs as a machine of a test, with its own cache"]
                fn $name() {
                    super::machine::<super::$engine>();
                }
            )+
        }
    };
}

machines!(Postgres postgres, Redis redis, MariaDb mariadb, Sqlite sqlite);

/// Starts a server on a layer of two steps, and looks at its data.
fn machine<E: TestedEngine>() {
    if !is_alone() {
        return;
    }
    let shared = PathBuf::from(std::env::var(SHARED).unwrap());
    let step = |name: &str| ["-c".to_owned(), format!("echo {name} >> {}/built", shared.display())];
    let snapshot = Snapshot::new(E::engine()).seed(shared.join(E::SEED_NAME)).run("sh", step("first"));
    let snapshot = match std::env::var(MORE) {
        Ok(more) => snapshot.run("sh", step(&more)),
        Err(_) => snapshot,
    };
    let db = snapshot.start().unwrap();
    assert_eq!(E::get(&db, "seed"), Ok(Some("seeded".to_owned())));
    E::set(&db, "other", "value").unwrap();
    assert!(Layers::open().unwrap().verify().unwrap().is_empty());
}

/// The commands of a person on a machine.
mod by_hand {
    use sandboxed_db::cache::{Layers, Transfer};
    use sandboxed_db_tests::is_alone;

    /// Counts layers that were moved, and those that were there.
    fn counted(transfers: Result<Vec<Transfer>, sandboxed_db::Error>) -> (usize, usize) {
        let transfers = transfers.unwrap();
        assert!(transfers.iter().all(|transfer| transfer.problem.is_none()), "{transfers:?}");
        let were_there = transfers.iter().filter(|transfer| transfer.was_there).count();
        (transfers.len() - were_there, were_there)
    }

    #[test]
    #[ignore = "runs on a machine of a test, with its own cache"]
    fn push() {
        let Ok(place) = std::env::var(super::PLACE) else { return };
        if is_alone() {
            let layers = Layers::open().unwrap();
            assert_eq!(counted(layers.push(&place)), (3, 0));
            assert_eq!(counted(layers.push(&place)), (0, 3));
        }
    }

    #[test]
    #[ignore = "runs on a machine of a test, with its own cache"]
    fn pull() {
        let Ok(place) = std::env::var(super::PLACE) else { return };
        if !is_alone() {
            return;
        }
        let layers = Layers::open().unwrap();
        // A layer brings those that led to it.
        let (pulled, were_there) = counted(layers.pull(&place));
        assert!(pulled > 0 && pulled + were_there == 3, "{pulled} {were_there}");
        assert_eq!(counted(layers.pull(&place)), (0, 3));
        let list = layers.list().unwrap();
        let is_origin =
            |origin: &String| origin.starts_with(&format!("{place}:")) && origin.contains("@sha256:");
        assert!(list.iter().all(|layer| layer.origin.as_ref().is_some_and(is_origin)), "{list:?}");
        let one = format!("{place}:{}", &list[0].digest[..12]);
        assert_eq!(counted(layers.pull(&one)), (0, 1));
        assert!(layers.pull(&format!("{place}:zz")).is_err());
    }
}

#[test]
fn layers_are_pushed_and_pulled_by_hand() {
    let (Some(registry), false) = (registry(), is_missing::<Redis>()) else { return };
    let machines = Machines::of::<Redis>("redis");
    passed(machines.command("one", "").env_remove("SANDBOXED_DB_REGISTRY"));
    for (machine, hand) in [("one", "push"), ("two", "pull")] {
        let command = alone(&format!("layer_registry::by_hand::{hand}"));
        passed(machines.on_machine(command, machine).env(PLACE, registry.layers()));
    }
    machines.run("two", &registry.layers());
    assert_eq!(machines.built(), ["first"]);
}

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
        let mut command = machines.command_of(machine, &format!("layer_registry::suite::{tests}"));
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

/// Runs a command for each machine, all at once, each on a processor of its own. Prints the time
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
        return skip("each machine needs a processor of its own");
    }
    let machines = Machines::of::<Postgres>("postgres");
    let part = |machine: &str, tests: &str, registry: &str| {
        let mut command = machines.command_of(machine, &format!("layer_registry::large::{tests}"));
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

/// Machines, each a cache, and what they share.
struct Machines {
    engine: &'static str,
    place: TempDir,
}

impl Machines {
    fn of<E: TestedEngine>(engine: &'static str) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join(E::SEED_NAME), E::SEED).unwrap();
        Self { engine, place }
    }

    fn cache(&self, machine: &str) -> PathBuf {
        self.place.path().join(machine)
    }

    fn command(&self, machine: &str, registry: &str) -> Command {
        let mut command = alone(&format!("layer_registry::machine::{}", self.engine));
        command.arg("--nocapture").env("SANDBOXED_DB_REGISTRY", registry);
        self.on_machine(command, machine)
    }

    /// Runs all tests of a module.
    fn command_of(&self, machine: &str, tests: &str) -> Command {
        self.on_machine(alone_in(tests), machine)
    }

    fn on_machine(&self, mut command: Command, machine: &str) -> Command {
        for variable in ["GITHUB_RUN_ID", "CI_PIPELINE_ID", "BUILDKITE_BUILD_ID", "NEXTEST_RUN_ID"] {
            command.env_remove(variable);
        }
        command
            .env("SANDBOXED_DB_CACHE", self.cache(machine))
            .env("DOCKER_CONFIG", self.place.path())
            .env(SHARED, self.place.path());
        command
    }

    /// Runs a machine that only reads. Returns what it said.
    fn run(&self, machine: &str, registry: &str) -> String {
        passed(&mut self.command(machine, registry))
    }

    fn run_and_push(&self, machine: &str, registry: &str) -> String {
        passed(self.command(machine, registry).env("SANDBOXED_DB_PUSH", "1"))
    }

    /// The names of the steps that were run, on any machine.
    fn built(&self) -> Vec<String> {
        let text = fs::read_to_string(self.place.path().join("built")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The layers of a machine, and whether each was pulled.
    fn layers(&self, machine: &str) -> Vec<(String, bool)> {
        let directory = self.cache(machine).join("layers");
        let names = fs::read_dir(&directory).into_iter().flatten().flatten();
        let mut layers: Vec<_> = names.map(|entry| entry.file_name().into_string().unwrap()).collect();
        layers.sort();
        let is_pulled = |name: &String| {
            fs::read_to_string(directory.join(name).join("manifest.json")).unwrap().contains("\"origin\":\"")
        };
        layers.into_iter().map(|name| (name.clone(), is_pulled(&name))).collect()
    }

    fn all_pulled(&self, machine: &str) -> bool {
        let layers = self.layers(machine);
        !layers.is_empty() && layers.iter().all(|(_, is_pulled)| *is_pulled)
    }

    /// Notices, without the progress of long work.
    fn notices(said: &str) -> Vec<&str> {
        let lines = said.lines().filter(|line| line.contains("sandboxed-db: ") && !line.ends_with(" s)"));
        lines.collect()
    }
}

impl DockerRegistry {
    /// The repository of layers.
    fn layers(&self) -> String {
        format!("127.0.0.1:{}/team/test-layers", self.port)
    }
}

fn registry() -> Option<DockerRegistry> {
    let registry = DockerRegistry::start();
    if registry.is_none() {
        skip("docker-registry is not installed");
    }
    registry
}

/// One machine builds and pushes, and the other one pulls, and adds a step.
fn second_machine_builds_nothing<E: TestedEngine>(engine: &'static str) {
    if is_missing::<E>() {
        return;
    }
    let Some(registry) = registry() else { return };
    let machines = Machines::of::<E>(engine);
    let said = machines.run_and_push("one", &registry.layers());
    assert_eq!(Machines::notices(&said), [""; 0]);
    assert_eq!(machines.built(), ["first"]);
    let said = machines.run("two", &registry.layers());
    assert_eq!(Machines::notices(&said), [""; 0]);
    assert_eq!(machines.built(), ["first"]);
    assert!(machines.all_pulled("two"), "{:?}", machines.layers("two"));
    assert_eq!(machines.layers("one").len(), machines.layers("two").len());
    // A step more is built on the pulled layers, here by two machines that push it at once.
    let push = |machine: &str| {
        let mut command = machines.command(machine, &registry.layers());
        command.env(MORE, "second").env("SANDBOXED_DB_PUSH", "1");
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    for machine in [push("three"), push("four")] {
        let output = machine.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    passed(machines.command("five", &registry.layers()).env(MORE, "second"));
    assert!((2..=3).contains(&machines.built().len()), "{:?}", machines.built());
    assert!(machines.all_pulled("five"), "{:?}", machines.layers("five"));
}

#[test]
fn a_layer_is_built_by_one_machine_and_pulled_by_others() {
    second_machine_builds_nothing::<Redis>("redis");
}

#[test]
fn a_migration_more_is_run_on_those_that_are_pulled() {
    let (Some(registry), false) = (registry(), is_missing::<Postgres>()) else { return };
    let machines = Machines::of::<Postgres>("postgres");
    let migrations = machines.place.path().join("migrations");
    fs::create_dir(&migrations).unwrap();
    let add = |number: u8| {
        fs::write(migrations.join(format!("{number}_t.sql")), format!("create table t{number} ();")).unwrap();
    };
    let start = |machine: &str, push: &str| {
        let mut command = machines.on_machine(Command::new(SUBJECT), machine);
        command.arg("--migrations").arg(&migrations).arg("return");
        command.env("SANDBOXED_DB_REGISTRY", registry.layers()).env("SANDBOXED_DB_PUSH", push);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    (1..=3).for_each(add);
    start("one", "1");
    add(4);
    start("two", "0");
    let built: Vec<_> = machines.layers("two").into_iter().filter(|(_, is_pulled)| !is_pulled).collect();
    assert_eq!((machines.layers("two").len(), built.len()), (3, 1));
}

#[test]
fn layers_of_every_engine_are_shared() {
    if is_exhaustive("starts servers of every engine on four machines") {
        second_machine_builds_nothing::<Postgres>("postgres");
        second_machine_builds_nothing::<MariaDb>("mariadb");
        second_machine_builds_nothing::<Sqlite>("sqlite");
    }
}

/// Every path of a directory with its mode, its size and its contents.
fn tree(directory: &Path) -> BTreeSet<String> {
    let output = Command::new("sh")
        .args(["-c", "find . -mindepth 1 -printf '%P %y %m\\n' && find . -type f -exec sha256sum {} +"])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn other_programs_copy_and_unpack_a_pushed_layer() {
    let Some(registry) = registry() else { return };
    if is_missing::<Postgres>() {
        return;
    }
    if !is_installed("skopeo") || !is_installed("umoci") {
        return skip("skopeo or umoci is not installed");
    }
    let machines = Machines::of::<Postgres>("postgres");
    machines.run_and_push("one", &registry.layers());
    let place = machines.place.path();
    let tool = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(place).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // The layer that no other one was built on has the archives of all.
    let manifest = |name: &str| machines.cache("one").join("layers").join(name).join("manifest.json");
    let layers = machines.layers("one");
    let manifests: Vec<_> =
        layers.iter().map(|(name, _)| fs::read_to_string(manifest(name)).unwrap()).collect();
    let is_parent = |name: &str| manifests.iter().any(|it| it.contains(&format!("\"parent\":\"{name}\"")));
    for (digest, _) in layers.iter().filter(|(name, _)| !is_parent(name)) {
        let there = format!("docker://{}:{digest}", registry.layers());
        let inspected = tool("skopeo", &["inspect", "--tls-verify=false", &there]);
        assert_says(
            &inspected,
            &["\"dev.sandboxed-db.engine\": \"postgres\"", "org.opencontainers.image.title"],
        );
        let here = format!("oci:layout:{digest}");
        let copy = ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", &there, &here];
        tool("skopeo", &copy);
        tool("umoci", &["unpack", "--rootless", "--image", &format!("layout:{digest}"), digest]);
        let data = manifest(digest).with_file_name("data");
        assert_eq!(tree(&place.join(digest).join("rootfs")), tree(&data));
        // The copy elsewhere can be pulled, too.
        let elsewhere = format!("docker://127.0.0.1:{}/mirror/layers:{digest}", registry.port);
        let copy = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &here, &elsewhere];
        tool("skopeo", &copy);
    }
    machines.run("two", &format!("127.0.0.1:{}/mirror/layers", registry.port));
    assert!(machines.all_pulled("two"), "{:?}", machines.layers("two"));
}

#[test]
fn a_difference_is_laid_on_the_base_that_it_was_made_from() {
    let Some(registry) = registry() else { return };
    if is_missing::<Postgres>() {
        return;
    }
    let machines = Machines::of::<Postgres>("postgres");
    machines.run_and_push("one", &registry.layers());
    // The other machine builds the base by itself, with other bytes, before it asks the registry.
    let base = machines.layers("one").into_iter().find(|(name, _)| {
        let manifest = machines.cache("one").join("layers").join(name).join("manifest.json");
        fs::read_to_string(manifest).unwrap().contains("\"parent\":null")
    });
    let (base, _) = base.unwrap();
    passed(machines.command("two", &registry.layers()).env_remove("SANDBOXED_DB_REGISTRY"));
    let layers = machines.cache("two").join("layers");
    for (name, _) in machines.layers("two").into_iter().filter(|(name, _)| *name != base) {
        fs::remove_dir_all(layers.join(name)).unwrap();
    }
    let control = |machine: &str| {
        fs::read(machines.cache(machine).join("layers").join(&base).join("data/global/pg_control"))
    };
    assert_ne!(control("one").unwrap(), control("two").unwrap());
    machines.run("two", &registry.layers());
    let (own, pulled): (Vec<_>, Vec<_>) =
        machines.layers("two").into_iter().partition(|(name, _)| *name == base);
    assert_eq!(own, [(base, false)]);
    assert!(pulled.len() == 2 && pulled.iter().all(|(_, is_pulled)| *is_pulled), "{pulled:?}");
    assert_eq!(machines.built(), ["first", "first"]);
}

/// A change that a proxy makes to the answers of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mischief {
    /// Another byte in archives, or in documents.
    LiesInArchives,
    LiesInDocuments,
    /// Ends amid archives, or amid documents.
    CutsArchives,
    CutsDocuments,
    /// Sends archives a byte at a time.
    Drips,
    /// Denies all reads, as registries do for a repository that does not exist yet.
    HidesRepositories,
    /// Refuses what is sent to it.
    IsFull,
    /// Answers no request, and keeps the connection.
    IsSilent,
    /// Asks for a token, and sends its clients to another port for uploads.
    SendsElsewhere,
}

/// A proxy before a registry.
struct Proxy {
    upstream: u16,
    port: u16,
    elsewhere: u16,
    mischief: Mischief,
    /// The first line of each request with its port and its credentials.
    requests: Mutex<Vec<(String, u16, String)>>,
    held: Mutex<Vec<TcpStream>>,
    changed: AtomicUsize,
}

impl Proxy {
    /// Serves in threads that end with the process.
    fn serve(registry: &DockerRegistry, mischief: Mischief) -> Arc<Self> {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, elsewhere] = [&listeners[0], &listeners[1]].map(|it| it.local_addr().unwrap().port());
        let (requests, held, changed) = Default::default();
        let proxy =
            Arc::new(Self { upstream: registry.port, port, elsewhere, mischief, requests, held, changed });
        for listener in listeners {
            let proxy = proxy.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let proxy = proxy.clone();
                    std::thread::spawn(move || proxy.answer(stream));
                }
            });
        }
        proxy
    }

    fn layers(&self) -> String {
        format!("127.0.0.1:{}/team/test-layers", self.port)
    }

    fn answer(&self, mut client: TcpStream) -> Option<()> {
        let port = client.local_addr().ok()?.port();
        let mut reader = BufReader::new(client.try_clone().ok()?);
        let mut first = String::new();
        reader.read_line(&mut first).ok()?;
        let headers: Vec<_> =
            reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            let mut pairs = headers.iter().filter_map(|line| line.split_once(": "));
            pairs.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let authorization = header("authorization").unwrap_or_default();
        self.requests.lock().unwrap().push((first.trim().to_owned(), port, authorization.clone()));
        let mut body = vec![0; header("content-length").and_then(|it| it.parse().ok()).unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        let method = first.split(' ').next()?;
        let mut say = |answer: &str| client.write_all(answer.as_bytes()).ok();
        match self.mischief {
            Mischief::IsSilent => {
                self.held.lock().unwrap().push(client);
                return None;
            }
            Mischief::HidesRepositories if method == "GET" => {
                return say("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            }
            Mischief::IsFull if method == "PUT" => {
                return say(
                    "HTTP/1.1 507 Insufficient Storage\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                );
            }
            Mischief::SendsElsewhere if first.contains(" /token?") => {
                return say(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 18\r\n\r\n{\"token\":\"secret\"}",
                );
            }
            Mischief::SendsElsewhere if port == self.port && authorization != "Bearer secret" => {
                return say(&format!(
                    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"here\"\r\n\
                     Connection: close\r\nContent-Length: 0\r\n\r\n"
                ));
            }
            _ => {}
        }
        let mut upstream = TcpStream::connect(("127.0.0.1", self.upstream)).ok()?;
        let kept = headers.iter().filter(|line| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            !["connection", "authorization"].contains(&name.as_str())
        });
        let head: String = kept.map(|line| format!("{line}\r\n")).collect();
        upstream.write_all(format!("{first}{head}Connection: close\r\n\r\n").as_bytes()).ok()?;
        upstream.write_all(&body).ok()?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer).ok()?;
        let is_blob = method == "GET" && first.contains("/blobs/");
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let is_archive = is_blob && answer[body..].starts_with(&[0x1f, 0x8b]);
        let is_document = is_blob && !is_archive;
        match self.mischief {
            Mischief::LiesInArchives if is_archive => self.change(&mut answer, |last| *last ^= 1),
            Mischief::LiesInDocuments if is_document => self.change(&mut answer, |last| *last = b' '),
            Mischief::Drips if is_archive => {
                for byte in &answer {
                    client.write_all(&[*byte]).ok()?;
                    std::thread::sleep(Duration::from_millis(500));
                }
                return None;
            }
            Mischief::CutsArchives if is_archive => self.cut(&mut answer, body),
            Mischief::CutsDocuments if is_document => self.cut(&mut answer, body),
            Mischief::SendsElsewhere if method == "POST" => {
                let text = String::from_utf8(answer).ok()?;
                let place = text.split("Location: ").nth(1)?.split("/v2/").next()?.to_owned();
                answer = text.replace(&place, &format!("http://127.0.0.1:{}", self.elsewhere)).into_bytes();
            }
            _ => {}
        }
        client.write_all(&answer).ok()
    }
}

impl Proxy {
    fn change(&self, answer: &mut [u8], change: impl FnMut(&mut u8)) {
        self.changed.fetch_add(1, Ordering::Relaxed);
        answer.last_mut().into_iter().for_each(change);
    }

    fn cut(&self, answer: &mut Vec<u8>, body: usize) {
        self.changed.fetch_add(1, Ordering::Relaxed);
        answer.truncate(body + (answer.len() - body) / 2);
    }
}

/// A registry that has the layers of a machine, which used Redis.
fn filled_registry() -> Option<(DockerRegistry, Machines)> {
    if is_missing::<Redis>() {
        return None;
    }
    let registry = registry()?;
    let machines = Machines::of::<Redis>("redis");
    machines.run_and_push("one", &registry.layers());
    Some((registry, machines))
}

#[test]
fn a_layer_is_built_where_the_registry_lies_or_cuts() {
    let Some((registry, machines)) = filled_registry() else { return };
    for (mischief, why) in [
        (Mischief::LiesInArchives, "its digest is"),
        (Mischief::LiesInDocuments, "its digest is"),
        (Mischief::CutsDocuments, "disconnected"),
    ] {
        let proxy = Proxy::serve(&registry, mischief);
        let machine = format!("{mischief:?}");
        let said = machines.run_and_push(&machine, &proxy.layers());
        assert!(proxy.changed.load(Ordering::Relaxed) > 0, "{mischief:?}: {said}");
        let notices = Machines::notices(&said);
        assert!(!notices.is_empty() && notices.len() <= 3, "{mischief:?}: {said}");
        assert_says(&said, &["cannot be used, and", why]);
        assert!(machines.layers(&machine).iter().all(|(_, is_pulled)| !is_pulled), "{mischief:?}: {said}");
    }
    assert_eq!(machines.built(), ["first"; 4]);
    // The part of an archive that has arrived is not asked for again.
    let proxy = Proxy::serve(&registry, Mischief::CutsArchives);
    let said = machines.run("again", &proxy.layers());
    assert!(proxy.changed.load(Ordering::Relaxed) > 0, "{said}");
    assert!(machines.all_pulled("again"), "{said}");
}

#[test]
fn a_registry_that_is_down_or_takes_no_push_is_one_line() {
    let Some((registry, machines)) = filled_registry() else { return };
    let full = Proxy::serve(&registry, Mischief::IsFull);
    let said =
        passed(machines.command("full", &full.layers()).env(MORE, "more").env("SANDBOXED_DB_PUSH", "1"));
    assert_eq!(Machines::notices(&said).len(), 1, "{said}");
    assert_says(&said, &["layers are not pushed to 127.0.0.1", "is full"]);
    let read_only = DockerRegistry::read_only().unwrap();
    let said = machines.run_and_push("read_only", &read_only.layers());
    assert_eq!(Machines::notices(&said).len(), 1, "{said}");
    assert_says(&said, &["layers are not pushed to 127.0.0.1", "is read-only"]);
    let down = registry.layers();
    drop(registry);
    let said = machines.run_and_push("down", &down);
    assert_eq!(Machines::notices(&said).len(), 1, "{said}");
    assert_says(&said, &["cannot be used, and layers are built", "Connection refused"]);
    assert_eq!(machines.built(), ["first", "more", "first", "first"]);
}

#[test]
fn the_first_push_makes_a_repository_that_cannot_be_read() {
    let (Some(registry), false) = (registry(), is_missing::<Redis>()) else { return };
    let machines = Machines::of::<Redis>("redis");
    let proxy = Proxy::serve(&registry, Mischief::HidesRepositories);
    let said = machines.run_and_push("one", &proxy.layers());
    assert_eq!(Machines::notices(&said), [""; 0]);
    let said = machines.run("two", &proxy.layers());
    assert_says(&said, &["does not let `team/test-layers` be read without credentials, if it exists"]);
    machines.run("three", &registry.layers());
    assert!(machines.all_pulled("three"));
    assert_eq!(machines.built(), ["first", "first"]);
}

#[test]
fn a_registry_that_is_slow_is_given_up() {
    if !is_exhaustive("waits for the deadline of a download") {
        return;
    }
    let Some((registry, machines)) = filled_registry() else { return };
    let proxy = Proxy::serve(&registry, Mischief::Drips);
    let said = machines.run("slow", &proxy.layers());
    assert_eq!(Machines::notices(&said).len(), 1, "{said}");
    assert_says(&said, &["cannot be used, and layers are built", "no answer in time"]);
    assert_eq!(machines.built(), ["first", "first"]);
}

#[test]
fn a_registry_that_never_answers_is_given_up() {
    let Some((registry, machines)) = filled_registry() else { return };
    let proxy = Proxy::serve(&registry, Mischief::IsSilent);
    let said = machines.run_and_push("silent", &proxy.layers());
    assert_eq!(Machines::notices(&said).len(), 1, "{said}");
    assert_says(&said, &["cannot be used, and layers are built"]);
    // Another process with this cache does not wait again.
    let asked = proxy.requests.lock().unwrap().len();
    let said = passed(machines.command("silent", &proxy.layers()).env(MORE, "more"));
    assert_eq!(Machines::notices(&said), [""; 0]);
    assert_eq!(proxy.requests.lock().unwrap().len(), asked);
    assert_eq!(machines.built(), ["first", "first", "more"]);
}

/// Sends a request to a registry, and returns the path in the header `Location` of its answer.
fn send(registry: &DockerRegistry, request: &str, kind: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", registry.port)).unwrap();
    let (port, length) = (registry.port, body.len());
    let head = format!("{request} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\n");
    let head = format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{request}: {answer}");
    let place = answer.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap_or_default();
    place.split_once(&format!(":{port}")).map(|(_, path)| path.to_owned()).unwrap_or_default()
}

/// Signs a layer as cosign does, by openssl(1).
fn sign(registry: &DockerRegistry, directory: &Path, digest: &str) {
    let repository = "/v2/team/test-layers";
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let there = format!("docker://{}:{digest}", registry.layers());
    let manifest = sha256(&run("skopeo", &["inspect", "--raw", "--tls-verify=false", &there]));
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":""}},
            "image":{{"docker-manifest-digest":"sha256:{manifest}"}},
            "type":"cosign container image signature"}},"optional":null}}"#
    );
    fs::write(directory.join("payload"), &payload).unwrap();
    let signing = "openssl dgst -sha256 -sign cosign.key payload | base64 --wrap 0";
    let signature = String::from_utf8(run("sh", &["-c", signing])).unwrap();
    let push = |bytes: &[u8]| {
        let place = send(registry, &format!("POST {repository}/blobs/uploads/"), "text/plain", b"");
        let digest = sha256(bytes);
        send(registry, &format!("PUT {place}&digest=sha256:{digest}"), "application/octet-stream", bytes);
        format!(r#""digest":"sha256:{digest}","size":{}"#, bytes.len())
    };
    let (config, payload) = (push(b"{}"), push(payload.as_bytes()));
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let signatures = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json",{config}}},
            "layers":[{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json",{payload},
            "annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}]}}"#
    );
    send(registry, &format!("PUT {repository}/manifests/sha256-{manifest}.sig"), kind, signatures.as_bytes());
}

#[test]
fn only_signed_layers_are_used_where_a_key_is_given() {
    let Some((registry, machines)) = filled_registry() else { return };
    if !is_installed("openssl") || !is_installed("skopeo") {
        return skip("openssl or skopeo is not installed");
    }
    let place = machines.place.path();
    let keys = "openssl ecparam -genkey -name prime256v1 -noout -out cosign.key && \
                openssl ec -in cosign.key -pubout -out cosign.pub";
    let made = Command::new("sh").args(["-c", keys]).current_dir(place).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let run = |machine: &str| {
        let mut command = machines.command(machine, &registry.layers());
        passed(command.env("SANDBOXED_DB_REGISTRY_KEY", place.join("cosign.pub")))
    };
    let said = run("strict");
    assert_says(&said, &["cannot be used, and is built: it has no signature"]);
    assert!(machines.layers("strict").iter().all(|(_, is_pulled)| !is_pulled), "{said}");
    for (digest, _) in machines.layers("one") {
        sign(&registry, place, &digest);
    }
    let said = run("two");
    assert!(machines.all_pulled("two"), "{said}");
    assert_eq!(machines.built(), ["first", "first"]);
}

#[test]
fn a_token_is_asked_for_pushes_and_shown_to_no_other_host() {
    let (Some(registry), false) = (registry(), is_missing::<Redis>()) else { return };
    let machines = Machines::of::<Redis>("redis");
    let proxy = Proxy::serve(&registry, Mischief::SendsElsewhere);
    // `user:word` in base 64.
    let config = format!(r#"{{"auths":{{"127.0.0.1:{}":{{"auth":"dXNlcjp3b3Jk"}}}}}}"#, proxy.port);
    fs::write(machines.place.path().join("config.json"), config).unwrap();
    let said = machines.run_and_push("one", &proxy.layers());
    assert_eq!(Machines::notices(&said), [""; 0]);
    let requests = proxy.requests.lock().unwrap().clone();
    let (elsewhere, here): (Vec<_>, Vec<_>) =
        requests.iter().partition(|(_, port, _)| *port == proxy.elsewhere);
    assert!(elsewhere.len() > 2, "{requests:?}");
    assert!(elsewhere.iter().all(|(_, _, authorization)| authorization.is_empty()), "{elsewhere:?}");
    let scopes: Vec<_> =
        here.iter().filter(|(line, _, _)| line.contains("/token?")).map(|(line, _, _)| line).collect();
    assert_eq!(scopes.len(), 2, "{scopes:?}");
    assert!(scopes[0].contains("pull&") || scopes[0].contains("pull "), "{scopes:?}");
    assert!(scopes[1].contains("pull%2Cpush") || scopes[1].contains("pull,push"), "{scopes:?}");
    machines.run("two", &registry.layers());
    assert!(machines.all_pulled("two"));
}
