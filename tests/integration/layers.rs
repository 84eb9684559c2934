//! A layer is built once, and found by its content and nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rstest::rstest;
use sandboxed_db_fixtures::{SHOP_MIGRATIONS, SHOP_SEED, shop_snapshot};

use sandboxed_db_tests::{column, connect, is_exhaustive, value};

use crate::requests::{Response, TestCache, files};

/// A migration that identifies its run by the time.
const NOTE_THE_TIME: &str = "
    create table if not exists runs (name text, at timestamptz);
    insert into runs values ('NAME', clock_timestamp());
";
pub(crate) const RUNS: &str = "select string_agg(name || ' ' || at::text, ', ' order by at) from runs";

/// A sandbox with all migrations, and their runs.
pub(crate) const ALL_RUNS: [(&str, &str); 2] = [("migrations", "migrations"), ("sql", RUNS)];

pub(crate) fn note(name: &str) -> String {
    NOTE_THE_TIME.replace("NAME", name)
}

/// The runs in an answer to [`RUNS`], each with its time.
pub(crate) fn runs(response: &Response) -> Vec<&str> {
    response.answers[0].split(", ").collect()
}

// Once.

#[test]
fn the_second_sandbox_of_a_process_finds_the_layer() {
    // The first may find the layer too, since the cache is shared.
    drop(shop_snapshot().start().unwrap());
    assert!(!shop_snapshot().start().unwrap().timings().layer_built);
}

#[test]
fn a_cache_that_was_removed_is_built_anew() {
    let cache = TestCache::empty();
    let request = [("sql", "select 'here'")];
    assert!(cache.ask(&request).built);
    fs::remove_dir_all(&cache.cache).unwrap();
    assert!(cache.ask(&request).built);
    assert!(!cache.ask(&request).built);
}

// The digest of a layer.

#[test]
fn a_layer_shares_the_files_that_its_parent_has() {
    let cache = TestCache::empty();
    cache.write("migrations/1.sql", &note("first"));
    let (parent, _) = cache.made_by(|| cache.ask(&[]));
    let (child, _) = cache.made_by(|| cache.ask(&ALL_RUNS));
    let ([parent], [child]) = (&parent[..], &child[..]) else {
        panic!("{parent:?} {child:?}");
    };
    let (mut shared, mut own) = (0, 0);
    for file in files(child) {
        let meta = fs::symlink_metadata(&file).unwrap();
        let older = parent.join(file.strip_prefix(child).unwrap());
        let Ok(older_meta) = fs::symlink_metadata(&older) else {
            own += meta.size();
            continue;
        };
        let same = meta.mode() == older_meta.mode() && fs::read(&file).unwrap() == fs::read(&older).unwrap();
        if same && meta.size() > 0 {
            assert_eq!(meta.ino(), older_meta.ino(), "{} is a copy", file.display());
            assert!(meta.nlink() > 1);
            shared += meta.size();
        } else {
            assert_ne!(meta.ino(), older_meta.ino(), "{} was changed in the parent, too", file.display());
            own += meta.size();
        }
    }
    // The template databases, and most files of the test's database.
    assert!(shared > own, "{shared} bytes are shared, {own} are not");
}

#[test]
fn a_migration_put_in_between_is_run_in_its_place() {
    let cache = TestCache::new();
    for name in ["1", "3"] {
        cache.write(&format!("migrations/{name}.sql"), &note(name));
    }
    cache.ask(&ALL_RUNS);
    cache.write("migrations/2.sql", &note("2"));
    let response = cache.ask(&ALL_RUNS);
    assert!(response.built);
    let names: Vec<_> = runs(&response).iter().map(|run| &run[..2]).collect();
    assert_eq!(names, ["1 ", "2 ", "3 "]);
}

#[test]
fn down_migrations_are_not_run_and_not_hashed() {
    let cache = TestCache::new();
    cache.write("migrations/1.sql", &note("first"));
    let before = cache.ask(&ALL_RUNS);
    cache.write("migrations/1.down.sql", "drop table runs;");
    cache.write("migrations/README.md", "Not SQL.");
    cache.write("migrations/.2.sql", "an editor's own file");
    assert_eq!(cache.ask(&ALL_RUNS), Response { built: false, answers: before.answers });
}

#[test]
fn paths_of_files_are_not_hashed() {
    let cache = TestCache::new();
    for directory in ["here/migrations", "over there/renamed"] {
        cache.write(&format!("{directory}/1.sql"), &note("first"));
        cache.write(&format!("{directory}/2.sql"), &note("second"));
    }
    let here = cache.ask(&[("migrations", &cache.path("here/migrations")), ("sql", RUNS)]);
    let there = cache.ask(&[("migrations", &cache.path("over there/renamed")), ("sql", RUNS)]);
    assert!(!there.built);
    assert_eq!(there.answers, here.answers);
}

