//! Migrations of each tool on SQLite: run here as the tool runs them, so that the tool finds all of
//! them applied, and applies one that is added.

use std::path::Path;
use std::process::Command;

use diesel::Connection as _;
use diesel_migrations::{FileBasedMigrations, MigrationHarness as _};
use rstest::rstest;
use sandboxed_db::{MigrationTool, Sandbox, Snapshot, Sqlite};
use sandboxed_db_tests::{assert_says, directory, is_missing, printed, refused, skip_without};
use sqlx::Connection as _;
use sqlx::migrate::Migrator;

use crate::migration_tools::program;
use crate::sqlite::{file, query};

/// The body of a trigger has semicolons.
const NOTES: &str = "create table notes (id integer primary key, text varchar(200) not null);\n\
                     create trigger shout after insert on notes begin\n  \
                     update notes set text = upper(new.text) where id = new.id;\nend;\n";
/// A line begins like a command of sqlite3.
const AUTHORS: &str = "create table authors (name text);\n\
                       insert into authors values ('it''s \"Ada\" # -- ;'), ('Grace\n.tables');\n";
/// Ends with a comment.
const BOOKS: &str = "create table books (title text default 'a # b');\n-- end";
const MORE: &str = "create table more (id int);\n";
const NO_PARENT: &str = "create table a (id integer primary key);\n\
                         create table b (a references a);\ninsert into b values (1);\n";

fn fresh() -> Snapshot<Sqlite> {
    Snapshot::new(Sqlite::new())
}

/// The columns and indexes of a bookkeeping table, and its rows without the columns of times.
fn books(db: &Sandbox<Sqlite>, table: &str, times: &str) -> (String, String) {
    let columns = format!("select name, type, \"notnull\", dflt_value, pk from pragma_table_info('{table}')");
    let indexes = format!("select \"unique\", origin from pragma_index_list('{table}')");
    let names = format!(
        "select group_concat('quote(' || name || ')') from pragma_table_info('{table}') where ',{times},' not like '%,' || name || ',%'"
    );
    let rows = format!("select {} from {table} order by 1", query(db, &names));
    (query(db, &columns) + &query(db, &indexes), query(db, &rows))
}

#[track_caller]
fn assert_migrated(db: &Sandbox<Sqlite>) {
    let authors = query(db, "select name from authors order by 1");
    assert_eq!(authors, "Grace\n.tables\nit's \"Ada\" # -- ;\n");
    query(db, "insert into notes (text) values ('quiet')");
    assert_eq!(query(db, "select text from notes; select count(*) from books"), "QUIET\n0\n");
}

/// Compares what this library and a tool make of the same migrations. `apply` returns the number
/// that the tool has applied.
fn assert_agreed(
    tool: MigrationTool,
    files: [(&str, String); 3],
    added: (&str, String),
    (table, times): (&str, &str),
    apply: impl Fn(&Path, &Sandbox<Sqlite>) -> usize,
) {
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let directory = directory(&files);
    let snapshot = fresh().migrations_of(tool, directory.path());
    let ours = snapshot.start().unwrap_or_else(|error| panic!("{error:?}"));
    assert_migrated(&ours);
    let before = books(&ours, table, "");
    assert_eq!(apply(directory.path(), &ours), 0, "the tool finds something to do");
    assert_eq!(books(&ours, table, ""), before);
    let theirs = fresh().start().unwrap();
    assert_eq!(apply(directory.path(), &theirs), 3);
    assert_migrated(&theirs);
    assert_eq!(books(&ours, table, times), books(&theirs, table, times));
    let path = directory.path().join(added.0);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, added.1).unwrap();
    assert_eq!(apply(directory.path(), &ours), 1);
    assert_eq!(query(&ours, "select count(*) from more"), "0\n");
    assert_eq!(apply(directory.path(), &theirs), 1);
    assert_eq!(books(&ours, table, times), books(&theirs, table, times));
}

