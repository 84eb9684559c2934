//! Tests of `open` and `diff`, on data that tests left.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use postgres::{Client, NoTls};
use sandboxed_db::cache::Kept;
use sandboxed_db::{Keep, Postgres, Snapshot};

use super::{PROGRAM, program, text};

/// Kept data of a test, which is removed on drop.
pub(super) struct KeptData(&'static str);

impl KeptData {
    pub(super) fn new(name: &'static str, snapshot: Snapshot, statements: &str) -> Self {
        let db = snapshot.keep(Keep::Always).keep_as(name).start().unwrap();
        Client::connect(db.url(), NoTls).unwrap().batch_execute(statements).unwrap();
        drop(db);
        Self(name)
    }
}

impl Drop for KeptData {
    fn drop(&mut self) {
        let kept = Kept::open().unwrap();
        kept.remove(&kept.find(self.0).unwrap()).unwrap();
    }
}

#[test]
fn open_shows_the_data_of_a_test() {
    let snapshot = Snapshot::new(Postgres::new().database("shop")).setting("work_mem", "5MB");
    let _kept = KeptData::new("cli::what is opened", snapshot, "create table t as select 7 as x");
    let query = "select x || current_database() || current_setting('work_mem') from t";
    let opened = program(&["open", "what is opened", "--", "psql", "-Atc", query]);
    assert_eq!(text(&opened.stdout), "7shop5MB", "{opened:?}");
    assert_eq!(program(&["open", "what is opened", "--", "sh", "-c", "exit 7"]).status.code(), Some(7));

    let list = program(&["open"]);
    assert!(text(&list.stdout).lines().any(|line| line.starts_with("cli::what is opened  ")), "{list:?}");
    let list: serde_json::Value = serde_json::from_slice(&program(&["open", "--json"]).stdout).unwrap();
    let state = list.as_array().unwrap().iter().find(|state| state["name"] == "cli::what is opened").unwrap();
    assert_eq!((&state["failed"], &state["clean"]), (&false.into(), &true.into()), "{state}");
}

#[test]
fn a_url_is_valid_until_an_interrupt() {
    let _kept =
        KeptData::new("cli::of a url", Snapshot::new(Postgres::new()), "create table t as select 7 as x");
    let mut child = Command::new(PROGRAM)
        .args(["open", "cli::of a url", "--url"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let mut client = Client::connect(url.trim(), NoTls).unwrap();
    assert_eq!(client.query_one("select x from t", &[]).unwrap().get::<_, i32>(0), 7);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert!(client.simple_query("select 1").is_err());
}

#[test]
fn diff_shows_the_changes_of_a_test() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(
        place.path().join("1_shop.sql"),
        "create schema shop;
        create table shop.users (id serial primary key, name text, \"Odd \"\" name\" int);
        insert into shop.users (name) select 'user ' || i from generate_series(1, 100) i;
        create table shop.events (what text);
        insert into shop.events values ('a'), ('a'), ('b');
        create table shop.untouched as select i from generate_series(1, 100) i;
        create table shop.dropped as select i from generate_series(1, 3) i;
        create index on shop.users (name);",
    )
    .unwrap();
    let changes = "
        insert into shop.users (name) select 'further ' || i from generate_series(1, 20) i;
        delete from shop.users where id = 5;
        update shop.users set name = 'a new name' where id = 7;
        delete from shop.events where ctid = '(0,1)';
        insert into shop.events values ('c');
        alter table shop.events add column at date;
        drop table shop.dropped;
        drop index shop.users_name_idx;
        create function shop.f() returns int language sql as 'select 1';
        create role reader;
        grant select on shop.users to reader;
        alter system set work_mem = '6MB';
        create database other;
        checkpoint";
    let snapshot = Snapshot::new(Postgres::new()).migrations(place.path());
    let db = snapshot.keep(Keep::Always).keep_as("cli::what changed").start().unwrap();
    // CREATE DATABASE and ALTER SYSTEM must be separate statements.
    let mut client = Client::connect(db.url(), NoTls).unwrap();
    changes.split(';').for_each(|change| client.batch_execute(change).unwrap());
    drop((client, db));
    let _kept = KeptData("cli::what changed");

    let output = program(&["diff", "what changed", "--rows", "2"]);
    let shown = text(&output.stdout);
    for expected in [
        "cli::what changed, since its snapshot:\n",
        "\n+ role reader\n",
        "\n+ setting work_mem, by ALTER SYSTEM\n    + 6MB\n",
        "\n+ database other",
        "\ndatabase postgres\n",
        "\n  - index shop.users_name_idx\n",
        "\n  + function shop.f()\n      + CREATE OR REPLACE FUNCTION shop.f()\n",
        "\n  ~ table shop.events\n      + at date\n",
        "\n  - table shop.dropped\n",
        "\n  ~ sequence shop.users_id_seq: 100 -> 120\n",
        "\n  rows of shop.dropped: 3 removed\n",
        "\n  rows of shop.events: 1 added, 1 removed\n    + what=c at=null\n    - what=a\n",
        "\n  rows of shop.users: 20 added, 1 removed, 1 changed\n    + id=101 name=\"further 1\" Odd \" name=null\n",
        "\n    + … 18 more\n    - id=5 name=\"user 5\" Odd \" name=null\n    ~ id=7 name: \"user 7\" -> \"a new name\"",
    ] {
        assert!(shown.contains(expected), "{expected:?} is missing:\n{shown}{}", text(&output.stderr));
    }
    assert!(!shown.contains("untouched") && !shown.contains("template1"), "{shown}");

    let json: serde_json::Value =
        serde_json::from_slice(&program(&["diff", "what changed", "--json"]).stdout).unwrap();
    let changed =
        json["databases"].as_array().unwrap().iter().find(|found| found["database"] == "postgres").unwrap();
    let users =
        changed["tables"].as_array().unwrap().iter().find(|table| table["table"] == "shop.users").unwrap();
    assert_eq!((&users["added"], &users["changed"]), (&20.into(), &1.into()), "{users}");
    assert_eq!(users["rows_added"].as_array().unwrap().len(), 5);
    assert_eq!(users["rows_changed"][0]["before"]["name"], "user 7");
    assert_eq!(users["key"][0], "id");
}

#[test]
fn diff_reports_that_nothing_changed() {
    let _kept = KeptData::new("cli::nothing", Snapshot::new(Postgres::new()), "select 1");
    let output = program(&["diff", "cli::nothing"]);
    let shown = text(&output.stdout);
    assert!(shown.contains("no changes ("), "{shown}{}", text(&output.stderr));
}
