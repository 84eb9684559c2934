//! Common mistakes, each with the message that answers it, in `data/mistakes/`. Those that the
//! compiler reports are in `ui/`.

use std::fs;
use std::path::Path;

use sandboxed_db::{MigrationTool, Postgres, Sandbox, Snapshot, sandboxed_db};
use sandboxed_db_tests::{alone, connect, directory, failed, fresh};

type Description = Snapshot<Postgres>;

/// A mistake: the name of its file, the files of the package, and the description.
struct Mistake(&'static str, &'static [(&'static str, &'static str)], fn(Description) -> Description);

const USERS: (&str, &str) = ("migrations/1_users.sql", "create table users (id int);");

const MISTAKES: [Mistake; 17] = [
    Mistake("typo_in_a_migration", &[("migrations/1_users.sql", "\ncreate tabel users (id int);")], |of| {
        of.migrations("migrations")
    }),
    Mistake("seed_without_migrations", &[("users.sql", "insert into users values (1);")], |of| {
        of.seed("users.sql")
    }),
    Mistake("rows_without_a_header", &[USERS, ("users.csv", "\n1\n")], |of| {
        of.migrations("migrations").seed("users.csv")
    }),
    Mistake("rows_of_another_column", &[USERS, ("users.csv", "id,name\n1,Ada\n")], |of| {
        of.migrations("migrations").seed("users.csv")
    }),
    Mistake("directory_without_migrations", &[("migrations/README.md", "")], |of| {
        of.migrations("migrations")
    }),
    Mistake("migrations_of_another_directory", &[USERS], |of| of.migrations("db/migrations")),
    Mistake("two_migrations_of_one_version", &[USERS, ("migrations/1_orders.sql", "")], |of| {
        of.migrations_of(MigrationTool::Sqlx, "migrations")
    }),
    Mistake("migrations_of_two_tools", &[USERS, ("migrations/V2__orders.sql", "")], |of| {
        of.migrations("migrations")
    }),
    Mistake(
        "down_migration_among_migrations",
        &[USERS, ("migrations/2_orders.sql", "create table o ();\n-- Down\ndrop table o;")],
        |of| of.migrations("migrations"),
    ),
    Mistake("transaction_without_an_end", &[("users.sql", "begin;\ncreate table users (id int);")], |of| {
        of.seed("users.sql")
    }),
    Mistake("dump_with_an_owner", &[("dump.sql", "create table t ();\nalter table t owner to app;")], |of| {
        of.seed("dump.sql")
    }),
    Mistake("extension_that_is_not_installed", &[("a.sql", "create extension postgiss;")], |of| {
        of.seed("a.sql")
    }),
    Mistake("setting_with_a_typo", &[], |of| of.setting("max_conections", "50")),
    Mistake("version_that_is_not_installed", &[], |of| of.version("9")),
    Mistake("program_that_is_not_installed", &[], |of| of.run("alembik", ["upgrade", "head"])),
    Mistake("program_that_fails", &[], |of| of.run("sh", ["-c", "echo no alembic.ini >&2; exit 3"])),
    Mistake("code_that_panics", &[], |of| of.prepare("schema", panics)),
];

async fn panics(_: &Sandbox) -> Result<(), std::io::Error> {
    panic!("no configuration");
}

/// A mistake that a test shows: the name of its file, the test, the package, and a variable.
struct Failing(
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    (&'static str, &'static str),
);

const FAILING: [Failing; 5] = [
    Failing("migrated_twice", "migrates", &[USERS], ("SANDBOXED_DB_POOL", "0")),
    Failing("statement_that_fails", "queries", &[], ("SANDBOXED_DB_POOL", "0")),
    Failing("variable_with_a_typo", "passes", &[], ("SANDBOXED_DB_KEP", "always")),
    Failing("variable_with_another_value", "passes", &[], ("SANDBOXED_DB_KEEP", "yes")),
    Failing("directory_without_a_server", "passes", &[], ("SANDBOXED_DB_POSTGRES", "/nonexistent")),
];

