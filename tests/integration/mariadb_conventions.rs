//! Migrations of each tool on MariaDB: run here as the tool runs them, so that the tool finds all
//! of them applied, and applies one that is added.

use std::path::Path;
use std::process::Command;

use rstest::rstest;
use sandboxed_db::{MariaDb, MigrationTool, Sandbox, Snapshot};
use sandboxed_db_tests::{assert_says, directory, is_missing, mariadb, printed, refused, skip_without};
use sqlx::Connection as _;
use sqlx::migrate::Migrator;

use crate::migration_tools::program;

/// A body of several statements needs no `DELIMITER` in a request.
const NOTES: &str = "create table notes (id bigint auto_increment primary key, text varchar(200) not null);\n\
                     create trigger shout before insert on notes for each row begin\n  \
                     set new.text = upper(new.text);\nend;\n";
const AUTHORS: &str = "create table authors (name text);\n\
                       insert into authors values ('it''s \\'Ada\\' # -- ;'), ('Grace\r\nHopper');\n";
/// Ends with a comment, and changes the session.
const BOOKS: &str = "set foreign_key_checks = 0;\ncreate table books (title text default 'a # b');\n-- end";

fn query(db: &Sandbox<MariaDb>, sql: &str) -> String {
    mariadb(&db.env(), sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn fresh() -> Snapshot<MariaDb> {
    Snapshot::new(MariaDb::new())
}

/// The definition of a bookkeeping table, and its rows without the columns of times.
fn books(db: &Sandbox<MariaDb>, table: &str, times: &str) -> (String, String) {
    let columns = format!(
        "select group_concat(column_name order by ordinal_position) from information_schema.columns \
         where table_name = '{table}' and find_in_set(column_name, '{times}') = 0"
    );
    let columns = query(db, &columns);
    let rows = query(db, &format!("select {columns} from {table} order by 1"));
    (query(db, &format!("show create table {table}")), rows)
}

#[track_caller]
fn assert_migrated(db: &Sandbox<MariaDb>) {
    assert_filled(db, "\r\n");
}

#[track_caller]
fn assert_filled(db: &Sandbox<MariaDb>, line_end: &str) {
    let authors = "select hex(name) from authors order by 1";
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02X}")).collect::<String>();
    assert_eq!(
        query(db, authors),
        [hex(&format!("Grace{line_end}Hopper")), hex("it's 'Ada' # -- ;")].join("\n")
    );
    query(db, "insert into notes (text) values ('quiet')");
    assert_eq!(query(db, "select text from notes; select count(*) from books"), "QUIET\n0");
}

/// Compares what this library and a tool make of the same migrations. `apply` returns the number
/// that the tool has applied.
fn assert_agreed(
    tool: MigrationTool,
    files: [(&str, String); 3],
    added: (&str, String),
    (table, times): (&str, &str),
    apply: impl Fn(&Path, &Sandbox<MariaDb>) -> usize,
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
    assert_eq!(query(&ours, "select count(*) from more"), "0");
    assert_eq!(apply(directory.path(), &theirs), 1);
    assert_eq!(books(&ours, table, times), books(&theirs, table, times));
}

const MORE: &str = "create table more (id int);\n";

fn section(up: &str) -> String {
    format!("-- migrate:up\n{up}\n-- migrate:down\nnonsense\n")
}

#[test]
fn dbmate_finds_its_migrations_applied() {
    let Some(program) = program("dbmate").filter(|_| !is_missing::<MariaDb>()) else { return };
    let files = [
        ("1_notes.sql", section(NOTES)),
        ("2_authors.sql", section(AUTHORS)),
        ("3_books.sql", "-- migrate:up transaction:false\n".to_owned() + BOOKS + "\n-- migrate:down\n"),
    ];
    let apply = |directory: &Path, db: &Sandbox<MariaDb>| {
        let mut command = Command::new(&program);
        command.args(["--no-dump-schema", "--migrations-dir"]).arg(directory).arg("up");
        let output = command.env("DATABASE_URL", db.tcp().unwrap().url()).output().unwrap();
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
    &["`version` bigint(20) NOT NULL", "`dirty` tinyint(1) NOT NULL", "PRIMARY KEY (`version`)"],
    "3\t0",
)]
#[case::goose(
    MigrationTool::Goose,
    &[
        ("1_notes.sql", format!("-- +goose Up\n-- +goose StatementBegin\n{NOTES}\n-- +goose StatementEnd\n")),
        ("2_authors.sql", format!("-- +goose Up\n{AUTHORS}\n-- +goose Down\ndrop table authors;\n")),
        ("3_books.sql", format!("-- +goose NO TRANSACTION\n-- +goose Up\n{}", BOOKS.trim_end_matches("-- end"))),
    ],
    "goose_db_version", "tstamp",
    &["`id` bigint(20) unsigned NOT NULL AUTO_INCREMENT", "`tstamp` timestamp NULL DEFAULT current_timestamp()"],
    "1\t0\t1\n2\t1\t1\n3\t2\t1\n4\t3\t1",
)]
#[case::prisma(
    MigrationTool::Prisma,
    &[
        ("1_notes/migration.sql", NOTES.to_owned()),
        ("2_authors/migration.sql", AUTHORS.to_owned()),
        ("3_books/migration.sql", BOOKS.to_owned()),
    ],
    "_prisma_migrations", "id,checksum,finished_at,started_at",
    &["`started_at` datetime(3) NOT NULL DEFAULT current_timestamp(3)", "COLLATE=utf8mb4_unicode_ci"],
    "1_notes\tNULL\tNULL\t1\n2_authors\tNULL\tNULL\t1\n3_books\tNULL\tNULL\t1",
)]
#[case::flyway(
    MigrationTool::Flyway,
    &[
        ("V1__notes.sql", format!("delimiter //\n{NOTES}//\ndelimiter ;\n")),
        ("V1.1__authors.sql", AUTHORS.to_owned()),
        ("R__books.sql", BOOKS.to_owned()),
    ],
    "notes", "",
    &[],
    "",
)]
fn a_tool_finds_its_rows_in_mariadb(
    #[case] tool: MigrationTool,
    #[case] files: &[(&str, String)],
    #[case] table: &str,
    #[case] times: &str,
    #[case] definition: &[&str],
    #[case] rows: &str,
) {
    skip_without!(MariaDb);
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let directory = directory(&files);
    let db = fresh().migrations_of(tool, directory.path()).start();
    let db = db.unwrap_or_else(|error| panic!("{error:?}"));
    let (made, filled) = books(&db, table, times);
    assert_says(&made, definition);
    assert_eq!(filled, rows);
    if tool == MigrationTool::Prisma {
        let sums = "select checksum = sha2(X'{}', 256), finished_at >= started_at from _prisma_migrations order by id";
        let hex: String = NOTES.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(query(&db, &sums.replace("{}", &hex)).contains("1\t1"));
    }
    // These two read files line by line.
    let line_end = if [MigrationTool::Goose, MigrationTool::Flyway].contains(&tool) { "\n" } else { "\r\n" };
    assert_filled(&db, line_end);
}