#[test]
fn settings_apply_to_migrations_and_select_the_layer() {
    let cache = TestCache::new();
    cache.write("migrations/1.sql", "create table seen as select current_setting('work_mem') as work_mem;");
    let migrations = ("migrations", "migrations");
    let seen = ("sql", "select work_mem || ', now ' || current_setting('work_mem') from seen");
    for (memory, expected) in [("5MB", "5MB, now 5MB"), ("6MB", "6MB, now 6MB")] {
        cache.assert_response(&[("work_mem", memory), migrations, seen], true, &[expected]);
    }
    cache.assert_response(&[migrations, seen], true, &["4MB, now 4MB"]);
    assert!(!cache.ask(&[("work_mem", "5MB"), migrations, seen]).built);
}

#[test]
fn included_files_are_hashed() {
    let cache = TestCache::new();
    cache.write("migrations/1.sql", "create table notes (body text);");
    cache.write("seeds/seed.sql", "\\ir parts/notes.sql\n\\copy notes from 'rows.txt'\n");
    cache.write("seeds/parts/notes.sql", "\\ir ../deep.sql\ninsert into notes values ('included');\n");
    cache.write("seeds/deep.sql", "insert into notes values ('deep');\n");
    cache.write("seeds/rows.txt", "copied\n");
    let request = [
        ("migrations", "migrations"),
        ("seed", "seeds/seed.sql"),
        ("sql", "select string_agg(body, ' ' order by body) from notes"),
    ];
    cache.assert_response(&request, true, &["copied deep included"]);
    assert!(!cache.ask(&request).built);
    for (file, contents, expected) in [
        ("seeds/deep.sql", "insert into notes values ('deeper');\n", "copied deeper included"),
        ("seeds/rows.txt", "pasted\n", "deeper included pasted"),
    ] {
        cache.write(file, contents);
        cache.assert_response(&request, true, &[expected]);
        assert!(!cache.ask(&request).built);
    }
}

#[test]
fn seeds_are_run_in_their_order() {
    let cache = TestCache::new();
    cache.write("one.sql", "create table notes as select 'one' as body;");
    cache.write("two.sql", "update notes set body = body || ', two';");
    let body = ("sql", "select body from notes");
    cache.assert_response(&[("seed", "one.sql"), ("seed", "two.sql"), body], true, &["one, two"]);
    // Each seed ends a layer.
    cache.assert_response(&[("seed", "one.sql"), body], false, &["one"]);
}

#[test]
fn each_database_and_locale_has_a_base_layer() {
    let cache = TestCache::empty();
    let query = (
        "sql",
        "select current_database() || ' ' || datcollate from pg_database where datname = current_database()",
    );
    for (database, locale, expected) in
        [("one", "C.UTF-8", "one C.UTF-8"), ("other", "C.UTF-8", "other C.UTF-8"), ("other", "C", "other C")]
    {
        cache.assert_response(&[("database", database), ("locale", locale), query], true, &[expected]);
    }
    assert_eq!(cache.layers().len(), 3);
    assert!(!cache.ask(&[("database", "one"), query]).built);
}

// The content of a layer.

#[test]
fn a_layer_holds_no_junk() {
    let cache = TestCache::empty();
    let (made, ()) = cache.made_by(|| {
        cache.ask(&[("database", "shop"), ("migrations", SHOP_MIGRATIONS), ("seed", SHOP_SEED)]);
        // A step so small that it stays in the log segment of initdb.
        cache.ask(&[("seed", &cache.write("small.sql", "create table t ();"))]);
    });
    assert_eq!(made.len(), 5, "two fresh servers, the migrations, two seeds");
    cache.assert_no_build_is_left();
    for data in made {
        for junk in ["postmaster.pid", "postmaster.opts", "pg_stat", "pg_stat_tmp", "pg_log", "log"] {
            let path = data.join(junk);
            assert!(!path.is_file(), "{}", path.display());
            assert!(!path.is_dir() || files(&path).is_empty(), "{:?}", files(&path));
        }
        let names = files(&data);
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        for path in &names {
            let temporary =
                ["pgsql_tmp", "sandboxed-db", "core"].iter().any(|junk| name(path).starts_with(junk));
            assert!(!temporary, "{}", path.display());
        }
        let log: Vec<_> = names
            .iter()
            .filter(|path| path.parent().unwrap().ends_with("pg_wal"))
            .map(|path| fs::metadata(path).unwrap().len())
            .collect();
        assert_eq!(log, [1 << 20], "{}", data.display());
        // A server would have to remove them.
        let caches = names.iter().filter(|path| name(path) == "pg_internal.init");
        assert_eq!(caches.count(), 0, "{}", data.display());
        assert_eq!(fs::metadata(&data).unwrap().mode() & 0o7777, 0o700);
    }
}

