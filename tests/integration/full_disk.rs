//! A build that runs out of disk space reports it, leaves nothing, and succeeds when there is space
//! again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::fs::statvfs;
use rustix::mount::{MountFlags, mount, mount_remount};
use sandboxed_db_tests::{MountUser, Random, in_mount_namespace, is_alone, mount_task, rounds};

use crate::requests::TestCache;

/// The limit of the file system.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    Bytes,
    Inodes,
}

/// The layer to build.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    FreshServer,
    Migrations,
}

#[rstest]
#[case::bytes_for_a_fresh_server("bytes server")]
#[case::bytes_for_migrations("bytes migrations")]
#[case::inodes_for_a_fresh_server("inodes server")]
#[case::inodes_for_migrations("inodes migrations")]
fn a_build_reports_that_it_is_out_of(#[case] trial: &str) {
    in_mount_namespace(MountUser::best(), "full_disk::ever_more_room", trial);
}

#[test]
#[ignore = "run by the tests of this file, in separate namespaces"]
fn ever_more_room() {
    if !is_alone() {
        return;
    }
    let (directory, trial) = mount_task().unwrap();
    let limit = if trial.starts_with("bytes") { Limit::Bytes } else { Limit::Inodes };
    let layer = if trial.ends_with("server") { Layer::FreshServer } else { Layer::Migrations };
    let small = Small::new(&directory, layer);
    // Small steps first, then large ones.
    let (first, small_steps, step) = match limit {
        Limit::Bytes => (4 << 10, 2 << 20, 2 << 20),
        Limit::Inodes => (1, 10, 60),
    };
    let (mut refusals, mut last, mut room) = (0, 0, first);
    while !small.builds_with(limit, room) {
        refusals += 1;
        last = room;
        room = match limit {
            _ if room >= small_steps => room + step * rounds(3, 1),
            Limit::Bytes => room * rounds(8, 2),
            Limit::Inodes => room + rounds(4, 1),
        };
    }
    // The last writes of a build fail between the last two limits.
    let parts = rounds(2, if layer == Layer::FreshServer { 8 } else { 16 });
    for part in 1..parts {
        small.remove();
        refusals += usize::from(!small.builds_with(limit, last + (room - last) * part / parts));
    }
    assert!(refusals >= rounds(4, 16), "only {refusals} attempts had too little room");
    small.remove();
    assert!(small.builds_with(limit, room), "there was enough before");
    small.remove();
    assert!(small.builds_with(limit, room * 4));
}

#[test]
fn a_disk_that_fills_up_during_a_build_is_reported() {
    in_mount_namespace(MountUser::best(), "full_disk::ever_less_room", "moments");
}

#[test]
#[ignore = "run by a test of this file, in separate namespaces"]
fn ever_less_room() {
    let moments = rounds(4, 30);
    if !is_alone() {
        return;
    }
    let (directory, _) = mount_task().unwrap();
    let mut random = Random::new();
    let small = Small::new(&directory, Layer::Migrations);
    let begin = Instant::now();
    assert!(small.builds_with(Limit::Bytes, PLENTY));
    let took = begin.elapsed();
    let mut refused = 0_u32;
    for moment in 0..moments {
        small.remove();
        small.limit(Limit::Bytes, small.used(Limit::Bytes) + PLENTY).unwrap();
        let request = small.cache.begin(&small.request());
        let moment = random.within(took, moment, moments);
        std::thread::sleep(moment);
        small.fill();
        refused += u32::from(!small.judge(request.outcome(), &format!("filled after {moment:?}")));
        assert!(small.builds_with(Limit::Bytes, PLENTY), "after room was made");
    }
    assert!(refused > moments / 10, "only {refused} of {moments} moments met a build that needed more room");
}

const PLENTY: u64 = 1 << 30;

/// A cache on a separate file system, whose limits can be set.
struct Small {
    mounted: PathBuf,
    cache: TestCache,
    layer: Layer,
    /// The layers before the build.
    before: Vec<String>,
}

impl Small {
    fn new(directory: &Path, layer: Layer) -> Self {
        let mounted = directory.join("mounted");
        fs::create_dir(&mounted).unwrap();
        mount("tmpfs", &mounted, "tmpfs", MountFlags::empty(), Some(c"size=1g")).unwrap();
        let mut cache = TestCache::empty();
        cache.cache = mounted.join("cache");
        // Some megabytes in several files, and as much again in the write-ahead log.
        cache.write("migrations/1.sql", "create table t (i int primary key, x text);\n");
        cache.write(
            "migrations/2.sql",
            "insert into t select i, repeat(md5(i::text), 8) from generate_series(1, 5000) i;\n",
        );
        cache.write("migrations/3.sql", "create index on t (x);\n");
        let mut small = Self { mounted, cache, layer, before: Vec::new() };
        if layer == Layer::Migrations {
            small.cache.ask(&[]);
            small.before = small.layers();
        }
        small
    }

    /// The request, which first verifies the cache.
    fn request(&self) -> Vec<(&'static str, &'static str)> {
        let rows = "select count(*) || ' ' || count(distinct x) || ' ' || sum(length(x)) from t";
        let all = [("verify", ""), ("migrations", "migrations"), ("sql", rows)];
        all[..if self.layer == Layer::FreshServer { 1 } else { 3 }].to_vec()
    }

    /// Returns `true` if the layer can be built with that much space in addition to the used one.
    fn builds_with(&self, limit: Limit, room: u64) -> bool {
        self.limit(limit, self.used(limit) + room).unwrap();
        self.judge(self.cache.begin(&self.request()).outcome(), &format!("with room for {room}"))
    }

    fn judge(&self, outcome: Result<crate::requests::Response, String>, what: &str) -> bool {
        if self.cache.cache.join("staging").exists() {
            self.cache.assert_no_build_is_left();
        }
        match outcome {
            Ok(response) => {
                let rows: &[&str] =
                    if self.layer == Layer::Migrations { &["5000 5000 1280000"] } else { &[] };
                assert_eq!(response.answers, rows, "{what}");
                assert_eq!(self.layers().len(), self.before.len() + 1, "{what}");
                true
            }
            Err(report) => {
                assert!(report.starts_with("could not "), "{what}: {report}");
                let hint = "hint: the file system of the cache is full: set SANDBOXED_DB_CACHE to";
                assert!(report.contains(hint), "{what}: {report}");
                assert_eq!(self.layers(), self.before, "{what}");
                false
            }
        }
    }

    /// Removes the layers that were built.
    fn remove(&self) {
        for name in self.layers().into_iter().filter(|name| !self.before.contains(name)) {
            fs::remove_dir_all(self.cache.cache.join("layers").join(name)).unwrap();
        }
    }

    /// All layers, complete or not.
    fn layers(&self) -> Vec<String> {
        let layers = fs::read_dir(self.cache.cache.join("layers")).into_iter().flatten();
        layers.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn limit(&self, limit: Limit, most: u64) -> rustix::io::Result<()> {
        let name = if limit == Limit::Bytes { "size" } else { "nr_inodes" };
        mount_remount(&self.mounted, MountFlags::empty(), format!("{name}={most}"))
    }

    fn used(&self, limit: Limit) -> u64 {
        let disk = statvfs(&self.mounted).unwrap();
        match limit {
            Limit::Bytes => (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
            Limit::Inodes => disk.f_files - disk.f_ffree,
        }
    }

    /// Limits the size to the used one. The kernel refuses a limit below it, after a write
    /// meanwhile.
    fn fill(&self) {
        while self.limit(Limit::Bytes, self.used(Limit::Bytes).max(4096)).is_err() {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}
