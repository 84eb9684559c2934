//! Seeds of every kind: the contents of a file are in the database, or the error says what is wrong
//! with it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rstest::rstest;
use sandboxed_db::{Engine as _, Postgres};
use sandboxed_db_fixtures::{SHOP_MIGRATIONS, SHOP_SEED};
use sandboxed_db_tests::{assert_says, connect, fresh, refused, skip};
use tempfile::TempDir;

use crate::requests::TestCache;

/// Writes a program's standard output to a file. Returns `false` if there is no such program.
fn output(program: &str, args: &[&str], to: &Path) -> bool {
    let output =
        Command::new(program).args(args).stdin(Stdio::null()).stdout(File::create(to).unwrap()).status();
    match output {
        Ok(status) => {
            assert!(status.success(), "{program}: {status}");
            true
        }
        Err(error) => {
            skip(&format!("{program}: {error}"));
            false
        }
    }
}

fn write(directory: &TempDir, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, contents).unwrap();
    path
}

// Compressed files.

#[rstest]
#[case::by_gzip("gzip", "gz")]
#[case::by_zstd("zstd", "zst")]
fn a_compressed_seed_equals_the_plain_one(#[case] program: &str, #[case] suffix: &str) {
    let cache = TestCache::new();
    let compressed = cache.write(&format!("seed.sql.{suffix}"), "");
    if !output(program, &["--stdout", SHOP_SEED], Path::new(&compressed)) {
        return;
    }
    let rows = (
        "sql",
        "select (select count(*) from orders) || ' ' || (select md5(string_agg(o::text, '' order by id)) from orders o)",
    );
    let request = |seed| [("migrations", SHOP_MIGRATIONS), ("seed", seed), rows];
    let from_compressed = cache.ask(&request(&compressed));
    assert!(from_compressed.built);
    assert!(!from_compressed.answers[0].starts_with("0 "), "{from_compressed:?}");
    assert_eq!(cache.ask(&request(SHOP_SEED)).answers, from_compressed.answers);
    assert!(!cache.ask(&request(&compressed)).built);
}

#[test]
fn files_that_a_compressed_seed_includes_count() {
    let cache = TestCache::new();
    let plain = cache.write("seeds/all.sql", "\\ir parts/notes.sql\n");
    let seed = cache.write("seeds/all.sql.gz", "");
    assert!(output("gzip", &["--stdout", &plain], Path::new(&seed)));
    for body in ["one", "two"] {
        cache.write("seeds/parts/notes.sql", &format!("create table notes as select '{body}' as body;"));
        let request = [("seed", seed.as_str()), ("sql", "select body from notes")];
        cache.assert_response(&request, true, &[body]);
        assert!(!cache.ask(&request).built);
    }
}

#[test]
fn an_error_in_a_compressed_seed_names_its_line() {
    let directory = tempfile::tempdir().unwrap();
    // More than the capacity of a pipe follows.
    let text =
        "create table a ();\n\nselect 1/0;\n".to_owned() + &"insert into a default values;\n".repeat(100_000);
    let plain = write(&directory, "wrong.sql", text);
    let seed = directory.path().join("wrong.sql.gz");
    assert!(output("gzip", &["--stdout", plain.to_str().unwrap()], &seed));
    let report = refused(&fresh().seed(&seed));
    assert_says(&report, &[&format!("{}:3", seed.display()), "division by zero", "select 1/0;"]);
}

#[rstest]
#[case::cut("seed.sql.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b")]
#[case::no_gzip("seed.sql.gz", b"create table a ();")]
#[case::no_zstd("seed.sql.zst", b"create table a ();")]
fn a_broken_compressed_file_is_named(#[case] name: &str, #[case] contents: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let seed = write(&directory, name, contents);
    let report = refused(&fresh().seed(&seed));
    assert_says(&report, &["could not read", seed.to_str().unwrap()]);
}

