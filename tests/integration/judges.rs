//! PostgreSQL's tools for checking a server find no fault in one, however it was started.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rstest::rstest;
use rustix::process::Signal;
use sandboxed_db::{Engine, Postgres, Sandbox};
use sandboxed_db_tests::{
    DEADLINE, alone, column, connect, is_alone, passed, printed, rounds, skip, start, value, wait_until,
};

use super::checkpoint::{VARIABLE, start_resumed};
use super::lifecycle::kill;
use super::prelinked::server;

#[rstest]
#[case::executed("exec")]
#[case::linked("linked")]
#[cfg_attr(target_arch = "x86_64", case::resumed("checkpoint"))]
fn a_busy_server_is_sound(#[case] way: &str) {
    passed(alone("judges::a_server_is_judged").env(VARIABLE, way));
}

/// Runs a program of the server's installation on a sandbox.
fn run(db: &Sandbox, name: &str, arguments: &[&str]) -> String {
    let program = Postgres::new().locate().unwrap().bin().join(name);
    let socket = db.root().join("run/postgresql");
    let output = Command::new(program).arg("--host").arg(socket).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}", printed(&output));
    printed(&output)
}

#[test]
#[ignore = "run by another test"]
fn a_server_is_judged() {
    if !is_alone() {
        return;
    }
    let db = if std::env::var(VARIABLE).unwrap() == "checkpoint" { start_resumed() } else { start() };
    let mut client = connect(db.url());
    if client.batch_execute("create extension amcheck").is_err() {
        return skip("amcheck is not installed");
    }
    run(&db, "pgbench", &["--username", "postgres", "--initialize", "--quiet", "postgres"]);
    let seconds = rounds("1", "30");
    let bench = [
        "--username", "postgres", "--client", "4", "--jobs", "2", "--time", seconds, "--no-vacuum",
        "postgres",
    ];
    let text = run(&db, "pgbench", &bench);
    assert!(text.contains("number of failed transactions: 0 "), "{text}");
    // Every transaction changes three balances by the same amount.
    let balances =
        "select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches)
        and (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history)";
    assert!(value::<bool>(&mut client, balances));
    let faults =
        "select relname || ': ' || msg from pg_class, lateral verify_heapam(oid) where relkind in ('r', 't')";
    assert_eq!(column::<String>(&mut client, faults), Vec::<String>::new());
    let indexes =
        "select count(bt_index_parent_check(c.oid, true, true)) from pg_class c join pg_am a on a.oid = relam
        where amname = 'btree' and relkind = 'i' and relpersistence <> 't'";
    assert!(value::<i64>(&mut client, indexes) > 100);
    drop(client);

    kill(server(&db), Signal::INT);
    wait_until(DEADLINE, "the server has stopped", || {
        db.log().is_ok_and(|log| log.contains("database system is shut down"))
    });
    let data: PathBuf = Postgres::new().data_dir().below(&db.root());
    assert!(!fs::exists(data.join("postmaster.pid")).unwrap());
    let control = Postgres::new().locate().unwrap().bin().join("pg_controldata");
    let text = printed(&Command::new(control).arg(&data).env("LC_ALL", "C").output().unwrap());
    assert!(text.contains("Database cluster state:               shut down\n"), "{text}");
}
