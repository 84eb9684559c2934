//! SQL that works on a server with PostgreSQL's own settings works in a sandbox.

use postgres::{Client, NoTls};
use sandboxed_db::engine::LocaleProvider;
use sandboxed_db::{Engine, ErrorKind, Postgres, Snapshot};
use sandboxed_db_tests::{DEADLINE, connect, directory, eventually, fresh, skip, start, value};

/// The text of an expression.
fn shown(client: &mut Client, sql: &str) -> String {
    value(client, &format!("select ({sql})::text"))
}

#[test]
fn limits_are_those_of_a_stock_server() {
    let db = start();
    let mut client = connect(db.url());
    // Some values are derived from limits of the process or written by initdb; these are those
    // built in.
    let same = [
        "autovacuum_max_workers",
        "max_connections",
        "max_files_per_process",
        "max_locks_per_transaction",
        "max_parallel_workers",
        "max_pred_locks_per_page",
        "max_pred_locks_per_relation",
        "max_pred_locks_per_transaction",
        "max_prepared_transactions",
        "max_replication_slots",
        "max_wal_senders",
        "max_worker_processes",
        "temp_buffers",
        "wal_level",
        "work_mem",
    ];
    for name in same {
        let changed =
            format!("select setting from pg_settings where name = '{name}' and setting <> boot_val");
        let changed = client.query(&changed, &[]).unwrap();
        assert!(changed.is_empty(), "{name}: {changed:?}");
    }
}

#[test]
fn a_transaction_locks_as_many_tables_as_on_a_stock_server() {
    let db = start();
    let mut client = connect(db.url());
    // 64 locks for each of 122 processes.
    client
        .batch_execute(
            "begin; do $$ begin for i in 1..7000 loop perform pg_advisory_xact_lock(i); end loop; end $$; commit",
        )
        .unwrap();
}

#[test]
fn a_query_reads_a_thousand_partitions_at_once() {
    let db = start();
    let mut client = connect(db.url());
    let make = "create table p (k int, v text) partition by range (k); create index on p (v, k);
        do $$ begin for i in 0..999 loop
            execute format('create table p%s partition of p for values from (%s) to (%s)', i, i * 2, i * 2 + 2);
        end loop; end $$;";
    client.batch_execute(make).unwrap();
    client
        .batch_execute(
            "insert into p select g, 'x' from generate_series(0, 1999) g;
             set enable_seqscan = off; set enable_sort = off; set enable_bitmapscan = off",
        )
        .unwrap();
    let rows = client.query("select v, k from p order by v, k", &[]).unwrap();
    assert_eq!(rows.len(), 2000);
}

#[test]
fn a_hundred_clients_connect() {
    let db = start();
    let url = format!("{}&application_name=many", db.url());
    let clients: Vec<_> = (0..100).map(|_| Client::connect(&url, NoTls)).collect();
    let connected = clients.iter().filter(|client| client.is_ok()).count();
    assert_eq!(connected, 100);
    let refused = Client::connect(&url, NoTls).err().expect("all connections are in use");
    assert!(refused.to_string().contains("db error"), "{refused}");
    assert!(db.log().unwrap().contains("too many clients already"));
}

#[test]
fn a_slot_and_a_replication_connection_work_by_default() {
    let db = start();
    let mut client = connect(db.url());
    client.batch_execute("select pg_create_physical_replication_slot('s')").unwrap();
    client.batch_execute("select pg_create_restore_point('r')").unwrap();
}

#[test]
fn a_subscription_works_where_wal_level_is_logical() {
    let db = fresh().setting("wal_level", "logical").start().unwrap();
    let mut client = connect(db.url());
    client.batch_execute("create table t (a int); create publication p for table t").unwrap();
    client.batch_execute("create database copy").unwrap();
    client.execute("select pg_create_logical_replication_slot('s', 'pgoutput')", &[]).unwrap();
    let mut copy = connect(&db.url().replace("/postgres?", "/copy?"));
    copy.batch_execute("create table t (a int)").unwrap();
    copy.batch_execute(
        "create subscription s connection 'host=localhost dbname=postgres user=postgres'
         publication p with (create_slot = false, slot_name = 's')",
    )
    .unwrap();
    // The WAL writer, which PostgreSQL wakes five times a second, writes this commit.
    client.batch_execute("set synchronous_commit = off; insert into t values (7)").unwrap();
    eventually(DEADLINE, "the row is replicated", || copy.query_opt("select a from t", &[]).unwrap());
}

