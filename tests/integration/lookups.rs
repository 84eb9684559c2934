//! A layer is found without reading the files of its steps, and every change of the files is
//! noticed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sandboxed_db_tests::{DEADLINE, eventually, wait_until};

use crate::requests::TestCache;

fn lookups(cache: &TestCache) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.cache.join("lookups")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Steps of all kinds that are read in different ways, with their files in a directory.
fn steps(cache: &TestCache, directory: &str) -> Vec<(&'static str, String)> {
    let path = |name: &str| cache.path(&format!("{directory}/{name}"));
    let write = |name: &str, text: &str| cache.write(&format!("{directory}/{name}"), text);
    write("one/1.sql", "create table t (body text);");
    symlink(path("nowhere"), path("one/3.sql")).unwrap();
    write("two/1.sql", &format!("create table t (body text);\nselect '{directory}';"));
    symlink(path("one"), path("link")).unwrap();
    write("diesel/2020-01-01-000000_a/up.sql", "insert into t values ('a');");
    write("seed.sql", "\\ir included.sql\n");
    write("included.sql", "insert into t values ('included');");
    write("declared/below/file", "");
    vec![
        ("migrations", path("link")),
        ("migrations", path("diesel")),
        ("seed", path("seed.sql")),
        ("depends_on", path("declared")),
        ("run", "true".to_owned()),
    ]
}

fn edit(path: impl AsRef<Path>) {
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text + "-- edited\n").unwrap();
}

/// A change of the files in a directory, and its name.
type Change = (&'static str, fn(PathBuf));

/// Each leads to another layer.
const CHANGES: [Change; 10] = [
    ("a file is edited", |at| edit(at.join("one/1.sql"))),
    ("a file is added", |at| fs::write(at.join("one/2.sql"), "select 2;").unwrap()),
    ("a link leads elsewhere", |at| {
        fs::remove_file(at.join("link")).unwrap();
        symlink(at.join("two"), at.join("link")).unwrap();
    }),
    ("a directory is replaced", |at| {
        fs::rename(at.join("one"), at.join("old")).unwrap();
        fs::rename(at.join("two"), at.join("one")).unwrap();
    }),
    ("a nested migration is edited", |at| edit(at.join("diesel/2020-01-01-000000_a/up.sql"))),
    ("a migration's options are added", |at| {
        let options = at.join("diesel/2020-01-01-000000_a/metadata.toml");
        fs::write(options, "run_in_transaction = false").unwrap();
    }),
    ("an included file is edited", |at| edit(at.join("included.sql"))),
    ("a broken link leads to a file", |at| fs::write(at.join("nowhere"), "select 3;").unwrap()),
    ("a declared file is edited", |at| edit(at.join("declared/below/file"))),
    ("a declared file is added", |at| fs::write(at.join("declared/below/more"), "").unwrap()),
];

#[test]
fn every_change_of_a_file_is_noticed() {
    let cache = TestCache::new();
    let all = CHANGES.map(|(name, _)| steps(&cache, name));
    let all = all.each_ref().map(|steps| {
        let words = steps.iter().map(|(word, argument)| (*word, argument.as_str()));
        words.collect::<Vec<_>>()
    });
    all.iter().for_each(|steps| assert!(cache.ask(steps).built));
    // A lookup is kept as soon as the files have not changed for a while.
    for (count, steps) in (1..).zip(&all) {
        wait_until(DEADLINE, "the lookup is kept", || {
            assert!(!cache.ask(steps).built);
            lookups(&cache).len() >= count
        });
    }
    for ((name, change), steps) in CHANGES.into_iter().zip(&all) {
        change(cache.path(name).into());
        assert!(cache.ask(steps).built, "after {name}");
    }
}

#[test]
fn a_damaged_lookup_is_ignored() {
    let cache = TestCache::new();
    let seed = cache.write("seed.sql", "create table t ();");
    assert!(cache.ask(&[("seed", &seed)]).built);
    let kept = eventually(DEADLINE, "the lookup is kept", || {
        assert!(!cache.ask(&[("seed", &seed)]).built);
        let kept = lookups(&cache);
        (!kept.is_empty()).then_some(kept)
    });
    for damage in ["", "\0\n\n", "00\n11\n/nowhere\0"] {
        kept.iter().for_each(|lookup| fs::write(lookup, damage).unwrap());
        assert!(!cache.ask(&[("seed", &seed)]).built);
    }
    for lookup in &kept {
        fs::remove_file(lookup).unwrap();
        fs::create_dir(lookup).unwrap();
    }
    assert!(!cache.ask(&[("seed", &seed)]).built);
}
