//! Packages of the distribution on top of a server, from a repository that the test serves.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::mount::{MountFlags, mount, mount_remount};
use sandboxed_db::cache::{LayerInfo, Layers, Limit};
use sandboxed_db::{ErrorKind, Postgres, Snapshot};
use sandboxed_db_tests::{
    Answer, AptRepository, DEADLINE, MountUser, Package, alone, assert_says, in_mount_namespace, is_alone,
    mount_task, passed, skip, wait_until,
};

use crate::errors::real;
use crate::requests::{Request, TestCache};

/// The query whose answer an extension and its dependency make together.
const FABLE: (&str, &str) = ("sql", "select fable()");

/// Adds an extension for a version of PostgreSQL, and a package on which it depends; returns the
/// name of the first. The text makes up the size of the second.
pub(crate) fn add_fable(repository: &AptRepository, version: u32, text: &str) -> String {
    let package = format!("postgresql-{version}-fable");
    let directory = format!("usr/share/postgresql/{version}/extension");
    let file = |name: &str| format!("{directory}/{name}");
    repository.add(&Package {
        name: &package,
        depends: &format!("postgresql-{version}, fable-data"),
        files: &[
            (&file("fable-1.control"), "default_version = '1.0'\n"),
            (
                &file("fable--1.0.sql"),
                "create function fable() returns text language sql as $$select pg_read_file('/usr/lib/fable/text')$$;",
            ),
        ],
        // As the package of PostGIS does.
        script: &format!(
            "#!/bin/sh\nDIR=\"/{directory}\"\nupdate-alternatives \\\n  --install $DIR/fable.control fable.control \
             $DIR/fable-1.control 10\n"
        ),
    });
    repository.add(&Package { name: "fable-data", files: &[("lib/fable/text", text)], ..Package::default() });
    package
}

/// A repository with an extension for the installed server, and a separate cache.
struct Fable {
    repository: AptRepository,
    cache: TestCache,
    package: String,
}

impl Fable {
    /// Skips the test without apt-get, or if the server is not the distribution's.
    fn new(cache: TestCache) -> Option<Self> {
        Self::with_text(cache, "slow and steady")
    }

    /// The text makes up the size of the package on which the extension depends.
    fn with_text(mut cache: TestCache, text: &str) -> Option<Self> {
        let repository = AptRepository::serve()?;
        let server = real();
        let owner = Command::new("dpkg-query").arg("--search").arg(server.server()).output();
        if !owner.is_ok_and(|owner| owner.status.success()) {
            skip("the server is of no package");
            return None;
        }
        let package = add_fable(&repository, server.major(), text);
        cache.write("fable.sql", "create extension fable;");
        let config = repository.config().to_str().unwrap().to_owned();
        cache.environment = vec![("APT_CONFIG", config.leak())];
        Some(Self { repository, cache, package })
    }

    fn begin(&self) -> Request {
        self.cache.begin(&[("package", &self.package), ("seed", "fable.sql"), FABLE])
    }

    #[track_caller]
    fn works(&self) {
        assert_eq!(self.begin().end().answers, ["slow and steady"]);
        self.cache.assert_no_build_is_left();
    }

    /// The report of a request for that package.
    #[track_caller]
    fn refused(&self, package: &str) -> String {
        let report = self.cache.begin(&[("package", package)]).outcome().unwrap_err();
        assert_eq!(self.trees(), 0, "{report}");
        report
    }

    /// The number of unpacked trees.
    fn trees(&self) -> usize {
        let stores = fs::read_dir(self.cache.cache.join("packages")).into_iter().flatten();
        stores.map(|store| fs::read_dir(store.unwrap().path()).unwrap().count()).sum()
    }
}

#[test]
fn an_extension_from_a_package_works_with_its_dependency() {
    let Some(fable) = Fable::new(TestCache::new()) else { return };
    fable.works();
    let asked = fable.repository.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    // Once unpacked, no repository is asked.
    fable.repository.disappear();
    fable.works();
    let again = fable.cache.begin(&[("package", &fable.package), ("seed", "fable.sql"), FABLE]).end();
    assert!(!again.built);
    assert_eq!((fable.repository.asked(), fable.trees()), (asked, 1));
    // Without the package there is no such extension, and no such layer.
    let report = fable.cache.begin(&[("seed", "fable.sql")]).outcome().unwrap_err();
    assert_says(&report, &["extension \"fable\" is not available"]);
}

