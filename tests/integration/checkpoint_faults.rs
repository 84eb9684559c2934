//! Faults around checkpoints: makers are killed, checkpoints and layers are changed and removed,
//! memory and space run out. No server is ever a wrong one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use sandboxed_db::Sandbox;
use sandboxed_db_tests::{
    DEADLINE, MountUser, Random, ScratchDirs, TestProcess, alone, children, connect, eventually,
    in_mount_namespace, is_alone, mount_task, passed, printed, rounds, start, value, wait_until,
};

use super::checkpoint::{VARIABLE, checkpoints, one_by_one, start_resumed, start_some};
use super::lifecycle::{SUBJECT, launcher};
use super::prelinked::{cache_with_its_own_images, flip_a_byte, server};

/// The staged checkpoints of a cache, which have images.
fn checkpoints_in_the_making(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.join("staging")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("image").exists()).collect()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_next_process_removes_what_a_killed_maker_left() {
    let dirs = ScratchDirs::with_shared_cache();
    let cache = cache_with_its_own_images(&dirs);
    let mut random = Random::new();
    let begin = Instant::now();
    start_some(&cache, &[]);
    let took = begin.elapsed();
    let kills = rounds(6, 60);
    let mut met = 0;
    for kill in 0..kills {
        fs::remove_dir_all(cache.join("checkpoints")).unwrap();
        let mut maker = one_by_one(&cache, &[]).stdout(Stdio::null()).spawn().unwrap();
        thread::sleep(random.within(took, kill, kills));
        maker.kill().unwrap();
        maker.wait().unwrap();
        let staged = || fs::read_dir(cache.join("staging")).unwrap().count();
        met += usize::from(staged() > 0);
        start_some(&cache, &[]);
        assert_eq!((checkpoints(&cache).len(), staged()), (1, 0), "kill {kill}");
    }
    assert!(met > 0, "no kill met the making of a checkpoint");
}