#[test]
fn wal_level_minimal_needs_no_other_setting() {
    let db = fresh().setting("wal_level", "minimal").start().unwrap();
    assert_eq!(shown(&mut connect(db.url()), "current_setting('wal_level')"), "minimal");
}

#[test]
fn housekeeping_ignores_timeouts_of_the_database() {
    let directory = directory(&[(
        "1.sql",
        "create table t as select g from generate_series(1, 100000) g;
         alter database postgres set statement_timeout = 1;
         alter role postgres set lock_timeout = 1;
         alter database postgres set default_transaction_read_only = on;",
    )]);
    let db = fresh().migrations(directory.path()).start().unwrap();
    // A statement that lifts the timeout could itself take too long.
    let mut client = connect(&format!("{}&options=-c%20statement_timeout%3D0", db.url()));
    assert_eq!(shown(&mut client, "select reltuples::int from pg_class where relname = 't'"), "100000");
}

#[test]
fn housekeeping_goes_on_after_a_table_that_cannot_be_analysed() {
    if Postgres::new().locate().unwrap().major() >= 17 {
        // The server itself refuses an index whose function depends on `search_path`.
        return;
    }
    let directory = directory(&[(
        "1.sql",
        "create schema app; create table app.factor (f int); insert into app.factor values (2);
         create function app.times(int) returns int language plpgsql immutable as
             'begin return (select f * $1 from factor); end';
         set search_path = app, public;
         create table app.a (x int); insert into a select generate_series(1, 50);
         create index on a (times(x));
         create table public.z as select generate_series(1, 70);",
    )]);
    let db = fresh().migrations(directory.path()).start().unwrap();
    let mut client = connect(db.url());
    assert_eq!(shown(&mut client, "select reltuples::int from pg_class where relname = 'z'"), "70");
}

#[test]
fn time_zones_of_the_host_are_listed() {
    let db = start();
    let zones = "select count(*) from pg_timezone_names where name in ('UTC', 'Europe/Berlin')";
    assert_eq!(value::<i64>(&mut connect(db.url()), zones), 2);
}

#[test]
fn asynchronous_commits_are_decoded_as_soon_as_stock() {
    let db = fresh().setting("wal_level", "logical").start().unwrap();
    let delay = "select setting = boot_val from pg_settings where name = 'wal_writer_delay'";
    assert!(value::<bool>(&mut connect(db.url()), delay));
}

#[test]
fn a_server_connects_to_itself_without_a_password() {
    let db = start();
    let mut client = connect(db.url());
    if client.batch_execute("create extension dblink").is_err() {
        return skip("the extension dblink is not installed");
    }
    for host in ["localhost", "127.0.0.1"] {
        let sql = format!(
            "select n from dblink('host={host} user=postgres dbname=postgres', 'select 7') as t(n int)"
        );
        assert_eq!(value::<i32>(&mut client, &sql), 7);
    }
}

#[test]
fn options_of_initdb_that_the_user_writes_win() {
    let db = Snapshot::new(Postgres::new().initdb_arg("--locale-provider=libc")).start();
    match db {
        Ok(db) => {
            let provider = "select datlocprovider from pg_database where datname = 'postgres'";
            assert_eq!(shown(&mut connect(db.url()), provider), "c");
        }
        // PostgreSQL before version 15 has no such option.
        Err(error) => assert_eq!(error.kind(), ErrorKind::Layer, "{error:?}"),
    }
}

#[test]
fn other_sizes_of_wal_segments_work() {
    for size in [4, 128] {
        let db = Snapshot::new(Postgres::new().initdb_arg(format!("--wal-segsize={size}"))).start().unwrap();
        let mut client = connect(db.url());
        assert_eq!(shown(&mut client, "current_setting('wal_segment_size')"), format!("{size}MB"));
        assert_eq!(shown(&mut client, "current_setting('min_wal_size')"), format!("{}MB", 2 * size));
    }
}

#[test]
fn icu_sorts_text_by_the_rules_of_its_locale() {
    let icu = Postgres::new().locale("de-DE").locale_provider(LocaleProvider::Icu);
    let db = match Snapshot::new(icu).start() {
        Ok(db) => db,
        Err(error)
            if format!("{error:?}").contains("ICU") || format!("{error:?}").contains("locale-provider") =>
        {
            return skip("this PostgreSQL is built without ICU");
        }
        Err(error) => panic!("{error:?}"),
    };
    assert_eq!(shown(&mut connect(db.url()), "'ä' < 'b'"), "true");
}