#[test]
fn layers_depend_on_the_packages_below_them() {
    let Some(fable) = Fable::new(TestCache::new()) else { return };
    fable.cache.write("one.sql", "create table one ();");
    let built = |packages: &[&str]| {
        let packages = packages.iter().map(|package| ("package", *package));
        let request: Vec<_> = packages.chain([("seed", "one.sql")]).collect();
        fable.cache.ask(&request).built
    };
    assert!(built(&[]) && !built(&[]));
    assert!(built(&["fable-data"]) && !built(&["fable-data"]));
    assert!(built(&[&fable.package]), "{} and fable-data share a layer", fable.package);
}

#[test]
fn a_package_that_does_not_exist_is_refused() {
    let Some(fable) = Fable::new(TestCache::empty()) else { return };
    let report = fable.refused("no-such-package");
    let step = "could not get `no-such-package` from the distribution's packages";
    assert_says(
        &report,
        &[step, "Unable to locate package no-such-package", "hint: the sources in /etc/apt"],
    );
    let version = format!("{}=9.9", fable.package);
    assert_says(&fable.refused(&version), &[&version, "Version '9.9' for ", "was not found", "hint: "]);
    assert_says(&fable.refused("--purge"), &["use `--purge` as a package", "hint: a package is `name`"]);
}

#[test]
fn a_package_for_another_version_names_the_right_one() {
    let major = real().major();
    let other = Snapshot::new(Postgres::new()).package(format!("postgresql-{}-cron", major + 1));
    let error = other.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let made_for = format!("made for version {} of the server", major + 1);
    let fitting =
        format!("hint: name `postgresql-{major}-cron`, or choose the server's version {}", major + 1);
    assert_says(&format!("{error:?}"), &[&made_for, &fitting]);
}

#[test]
fn a_package_that_needs_another_build_names_the_update() {
    let Some(fable) = Fable::new(TestCache::empty()) else { return };
    let server = format!("postgresql-{}", real().major());
    let name = format!("{server}-strict");
    let depends = format!("{server} (= 99.9-1)");
    fable.repository.add(&Package { name: &name, depends: &depends, ..Package::default() });
    let update = format!("`sudo apt-get install {server}`; or set SANDBOXED_DB_POSTGRES=packages");
    assert_says(&fable.refused(&name), &[&format!("`{name}` needs {depends}"), &update]);
}

#[test]
fn a_repository_without_an_answer_is_reported() {
    let Some(fable) = Fable::new(TestCache::new()) else { return };
    fable.repository.disappear();
    let report = fable.refused(&fable.package);
    assert_says(
        &report,
        &["Could not connect to 127.0.0.1", "hint: this machine does not reach the sources"],
    );
}

#[test]
fn a_repository_without_a_signature_is_refused() {
    let Some(fable) = Fable::new(TestCache::new()) else { return };
    fable.repository.distrust();
    let report = fable.refused(&fable.package);
    assert_says(
        &report,
        &["does not have a Release file", "hint: a source in /etc/apt has no valid signature"],
    );
}

#[test]
fn a_damaged_download_is_not_used() {
    let Some(fable) = Fable::new(TestCache::new()) else { return };
    fable.repository.answer(Answer::Damaged);
    let report = fable.refused(&fable.package);
    assert_says(
        &report,
        &["Hash Sum mismatch", "hint: the mirror, or a proxy before it, delivered a damaged file"],
    );
    fable.repository.answer(Answer::File);
    fable.works();
}

#[test]
fn a_process_killed_while_it_fetches_leaves_nothing() {
    let Some(fable) = Fable::new(TestCache::new()) else { return };
    fable.repository.answer(Answer::Silence);
    let request = fable.begin();
    wait_until(DEADLINE, "something is fetched", || !fable.repository.asked().is_empty());
    request.kill();
    assert_eq!(fable.trees(), 0);
    fable.repository.answer(Answer::File);
    fable.works();
    assert_eq!(fable.trees(), 1);
}

#[test]
#[ignore = "runs alone, with the repository and the cache of another test"]
fn upkeep_alone() {
    let Ok(package) = std::env::var("SANDBOXED_DB_TEST_PACKAGE") else { return };
    let layers = Layers::open().unwrap();
    let tree = || layers.list().unwrap().into_iter().find(|it| it.engine == "packages");
    let path = |it: &LayerInfo| layers.directory().join("packages").join(&it.version).join(&it.digest);
    // That of another process, which no process uses any more.
    let unused = tree().unwrap();
    assert!(unused.digest.starts_with(&package) && unused.size > 0 && !unused.in_use, "{unused:?}");
    assert_eq!(layers.verify().unwrap(), Vec::new());
    fs::write(path(&unused).join("usr/lib/fable/text"), "changed").unwrap();
    let [damage] = &layers.verify().unwrap()[..] else { panic!("one tree is damaged") };
    assert_eq!(
        (&damage.digest, &damage.differences[..]),
        (&unused.digest, &["`lib/fable/text` was changed".to_owned()][..])
    );
    assert!(tree().is_none());
    // One that a process uses stays, whatever the limit.
    let db = Snapshot::new(Postgres::new()).package(&package).start().unwrap();
    drop(db);
    layers.prune(Limit { size: 0, age: None }).unwrap();
    assert!(tree().unwrap().in_use);
}