fn prune(cache: &Path) {
    let output = Command::new(SUBJECT).arg("prune").env("SANDBOXED_DB_CACHE", cache).output().unwrap();
    assert!(output.status.success(), "{}", printed(&output));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn pruning_removes_what_a_killed_maker_left_only() {
    let dirs = ScratchDirs::with_shared_cache();
    let cache = cache_with_its_own_images(&dirs);
    let made = || checkpoints_in_the_making(&cache).len();
    let mut maker = one_by_one(&cache, &[]).stdout(Stdio::null()).spawn().unwrap();
    wait_until(DEADLINE, "a checkpoint is being made", || made() == 1);
    kill_process(Pid::from_child(&maker), Signal::STOP).unwrap();
    prune(&cache);
    assert_eq!(made(), 1, "its maker lives");
    maker.kill().unwrap();
    maker.wait().unwrap();
    prune(&cache);
    assert_eq!(made(), 0);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn pruning_removes_checkpoints_without_a_layer() {
    let dirs = ScratchDirs::with_shared_cache();
    let cache = cache_with_its_own_images(&dirs);
    start_some(&cache, &[]);
    prune(&cache);
    assert_eq!(checkpoints(&cache).len(), 1, "it is of use");
    fs::rename(cache.join("layers"), cache.join("elsewhere")).unwrap();
    prune(&cache);
    assert_eq!(checkpoints(&cache).len(), 0);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_checkpoint_in_the_place_of_another_is_made_anew() {
    let dirs = ScratchDirs::with_shared_cache();
    let cache = cache_with_its_own_images(&dirs);
    // Each limit has a checkpoint, as each kernel, processor and C library has.
    let start_both = || ["64000000", "96000000"].map(|disk| start_some(&cache, &["--disk", disk]));
    start_both();
    let [one, other] = checkpoints(&cache).try_into().unwrap();
    let aside = cache.join("aside");
    fs::rename(&one, &aside).unwrap();
    fs::rename(&other, &one).unwrap();
    fs::rename(&aside, &other).unwrap();
    let is_its_own = |path: &PathBuf| {
        let seal = fs::read_to_string(path.join("seal")).unwrap();
        seal.contains(path.file_name().unwrap().to_str().unwrap())
    };
    assert!(!is_its_own(&one) && !is_its_own(&other));
    start_both();
    assert!(is_its_own(&one) && is_its_own(&other));
    assert_eq!(BTreeSet::from_iter(checkpoints(&cache)), BTreeSet::from([one, other]));
}

#[test]
fn random_kills_inside_lead_to_recovery_however_started() {
    let seed = std::env::var(Random::SEED).unwrap_or_else(|_| std::process::id().to_string());
    for way in ["exec", "linked", "checkpoint"] {
        let mut command = alone("checkpoint_faults::processes_of_a_server_are_killed");
        passed(command.env(VARIABLE, way).env(Random::SEED, &seed));
    }
}

#[test]
#[ignore = "run by another test"]
fn processes_of_a_server_are_killed() {
    if !is_alone() {
        return;
    }
    let is_resumed = cfg!(target_arch = "x86_64") && std::env::var(VARIABLE).unwrap() == "checkpoint";
    let db = if is_resumed { start_resumed() } else { start() };
    connect(db.url()).batch_execute("create table t (n int primary key)").unwrap();
    let mut random = Random::new();
    for round in 0..rounds(5, 60) {
        let mut client = recovered(&db);
        client.execute("insert into t values ($1)", &[&round]).unwrap();
        // Backends and workers alike, and one that is writing.
        let writer = thread::spawn({
            let url = db.url().to_owned();
            move || {
                let sql = "create temp table w as select from generate_series(1, 3000000)";
                let _ = Client::connect(&url, NoTls).map(|mut client| client.batch_execute(sql));
            }
        });
        thread::sleep(random.below(Duration::from_millis(40)));
        let all = children(server(&db));
        let number = random.below(Duration::from_secs(all.len() as u64)).as_secs() as usize;
        let killed = Pid::from_raw(all[number.min(all.len() - 1)].cast_signed()).unwrap();
        // It may have ended by itself.
        let _ = kill_process(killed, Signal::KILL);
        writer.join().unwrap();
        let rows = value::<i64>(&mut recovered(&db), "select count(*) from t");
        assert_eq!(rows, i64::from(round) + 1, "round {round}");
    }
    assert!(db.log().unwrap().contains("automatic recovery in progress"));
}

/// Connects once the server has recovered: none of its processes is about to end.
fn recovered(db: &Sandbox) -> Client {
    eventually(DEADLINE, "the server has recovered", || {
        let mut client = Client::connect(db.url(), NoTls).ok()?;
        thread::sleep(Duration::from_millis(20));
        client.simple_query("select 1").ok().map(|_| client)
    })
}

#[test]
#[cfg(target_arch = "x86_64")]
fn no_fault_leads_to_a_wrong_server() {
    in_mount_namespace(MountUser::best(), "checkpoint_faults::faults_and_starts_alternate", "faults");
}

/// A cache on a small file system, and the description of a server.
struct SmallCache {
    dirs: ScratchDirs,
    cache: PathBuf,
    seed: PathBuf,
    version: u32,
}

impl SmallCache {
    fn seed(&mut self, version: u32) {
        self.version = version;
        let sql = format!("create table v as select {version} as v from generate_series(1, 1000);\n");
        fs::write(&self.seed, sql).unwrap();
    }

    fn starter(&self) -> TestProcess {
        let mut command = self.dirs.command(SUBJECT);
        command
            .args(["keep", "--seed"])
            .arg(&self.seed)
            .arg("obey")
            .env("SANDBOXED_DB_CACHE", &self.cache)
            .env("SANDBOXED_DB_POOL", "0")
            .env(VARIABLE, "checkpoint");
        TestProcess::start(&mut command)
    }

    /// Starts a server, whose data must be that of the seed. Returns the report of a failure.
    fn start(&self, starter: &mut TestProcess) -> Result<(), String> {
        let answer = starter.order("start")?;
        let url = answer[0].rsplit(' ').next().unwrap();
        let sql = "select count(*) || ' of ' || max(v) || ' ' || min(v) from v";
        let found = value::<String>(&mut connect(url), sql);
        assert_eq!(found, format!("1000 of {0} {0}", self.version));
        starter.order("stop").map(drop)
    }

    fn parts(&self, of: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.cache.join(of)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }
}

#[test]
#[ignore = "run by another test, in a separate namespace"]
fn faults_and_starts_alternate() {
    let Some((directory, _)) = mount_task().filter(|_| is_alone()) else { return };
    let mounted = directory.join("mounted");
    fs::create_dir(&mounted).unwrap();
    mount("tmpfs", &mounted, "tmpfs", MountFlags::empty(), Some(c"size=400m")).unwrap();
    let mut place = SmallCache {
        dirs: ScratchDirs::new(),
        cache: mounted.join("cache"),
        seed: directory.join("seed.sql"),
        version: 0,
    };
    place.seed(0);
    let mut random = Random::new();
    let mut starter = place.starter();
    let (restores, mut answered, mut refused) = (rounds(60, 1000), 0, 0);
    let filler = mounted.join("filler");
    while answered < restores {
        let (mut may_fail, mut is_over) = (false, false);
        match random.below(Duration::from_nanos(8)).as_nanos() {
            0 => place.parts("layers").iter().for_each(|layer| fs::remove_dir_all(layer).unwrap()),
            1 => place.seed(place.version + 1),
            2 => place.parts("checkpoints").iter().for_each(|path| fs::remove_dir_all(path).unwrap()),
            3 => place.parts("checkpoints").iter().for_each(|path| flip_a_byte(&path.join("image"))),
            4 => {
                may_fail = true;
                let mut file = File::create(&filler).unwrap();
                while file.write_all(&[1; 1 << 16]).is_ok() {}
            }
            5 => {
                // The launcher, and with it all later containers, gets little memory.
                may_fail = true;
                is_over = true;
                place.start(&mut starter).unwrap();
                let bytes = 4_000_000 + random.below(Duration::from_nanos(400_000_000)).as_nanos() as u64;
                let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
                let process = Pid::from_raw(launcher(starter.pid()).cast_signed());
                prlimit(process, Resource::As, limit).unwrap();
            }
            6 => is_over = true,
            _ => {}
        }
        for _ in 0..rounds(4, 8) {
            match place.start(&mut starter) {
                Ok(()) => answered += 1,
                Err(report) => {
                    assert!(may_fail && report.starts_with("could not "), "{report}");
                    refused += 1;
                }
            }
        }
        let _ = fs::remove_file(&filler);
        if is_over {
            std::mem::replace(&mut starter, place.starter()).killed();
        }
    }
    starter.killed();
    assert!(refused < restores, "{refused} starts failed, {answered} did not");
}