#[rstest]
#[case(MigrationTool::NodePgMigrate, "1_a.sql")]
#[case(MigrationTool::Tern, "001_a.sql")]
fn tools_of_postgres_are_refused_for_mariadb(#[case] tool: MigrationTool, #[case] name: &str) {
    skip_without!(MariaDb);
    let directory = directory(&[(name, MORE)]);
    let report = refused(&fresh().migrations_of(tool, directory.path()));
    assert_says(&report, &["which does not know this database", "`MigrationTool::Sqlx` (`--tool sqlx`)"]);
    assert!(!report.contains("choose `MigrationTool::Tern`"), "{report}");
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
        let report = refused(&fresh().migrations_of(MigrationTool::Sqlx, directory.path()));
        assert_says(&report, &[place, "ERROR "]);
    }
}

fn apply_by_sqlx(directory: &Path, db: &Sandbox<MariaDb>) -> usize {
    let count = || -> usize {
        let table = query(db, "show tables like '\\_sqlx\\_migrations'");
        let rows = "select count(*) from _sqlx_migrations where success";
        if table.is_empty() { 0 } else { query(db, rows).parse().unwrap() }
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
    let joined = AUTHORS.replace("('Grace\r\nHopper')", "('Grace' || '\r\nHopper')");
    let files =
        [("1_notes.sql", NOTES.into()), ("2_it_has_authors.up.sql", joined), ("10_books.sql", BOOKS.into())];
    let table = ("_sqlx_migrations", "installed_on,execution_time");
    assert_agreed(MigrationTool::Sqlx, files, ("11_more.sql", MORE.into()), table, apply_by_sqlx);
    let directory = directory(&[("1_a.sql", NOTES)]);
    let db = fresh().migrations_of(MigrationTool::Sqlx, directory.path()).start().unwrap();
    assert_eq!(query(&db, "select min(execution_time) > 0 from _sqlx_migrations"), "1");
}

/// Diesel links the client library of the host for MySQL.
#[cfg(feature = "drivers")]
#[test]
fn diesel_finds_its_migrations_applied() {
    skip_without!(MariaDb);
    let files = [
        ("1_notes/up.sql", NOTES.into()),
        ("2_authors/up.sql", AUTHORS.into()),
        ("3_books/up.sql", BOOKS.into()),
    ];
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
    assert_agreed(MigrationTool::Diesel, files, ("4_more/up.sql", MORE.into()), table, apply);
}

#[test]
fn refinery_finds_its_migrations_applied() {
    skip_without!(MariaDb);
    let files = [
        ("V1__notes.sql", NOTES.into()),
        ("V2__it_has_authors.sql", AUTHORS.into()),
        ("V10__books.sql", BOOKS.into()),
    ];
    let apply = |directory: &Path, db: &Sandbox<MariaDb>| {
        let migrations = refinery::load_sql_migrations(directory).unwrap();
        let mut connection = mysql::Conn::new(mysql::Opts::from_url(db.url()).unwrap()).unwrap();
        refinery::Runner::new(&migrations).run(&mut connection).unwrap().applied_migrations().len()
    };
    let table = ("refinery_schema_history", "applied_on");
    assert_agreed(MigrationTool::Refinery, files, ("V11__more.sql", MORE.into()), table, apply);
}
