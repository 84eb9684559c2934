//! The layers of a cache can be listed, verified and pruned.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use sandboxed_db::cache::{LayerInfo, Layers, Limit};
use sandboxed_db::{Postgres, Snapshot};
use sandboxed_db_tests::{alone, is_alone};

use crate::requests::{TestCache, files};

/// The command for the other process: `list`, `verify`, `use`, or `prune` with a number of bytes.
const DO: &str = "UPKEEP_TEST_DO";

#[test]
#[ignore = "run by the tests of this file, with a cache of their own"]
#[expect(clippy::print_stdout, reason = "the test reads it")]
fn looks_after_the_cache() {
    if !is_alone() {
        return;
    }
    let asked = std::env::var(DO).unwrap();
    let layers = Layers::open().unwrap();
    // libtest has begun a line.
    println!();
    let tell = |layer: &LayerInfo| {
        println!(
            "layer {} {} {} {} {}",
            layer.digest,
            layer.size,
            layer.shared,
            layer.in_use,
            layer.steps.len()
        );
    };
    match asked.split_once(' ').unwrap_or((&asked, "")) {
        ("list", _) => layers.list().unwrap().iter().for_each(tell),
        ("verify", _) => layers.verify().unwrap().iter().for_each(|damage| println!("damage {damage:?}")),
        ("prune", size) => {
            let limit = Limit { size: size.parse().unwrap(), age: None };
            layers.prune(limit).unwrap().iter().for_each(tell);
        }
        ("use", migrations) => {
            let db = Snapshot::new(Postgres::new()).migrations(migrations).start().unwrap();
            let removed = layers.prune(Limit { size: 0, age: None }).unwrap();
            removed.iter().for_each(tell);
            println!("alive {}", sandboxed_db_tests::connect(db.url()).query("select * from t", &[]).is_ok());
        }
        other => panic!("{other:?}"),
    }
}

/// Runs a command in another process, and returns the lines that it prints.
pub(crate) fn run(cache: &TestCache, what: &str) -> Vec<String> {
    let output: Output = alone("maintenance::looks_after_the_cache")
        .arg("--nocapture")
        .env("SANDBOXED_DB_CACHE", &cache.cache)
        .env(DO, what)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let told = |line: &&str| ["layer ", "damage ", "alive "].iter().any(|word| line.starts_with(word));
    text.lines().filter(told).map(str::to_owned).collect()
}

/// A cache with the base and a layer with a table.
fn filled() -> (TestCache, String) {
    let cache = TestCache::new();
    cache.write("migrations/1.sql", "create table t (x text)");
    let migrations = cache.path("migrations");
    assert!(cache.ask(&[("migrations", &migrations)]).built);
    (cache, migrations)
}

fn number(line: &str, field: usize) -> u64 {
    line.split(' ').nth(field).unwrap().parse().unwrap()
}

#[test]
fn a_list_of_layers_has_their_sizes_and_shared_sizes() {
    let (cache, _) = filled();
    let told = run(&cache, "list");
    assert_eq!(told.len(), 2, "{told:?}");
    for layer in &told {
        let (size, shared) = (number(layer, 2), number(layer, 3));
        assert!(size > 10 << 20 && shared > size / 2 && shared < size, "{layer}");
        assert!(layer.contains(" false "), "{layer} is not in use");
    }
    let steps: Vec<_> = told.iter().map(|layer| number(layer, 5)).collect();
    assert!(steps.contains(&0) && steps.contains(&1), "{told:?}");
}

#[test]
fn an_unused_layer_is_pruned_and_built_again() {
    let (cache, migrations) = filled();
    assert_eq!(run(&cache, &format!("prune {}", 10_u64 << 30)), [""; 0], "there is room for all");
    // One layer has to go, the least recently used.
    let told = run(&cache, "list");
    let all: u64 =
        told.iter().map(|layer| number(layer, 2) - number(layer, 3)).sum::<u64>() + number(&told[0], 3);
    assert_eq!(run(&cache, &format!("prune {}", all - 1)).len(), 1);
    assert_eq!(run(&cache, "prune 0").len(), 1);
    assert!(cache.layers().is_empty());
    cache.assert_no_build_is_left();
    assert!(cache.ask(&[("migrations", &migrations)]).built);
}

#[test]
fn a_layer_in_use_is_not_pruned() {
    let (cache, migrations) = filled();
    let told = run(&cache, &format!("use {migrations}"));
    assert_eq!(told.last().unwrap(), "alive true", "{told:?}");
    let left: Vec<PathBuf> = cache.layers().into_values().collect();
    assert_eq!(left.len(), 1, "{told:?}");
    assert!(!cache.ask(&[("migrations", &migrations)]).built);
}

#[test]
fn verify_finds_damage_without_a_trace_in_times() {
    let (cache, migrations) = filled();
    assert_eq!(run(&cache, "verify"), [""; 0]);
    let data = cache.layers().into_values().next().unwrap();
    let file = files(&data).into_iter().find(|file| file.ends_with("PG_VERSION")).unwrap();
    fs::write(&file, "16\n").unwrap();
    let told = run(&cache, "verify");
    // The file is shared by both layers, or belongs to one.
    assert!(
        !told.is_empty() && told.iter().all(|damage| damage.contains("PG_VERSION` has changed")),
        "{told:?}"
    );
    assert_eq!(cache.layers().len(), 2 - told.len(), "damaged layers are set aside");
    assert_eq!(run(&cache, "verify"), [""; 0]);
    assert!(cache.ask(&[("migrations", &migrations)]).built);
}
