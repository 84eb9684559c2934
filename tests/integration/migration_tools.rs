//! dbmate and node-pg-migrate as judges: whatever they apply or refuse is applied or refused here.
//!
//! `.ci/applications` installs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use sandboxed_db::{MigrationTool, Sandbox};
use sandboxed_db_tests::{directory, fresh, printed, skip, start};

use crate::applications::application;
use crate::conventions::{bookkeeping, data, tables};

/// The program of a tool, if it is installed.
pub(crate) fn program(tool: &str) -> Option<PathBuf> {
    let path = application("tools")?.join("node_modules/.bin").join(tool);
    if !path.exists() {
        skip(&format!("{} does not exist", path.display()));
        return None;
    }
    Some(path)
}

/// Has the tool apply the migrations of a directory. Returns its output, or its error.
fn apply(program: &Path, directory: &Path, db: &Sandbox) -> Result<String, String> {
    let mut command = Command::new(program);
    let mut url = db.tcp().unwrap().url().to_owned();
    match program.file_name().unwrap().to_str().unwrap() {
        "dbmate" => {
            if !url.contains("sslmode=") {
                url += if url.contains('?') { "&sslmode=disable" } else { "?sslmode=disable" };
            }
            command.args(["--no-dump-schema", "--migrations-dir"]).arg(directory).arg("up");
        }
        _ => {
            command.args(["up", "--migrations-dir"]).arg(directory);
        }
    }
    let output = command.current_dir(directory).env("DATABASE_URL", url).output().unwrap();
    if output.status.success() { Ok(printed(&output)) } else { Err(printed(&output)) }
}

#[track_caller]
fn assert_agreed(tool: MigrationTool, program: &Path, table: &str, directory: &Path) {
    let ours = fresh().migrations_of(tool, directory).start();
    let own = start();
    let theirs = apply(program, directory, &own);
    match (ours, theirs) {
        (Ok(db), Ok(_)) => {
            assert_eq!(tables(&db), tables(&own));
            assert_eq!(bookkeeping(&db, table, "run_on"), bookkeeping(&own, table, "run_on"));
            // The tool finds nothing to do.
            let before = bookkeeping(&db, table, "");
            let output = apply(program, directory, &db).unwrap();
            assert!(!output.contains("Applying") && !output.contains("Migrating files"), "{output}");
            assert_eq!(bookkeeping(&db, table, ""), before);
        }
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("here: {ours:?}\n{tool:?}: {theirs:?}"),
    }
}

#[rstest]
#[case::known_file(&[("1_a.sql", "-- migrate:up\ncreate table a ();\n-- migrate:down\ndrop table a;\n")])]
#[case::two_statements(&[(
    "1_a.sql",
    "-- migrate:up transaction:false\ncreate table a (x int);\ncreate index concurrently on a (x);\n-- migrate:down\n"
)])]
#[case::one_statement(&[("1_a.sql", "-- migrate:up   transaction:false\nvacuum;\n--migrate:down\n")])]
#[case::other_option(&[("1_a.sql", "-- migrate:up x\ncreate table a ();\n-- migrate:down\n")])]
#[case::empty_section(&[("1_a.sql", "-- migrate:up\n-- migrate:down\ndrop table a;\n")])]
#[case::no_down_migration(&[("1_a.sql", "-- migrate:up\ncreate table a ();\n")])]
#[case::second_way_up(&[("1_a.sql", "-- migrate:up\n-- migrate:up\n-- migrate:down\n")])]
#[case::down_first(&[("1_a.sql", "-- migrate:down\n-- migrate:up\ncreate table a ();\n")])]
#[case::statement_before(&[("1_a.sql", "select 1;\n-- migrate:up\n-- migrate:down\n")])]
#[case::upper_case(&[("1_a.sql", "-- MIGRATE:UP\nselect 1;\n-- MIGRATE:DOWN\n")])]
#[case::space_before(&[("1_a.sql", " -- migrate:up\nselect 1;\n-- migrate:down\n")])]
#[case::byte_order_mark(&[("1_a.sql", "\u{feff}-- migrate:up\nselect 1;\n-- migrate:down\n")])]
#[case::rows(&[("1_a.sql", "-- migrate:up\ncreate table a (x int);\ncopy a from stdin;\n1\n\\.\n-- migrate:down\n")])]
#[case::psql_command(&[("1_a.sql", "-- migrate:up\n\\d\n-- migrate:down\n")])]
#[case::one_version_twice(&[
    ("1_a.sql", "-- migrate:up\n-- migrate:down\n"),
    ("1_b.sql", "-- migrate:up\n-- migrate:down\n"),
])]
fn dbmate_agrees(#[case] files: &[(&str, &str)]) {
    let Some(program) = program("dbmate") else { return };
    let directory = directory(files);
    assert_agreed(MigrationTool::Dbmate, &program, "schema_migrations", directory.path());
}

#[rstest]
#[case::marks_in_any_case(&[("1_a.sql", "--up MIGRATIONS\ncreate table a ();\n-- -- down\tmigration\ndrop table a;\n")])]
#[case::down_first(&[("1_a.sql", "-- Down Migration\ndrop table a;\n-- Up Migration\ncreate table a ();\n")])]
#[case::statement_before(&[("1_a.sql", "create table b ();\n-- Up Migration\ncreate table a ();\n")])]
#[case::no_marks(&[("1_a.sql", "create table a (x text default '{x}');\n")])]
#[case::names_of_one_number(&[("1_b.sql", "create table b ();"), ("1_a.sql", "create table a ();")])]
#[case::a_name_without_a_number(&[("a.sql", "create table a ();"), ("1_b.sql", "")])]
#[case::a_transaction_around_it(&[("1_a.sql", "create table a (x int);"), ("2_a.sql", "create index concurrently on a (x);")])]
#[case::byte_order_mark(&[("1_a.sql", "\u{feff}-- Up Migration\ncreate table a ();\n")])]
#[case::byte_order_mark_without_marks(&[("1_a.sql", "\u{feff}create table a ();\n")])]
#[case::psql_command(&[("1_a.sql", "\\d\n")])]
fn node_pg_migrate_agrees(#[case] files: &[(&str, &str)]) {
    let Some(program) = program("node-pg-migrate") else { return };
    let directory = directory(files);
    assert_agreed(MigrationTool::NodePgMigrate, &program, "pgmigrations", directory.path());
}

#[rstest]
#[case::dbmate(MigrationTool::Dbmate, "dbmate", "schema_migrations")]
#[case::node_pg_migrate(MigrationTool::NodePgMigrate, "node-pg-migrate", "pgmigrations")]
fn a_tool_finds_its_example_applied(#[case] tool: MigrationTool, #[case] name: &str, #[case] table: &str) {
    let Some(program) = program(name) else { return };
    assert_agreed(tool, &program, table, &data(name));
}