#[sandboxed_db]
#[ignore = "run with a package by `common_mistakes_are_answered_with_their_fix`"]
fn migrates(url: String) {
    connect(&url).batch_execute("create table users (id int)").unwrap_or_else(|_| panic!("no migration"));
}

#[sandboxed_db]
#[ignore = "run with a package by `common_mistakes_are_answered_with_their_fix`"]
fn queries(url: String) -> Result<(), String> {
    connect(&url).batch_execute("select 1 / 0").map_err(|_| "no answer".to_owned())
}

#[sandboxed_db(migrations = none)]
#[ignore = "run with a package by `common_mistakes_are_answered_with_their_fix`"]
fn passes(db: Sandbox) {
    drop(db);
}

/// Returns the report of a failing test, without what libtest adds.
fn report(test: &str, package: &Path, (name, value): (&str, &str)) -> String {
    let mut command = alone(&format!("mistakes::{test}"));
    command.env("CARGO_MANIFEST_DIR", package).env("RUST_BACKTRACE", "0").env(name, value);
    let text = failed(&mut command);
    let report = text.split_once(" stdout ----\n").and_then(|(_, rest)| rest.split_once("\n\nfailures:"));
    report.map_or(text.clone(), |(report, _)| report.trim().to_owned() + "\n")
}

/// Replaces what differs between runs and machines.
fn normalised(message: &str, package: &Path) -> String {
    let message = message.replace(&package.display().to_string(), "PACKAGE");
    let mut lines = String::new();
    for line in message.lines() {
        let line = match line.split_once("mistakes.rs:") {
            Some((before, rest)) => {
                format!("{before}mistakes.rs:LINE:{}", rest.splitn(3, ':').nth(2).unwrap_or(""))
            }
            None => line.to_owned(),
        };
        let line = between(&line, "; found: ", "", "VERSIONS");
        let line = between(&line, "thread 'mistakes::", "panicked", "TEST ");
        let line = between(&line, "DETAIL:  Could not open extension control file", "", ": …");
        let line = between(&line, "postgresql.conf\" line ", "", "LINE");
        let line = between(&line, "had the pid ", "", "PID");
        let line = between(&line, "it started in ", "", "TIME");
        let line = between(&line, "    | ", "] ", "TIME [PID");
        lines.push_str(&line);
        lines.push('\n');
    }
    lines
}

/// Replaces what lies between two texts, if both are there.
fn between(line: &str, begin: &str, end: &str, replacement: &str) -> String {
    match line.split_once(begin).and_then(|(before, rest)| Some((before, rest.find(end)?, rest))) {
        Some((before, _, _)) if end.is_empty() => format!("{before}{begin}{replacement}"),
        Some((before, at, rest)) => format!("{before}{begin}{replacement}{}", &rest[at..]),
        None => line.to_owned(),
    }
}

#[test]
fn common_mistakes_are_answered_with_their_fix() {
    let described = MISTAKES.iter().map(|Mistake(name, files, describe)| {
        let package = directory(files);
        let error = describe(fresh().relative_to(package.path())).start();
        let message = error.map_or_else(|error| format!("{error:?}"), |_| "no error".to_owned());
        (name, normalised(&message, package.path()))
    });
    let failing = FAILING.iter().map(|Failing(name, test, files, variable)| {
        let package = directory(files);
        (name, normalised(&report(test, package.path(), *variable), package.path()))
    });
    let (mut differences, mut names) = (String::new(), Vec::new());
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mistakes");
    for (name, message) in described.chain(failing) {
        names.push(format!("{name}.txt"));
        let file = directory.join(format!("{name}.txt"));
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if message != expected {
            differences.push_str(&format!("{name}, expected:\n{expected}found:\n{message}\n"));
        }
    }
    assert!(differences.is_empty(), "{differences}");
    names.sort();
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert_eq!(files, names);
}