/// The rows before the cut are right, so only the end of the file shows it.
#[rstest]
#[case::by_gzip("gzip", "gz")]
#[case::by_zstd("zstd", "zst")]
fn truncated_rows_are_refused(#[case] program: &str, #[case] suffix: &str) {
    let directory = tempfile::tempdir().unwrap();
    let schema = write(&directory, "schema.sql", "create table numbers (n int);");
    let rows: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let plain = write(&directory, "numbers.csv", format!("n\n{rows}"));
    let seed = directory.path().join(format!("numbers.csv.{suffix}"));
    if !output(program, &["--stdout", plain.to_str().unwrap()], &seed) {
        return;
    }
    let length = fs::metadata(&seed).unwrap().len();
    File::options().write(true).open(&seed).unwrap().set_len(length - 4).unwrap();
    let report = refused(&fresh().seed(schema).seed(&seed));
    assert_says(&report, &[seed.to_str().unwrap(), "cause: "]);
}

// Rows.

const USERS: &str = "create schema shop;
    create table shop.users (id serial, name text, \"Nick Name\" text, seen timestamptz default '2000-01-01Z');
    create table tags (id int generated always as identity, label text);";

#[test]
fn rows_fill_the_table_that_names_the_file() {
    let cache = TestCache::new();
    let schema = cache.write("schema.sql", USERS);
    // A byte order mark, another order of columns, quotes, a line break, an empty value and an
    // empty text.
    let users = cache.write(
        "shop.users.csv",
        "\u{feff}name,id,Nick Name\r\n\"Ada, \"\"the first\"\"\",7,\"two\r\nlines\"\r\nBob,9,\r\nEmpty,8,\"\"\r\n",
    );
    let tags = cache.write("tags.csv.gz", "");
    let plain = cache.write("tags.csv", "id,label\n41,a\n");
    assert!(output("gzip", &["--stdout", &plain], Path::new(&tags)));
    let request = [
        ("seed", schema.as_str()),
        ("seed", users.as_str()),
        ("seed", tags.as_str()),
        (
            "sql",
            "select string_agg(concat_ws('|', id, name, coalesce(\"Nick Name\", 'null'), extract(year from seen)), ';' order by id) from shop.users",
        ),
        // Sequences continue after the rows.
        ("sql", "insert into shop.users (name) values ('next') returning id::text"),
        ("sql", "insert into tags (label) values ('next') returning id::text"),
    ];
    let response = cache.ask(&request);
    let rows = "7|Ada, \"the first\"|two\r\nlines|2000;8|Empty||2000;9|Bob|null|2000";
    // Answers are lines.
    let lines: Vec<_> =
        rows.split('\n').map(|line| line.trim_end_matches('\r')).chain(["10", "42"]).collect();
    let answers: Vec<_> = response.answers.iter().map(|line| line.trim_end_matches('\r')).collect();
    assert_eq!(answers, lines);
    assert!(!cache.ask(&request).built);
    cache.write("shop.users.csv", "id\n1\n");
    let response = cache.ask(&request);
    assert!(response.built);
    assert_eq!(response.answers[0], "1|null|2000");
}

/// A column of text may own a sequence, and so may the parent of a partition.
#[test]
fn sequences_of_every_kind_continue() {
    let cache = TestCache::new();
    let schema = cache.write(
        "schema.sql",
        "create sequence s;
         create table orders (id text default 'O-' || nextval('s'), n numeric);
         alter sequence s owned by orders.id;",
    );
    let parts = cache.write(
        "parts.sql",
        "create table events (id serial, at int) partition by range (at);
         create table events_1 partition of events for values from (0) to (10);",
    );
    let orders = cache.write("orders.csv", "id,n\nO-7,1\n");
    let events = cache.write("events_1.csv", "id,at\n41,5\n");
    let response = cache.ask(&[
        ("seed", &schema),
        ("seed", &parts),
        ("seed", &orders),
        ("seed", &events),
        ("sql", "insert into events (at) values (6) returning id::text"),
        ("sql", "insert into orders (n) values (2) returning id"),
    ]);
    assert_eq!(response.answers, ["42", "O-1"]);
}

#[rstest]
#[case::no_such_column("users.csv", "id,age\n1,2\n", "column \"age\" of relation \"users\" does not exist")]
#[case::no_such_table("nobody.csv", "id\n1\n", "relation \"nobody\" does not exist")]
#[case::a_value_of_another_type("users.csv", "id\n1\nx\n", "users.csv:3")]
#[case::too_few_values("users.csv", "id,name\n1\n", "missing data for column \"name\"")]
fn rows_that_do_not_fit_are_refused(#[case] name: &str, #[case] rows: &str, #[case] expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let schema = write(&directory, "schema.sql", "create table users (id int, name text);");
    let rows = write(&directory, name, rows);
    let report = refused(&fresh().seed(schema).seed(&rows));
    assert_says(&report, &[rows.to_str().unwrap(), expected]);
}

// Archives.

/// The statements of a dump, without comments and psql's commands.
fn dumped(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let is_statement = |line: &&str| !line.is_empty() && !line.starts_with("--") && !line.starts_with('\\');
    text.lines().filter(is_statement).map(str::to_owned).collect()
}

#[rstest]
#[case::custom("custom")]
#[case::directory("directory")]
#[case::tar("tar")]
fn an_archive_of_pg_dump_is_restored(#[case] format: &str) {
    let cache = TestCache::new();
    // A path with characters that shells and connection strings treat specially.
    let archive = cache.path("the archive's = copy");
    let (before, after) = (cache.path("before.sql"), cache.path("after.sql"));
    let dump = format!("pg_dump --format={format} --file=\"{archive}\"");
    let request = [("migrations", SHOP_MIGRATIONS), ("seed", SHOP_SEED)];
    cache
        .ask(&[&request[..], &[("then", &dump), ("then", &format!("pg_dump --file=\"{before}\""))]].concat());
    let restored = [("seed", archive.as_str())];
    let response = cache.ask(&[&restored[..], &[("then", &format!("pg_dump --file=\"{after}\""))]].concat());
    assert!(response.built);
    let (before, after) = (dumped(before.as_ref()), dumped(after.as_ref()));
    assert!(before.len() > 50_000, "{} lines", before.len());
    assert!(before == after, "the restored database differs from the dumped one");
    assert!(!cache.ask(&restored).built);
}

#[test]
fn an_archive_that_names_a_role_is_advised_on() {
    let cache = TestCache::new();
    let (archive, schema) =
        (cache.path("owned.dump"), "create role clerk; create table a (); alter table a owner to clerk;");
    let owned = cache.write("owned.sql", schema);
    cache.ask(&[("seed", &owned), ("then", &format!("pg_dump --format=custom --file={archive}"))]);
    let report = refused(&fresh().seed(&archive));
    assert_says(&report, &[&archive, "role \"clerk\" does not exist", "--no-owner --no-privileges"]);
    let role = cache.write("role.sql", "create role clerk;");
    let owner = ("sql", "select tableowner::text from pg_tables where tablename = 'a'");
    assert_eq!(cache.ask(&[("seed", &role), ("seed", &archive), owner]).answers, ["clerk"]);
}

#[test]
fn a_truncated_archive_is_refused() {
    let cache = TestCache::new();
    let archive = cache.path("cut.dump");
    let table = cache.write("table.sql", "create table a as select * from generate_series(1, 10000) id;");
    cache.ask(&[("seed", &table), ("then", &format!("pg_dump --format=custom --file={archive}"))]);
    let length = fs::metadata(&archive).unwrap().len();
    for length in [length / 2, 20] {
        File::options().write(true).open(&archive).unwrap().set_len(length).unwrap();
        assert_says(&refused(&fresh().seed(&archive)), &[&archive]);
    }
}

#[test]
fn a_file_that_is_no_seed_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let picture = write(&directory, "seed.sql", b"\x89PNG\0\0");
    assert_says(&refused(&fresh().seed(&picture)), &["neither text nor an archive", ".sql.zst"]);
    let report = refused(&fresh().seed(directory.path()));
    assert_says(&report, &["it is a directory", "`migrations`"]);
}

