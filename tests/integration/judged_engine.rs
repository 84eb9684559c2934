//! Comparison of this library with migration tools, on the engines for which `conventions.rs` is
//! not written: the tool finds all migrations applied, and applies one that is added.

use std::fs;
use std::path::Path;
use std::process::Command;

use rstest::rstest;
use sandboxed_db::engine::Sql;
use sandboxed_db::{MariaDb, MigrationTool, Sandbox, Snapshot, Sqlite};
use sandboxed_db_tests::{TestedEngine, assert_says, directory, is_missing, printed, refused};

use crate::migration_tools::program;

/// A migration that is added later.
pub(crate) const MORE: &str = "create table more (id int);\n";

/// An engine with three migrations, and checks of their effects.
pub(crate) trait JudgedEngine: TestedEngine + Sql {
    const NOTES: &str;
    const AUTHORS: &str;
    const BOOKS: &str;

    /// Returns the rows, without a line break at the end.
    fn query(db: &Sandbox<Self>, sql: &str) -> String;

    /// Returns the definition of a bookkeeping table, and its rows without the columns of times.
    fn books(db: &Sandbox<Self>, table: &str, times: &str) -> (String, String);

    /// Asserts the effects of the migrations. A tool that reads files line by line changes `\r\n`.
    fn assert_migrated(db: &Sandbox<Self>, by_line: bool);
}

pub(crate) fn fresh<E: JudgedEngine>() -> Snapshot<E> {
    Snapshot::new(E::engine())
}

/// The three migrations, under these names.
pub(crate) fn named<E: JudgedEngine>(names: [&'static str; 3]) -> Files {
    let contents = [E::NOTES, E::AUTHORS, E::BOOKS].map(str::to_owned);
    std::array::from_fn(|index| (names[index], contents[index].clone()))
}

pub(crate) type Files = [(&'static str, String); 3];

fn written(files: &Files) -> tempfile::TempDir {
    directory(&files.each_ref().map(|(name, text)| (*name, text.as_str())))
}

/// Compares the results of this library and of a tool for the same migrations. `apply` returns the
/// number of migrations that the tool has applied.
pub(crate) fn assert_agreed<E: JudgedEngine>(
    tool: MigrationTool,
    files: &Files,
    (added, more): (&str, &str),
    (table, times): (&str, &str),
    apply: impl Fn(&Path, &Sandbox<E>) -> usize,
) {
    let directory = written(files);
    let snapshot = fresh::<E>().migrations_of(tool, directory.path());
    let ours = snapshot.start().unwrap_or_else(|error| panic!("{error:?}"));
    E::assert_migrated(&ours, false);
    let before = E::books(&ours, table, "");
    assert_eq!(apply(directory.path(), &ours), 0, "the tool finds something to do");
    assert_eq!(E::books(&ours, table, ""), before);
    let theirs = fresh::<E>().start().unwrap();
    assert_eq!(apply(directory.path(), &theirs), 3);
    E::assert_migrated(&theirs, false);
    assert_eq!(E::books(&ours, table, times), E::books(&theirs, table, times));
    let path = directory.path().join(added);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, more).unwrap();
    assert_eq!(apply(directory.path(), &ours), 1);
    assert_eq!(E::query(&ours, "select count(*) from more"), "0");
    assert_eq!(apply(directory.path(), &theirs), 1);
    assert_eq!(E::books(&ours, table, times), E::books(&theirs, table, times));
}

/// Asserts the bookkeeping table of a tool, and returns the sandbox.
pub(crate) fn assert_books<E: JudgedEngine>(
    tool: MigrationTool,
    files: &Files,
    (table, times): (&str, &str),
    definition: &[&str],
    rows: &str,
) -> Sandbox<E> {
    let directory = written(files);
    let db = fresh::<E>().migrations_of(tool, directory.path()).start();
    let db = db.unwrap_or_else(|error| panic!("{error:?}"));
    let (made, filled) = E::books(&db, table, times);
    assert_says(&made, definition);
    assert_eq!(filled, rows);
    E::assert_migrated(&db, [MigrationTool::Goose, MigrationTool::Flyway].contains(&tool));
    db
}

/// The migrations as files of goose.
pub(crate) fn of_goose<E: JudgedEngine>() -> Files {
    let (notes, authors, books) = (E::NOTES, E::AUTHORS, E::BOOKS.trim_end_matches("-- end"));
    [
        ("1_notes.sql", format!("-- +goose Up\n-- +goose StatementBegin\n{notes}\n-- +goose StatementEnd\n")),
        ("2_authors.sql", format!("-- +goose Up\n{authors}\n-- +goose Down\ndrop table authors;\n")),
        ("3_books.sql", format!("-- +goose NO TRANSACTION\n-- +goose Up\n{books}")),
    ]
}

fn agrees_with_dbmate<E: JudgedEngine>(url: fn(&Sandbox<E>) -> String) {
    let Some(program) = program("dbmate").filter(|_| !is_missing::<E>()) else { return };
    let section = |up: &str| format!("-- migrate:up\n{up}\n-- migrate:down\nnonsense\n");
    let books = format!("-- migrate:up transaction:false\n{}\n-- migrate:down\n", E::BOOKS);
    let files =
        [("1_notes.sql", section(E::NOTES)), ("2_authors.sql", section(E::AUTHORS)), ("3_books.sql", books)];
    let apply = |directory: &Path, db: &Sandbox<E>| {
        let mut command = Command::new(&program);
        command.args(["--no-dump-schema", "--migrations-dir"]).arg(directory).arg("up");
        let output = command.env("DATABASE_URL", url(db)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        printed(&output).matches("Applied:").count()
    };
    let table = ("schema_migrations", "");
    assert_agreed(MigrationTool::Dbmate, &files, ("4_more.sql", &section(MORE)), table, apply);
}

fn refuses_tools_of_postgres<E: JudgedEngine>() {
    if is_missing::<E>() {
        return;
    }
    for (tool, name) in [(MigrationTool::NodePgMigrate, "1_a.sql"), (MigrationTool::Tern, "001_a.sql")] {
        let directory = directory(&[(name, MORE)]);
        let report = refused(&fresh::<E>().migrations_of(tool, directory.path()));
        assert_says(&report, &["which does not know this database", "`MigrationTool::Sqlx` (`--tool sqlx`)"]);
        assert!(!report.contains("choose `MigrationTool::Tern`"), "{report}");
    }
}

#[rstest]
#[case::mariadb(|| agrees_with_dbmate::<MariaDb>(|db| db.tcp().unwrap().url().to_owned()))]
#[case::sqlite(|| agrees_with_dbmate::<Sqlite>(|db| db.url().to_owned()))]
fn dbmate_finds_its_migrations_applied(#[case] agrees: fn()) {
    agrees();
}

#[rstest]
#[case::mariadb(refuses_tools_of_postgres::<MariaDb>)]
#[case::sqlite(refuses_tools_of_postgres::<Sqlite>)]
fn tools_of_postgres_are_refused(#[case] refuses: fn()) {
    refuses();
}