/// Otherwise every server would do it for itself.
#[test]
fn a_layers_tables_are_analysed_and_vacuumed() {
    let db = shop_snapshot().start().unwrap();
    let mut client = connect(db.url());
    let tables = "from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'";
    let mut count = |what: &str| -> i64 { value(&mut client, what) };
    assert_eq!(count(&format!("select count(*) {tables}")), 22);
    assert_eq!(count(&format!("select count(*) {tables} and reltuples <= 0")), 0);
    let without_statistics = "select count(*) from pg_tables t where schemaname = 'public' and not exists \
        (select from pg_stats s where s.schemaname = t.schemaname and s.tablename = t.tablename)";
    assert_eq!(count(without_statistics), 0);
    let estimated = count(&format!("select sum(reltuples)::bigint {tables}"));
    assert_eq!(estimated, 50_347);
    assert_eq!(count("select count(*) from pg_ls_waldir() where size <> 1048576"), 0);
    // Servers would read and write unmarked pages in every sandbox.
    let unmarked = format!("select relname::text {tables} and relallvisible <> relpages");
    let unmarked: Vec<String> = column(&mut client, &unmarked);
    assert!(unmarked.is_empty(), "pages of {unmarked:?} are not marked as visible to all");
}

/// Names with every character that is special in a mount option, a URL, a shell or psql.
#[test]
fn a_cache_and_files_may_have_any_name() {
    let odd = r#"a b:c,d\e=f'g"h%20#é数据?&;$(i)"#;
    let cache = TestCache::named(odd);
    cache.write(&format!("{odd}.d/1 {odd}.sql"), &note("first"));
    let seed = cache.write(&format!("{odd}.seeds/{odd}.sql"), "\\ir 'included file.sql'\n");
    cache.write(&format!("{odd}.seeds/included file.sql"), &note("second"));
    let migrations = cache.path(&format!("{odd}.d"));
    let request = [("migrations", migrations.as_str()), ("seed", seed.as_str()), ("sql", RUNS)];
    let first = cache.ask(&request);
    assert!(first.built);
    assert_eq!(runs(&first).len(), 2, "{first:?}");
    assert_eq!(cache.ask(&request), Response { built: false, answers: first.answers });
    assert_eq!(cache.layers().len(), 3);
}

/// A path of at least that many bytes below a directory, with names of the greatest length.
fn deep(below: &str, bytes: usize) -> String {
    const ODD: &str = "a b:c,d;e=f é数据 $x%20";
    let mut path = String::new();
    while below.len() + 1 + path.len() < bytes {
        let left = (bytes - below.len() - path.len()).clamp(ODD.len(), 255);
        let mut name = ODD.repeat(255 / ODD.len() + 1);
        name.truncate((0..=left).rev().find(|&end| name.is_char_boundary(end)).unwrap());
        path = if path.is_empty() { name } else { format!("{path}/{name}") };
    }
    path
}

#[rstest]
#[case::beyond_a_mount_option(300)]
#[case::beyond_a_thousand_bytes(1100)]
#[case::nearly_as_long_as_paths_may_be(3850)]
fn a_cache_and_files_may_be_deep(#[case] bytes: usize) {
    if bytes < 3850 && !is_exhaustive("builds four layers") {
        return;
    }
    let mut cache = TestCache::empty();
    cache.cache = cache.path(&deep(&cache.path(""), bytes)).into();
    let below = deep(&cache.path("files"), bytes);
    cache.write(&format!("files/{below}/migrations/1.sql"), &note("first"));
    let migrations = cache.path(&format!("files/{below}/migrations"));
    // psql cannot include files with longer paths.
    let includes = bytes < 1000;
    let seed = if includes { "\\ir included.sql\n".to_owned() } else { note("seed") };
    let seed = cache.write(&format!("files/{below}/seed.sql"), &seed);
    cache.write(&format!("files/{below}/included.sql"), &note("seed"));
    assert!(cache.cache.as_os_str().len() >= bytes && migrations.len() > bytes && seed.len() < 4096);
    let request = [("migrations", migrations.as_str()), ("sql", RUNS)];
    let first = cache.ask(&request);
    assert!(first.built);
    cache.write(&format!("files/{below}/migrations/2.sql"), &note("second"));
    let with_seed = [("verify", ""), request[0], ("seed", seed.as_str()), ("sql", RUNS)];
    let all = cache.ask(&with_seed);
    assert_eq!((runs(&all).len(), runs(&all)[0]), (3, runs(&first)[0]), "{all:?}");
    assert_eq!(cache.ask(&with_seed), Response { built: false, answers: all.answers });
    assert_eq!(cache.layers().len(), 4);
    cache.assert_no_build_is_left();
}

#[rstest]
#[case::name("x".repeat(256))]
#[case::path(deep("", 4200))]
#[case::path_to_its_entries(deep("", 3980))]
fn a_cache_is_an_error_with_too_long_a(#[case] name: String) {
    let mut cache = TestCache::empty();
    cache.cache = cache.path(&name).into();
    let report = cache.begin(&[]).outcome().unwrap_err();
    assert!(report.starts_with("could not ") && report.contains("File name too long"), "{report}");
    if cache.cache.join("staging").exists() {
        cache.assert_no_build_is_left();
    }
    assert!(!cache.cache.join("layers").exists());
}