// Advice.

#[rstest]
#[case::schema_public("create schema public;\n", "drop it in an earlier step (`drop schema public;`)")]
#[case::role_postgres("create role postgres;\n", "dump one database by pg_dump instead of all by pg_dumpall")]
#[case::another_database(
    "create database x;\n\\c x\ncreate table t ();\n",
    "name the database by `Postgres::database`"
)]
fn a_dump_that_fails_is_advised_on(#[case] contents: &str, #[case] hint: &str) {
    let directory = tempfile::tempdir().unwrap();
    let seed = write(&directory, "dump.sql", contents);
    let report = refused(&fresh().seed(&seed));
    assert_says(&report, &["dump.sql", hint]);
}

#[test]
fn a_script_may_use_another_database_and_return() {
    let directory = tempfile::tempdir().unwrap();
    let script = "create database x;\n\\c x\ncreate table there ();\n\\c postgres\ncreate table here ();\n";
    let seed = write(&directory, "two.sql", script);
    let db = fresh().seed(&seed).start().unwrap();
    connect(db.url()).batch_execute("table here").unwrap();
}

#[test]
fn a_setting_of_a_newer_pg_dump_is_advised_on() {
    let directory = tempfile::tempdir().unwrap();
    let seed = write(&directory, "dump.sql", "SET transaction_timeout = 0;\n");
    let snapshot = fresh().seed(&seed);
    if Postgres::new().locate().unwrap().major() >= 17 {
        drop(snapshot.start().unwrap());
    } else {
        assert_says(&refused(&snapshot), &["pg_dump 17 or newer wrote the file: choose that version"]);
    }
}

