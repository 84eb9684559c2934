//! The layers of a cache can be listed, verified and pruned.

use std::fs;
use std::path::PathBuf;

use sandboxed_db::cache::{LayerInfo, Layers, Limit};
use sandboxed_db_tests::{alone, connect, fresh, is_alone, passed};

use crate::requests::{TestCache, files};

/// The command for the other process: `list`, `verify`, `use`, or `prune` with a number of bytes.
const DO: &str = "UPKEEP_TEST_DO";

#[test]
#[ignore = "run by the tests of this file, with a separate cache"]
#[expect(clippy::print_stdout, reason = "the test reads it")]
fn looks_after_the_cache() {
    if !is_alone() {
        return;
    }
    let order = std::env::var(DO).unwrap();
    let layers = Layers::open().unwrap();
    // libtest has begun a line.
    println!();
    let print = |layer: &LayerInfo| {
        let LayerInfo { digest, size, shared, in_use, steps, .. } = layer;
        println!("layer {digest} {size} {shared} {in_use} {}", steps.len());
    };
    match order.split_once(' ').unwrap_or((&order, "")) {
        ("list", _) => layers.list().unwrap().iter().for_each(print),
        ("verify", _) => layers.verify().unwrap().iter().for_each(|damage| println!("damage {damage:?}")),
        ("prune", size) => {
            let limit = Limit { size: size.parse().unwrap(), age: None };
            layers.prune(limit).unwrap().iter().for_each(print);
        }
        ("use", migrations) => {
            let db = fresh().migrations(migrations).start().unwrap();
            let removed = layers.prune(Limit { size: 0, age: None }).unwrap();
            removed.iter().for_each(print);
            println!("alive {}", connect(db.url()).query("select * from t", &[]).is_ok());
        }
        other => panic!("{other:?}"),
    }
}

/// Runs a command in another process, and returns the lines that it prints.
pub(crate) fn run(cache: &TestCache, what: &str) -> Vec<String> {
    let mut command = alone("maintenance::looks_after_the_cache");
    let text = passed(command.arg("--nocapture").env("SANDBOXED_DB_CACHE", &cache.cache).env(DO, what));
    let is_answer = |line: &&str| ["layer ", "damage ", "alive "].iter().any(|word| line.starts_with(word));
    text.lines().filter(is_answer).map(str::to_owned).collect()
}

/// A cache with the base and a layer with a table.
fn filled() -> TestCache {
    let cache = TestCache::new();
    cache.write("migrations/1.sql", "create table t (x text)");
    assert!(is_built(&cache));
    cache
}

/// Starts a sandbox, and returns `true` if its layer had to be built.
fn is_built(cache: &TestCache) -> bool {
    cache.ask(&[("migrations", "migrations")]).built
}

fn number(line: &str, field: usize) -> u64 {
    line.split(' ').nth(field).unwrap().parse().unwrap()
}

#[test]
fn a_list_of_layers_has_their_sizes_and_shared_sizes() {
    let cache = filled();
    let lines = run(&cache, "list");
    assert_eq!(lines.len(), 2, "{lines:?}");
    for layer in &lines {
        let (size, shared) = (number(layer, 2), number(layer, 3));
        assert!(size > 10 << 20 && shared > size / 2 && shared < size, "{layer}");
        assert!(layer.contains(" false "), "{layer} is not in use");
    }
    let steps: Vec<_> = lines.iter().map(|layer| number(layer, 5)).collect();
    assert!(steps.contains(&0) && steps.contains(&1), "{lines:?}");
}

#[test]
fn an_unused_layer_is_pruned_and_built_again() {
    let cache = filled();
    assert_eq!(run(&cache, &format!("prune {}", 10_u64 << 30)), [""; 0], "there is room for all");
    // One layer has to go, the least recently used.
    let lines = run(&cache, "list");
    let all: u64 =
        lines.iter().map(|layer| number(layer, 2) - number(layer, 3)).sum::<u64>() + number(&lines[0], 3);
    assert_eq!(run(&cache, &format!("prune {}", all - 1)).len(), 1);
    assert_eq!(run(&cache, "prune 0").len(), 1);
    assert!(cache.layers().is_empty());
    cache.assert_no_build_is_left();
    assert!(is_built(&cache));
}

#[test]
fn a_layer_in_use_is_not_pruned() {
    let cache = filled();
    let lines = run(&cache, &format!("use {}", cache.path("migrations")));
    assert_eq!(lines.last().unwrap(), "alive true", "{lines:?}");
    let left: Vec<PathBuf> = cache.layers().into_values().collect();
    assert_eq!(left.len(), 1, "{lines:?}");
    assert!(!is_built(&cache));
}

#[test]
fn verify_finds_damage_without_a_trace_in_times() {
    let cache = filled();
    assert_eq!(run(&cache, "verify"), [""; 0]);
    let data = cache.layers().into_values().next().unwrap();
    let file = files(&data).into_iter().find(|file| file.ends_with("PG_VERSION")).unwrap();
    fs::write(&file, "16\n").unwrap();
    let lines = run(&cache, "verify");
    // The file is shared by both layers, or belongs to one.
    assert!(
        !lines.is_empty() && lines.iter().all(|damage| damage.contains("PG_VERSION` has changed")),
        "{lines:?}"
    );
    assert_eq!(cache.layers().len(), 2 - lines.len(), "damaged layers are set aside");
    assert_eq!(run(&cache, "verify"), [""; 0]);
    assert!(is_built(&cache));
}
