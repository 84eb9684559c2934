//! A list of versions or engines makes a test of each; a missing version fails its test or skips
//! it.

use std::process::Output;
use std::thread;

use rstest::rstest;
use sandboxed_db::{Engine, MariaDb, Postgres, Redis, Sandbox, Snapshot, sandboxed_db};
use sandboxed_db_tests::{alone, connect, passed, printed, value_at};

/// Returns the last part of the test's name.
fn case() -> String {
    let name = thread::current().name().unwrap_or_default().to_owned();
    name.rsplit("::").next().unwrap_or_default().to_owned()
}

fn show(db: &Sandbox, setting: &str) -> String {
    value_at(db.url(), &format!("show {setting}"))
}

fn shop() -> Snapshot {
    Snapshot::new(Postgres::new().database("shop"))
}

fn checksums() -> Postgres {
    Postgres::new().initdb_arg("--data-checksums")
}

#[sandboxed_db(engine = [Postgres, checksums()], settings(work_mem = "7MB"))]
fn engines(db: &Sandbox, url: String) {
    let expected = match &*case() {
        "postgres" => "off",
        "checksums" => "on",
        other => panic!("no such test: {other}"),
    };
    assert_eq!((show(db, "data_checksums").as_str(), show(db, "work_mem").as_str()), (expected, "7MB"));
    assert_eq!(db.url(), url);
}

mod names {
    use super::*;

    /// Names in arguments mean the same as beside the function.
    #[sandboxed_db(engine = [Postgres, super::checksums()], migrations = "data/notes/migrations")]
    #[cfg_attr(
        all(),
        should_panic(expected = "relation \\\"nowhere\\\" does not exist"),
        expect(unused_variables)
    )]
    fn mean_what_they_mean_beside_the_function(db: Sandbox) {
        let unused = super::show(&db, "work_mem");
        connect(db.url()).batch_execute("select * from notes").unwrap();
        connect(db.url()).batch_execute("select * from nowhere").unwrap();
    }

    #[sandboxed_db(engine = [Postgres, super::checksums()], own(engine = Postgres::new().database("own")))]
    #[rstest]
    #[case::one(LAST - 1)]
    #[case::two(LAST)]
    async fn mean_the_same_with_rstest(
        url: String,
        own: String,
        #[case] n: i32,
    ) -> Result<(), tokio_postgres::Error> {
        let (postgres, _) = (crate::attribute::answer_async(&url, "show data_checksums").await?, n);
        assert_eq!(
            postgres,
            if thread::current().name().unwrap().contains("checksums") { "on" } else { "off" }
        );
        assert_eq!(crate::attribute::answer_async(&own, crate::attribute::DATABASE).await?, "own");
        assert!((1..=LAST).contains(&n));
        Ok(())
    }

    const LAST: i32 = 2;
}

// Versions: a test below runs each of these, for the installed versions.

const MAJORS: [&str; 6] = ["13", "14", "15", "16", "17", "18"];

#[sandboxed_db(version = ["13", "14", "15", "16", "17", "18"])]
#[ignore = "run by `each_version_has_a_test`, and in CI with all of them installed"]
async fn versions(db: Sandbox) {
    let number = tokio::task::spawn_blocking(move || show(&db, "server_version_num")).await.unwrap();
    let major = number.parse::<u32>().unwrap() / 10_000;
    assert_eq!(case(), format!("postgres_{major}"));
}

#[sandboxed_db(snapshot = shop, version = ["13", "14", "15", "16", "17", "18"])]
#[should_panic(expected = "ends so")]
#[ignore = "run by `each_version_has_a_test`, and in CI with all of them installed"]
fn versions_of_a_snapshot(db: Sandbox) {
    assert!(db.url().contains("/shop?"));
    let major = show(&db, "server_version_num").parse::<u32>().unwrap() / 10_000;
    assert_eq!(case(), format!("version_{major}"));
    panic!("it ends so");
}

#[sandboxed_db(engine = Redis, version = ["6", "7", "8"])]
#[ignore = "run by `each_version_has_a_test`"]
fn redis_versions(db: Sandbox<Redis>) {
    let facts = crate::redis::ask(&db, "INFO server");
    let major = case().replace("redis_", "");
    let [redis, valkey] = ["redis", "valkey"].map(|name| format!("\n{name}_version:{major}."));
    assert!(facts.contains(&redis) || facts.contains(&valkey), "{facts}");
}