#[test]
fn an_archive_of_a_newer_pg_dump_is_advised_on() {
    let directory = tempfile::tempdir().unwrap();
    // The version of the format, the sizes of integers and offsets, and the kind of the archive.
    let archive = write(&directory, "newer.dump", b"PGDMP\x01\x63\x00\x04\x08\x01");
    assert_says(
        &refused(&fresh().seed(&archive)),
        &["unsupported version (1.99) in file header", "choose its version by `Postgres::version`"],
    );
}

#[test]
fn a_plain_dump_is_loaded_with_its_commands_of_psql() {
    let cache = TestCache::new();
    let dump = cache.path("dump.sql");
    let table = cache.write("table.sql", "create table a as select 7 as x;");
    cache.ask(&[("seed", &table), ("then", &format!("pg_dump --file={dump}"))]);
    let response = cache.ask(&[("seed", &dump), ("sql", "select x::text from a")]);
    assert_eq!(response.answers, ["7"]);
}

#[test]
fn text_in_utf16_is_advised_on() {
    let directory = tempfile::tempdir().unwrap();
    for (name, mark) in [("marked.sql", "\u{feff}"), ("unmarked.sql", "")] {
        let text = format!("{mark}create table a ();");
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let seed = write(&directory, name, bytes);
        let hint = format!("iconv -f UTF-16 -t UTF-8 {}", seed.display());
        assert_says(&refused(&fresh().seed(&seed)), &["UTF-16", &hint]);
    }
}

#[test]
fn a_seed_whose_name_is_not_utf8_is_advised_on() {
    let directory = tempfile::tempdir().unwrap();
    let seed = directory.path().join(OsStr::from_bytes(b"caf\xe9.sql"));
    fs::write(&seed, "select 1;").unwrap();
    assert_says(&refused(&fresh().seed(&seed)), &["is not UTF-8", "rename it"]);
}
