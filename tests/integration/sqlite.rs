//! SQLite in a sandbox: a database file without a server.

use std::fs;
use std::path::PathBuf;

use rstest::rstest;
use sandboxed_db::{ErrorKind, Postgres, Sandbox, Snapshot, Sqlite, sandboxed_db};
use sandboxed_db_tests::{alone, assert_says, directory, passed, skip_without, sqlite};

pub(crate) fn file(db: &Sandbox<Sqlite>) -> PathBuf {
    Sqlite::file().below(&db.root())
}

pub(crate) fn query(db: &Sandbox<Sqlite>, sql: &str) -> String {
    sqlite(db, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Starts a database with one file of the given name.
fn with(name: &str, contents: impl AsRef<[u8]>) -> sandboxed_db::Result<Sandbox<Sqlite>> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("0.sql"),
        "create table t (id integer primary key, name text not null);\n",
    )
    .unwrap();
    fs::write(directory.path().join(name), contents).unwrap();
    Snapshot::new(Sqlite::new())
        .seed(directory.path().join("0.sql"))
        .seed(directory.path().join(name))
        .start()
}

#[test]
fn the_url_leads_to_the_file() {
    skip_without!(Sqlite);
    let db = Snapshot::new(Sqlite::new()).start().unwrap();
    assert_eq!(db.url(), format!("sqlite://{}", file(&db).display()));
    assert_eq!(query(&db, "pragma integrity_check"), "ok\n");
    assert!(format!("{:?}", db.tcp().unwrap_err()).contains("sqlite"));
    let error = Snapshot::new(Sqlite::new()).setting("cache_size", 1).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert_says(&format!("{error:?}"), &["cache_size", "PRAGMA"]);
}

#[test]
fn migrations_run_in_their_order() {
    skip_without!(Sqlite);
    let migrations = directory(&[
        (
            "1_tables.sql",
            "create table t (a);\ncreate trigger r after insert on t begin\n  select 1;\nend;\n",
        ),
        ("2_rows.sql", "insert into t values ('\n.tables');"),
    ]);
    let db = Snapshot::new(Sqlite::new()).migrations(migrations.path()).start().unwrap();
    assert_eq!(query(&db, "select a from t"), "\n.tables\n");
}

#[rstest]
#[case::a_syntax_error("select 1;\n\nselec 1;\n", &[":3`", "syntax error"])]
#[case::a_constraint("insert into t values (1, 'a');\ninsert into t values (1, 'b');\n", &[":2`", "UNIQUE"])]
#[case::an_open_transaction("begin;\ninsert into t values (1, 'a');\n", &["ends inside a transaction", "COMMIT"])]
fn a_script_that_fails_names_its_place(#[case] script: &str, #[case] expected: &[&str]) {
    skip_without!(Sqlite);
    let error = with("bad.sql", script).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert_says(&format!("{error:?}"), &[&["bad.sql"], expected].concat());
}

#[test]
fn rows_are_a_seed_of_sqlite() {
    skip_without!(Sqlite);
    let db = with("t.csv", "name,id\n\"a, \"\"b\"\"\",7\nc,8\n").unwrap();
    assert_eq!(query(&db, "select id, name from t order by id"), "7|a, \"b\"\n8|c\n");
    let error = with("t.csv", "name,id\nc,8\nd\n").unwrap_err();
    assert_says(&format!("{error:?}"), &["t.csv:3", "expected 2 columns but found 1"]);
    let error = with("t.csv", "name,id\n,8\n").unwrap_err();
    assert!(format!("{error:?}").contains("NOT NULL"), "{error:?}");
}

#[test]
fn a_database_file_is_a_seed() {
    skip_without!(Sqlite);
    let source = with("rows.sql", "insert into t values (1, 'from the file');").unwrap();
    let db = with("copy.db", fs::read(file(&source)).unwrap()).unwrap();
    assert_eq!(query(&db, "select name from t"), "from the file\n");
}

/// An attribute cannot skip a test.
#[test]
fn attributes_name_sqlite() {
    skip_without!(Sqlite);
    for test in ["an_attribute_names_sqlite", "several_databases::postgres", "several_databases::sqlite"] {
        passed(&mut alone(&format!("sqlite::{test}")));
    }
}

#[sandboxed_db(engine = [Postgres, Sqlite], migrations = none)]
#[ignore = "needs sqlite3, run by `attributes_name_sqlite`"]
fn several_databases(url: String) {
    assert!(url.starts_with("postgresql:///") || url.starts_with("sqlite:///"));
}

#[sandboxed_db(engine = Sqlite, migrations = none)]
#[ignore = "needs sqlite3, run by `attributes_name_sqlite`"]
fn an_attribute_names_sqlite(url: String) {
    assert!(url.starts_with("sqlite:///"));
}