#[sandboxed_db(engine = MariaDb, version = ["10.5", "10.11", "11.8"])]
#[ignore = "run by `each_version_has_a_test`"]
fn mariadb_versions(db: Sandbox<MariaDb>) {
    let version = case().replace("maria_db_", "").replace('_', ".");
    let client = db.engine().locate().unwrap().program("mariadb");
    let mut client = std::process::Command::new(client);
    client.args(["--no-defaults", "--user=root", "--skip-column-names", "--batch"]);
    let output = client.args(["--execute", "select version()"]).envs(db.env()).output().unwrap();
    assert!(printed(&output).starts_with(&format!("{version}.")), "{version}: {output:?}");
}

#[sandboxed_db(version = "9.6")]
#[ignore = "fails or is skipped, run by `a_missing_version_fails_or_is_skipped`"]
fn ancient(_: Sandbox) {}

#[sandboxed_db(engine = Redis, version = "2.8")]
#[ignore = "fails or is skipped, run by `a_missing_version_fails_or_is_skipped`"]
fn ancient_redis(_: Sandbox<Redis>) {}

#[sandboxed_db(engine = MariaDb, version = "5.5")]
#[ignore = "fails or is skipped, run by `a_missing_version_fails_or_is_skipped`"]
fn ancient_mariadb(_: Sandbox<MariaDb>) {}

#[sandboxed_db(version = 9)]
#[should_panic(expected = "in these words")]
#[ignore = "fails or is skipped, run by `a_missing_version_fails_or_is_skipped`"]
fn ancient_and_panics(_: Sandbox) {}

/// Returns the output of the tests, each run alone.
fn run(tests: &[String], missing: &str) -> (Output, String) {
    let mut command = alone(&tests[0]);
    let output =
        command.args(&tests[1..]).arg("--nocapture").env("SANDBOXED_DB_MISSING", missing).output().unwrap();
    let text = printed(&output);
    assert!(text.contains(&format!("running {} test", tests.len())), "{text}");
    (output, text)
}

fn has<E: Engine>(engine: E, version: &str) -> bool {
    engine.of_version(version).unwrap().locate().is_ok()
}

#[test]
fn each_version_has_a_test() {
    type Case<'a> = (&'a str, &'a str, &'a [&'a str], fn(&str) -> bool);
    let cases: [Case<'_>; 4] = [
        ("versions", "postgres", &MAJORS, |version| has(Postgres::new(), version)),
        ("versions_of_a_snapshot", "version", &MAJORS, |version| has(Postgres::new(), version)),
        ("redis_versions", "redis", &["6", "7", "8"], |version| has(Redis::new(), version)),
        ("mariadb_versions", "maria_db", &["10.5", "10.11", "11.8"], |version| has(MariaDb::new(), version)),
    ];
    for (function, prefix, versions, is_installed) in cases {
        let name = |version: &str| format!("matrix::{function}::{prefix}_{}", version.replace('.', "_"));
        let names: Vec<_> = versions.iter().map(|version| name(version)).collect();
        let (output, text) = run(&names, "skip");
        assert!(output.status.success() && text.contains(&format!("{} passed", versions.len())), "{text}");
        for version in versions {
            let line = format!("sandboxed-db: skipped `integration::{}`: could not find", name(version));
            assert_ne!(text.contains(&line), is_installed(version), "{version}: {text}");
        }
    }
    assert!(MAJORS.iter().any(|major| has(Postgres::new(), major)));
}

#[test]
fn a_missing_version_fails_or_is_skipped() {
    for (test, reason) in [
        ("ancient", "could not find PostgreSQL 9.6\n  hint: install it, or set "),
        ("ancient_and_panics", "could not find PostgreSQL 9\n  hint: install it, or set "),
        ("ancient_mariadb", "could not find `mariadbd` of version 5.5\n"),
        ("ancient_redis", "could not find `redis-server` or `valkey-server` of version 2.8\n"),
    ] {
        let test = [format!("matrix::{test}")];
        for (missing, passes) in [("skip", true), ("fail", false), ("", false), ("ignore", false)] {
            let (output, text) = run(&test, missing);
            assert_eq!(output.status.success(), passes, "{missing}: {text}");
            let skipped =
                text.contains(&format!("sandboxed-db: skipped `integration::{}`: {reason}", test[0]));
            assert_eq!(skipped, passes, "{missing}: {text}");
            let cause =
                if missing == "ignore" { "could not use SANDBOXED_DB_MISSING=ignore" } else { reason };
            assert!(text.contains(cause), "{missing}: {text}");
        }
    }
}

#[test]
fn several_directories_are_searched_for_a_version() {
    let bin = Postgres::new().locate().unwrap().bin().to_owned();
    // The same directory twice, since other versions exist only in CI.
    let both = std::env::join_paths([&bin, &bin]).unwrap();
    let test = format!("matrix::versions::postgres_{}", Postgres::new().locate().unwrap().major());
    passed(alone(&test).env("SANDBOXED_DB_POSTGRES", both));
}
