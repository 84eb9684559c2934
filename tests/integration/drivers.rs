//! Every driver and client accepts the URL of a sandbox unchanged, and finds the expected database.

use std::path::PathBuf;
use std::process::{Command, Output};

use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Text};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use postgres::NoTls;
use sandboxed_db::{Postgres, Sandbox, Snapshot};
use sandboxed_db_fixtures::shop_snapshot;
use sandboxed_db_tests::{connect, skip};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

fn shop() -> Sandbox {
    shop_snapshot().start().unwrap()
}

/// Returns one of PostgreSQL's programs on the host: beside the server, else in `PATH`.
fn program(db: &Sandbox, name: &str) -> Option<PathBuf> {
    let bin: String = connect(db.url())
        .query_one("select setting from pg_config where name = 'BINDIR'", &[])
        .unwrap()
        .get(0);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = [PathBuf::from(bin)]
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|bin| bin.join(name))
        .find(|program| program.is_file());
    if found.is_none() {
        skip(&format!("`{name}` is not installed"));
    }
    found
}

/// Returns the output of a program that must succeed and print no error.
fn printed(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{}: {complaint}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs `psql -c` without the user's configuration.
fn psql(program: &PathBuf, url: &str, query: &str) -> String {
    let output = Command::new(program)
        .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", query, url])
        .output()
        .unwrap();
    printed(&output).trim_end_matches('\n').to_owned()
}

// One by one.

#[test]
fn postgres_works() {
    let db = shop();
    let mut client = postgres::Client::connect(db.url(), NoTls).unwrap();
    let mut transaction = client.transaction().unwrap();
    transaction.execute("delete from reviews where rating < $1", &[&3_i16]).unwrap();
    let left: i64 = transaction.query_one("select count(*) from reviews", &[]).unwrap().get(0);
    assert!(left < 1368);
    transaction.rollback().unwrap();
    let reviews: i64 = client.query_one("select count(*) from reviews", &[]).unwrap().get(0);
    assert_eq!(reviews, 1368);
}

#[tokio::test]
async fn tokio_postgres_works() {
    let db = shop_snapshot().start_async().await.unwrap();
    let (client, connection) = tokio_postgres::connect(db.url(), NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let statement = client.prepare("select count(*) from orders where status::text = $1").await.unwrap();
    // Pipelined: the second is sent before the first has an answer.
    let (cancelled, refunded) = tokio::try_join!(
        client.query_one(&statement, &[&"cancelled"]),
        client.query_one(&statement, &[&"refunded"]),
    )
    .unwrap();
    assert_eq!((cancelled.get::<_, i64>(0), refunded.get::<_, i64>(0)), (115, 70));
    drop(client);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn sqlx_works() {
    let db = shop_snapshot().start_async().await.unwrap();
    let pool = PgPoolOptions::new().max_connections(5).connect(db.url()).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(pool.acquire().await.unwrap());
    }
    let mut backends = Vec::new();
    for connection in &mut held {
        let backend: i32 =
            sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut **connection).await.unwrap();
        backends.push(backend);
    }
    backends.sort_unstable();
    backends.dedup();
    assert_eq!(backends.len(), 5, "five connections are five sessions");
    drop(held);
    let mut transaction = pool.begin().await.unwrap();
    let deleted = sqlx::query("delete from cart_items").execute(&mut *transaction).await.unwrap();
    assert_eq!(deleted.rows_affected(), 1235);
    transaction.commit().await.unwrap();
    let left: i64 = sqlx::query_scalar("select count(*) from cart_items").fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
    pool.close().await;
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[test]
fn diesel_works() {
    let db = shop();
    let mut connection = PgConnection::establish(db.url()).unwrap();
    let count = |connection: &mut PgConnection| {
        let query = sql_query("select count(*) as count from products where id > $1").bind::<BigInt, _>(0);
        query.get_result::<Count>(connection).unwrap().count
    };
    assert_eq!(count(&mut connection), 400);
    // The transaction is rolled back at its end.
    connection.test_transaction::<_, diesel::result::Error, _>(|connection| {
        connection.batch_execute("truncate products cascade")?;
        assert_eq!(count(connection), 0);
        Ok(())
    });
    assert_eq!(count(&mut connection), 400);
}

#[test]
fn psql_works() {
    let db = shop();
    let Some(program) = program(&db, "psql") else { return };
    let query = "select count(*) from customers";
    assert_eq!(psql(&program, db.url(), query), "2500");
}

#[test]
fn drivers_work_side_by_side() {
    let db = shop();
    let mut one = connect(db.url());
    let mut other = PgConnection::establish(db.url()).unwrap();
    one.batch_execute("create table written (x int); insert into written values (1)").unwrap();
    other.batch_execute("insert into written values (2)").unwrap();
    let sum: i64 = one.query_one("select sum(x) from written", &[]).unwrap().get(0);
    assert_eq!(sum, 3);
}

// Names of databases.

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

const CURRENT: &str = "select current_database()::text as name";

/// Asserts the database's name in every driver.
fn assert_reached_by_all(name: &str) {
    let db = Snapshot::new(Postgres::new().database(name)).start().unwrap();
    let url = db.url();

    let by_postgres: String = connect(url).query_one(CURRENT, &[]).unwrap().get(0);
    assert_eq!(by_postgres, name);

    let mut connection = PgConnection::establish(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    let by_diesel = sql_query(CURRENT).get_result::<Name>(&mut connection).unwrap().name;
    assert_eq!(by_diesel, name);

    let by_sqlx = async {
        let options: PgConnectOptions = url.parse().unwrap();
        let pool = PgPoolOptions::new().connect_with(options).await.unwrap();
        sqlx::query_scalar::<_, String>(CURRENT).fetch_one(&pool).await.unwrap()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(by_sqlx), name);

    if let Some(program) = program(&db, "psql") {
        assert_eq!(psql(&program, url, CURRENT), name);
    }
}

#[test]
fn a_database_name_may_be_upper_case() {
    assert_reached_by_all("Shop");
}

#[test]
fn a_database_name_may_have_spaces() {
    assert_reached_by_all(" my  shop ");
}

#[test]
fn a_database_name_may_be_in_any_script() {
    assert_reached_by_all("Größe データ 🐘");
}

#[test]
fn a_database_name_may_need_escapes() {
    assert_reached_by_all(r#"a=b&c?d#e%20/f:g@h"i'j\k;l"#);
}

#[test]
fn existing_databases_are_not_overwritten() {
    let error = Snapshot::new(Postgres::new().database("template1")).start().unwrap_err();
    let report = format!("{error:?}");
    assert!(report.contains("database \"template1\" already exists"), "{report}");
}

// PostgreSQL's own programs.

/// The output of pg_dump(1), without the key by which newer versions protect against hostile dumps.
fn dump(program: &PathBuf, url: &str) -> String {
    let output = Command::new(program).args(["--create", url]).output().unwrap();
    let dump = printed(&output);
    let lines =
        dump.lines().filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict "));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn pg_dump_prints_the_same_for_all_sandboxes() {
    let (one, other) = (shop(), shop());
    let Some(program) = program(&one, "pg_dump") else { return };
    let first = dump(&program, one.url());
    assert!(first.contains("CREATE TABLE public.customers") && first.len() > 1_000_000, "{}", first.len());
    let same = |dump: &str, what: &str| {
        let different = first.lines().zip(dump.lines()).find(|(one, other)| one != other);
        assert!(first == dump, "{what}: {different:?}");
    };
    same(&dump(&program, one.url()), "the same sandbox again");
    same(&dump(&program, other.url()), "another sandbox");
    // A difference would show.
    connect(other.url()).batch_execute("update customers set last_name = 'X' where id = 1250").unwrap();
    assert!(first != dump(&program, other.url()));
}

#[test]
fn a_dump_can_be_restored_into_another_sandbox() {
    let (from, to) = (shop(), Snapshot::new(Postgres::new()).start().unwrap());
    let (Some(pg_dump), Some(psql)) = (program(&from, "pg_dump"), program(&from, "psql")) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.sql");
    let output =
        Command::new(pg_dump).arg("--create").arg("--file").arg(&file).arg(from.url()).output().unwrap();
    printed(&output);
    let output = Command::new(&psql)
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"])
        .arg(&file)
        .arg(to.url())
        .output()
        .unwrap();
    printed(&output);
    let restored = to.url().replace("/postgres?", "/shop?");
    let items: i64 = connect(&restored).query_one("select count(*) from order_items", &[]).unwrap().get(0);
    assert_eq!(items, 6536);
}

#[test]
fn amcheck_finds_no_corruption() {
    let db = shop();
    let mut client = connect(db.url());
    if client.batch_execute("create extension amcheck").is_err() {
        return skip("the extension amcheck is not installed");
    }
    let indexes = client
        .query(
            "select c.oid::regclass::text, bt_index_parent_check(c.oid, true, true)::text
             from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
             where a.amname = 'btree' and i.indisready and i.indisvalid and c.relpersistence = 'p'",
            &[],
        )
        .unwrap();
    assert!(indexes.len() > 150, "only {} indexes", indexes.len());
    // The option exists since version 14.
    if client
        .query_one("select to_regproc('verify_heapam')::text", &[])
        .unwrap()
        .get::<_, Option<&str>>(0)
        .is_none()
    {
        return;
    }
    let corrupt = client
        .query(
            "select c.relname::text || ': ' || v.msg from pg_class c, lateral verify_heapam(c.oid) v
             where c.relkind in ('r', 'm', 't') and c.relpersistence = 'p'",
            &[],
        )
        .unwrap();
    let corrupt: Vec<String> = corrupt.iter().map(|row| row.get(0)).collect();
    assert!(corrupt.is_empty(), "{corrupt:?}");
}