#[test]
fn sqlx_finds_its_migrations_applied() {
    skip_without!(Sqlite);
    let files = [
        ("1_notes.sql", NOTES.into()),
        ("2_it_has_authors.up.sql", AUTHORS.into()),
        ("10_books.sql", "-- no-transaction\n".to_owned() + BOOKS),
    ];
    let apply = |directory: &Path, db: &Sandbox<Sqlite>| {
        let count = || -> usize {
            let rows = "select count(*) from sqlite_master where name = '_sqlx_migrations'";
            let is_there = query(db, rows) == "1\n";
            let count = is_there.then(|| query(db, "select count(*) from _sqlx_migrations where success"));
            count.map_or(0, |count| count.trim().parse().unwrap())
        };
        let before = count();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let mut connection = sqlx::SqliteConnection::connect(db.url()).await.unwrap();
            Migrator::new(directory).await.unwrap().run(&mut connection).await.unwrap();
        });
        count() - before
    };
    let table = ("_sqlx_migrations", "installed_on,execution_time");
    assert_agreed(MigrationTool::Sqlx, files, ("11_more.sql", MORE.into()), table, apply);
}

#[test]
fn diesel_finds_its_migrations_applied() {
    skip_without!(Sqlite);
    let files = [
        ("1_notes/up.sql", NOTES.into()),
        ("2_authors/up.sql", AUTHORS.into()),
        ("3_books/up.sql", BOOKS.into()),
    ];
    let apply = |directory: &Path, db: &Sandbox<Sqlite>| {
        let source = FileBasedMigrations::from_path(directory).unwrap();
        let mut connection = diesel::SqliteConnection::establish(file(db).to_str().unwrap()).unwrap();
        connection.run_pending_migrations(source).unwrap().len()
    };
    let table = ("__diesel_schema_migrations", "run_on");
    assert_agreed(MigrationTool::Diesel, files, ("4_more/up.sql", MORE.into()), table, apply);
}

#[test]
fn refinery_finds_its_migrations_applied() {
    skip_without!(Sqlite);
    let files = [
        ("V1__notes.sql", NOTES.into()),
        ("V2__it_has_authors.sql", AUTHORS.into()),
        ("V10__books.sql", BOOKS.into()),
    ];
    let apply = |directory: &Path, db: &Sandbox<Sqlite>| {
        let migrations = refinery::load_sql_migrations(directory).unwrap();
        let mut connection = rusqlite::Connection::open(file(db)).unwrap();
        refinery::Runner::new(&migrations).run(&mut connection).unwrap().applied_migrations().len()
    };
    let table = ("refinery_schema_history", "applied_on");
    assert_agreed(MigrationTool::Refinery, files, ("V11__more.sql", MORE.into()), table, apply);
}

