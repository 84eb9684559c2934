//! Migrations that no argument of the attribute names, and the tool that their names show.

use std::fmt::Debug;

use sandboxed_db::{Postgres, sandboxed_db};
use sandboxed_db_tests::{alone, assert_says, connect, directory, is_alone, outcome, value_at};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata};

/// Prints the tables of the server, for the test that runs this one with a package.
#[expect(clippy::print_stdout, reason = "the test that runs this one reads it")]
fn show_tables(url: &str) {
    let query = "select coalesce(string_agg(relname, ' ' order by relname), 'none') from pg_stat_user_tables";
    println!("tables: {}.", value_at::<String>(url, query));
}

/// Tests whose package is named by the environment.
macro_rules! shows {
    ($($name:ident($($arguments:tt)*)),*) => {
        $(
            #[sandboxed_db($($arguments)*)]
            #[ignore = "run with a package by other tests"]
            fn $name(url: String) {
                show_tables(&url);
            }
        )*
    };
}

shows!(
    says_nothing(),
    says_seed(seed = "data/notes/one.sql"),
    says_settings(settings(jit = false)),
    says_none(migrations = none),
    says_an_engine(engine = Postgres),
    says_a_program(run("true")),
    says_a_directory(migrations = "data/notes/migrations"),
    says_the_database_of_its_parameter(url(keep = "never"))
);

#[sandboxed_db]
#[ignore = "run with a package by other tests"]
fn migrates_itself(url: String) {
    if is_alone() {
        connect(&url).batch_execute("create table users (id int)").unwrap();
    }
}

/// Prints the events of a test.
struct Printer;

impl tracing::Subscriber for Printer {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    #[expect(clippy::print_stdout, reason = "the test that runs this one reads it")]
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        println!("{}:{}", event.metadata().level(), fields.0);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The fields of an event, as text.
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

#[test]
#[ignore = "run with a package by other tests"]
fn says_nothing_with_a_log() {
    if is_alone() {
        tracing::subscriber::with_default(Printer, says_nothing);
    }
}

/// Runs a test with a package of these files, and returns its output.
fn run(test: &str, files: &[(&str, &str)]) -> String {
    let package = directory(files);
    let mut command = alone(&format!("discovery::{test}"));
    let (_, text) = outcome(command.arg("--nocapture").env("CARGO_MANIFEST_DIR", package.path()));
    text.replace(&package.path().display().to_string(), "PACKAGE")
}

fn assert_shows(test: &str, files: &[(&str, &str)], tables: &str) {
    assert_says(&run(test, files), &[&format!("tables: {tables}.")]);
}

const USERS: (&str, &str) = ("migrations/1_users.sql", "create table users (id int);");
const NOTES: (&str, &str) = ("data/notes/migrations/1.sql", "create table notes (id int);");
const ONE: (&str, &str) = ("data/notes/one.sql", "create table one (id int);");

#[test]
fn migrations_are_found_where_nothing_is_said() {
    for test in ["says_nothing", "says_settings"] {
        assert_shows(test, &[USERS], "users");
    }
    assert_shows("says_seed", &[USERS, ONE], "one users");
    for empty in [&[][..], &[("migrations/README.md", "")], &[("migrations", "")]] {
        assert_shows("says_nothing", empty, "none");
    }
}

#[test]
fn a_test_that_makes_its_schema_finds_none() {
    for test in ["says_none", "says_an_engine", "says_a_program", "says_the_database_of_its_parameter"] {
        assert_shows(test, &[USERS], "none");
    }
    assert_shows("says_a_directory", &[USERS, NOTES], "notes");
}

#[test]
fn files_named_by_a_time_are_sqlxs_beside_sqlx() {
    const BY_TIME: (&str, &str) = ("migrations/20240101120000_users.sql", "create table users (id int);");
    let sqlx = ("Cargo.toml", "[dependencies]\nsqlx = \"0.8\"\n");
    let other = ("Cargo.toml", "[dependencies]\npostgres = \"0.19\"\n");
    assert_shows("says_nothing", &[BY_TIME, sqlx], "_sqlx_migrations users");
    let log = run("says_nothing_with_a_log", &[BY_TIME, sqlx]);
    let notice =
        "INFO: message=run as sqlx does, since the package depends on it directory=PACKAGE/migrations";
    assert_says(&log, &[notice]);
    assert_shows("says_nothing", &[BY_TIME, other], "users");
    assert_shows("says_nothing", &[USERS, sqlx], "users");
}

#[test]
fn a_found_directory_that_is_refused_can_be_left_out() {
    let text = run("says_nothing", &[USERS, ("migrations/V1__a.sql", "")]);
    let error = "could not decide how to run the migrations in `PACKAGE/migrations`";
    assert_says(&text, &[error, "write `migrations = none` to leave it out"]);
}

#[test]
fn a_second_migration_is_answered_with_the_tool() {
    let text = run("migrates_itself", &[USERS]);
    let advice = "\n  the migrations in `migrations` ran before the test";
    let parts =
        ["ERROR:  relation \"users\" already exists", advice, "as in `migrations_of(Sqlx, \"migrations\")`"];
    assert_says(&text, &parts);
    let text = run("migrates_itself", &[("data/a", "")]);
    assert!(text.contains("test result: ok"), "{text}");
}
