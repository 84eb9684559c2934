//! A layer is found without reading its files, and whatever changes in them is noticed all the same.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rstest::rstest;

use crate::requests::TestCache;

/// What changed less than two seconds before it is read is not noted.
const SETTLED: Duration = Duration::from_millis(2200);

fn notes(cache: &TestCache) -> usize {
    fs::read_dir(cache.cache.join("lookups")).map_or(0, Iterator::count)
}

/// Directories of migrations of the kinds that are read in different ways, and a seed.
fn description(cache: &TestCache) -> Vec<(&'static str, String)> {
    cache.write("one/1.sql", "create table t (body text);");
    symlink(cache.path("nowhere"), cache.path("one/3.sql")).unwrap();
    cache.write("two/1.sql", "create table t (body text);\nselect 1;");
    symlink(cache.path("one"), cache.path("link")).unwrap();
    cache.write("diesel/2020-01-01-000000_a/up.sql", "insert into t values ('a');");
    cache.write("seed.sql", "\\ir included.sql\n");
    cache.write("included.sql", "insert into t values ('included');");
    cache.write("declared/below/file", "");
    vec![
        ("migrations", cache.path("link")),
        ("migrations", cache.path("diesel")),
        ("seed", cache.path("seed.sql")),
        ("depends_on", cache.path("declared")),
        ("run", "true".to_owned()),
    ]
}

fn edit(path: impl AsRef<Path>) {
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text + "-- edited\n").unwrap();
}

#[rstest]
#[case::a_file_is_edited(|place: PathBuf| edit(place.join("one/1.sql")))]
#[case::a_file_is_added(|place: PathBuf| fs::write(place.join("one/2.sql"), "select 2;").unwrap())]
#[case::a_link_leads_elsewhere(|place: PathBuf| {
    fs::remove_file(place.join("link")).unwrap();
    symlink(place.join("two"), place.join("link")).unwrap();
})]
#[case::a_directory_is_replaced(|place: PathBuf| {
    fs::rename(place.join("one"), place.join("old")).unwrap();
    fs::rename(place.join("two"), place.join("one")).unwrap();
})]
#[case::a_migration_in_a_directory_of_its_own_is_edited(|place: PathBuf| edit(place.join("diesel/2020-01-01-000000_a/up.sql")))]
#[case::what_tells_how_it_is_run_is_added(|place: PathBuf| {
    fs::write(place.join("diesel/2020-01-01-000000_a/metadata.toml"), "run_in_transaction = false").unwrap();
})]
#[case::an_included_file_is_edited(|place: PathBuf| edit(place.join("included.sql")))]
#[case::a_link_that_led_nowhere_leads_to_a_file(|place: PathBuf| {
    fs::write(place.join("nowhere"), "select 3;").unwrap();
})]
#[case::a_declared_file_is_edited(|place: PathBuf| edit(place.join("declared/below/file")))]
#[case::a_declared_file_is_added(|place: PathBuf| fs::write(place.join("declared/below/more"), "").unwrap())]
fn a_change_is_noticed(#[case] change: fn(PathBuf)) {
    let cache = TestCache::new();
    let description = description(&cache);
    let asked: Vec<_> = description.iter().map(|(word, text)| (*word, text.as_str())).collect();
    assert!(cache.ask(&asked).built);
    std::thread::sleep(SETTLED);
    assert!(!cache.ask(&asked).built);
    assert!(notes(&cache) > 0, "nothing was noted");
    assert!(!cache.ask(&asked).built);
    change(cache.path("").into());
    assert!(cache.ask(&asked).built, "the change went unnoticed");
    assert!(!cache.ask(&asked).built);
}

#[test]
fn a_note_that_is_damaged_is_as_good_as_none() {
    let cache = TestCache::new();
    let seed = cache.write("seed.sql", "create table t ();");
    std::thread::sleep(SETTLED);
    assert!(cache.ask(&[("seed", &seed)]).built);
    let noted: Vec<_> =
        fs::read_dir(cache.cache.join("lookups")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!noted.is_empty(), "nothing was noted");
    for damage in ["", "\0\n\n", "00\n11\n/nowhere\0"] {
        noted.iter().for_each(|note| fs::write(note, damage).unwrap());
        assert!(!cache.ask(&[("seed", &seed)]).built);
    }
    for note in &noted {
        fs::remove_file(note).unwrap();
        fs::create_dir(note).unwrap();
    }
    assert!(!cache.ask(&[("seed", &seed)]).built);
}
