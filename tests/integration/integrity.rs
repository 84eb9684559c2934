//! A layer that has changed is never used.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use sandboxed_db_tests::{assert_says, connect, directory, fresh, rounds, value};

use crate::requests::{TestCache, files};

/// A cache with the base and a layer with a row in a table.
fn filled() -> TestCache {
    let cache = TestCache::new();
    cache.write("migrations/1.sql", "create table t (x text); insert into t values ('as it was');");
    assert!(is_built(&cache));
    cache
}

/// Starts a sandbox, and returns `true` if its layer had to be built.
fn is_built(cache: &TestCache) -> bool {
    let response = cache.ask(&[("migrations", "migrations"), ("sql", "select x from t")]);
    assert_eq!(response.answers, ["as it was"]);
    response.built
}

/// The data of the layer with the table: the one whose manifest names the migration.
fn layer(cache: &TestCache) -> PathBuf {
    let with_migration = |data: &PathBuf| {
        let manifest = fs::read_to_string(data.with_file_name("manifest.json")).unwrap();
        manifest.contains("migrations/1.sql")
    };
    cache.layers().into_values().find(with_migration).unwrap()
}

/// A file of the layer that holds its row.
fn file_with_the_row(data: &Path) -> PathBuf {
    let holds = |file: &PathBuf| {
        let contents = fs::read(file).unwrap();
        file.starts_with(data.join("base")) && contents.windows(9).any(|window| window == b"as it was")
    };
    files(data).into_iter().find(holds).unwrap()
}

fn flip_a_byte(data: &Path) {
    let path = file_with_the_row(data);
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut contents = Vec::new();
    file.read_to_end(&mut contents).unwrap();
    let at = contents.windows(9).position(|window| window == b"as it was").unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(b"A").unwrap();
}

fn remove_a_file(data: &Path) {
    fs::remove_file(file_with_the_row(data)).unwrap();
}

fn add_a_file(data: &Path) {
    fs::write(data.join("base/intruder"), "").unwrap();
}

fn cut_a_file(data: &Path) {
    File::options().write(true).open(file_with_the_row(data)).unwrap().set_len(100).unwrap();
}

fn open_a_file_to_all(data: &Path) {
    let path = file_with_the_row(data);
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o666);
    fs::set_permissions(path, permissions).unwrap();
}

fn cut_the_manifest(data: &Path) {
    let manifest = File::options().write(true).open(data.with_file_name("manifest.json")).unwrap();
    manifest.set_len(100).unwrap();
}

fn remove_the_manifest(data: &Path) {
    fs::remove_file(data.with_file_name("manifest.json")).unwrap();
}

fn remove_half_of_it(data: &Path) {
    fs::remove_dir_all(data.join("global")).unwrap();
    fs::remove_dir_all(data.join("base")).unwrap();
}

#[rstest]
#[case::a_flipped_byte(flip_a_byte)]
#[case::a_missing_file(remove_a_file)]
#[case::an_extra_file(add_a_file)]
#[case::a_shorter_file(cut_a_file)]
#[case::another_mode(open_a_file_to_all)]
#[case::a_truncated_manifest(cut_the_manifest)]
#[case::a_missing_manifest(remove_the_manifest)]
#[case::half_a_layer(remove_half_of_it)]
fn a_damaged_layer_is_built_again(#[case] damage: fn(&Path)) {
    let cache = filled();
    damage(&layer(&cache));
    assert!(is_built(&cache), "the damaged layer was used");
    assert!(!is_built(&cache), "the new one was not found");
    assert_eq!(cache.layers().len(), 2);
}

#[test]
fn the_next_build_removes_layers_set_aside() {
    let cache = filled();
    flip_a_byte(&layer(&cache));
    assert!(is_built(&cache));
    cache.write("migrations/2.sql", "create table u ()");
    assert!(is_built(&cache));
    cache.assert_no_build_is_left();
}

/// Copies change the times and perhaps the hard links of files, and nothing else.
#[rstest]
#[case::by_cp(&["cp", "-a", "FROM", "TO"])]
#[case::by_cp_without_hard_links(&["cp", "-r", "--preserve=mode", "FROM", "TO"])]
#[case::by_tar(&["sh", "-c", "mkdir TO && tar -C FROM -cf - . | tar -C TO -xf -"])]
fn a_copied_cache_is_used(#[case] copy: &[&str]) {
    let mut cache = filled();
    let copied = cache.path("copied cache");
    let from = cache.cache.to_str().unwrap().to_owned();
    let quoted = |path: &str| if copy[0] == "sh" { format!("'{path}'") } else { path.to_owned() };
    let words: Vec<_> = copy
        .iter()
        .map(|word| word.replace("FROM", &quoted(&from)).replace("TO", &quoted(&copied)))
        .collect();
    assert!(Command::new(&words[0]).args(&words[1..]).status().unwrap().success());
    fs::remove_dir_all(&from).unwrap();
    cache.cache = copied.into();
    assert!(!is_built(&cache), "the copy was not used");
}

#[test]
fn a_copied_cache_is_verified() {
    let mut cache = filled();
    let copied = cache.path("copied");
    assert!(Command::new("cp").arg("-a").arg(&cache.cache).arg(&copied).status().unwrap().success());
    cache.cache = copied.into();
    let path = file_with_the_row(&layer(&cache));
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    flip_a_byte(&layer(&cache));
    // A faulty disk does not change the times either.
    File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    assert!(is_built(&cache), "the damaged copy was used");
}

#[test]
fn a_rebuild_uses_no_layer_of_earlier_runs() {
    let mut cache = filled();
    assert!(!is_built(&cache));
    cache.environment = vec![("SANDBOXED_DB_REBUILD", "1"), ("NEXTEST_RUN_ID", "one")];
    assert!(is_built(&cache), "a layer of an earlier run was used");
    assert!(!is_built(&cache), "the run's own layer was not found");
    cache.environment = vec![("SANDBOXED_DB_REBUILD", "1"), ("NEXTEST_RUN_ID", "two")];
    assert!(is_built(&cache), "a layer of another run was used");
    cache.environment = vec![("SANDBOXED_DB_REBUILD", "0")];
    assert!(!is_built(&cache), "the rebuilt layer was not found");
    assert_eq!(cache.layers().len(), 2);
}

/// The server recovers when a build stops it. A layer of that moment would lack rows.
///
/// PostgreSQL misses a request to stop in some of these moments, for which a build waits a minute.
#[test]
fn a_crash_at_the_end_of_a_build_loses_no_rows() {
    for delay in rounds(&["0.003"][..], &["0.001", "0.003", "0.005", "0.01", "0.015"]) {
        let crash = format!(
            "create table t as select i from generate_series(1, 250000) i;
            do $$ declare process int; begin
                select pid into process from pg_stat_activity where backend_type = 'checkpointer';
                execute format('copy (select 1) to program %L',
                    format('cat >/dev/null; (sleep {delay}; kill -SEGV %s) >/dev/null 2>&1 &', process));
            end $$;"
        );
        let directory = directory(&[("seed.sql", &crash)]);
        match fresh().seed(directory.path().join("seed.sql")).start() {
            Ok(db) => assert_eq!(value::<i64>(&mut connect(db.url()), "select count(*) from t"), 250_000),
            Err(error) => assert_says(&format!("{error:?}"), &["terminated by signal 11"]),
        }
    }
}