#[test]
fn packages_are_verified_and_pruned_as_layers_are() {
    let Some(fable) = Fable::new(TestCache::new()) else { return };
    fable.works();
    let mut upkeep = alone("packages::upkeep_alone");
    upkeep.env("SANDBOXED_DB_CACHE", &fable.cache.cache).env("SANDBOXED_DB_TEST_PACKAGE", &fable.package);
    passed(upkeep.env("APT_CONFIG", fable.repository.config()));
    assert_eq!((fable.repository.asked().len(), fable.trees()), (4, 1));
    passed(alone("packages::prune_alone").env("SANDBOXED_DB_CACHE", &fable.cache.cache));
    assert_eq!(fable.trees(), 0);
}

#[test]
#[ignore = "runs alone, with the cache of another test"]
fn prune_alone() {
    if is_alone() {
        Layers::open().unwrap().prune(Limit { size: 0, age: None }).unwrap();
    }
}

#[test]
fn processes_that_need_one_package_fetch_it_once() {
    let Some(fable) = Fable::new(TestCache::new()) else { return };
    let requests: Vec<_> = (0..3).map(|_| fable.begin()).collect();
    for request in requests {
        assert_eq!(request.end().answers, ["slow and steady"]);
    }
    assert_eq!((fable.repository.asked().len(), fable.trees()), (2, 1));
}

#[test]
fn a_download_shows_its_bytes_on_a_terminal() {
    let Some(fable) = Fable::with_text(TestCache::new(), &noise(40_000)) else { return };
    let request = [("package", &*fable.package), ("seed", "fable.sql")];
    let shown = fable.cache.ask_on_terminal(&request);
    assert_says(&shown, &["downloading 2 packages, 0.0 of 0."]);
    assert!(!shown.contains("of 0.0 MB"), "{shown}");
}

/// Text that cannot be compressed well.
fn noise(numbers: u64) -> String {
    (0..numbers).map(|number| format!("{:x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

#[test]
fn packages_for_which_there_is_no_space_are_reported() {
    in_mount_namespace(MountUser::best(), "packages::little_space_then_more", "");
}

#[test]
#[ignore = "run by the test above, in separate namespaces"]
fn little_space_then_more() {
    if !is_alone() {
        return;
    }
    let (directory, _) = mount_task().unwrap();
    mount("tmpfs", &directory, "tmpfs", MountFlags::empty(), Some(c"size=2m")).unwrap();
    let mut cache = TestCache::empty();
    cache.cache = directory.clone();
    let noise = noise(400_000);
    let Some(fable) = Fable::with_text(cache, &noise) else { return };
    let report = fable.refused(&fable.package);
    assert_says(&report, &["could not get `postgresql-", "hint: the file system of the cache is full"]);
    fable.cache.assert_no_build_is_left();

    mount_remount(&directory, MountFlags::empty(), c"size=500m").unwrap();
    let answer = fable.begin().end().answers;
    assert!(answer[0].starts_with(&noise[..9]), "{answer:.9?}");
}

#[test]
fn a_missing_extension_is_answered_with_its_package() {
    let server = real();
    let package = format!("postgresql-{}-hypopg", server.major());
    let known = Command::new("apt-cache").args(["pkgnames", &package]).output();
    let is_known = known.is_ok_and(|output| output.stdout.starts_with(package.as_bytes()));
    if !is_known
        || Path::new("/usr/share/postgresql")
            .join(format!("{}/extension/hypopg.control", server.major()))
            .exists()
    {
        return skip("the machine has no package lists, or the extension of the test");
    }
    let cache = TestCache::new();
    cache.write("hypopg.sql", "create extension hypopg;");
    let report = cache.begin(&[("seed", "hypopg.sql")]).outcome().unwrap_err();
    assert_says(
        &report,
        &[&format!("hint: the package `{package}` has it: add `Snapshot::package(\"{package}\")`")],
    );
}
