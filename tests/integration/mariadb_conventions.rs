//! Migrations of each tool on MariaDB: run here as the tool runs them, so that the tool finds all
//! of them applied, and applies one that is added.

use std::path::Path;

use rstest::rstest;
use sandboxed_db::{MariaDb, MigrationTool, Sandbox};
use sandboxed_db_tests::{assert_says, directory, mariadb, refused, skip_without};
use sqlx::Connection as _;
use sqlx::migrate::Migrator;

use crate::judged_engine::{Files, JudgedEngine, MORE, assert_agreed, assert_books, fresh, named, of_goose};

impl JudgedEngine for MariaDb {
    /// A body of several statements needs no `DELIMITER` in a request.
    const NOTES: &str = "create table notes (id bigint auto_increment primary key, text varchar(200) not null);\n\
                     create trigger shout before insert on notes for each row begin\n  \
                     set new.text = upper(new.text);\nend;\n";
    const AUTHORS: &str = "create table authors (name text);\n\
                       insert into authors values ('it''s \\'Ada\\' # -- ;'), ('Grace\r\nHopper');\n";
    /// Ends with a comment, and changes the session.
    const BOOKS: &str =
        "set foreign_key_checks = 0;\ncreate table books (title text default 'a # b');\n-- end";

    fn query(db: &Sandbox<Self>, sql: &str) -> String {
        mariadb(&db.env(), sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn books(db: &Sandbox<Self>, table: &str, times: &str) -> (String, String) {
        let columns = format!(
            "select group_concat(column_name order by ordinal_position) from information_schema.columns \
             where table_name = '{table}' and find_in_set(column_name, '{times}') = 0"
        );
        let columns = Self::query(db, &columns);
        let rows = Self::query(db, &format!("select {columns} from {table} order by 1"));
        (Self::query(db, &format!("show create table {table}")), rows)
    }

    fn assert_migrated(db: &Sandbox<Self>, by_line: bool) {
        let line_end = if by_line { "\n" } else { "\r\n" };
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02X}")).collect::<String>();
        assert_eq!(
            Self::query(db, "select hex(name) from authors order by 1"),
            [hex(&format!("Grace{line_end}Hopper")), hex("it's 'Ada' # -- ;")].join("\n")
        );
        Self::query(db, "insert into notes (text) values ('quiet')");
        assert_eq!(Self::query(db, "select text from notes; select count(*) from books"), "QUIET\n0");
    }
}

/// These rows were compared with the sources of the tools.
#[rstest]
#[case::golang_migrate(
    MigrationTool::GolangMigrate,
    named::<MariaDb>(["1_notes.up.sql", "02_authors.up.sql", "3_books.up.sql"]),
    "schema_migrations", "",
    &["`version` bigint(20) NOT NULL", "`dirty` tinyint(1) NOT NULL", "PRIMARY KEY (`version`)"],
    "3\t0",
)]
#[case::goose(
    MigrationTool::Goose,
    of_goose::<MariaDb>(),
    "goose_db_version", "tstamp",
    &["`id` bigint(20) unsigned NOT NULL AUTO_INCREMENT", "`tstamp` timestamp NULL DEFAULT current_timestamp()"],
    "1\t0\t1\n2\t1\t1\n3\t2\t1\n4\t3\t1",
)]
#[case::prisma(
    MigrationTool::Prisma,
    named::<MariaDb>(["1_notes/migration.sql", "2_authors/migration.sql", "3_books/migration.sql"]),
    "_prisma_migrations", "id,checksum,finished_at,started_at",
    &["`started_at` datetime(3) NOT NULL DEFAULT current_timestamp(3)", "COLLATE=utf8mb4_unicode_ci"],
    "1_notes\tNULL\tNULL\t1\n2_authors\tNULL\tNULL\t1\n3_books\tNULL\tNULL\t1",
)]
#[case::flyway(
    MigrationTool::Flyway,
    [
        ("V1__notes.sql", format!("delimiter //\n{}//\ndelimiter ;\n", MariaDb::NOTES)),
        ("V1.1__authors.sql", MariaDb::AUTHORS.to_owned()),
        ("R__books.sql", MariaDb::BOOKS.to_owned()),
    ],
    "notes", "",
    &[],
    "",
)]
fn a_tool_finds_its_rows_in_mariadb(
    #[case] tool: MigrationTool,
    #[case] files: Files,
    #[case] table: &str,
    #[case] times: &str,
    #[case] definition: &[&str],
    #[case] rows: &str,
) {
    skip_without!(MariaDb);
    let db = assert_books::<MariaDb>(tool, &files, (table, times), definition, rows);
    if tool == MigrationTool::Prisma {
        let sums = "select checksum = sha2(X'{}', 256), finished_at >= started_at from _prisma_migrations order by id";
        let hex: String = MariaDb::NOTES.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(MariaDb::query(&db, &sums.replace("{}", &hex)).contains("1\t1"));
    }
}

