//! A cache that was changed from outside serves no wrong layer: entries are rebuilt, or the error
//! names the fix.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sandboxed_db::{Sandbox, sandboxed_db};
use sandboxed_db_tests::{alone, assert_says, failed, is_alone};

use crate::requests::{Response, TestCache};

/// A file that changed less than two seconds before it is read is not noted.
const SETTLED: Duration = Duration::from_millis(2200);

/// A cache, and two seeds whose table `t` holds `one` or `two`.
fn two_seeds() -> TestCache {
    with_two_seeds(TestCache::new())
}

fn with_two_seeds(cache: TestCache) -> TestCache {
    for text in ["one", "two"] {
        cache.write(&format!("{text}.sql"), &format!("create table t as select '{text}'::text as x"));
    }
    cache
}

fn ask(cache: &TestCache, seed: &str) -> Response {
    cache.ask(&[("seed", &format!("{seed}.sql")), ("sql", "select x from t")])
}

/// The directory of the layer whose manifest names the seed.
fn layer_of(cache: &TestCache, seed: &str) -> PathBuf {
    let names_seed = |data: &PathBuf| {
        let manifest = fs::read_to_string(data.with_file_name("manifest.json")).unwrap();
        manifest.contains(&format!("/{seed}.sql"))
    };
    let data = cache.layers().into_values().find(names_seed).unwrap();
    data.parent().unwrap().to_owned()
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn a_lookup_that_names_another_layer_is_a_miss() {
    let cache = two_seeds();
    std::thread::sleep(SETTLED);
    assert!(ask(&cache, "one").built && ask(&cache, "two").built);
    let lookups = || fs::read_dir(cache.cache.join("lookups")).unwrap().map(|entry| entry.unwrap().path());
    let of = |layer: &Path| -> PathBuf {
        lookups().find(|path| fs::read_to_string(path).unwrap().contains(name(layer))).unwrap()
    };
    let (layer_one, layer_two) = (layer_of(&cache, "one"), layer_of(&cache, "two"));
    let (lookup_one, lookup_two) = (of(&layer_one), of(&layer_two));
    let text = fs::read_to_string(&lookup_one).unwrap();

    fs::write(&lookup_one, text.replace(name(&layer_one), name(&layer_two))).unwrap();
    assert_eq!(ask(&cache, "one").answers, ["one"]);
    fs::copy(&lookup_two, &lookup_one).unwrap();
    assert_eq!(ask(&cache, "one").answers, ["one"]);
}

#[test]
fn a_layer_under_the_name_of_another_is_rebuilt() {
    let cache = two_seeds();
    assert!(ask(&cache, "one").built && ask(&cache, "two").built);
    let (layer_one, layer_two) = (layer_of(&cache, "one"), layer_of(&cache, "two"));
    fs::remove_dir_all(&layer_one).unwrap();
    fs::rename(&layer_two, &layer_one).unwrap();
    let response = ask(&cache, "one");
    assert!(response.built && response.answers == ["one"], "{response:?}");
}

#[test]
fn a_layer_replaced_by_a_symbolic_link_is_rebuilt() {
    let cache = two_seeds();
    assert!(ask(&cache, "one").built);
    let layer = layer_of(&cache, "one");
    let moved = PathBuf::from(cache.path("moved"));
    fs::rename(&layer, &moved).unwrap();
    symlink(&moved, &layer).unwrap();
    assert!(ask(&cache, "one").built, "the link was followed");
    assert!(!layer.is_symlink() && moved.join("data/PG_VERSION").is_file());

    let data = layer.join("data");
    fs::remove_dir_all(&data).unwrap();
    symlink(moved.join("data"), &data).unwrap();
    assert!(ask(&cache, "one").built, "the link was followed");
    assert!(moved.join("data/PG_VERSION").is_file());
}

#[test]
fn no_file_is_writable_by_others_under_umask_000() {
    // The base layer is built under that umask, too.
    let cache = with_two_seeds(TestCache::empty());
    assert!(cache.ask(&[("umask", "000"), ("seed", "one.sql")]).built);
    let find =
        Command::new("find").arg(&cache.cache).args(["!", "-type", "l", "-perm", "/022"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&find.stdout), "", "{find:?}");
}

#[test]
fn a_cache_path_that_is_a_file_is_reported() {
    let cache = with_two_seeds(TestCache::empty());
    fs::write(&cache.cache, "").unwrap();
    let report = cache.begin(&[("seed", "one.sql")]).outcome().unwrap_err();
    let expected = format!("`{}` is not a directory", cache.cache.display());
    assert!(report.contains(&expected) && report.contains("SANDBOXED_DB_CACHE"), "{report}");
}

#[test]
fn a_cache_removed_during_a_build_is_reported() {
    let cache = two_seeds();
    let remove = format!("rm -rf '{}'", cache.cache.display());
    let report = cache.begin(&[("seed", "one.sql"), ("run", &remove)]).outcome().unwrap_err();
    assert!(report.contains("files were removed from the cache while it was in use"), "{report}");
    assert!(!ask(&cache, "one").answers.is_empty(), "the next start does not work");
}

#[sandboxed_db]
#[ignore = "run by `a_cache_removed_under_a_test_is_reported`"]
fn loses_its_cache(_db: Sandbox) {
    if is_alone() {
        fs::remove_dir_all(std::env::var_os("SANDBOXED_DB_CACHE").unwrap()).unwrap();
        panic!("it fails");
    }
}

#[test]
fn a_cache_removed_under_a_test_is_reported() {
    let cache = TestCache::empty();
    let text = failed(alone("cache_faults::loses_its_cache").env("SANDBOXED_DB_CACHE", &cache.cache));
    assert_says(&text, &["files were removed from the cache while it was in use"]);
}

#[test]
fn a_layer_older_than_max_age_is_rebuilt_with_its_steps_only() {
    let cache = two_seeds();
    let seed = cache.write("time.sql", "create table u as select now()::text as x");
    let ask = |max_age: &str| {
        cache.ask(&[("seed", "one.sql"), ("seed", &seed), ("max_age", max_age), ("sql", "select x from u")])
    };
    let first = ask("3600000");
    let second = ask("3600000");
    assert!(first.built && !second.built && first.answers == second.answers);
    let inodes = || -> Vec<u64> {
        let mut layers: Vec<_> = cache.layers().into_values().collect();
        layers.sort_by_key(|data| fs::metadata(data.with_file_name("manifest.json")).unwrap().len());
        layers.iter().map(|data| fs::metadata(data).unwrap().ino()).collect()
    };
    let before = inodes();
    let third = ask("1");
    assert!(third.built && third.answers != first.answers, "{third:?}");
    let after = inodes();
    assert_eq!(before.len(), 3);
    assert_eq!(
        before.iter().filter(|inode| after.contains(inode)).count(),
        1,
        "the fresh server was rebuilt"
    );
}
