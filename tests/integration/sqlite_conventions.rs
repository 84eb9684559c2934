//! Migrations of each tool on SQLite: run here as the tool runs them, so that the tool finds all of
//! them applied, and applies one that is added.

use std::path::Path;

use diesel::Connection as _;
use diesel_migrations::{FileBasedMigrations, MigrationHarness as _};
use rstest::rstest;
use sandboxed_db::{MigrationTool, Sandbox, Sqlite};
use sandboxed_db_tests::{assert_says, directory, refused, skip_without};
use sqlx::Connection as _;
use sqlx::migrate::Migrator;

use crate::judged_engine::{Files, JudgedEngine, MORE, assert_agreed, assert_books, fresh, named, of_goose};
use crate::sqlite::{file, query};

const NO_PARENT: &str = "create table a (id integer primary key);\n\
                         create table b (a references a);\ninsert into b values (1);\n";

impl JudgedEngine for Sqlite {
    /// The body of a trigger has semicolons.
    const NOTES: &str = "create table notes (id integer primary key, text varchar(200) not null);\n\
                     create trigger shout after insert on notes begin\n  \
                     update notes set text = upper(new.text) where id = new.id;\nend;\n";
    /// A line begins like a command of sqlite3.
    const AUTHORS: &str = "create table authors (name text);\n\
                       insert into authors values ('it''s \"Ada\" # -- ;'), ('Grace\n.tables');\n";
    /// Ends with a comment.
    const BOOKS: &str = "create table books (title text default 'a # b');\n-- end";

    fn query(db: &Sandbox<Self>, sql: &str) -> String {
        query(db, sql).trim_end().to_owned()
    }

    /// The definition has the columns and the indexes.
    fn books(db: &Sandbox<Self>, table: &str, times: &str) -> (String, String) {
        let columns =
            format!("select name, type, \"notnull\", dflt_value, pk from pragma_table_info('{table}')");
        let indexes = format!("select \"unique\", origin from pragma_index_list('{table}')");
        let names = format!(
            "select group_concat('quote(' || name || ')') from pragma_table_info('{table}') \
             where ',{times},' not like '%,' || name || ',%'"
        );
        let rows = format!("select {} from {table} order by 1", query(db, &names));
        (query(db, &columns) + &query(db, &indexes), query(db, &rows))
    }

    fn assert_migrated(db: &Sandbox<Self>, _: bool) {
        let authors = query(db, "select name from authors order by 1");
        assert_eq!(authors, "Grace\n.tables\nit's \"Ada\" # -- ;\n");
        query(db, "insert into notes (text) values ('quiet')");
        assert_eq!(query(db, "select text from notes; select count(*) from books"), "QUIET\n0\n");
    }
}

#[test]
fn sqlx_finds_its_migrations_applied() {
    skip_without!(Sqlite);
    let mut files = named::<Sqlite>(["1_notes.sql", "2_it_has_authors.up.sql", "10_books.sql"]);
    files[2].1.insert_str(0, "-- no-transaction\n");
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
    assert_agreed(MigrationTool::Sqlx, &files, ("11_more.sql", MORE), table, apply);
}

#[test]
fn diesel_finds_its_migrations_applied() {
    skip_without!(Sqlite);
    let files = named::<Sqlite>(["1_notes/up.sql", "2_authors/up.sql", "3_books/up.sql"]);
    let apply = |directory: &Path, db: &Sandbox<Sqlite>| {
        let source = FileBasedMigrations::from_path(directory).unwrap();
        let mut connection = diesel::SqliteConnection::establish(file(db).to_str().unwrap()).unwrap();
        connection.run_pending_migrations(source).unwrap().len()
    };
    let table = ("__diesel_schema_migrations", "run_on");
    assert_agreed(MigrationTool::Diesel, &files, ("4_more/up.sql", MORE), table, apply);
}

#[test]
fn refinery_finds_its_migrations_applied() {
    skip_without!(Sqlite);
    let files = named::<Sqlite>(["V1__notes.sql", "V2__it_has_authors.sql", "V10__books.sql"]);
    let apply = |directory: &Path, db: &Sandbox<Sqlite>| {
        let migrations = refinery::load_sql_migrations(directory).unwrap();
        let mut connection = rusqlite::Connection::open(file(db)).unwrap();
        refinery::Runner::new(&migrations).run(&mut connection).unwrap().applied_migrations().len()
    };
    let table = ("refinery_schema_history", "applied_on");
    assert_agreed(MigrationTool::Refinery, &files, ("V11__more.sql", MORE), table, apply);
}

/// These rows were compared with the sources of the tools.
#[rstest]
#[case::golang_migrate(
    MigrationTool::GolangMigrate,
    named::<Sqlite>(["1_notes.up.sql", "02_authors.up.sql", "3_books.up.sql"]),
    "schema_migrations", "",
    &["version|uint64|0||0\ndirty|bool|0||0\n1|c\n"],
    "3|0\n",
)]
#[case::goose(
    MigrationTool::Goose,
    of_goose::<Sqlite>(),
    "goose_db_version", "tstamp",
    &["id|INTEGER|0||1\n", "tstamp|TIMESTAMP|0|datetime('now')|0\n"],
    "1|0|1\n2|1|1\n3|2|1\n4|3|1\n",
)]
#[case::prisma(
    MigrationTool::Prisma,
    named::<Sqlite>(["1_notes/migration.sql", "2_authors/migration.sql", "3_books/migration.sql"]),
    "_prisma_migrations", "id,checksum,finished_at,started_at",
    &["id|TEXT|1||1\n", "started_at|DATETIME|1|current_timestamp|0\n", "applied_steps_count|INTEGER UNSIGNED|1|0|0\n"],
    "'1_notes'|NULL|NULL|1\n'2_authors'|NULL|NULL|1\n'3_books'|NULL|NULL|1\n",
)]
fn a_tool_finds_its_rows_in_sqlite(
    #[case] tool: MigrationTool,
    #[case] files: Files,
    #[case] table: &str,
    #[case] times: &str,
    #[case] definition: &[&str],
    #[case] rows: &str,
) {
    skip_without!(Sqlite);
    let db = assert_books::<Sqlite>(tool, &files, (table, times), definition, rows);
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
    let report = refused(&fresh::<Sqlite>().migrations_of(MigrationTool::Sqlx, directory.path()));
    assert_says(&report, &["1_a.sql:3`", "FOREIGN KEY constraint failed"]);
    fresh::<Sqlite>().migrations_of(MigrationTool::Plain, directory.path()).start().unwrap();
}