#[test]
fn dbmate_finds_its_migrations_applied() {
    let Some(program) = program("dbmate").filter(|_| !is_missing::<Sqlite>()) else { return };
    let section = |up: &str| format!("-- migrate:up\n{up}\n-- migrate:down\nnonsense\n");
    let files = [
        ("1_notes.sql", section(NOTES)),
        ("2_authors.sql", section(AUTHORS)),
        ("3_books.sql", "-- migrate:up transaction:false\n".to_owned() + BOOKS + "\n-- migrate:down\n"),
    ];
    let apply = |directory: &Path, db: &Sandbox<Sqlite>| {
        let mut command = Command::new(&program);
        command.args(["--no-dump-schema", "--migrations-dir"]).arg(directory).arg("up");
        let output = command.env("DATABASE_URL", db.url()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        printed(&output).matches("Applied:").count()
    };
    let table = ("schema_migrations", "");
    assert_agreed(MigrationTool::Dbmate, files, ("4_more.sql", section(MORE)), table, apply);
}

/// These rows were compared with the sources of the tools.
#[rstest]
#[case::golang_migrate(
    MigrationTool::GolangMigrate,
    &[("1_notes.up.sql", NOTES.to_owned()), ("02_authors.up.sql", AUTHORS.to_owned()), ("3_books.up.sql", BOOKS.to_owned())],
    "schema_migrations", "",
    &["version|uint64|0||0\ndirty|bool|0||0\n1|c\n"],
    "3|0\n",
)]
#[case::goose(
    MigrationTool::Goose,
    &[
        ("1_notes.sql", format!("-- +goose Up\n-- +goose StatementBegin\n{NOTES}\n-- +goose StatementEnd\n")),
        ("2_authors.sql", format!("-- +goose Up\n{AUTHORS}\n-- +goose Down\ndrop table authors;\n")),
        ("3_books.sql", format!("-- +goose NO TRANSACTION\n-- +goose Up\n{}", BOOKS.trim_end_matches("-- end"))),
    ],
    "goose_db_version", "tstamp",
    &["id|INTEGER|0||1\n", "tstamp|TIMESTAMP|0|datetime('now')|0\n"],
    "1|0|1\n2|1|1\n3|2|1\n4|3|1\n",
)]
#[case::prisma(
    MigrationTool::Prisma,
    &[
        ("1_notes/migration.sql", NOTES.to_owned()),
        ("2_authors/migration.sql", AUTHORS.to_owned()),
        ("3_books/migration.sql", BOOKS.to_owned()),
    ],
    "_prisma_migrations", "id,checksum,finished_at,started_at",
    &["id|TEXT|1||1\n", "started_at|DATETIME|1|current_timestamp|0\n", "applied_steps_count|INTEGER UNSIGNED|1|0|0\n"],
    "'1_notes'|NULL|NULL|1\n'2_authors'|NULL|NULL|1\n'3_books'|NULL|NULL|1\n",
)]
fn a_tool_finds_its_rows_in_sqlite(
    #[case] tool: MigrationTool,
    #[case] files: &[(&str, String)],
    #[case] table: &str,
    #[case] times: &str,
    #[case] definition: &[&str],
    #[case] rows: &str,
) {
    skip_without!(Sqlite);
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let directory = directory(&files);
    let db = fresh().migrations_of(tool, directory.path()).start();
    let db = db.unwrap_or_else(|error| panic!("{error:?}"));
    let (made, filled) = books(&db, table, times);
    assert_says(&made, definition);
    assert_eq!(filled, rows);
    assert_migrated(&db);
    if tool == MigrationTool::Prisma {
        // In milliseconds. The cache may hold the migrated directory for days.
        let of_now = "select count(distinct id), min(abs(finished_at / 1000 - strftime('%s', 'now')) < 100000000), \
                      min(typeof(started_at)), min(length(id)), max(length(checksum)) from _prisma_migrations";
        assert_eq!(query(&db, of_now), "3|1|integer|36|64\n");
    }
}

#[test]
fn foreign_keys_hold_where_the_tool_enforces_them() {
    skip_without!(Sqlite);
    let directory = directory(&[("1_a.sql", NO_PARENT)]);
    let report = refused(&fresh().migrations_of(MigrationTool::Sqlx, directory.path()));
    assert_says(&report, &["1_a.sql:3`", "FOREIGN KEY constraint failed"]);
    fresh().migrations_of(MigrationTool::Plain, directory.path()).start().unwrap();
}

#[rstest]
#[case(MigrationTool::NodePgMigrate, "1_a.sql")]
#[case(MigrationTool::Tern, "001_a.sql")]
fn tools_of_postgres_are_refused_for_sqlite(#[case] tool: MigrationTool, #[case] name: &str) {
    skip_without!(Sqlite);
    let directory = directory(&[(name, MORE)]);
    let report = refused(&fresh().migrations_of(tool, directory.path()));
    assert_says(&report, &["which does not know this database", "`MigrationTool::Sqlx` (`--tool sqlx`)"]);
    assert!(!report.contains("choose `MigrationTool::Tern`"), "{report}");
}