#[test]
fn a_failed_request_of_mariadb_names_its_place() {
    skip_without!(MariaDb);
    for (text, place) in [
        ("create table a (id int);\n\ncreate tabel b (id int);\n", "1_a.sql:3`"),
        ("create table a (id int);\ncreate table a (id int);\n", "1_a.sql`"),
        ("insert into missing values (1);\n", "1_a.sql:1`"),
        ("create table a (id int);\ncommit;\nset @a = 'open;\n", "1_a.sql`"),
    ] {
        let directory = directory(&[("1_a.sql", text)]);
        let report = refused(&fresh::<MariaDb>().migrations_of(MigrationTool::Sqlx, directory.path()));
        assert_says(&report, &[place, "ERROR "]);
    }
}

fn apply_by_sqlx(directory: &Path, db: &Sandbox<MariaDb>) -> usize {
    let count = || -> usize {
        let table = MariaDb::query(db, "show tables like '\\_sqlx\\_migrations'");
        let rows = "select count(*) from _sqlx_migrations where success";
        if table.is_empty() { 0 } else { MariaDb::query(db, rows).parse().unwrap() }
    };
    let before = count();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut connection = sqlx::MySqlConnection::connect(db.url()).await.unwrap();
        Migrator::new(directory).await.unwrap().run(&mut connection).await.unwrap();
    });
    count() - before
}

#[test]
fn sqlx_finds_its_migrations_applied() {
    skip_without!(MariaDb);
    // sqlx has `||` join texts.
    let mut files = named::<MariaDb>(["1_notes.sql", "2_it_has_authors.up.sql", "10_books.sql"]);
    files[1].1 = files[1].1.replace("('Grace\r\nHopper')", "('Grace' || '\r\nHopper')");
    let table = ("_sqlx_migrations", "installed_on,execution_time");
    assert_agreed(MigrationTool::Sqlx, &files, ("11_more.sql", MORE), table, apply_by_sqlx);
    let directory = directory(&[("1_a.sql", MariaDb::NOTES)]);
    let db = fresh::<MariaDb>().migrations_of(MigrationTool::Sqlx, directory.path()).start().unwrap();
    assert_eq!(MariaDb::query(&db, "select min(execution_time) > 0 from _sqlx_migrations"), "1");
}

/// Diesel links the client library of the host for MySQL.
#[cfg(feature = "drivers")]
#[test]
fn diesel_finds_its_migrations_applied() {
    skip_without!(MariaDb);
    let files = named::<MariaDb>(["1_notes/up.sql", "2_authors/up.sql", "3_books/up.sql"]);
    use diesel::Connection as _;
    use diesel_migrations::{FileBasedMigrations, MigrationHarness as _};

    let apply = |directory: &Path, db: &Sandbox<MariaDb>| {
        let source = FileBasedMigrations::from_path(directory).unwrap();
        let url = format!(
            "mysql://root@localhost/test?unix_socket={}",
            MariaDb::socket().below(&db.root()).display()
        );
        let mut connection = diesel::MysqlConnection::establish(&url).unwrap();
        connection.run_pending_migrations(source).unwrap().len()
    };
    let table = ("__diesel_schema_migrations", "run_on");
    assert_agreed(MigrationTool::Diesel, &files, ("4_more/up.sql", MORE), table, apply);
}

#[test]
fn refinery_finds_its_migrations_applied() {
    skip_without!(MariaDb);
    let files = named::<MariaDb>(["V1__notes.sql", "V2__it_has_authors.sql", "V10__books.sql"]);
    let apply = |directory: &Path, db: &Sandbox<MariaDb>| {
        let migrations = refinery::load_sql_migrations(directory).unwrap();
        let mut connection = mysql::Conn::new(mysql::Opts::from_url(db.url()).unwrap()).unwrap();
        refinery::Runner::new(&migrations).run(&mut connection).unwrap().applied_migrations().len()
    };
    let table = ("refinery_schema_history", "applied_on");
    assert_agreed(MigrationTool::Refinery, &files, ("V11__more.sql", MORE), table, apply);
}
