//! Parameters of drivers for MariaDB.

use diesel::r2d2::ConnectionManager;
use diesel::{MysqlConnection, RunQueryDsl as _, sql_query};
use mysql::prelude::Queryable as _;
use mysql_async::prelude::Queryable as _;
use sandboxed_db::{MariaDb, Postgres, Redis, Sandbox, Snapshot, sandboxed_db};
use sandboxed_db_tests::{alone, is_missing, printed, skip_without};
use sea_orm::{ConnectionTrait as _, DatabaseBackend, DatabaseConnection, Statement};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPool, MySqlPoolOptions};
use sqlx::pool::PoolConnection;

use super::Name;

const DATABASE: &str = "select database() as name";

fn shop() -> Snapshot<MariaDb> {
    Snapshot::new(MariaDb::new().database("shop"))
}

/// An attribute cannot skip a test.
#[test]
fn every_driver_of_mariadb_makes_parameters() {
    skip_without!(MariaDb);
    let tests = [
        "sqlx_makes_all_its_types",
        "sqlx_0_8_makes_all_its_types",
        "mysql_makes_all_its_types",
        "mysql_async_makes_all_its_types",
        "mysql_async_works_in_a_plain_test",
        "diesel_makes_a_connection_and_a_pool",
        "diesel_async_connects_in_three_versions",
        "sea_orm_connects_in_two_versions",
        "one_type_is_made_by_the_engine_that_is_named",
        "drivers_see_what_others_write",
        "clients_may_outlive_their_mariadb",
        "a_port_serves_each_driver",
        "engines_make_one_type::postgres",
        "engines_make_one_type::maria_db",
    ];
    let mut tests = tests.map(|test| format!("connections::mariadb::{test}")).to_vec();
    if !is_missing::<Redis>() {
        tests.push("connections::mariadb::three_engines_serve_one_test".to_owned());
    }
    let output = alone(&tests[0]).args(&tests[1..]).output().unwrap();
    let text = printed(&output);
    assert!(output.status.success() && text.contains(&format!("{} passed", tests.len())), "{text}");
}

#[sandboxed_db(snapshot = shop)]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
async fn sqlx_makes_all_its_types(
    pool: MySqlPool,
    mut connection: MySqlConnection,
    mut lent: PoolConnection<sqlx::MySql>,
    options: MySqlPoolOptions,
    server: MySqlConnectOptions,
) -> sqlx::Result<()> {
    let other = options.max_connections(1).connect_with(server).await?;
    for pool in [pool, other] {
        assert_eq!(sqlx::query_scalar::<_, String>(DATABASE).fetch_one(&pool).await?, "shop");
    }
    for connection in [&mut connection, &mut *lent] {
        assert_eq!(sqlx::query_scalar::<_, String>(DATABASE).fetch_one(connection).await?, "shop");
    }
    Ok(())
}

#[sandboxed_db(snapshot = shop)]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
async fn sqlx_0_8_makes_all_its_types(
    pool: sqlx_0_8::MySqlPool,
    mut connection: sqlx_0_8::MySqlConnection,
    mut lent: sqlx_0_8::pool::PoolConnection<sqlx_0_8::MySql>,
    options: sqlx_0_8::mysql::MySqlPoolOptions,
    server: sqlx_0_8::mysql::MySqlConnectOptions,
) -> sqlx_0_8::Result<()> {
    let other = options.max_connections(1).connect_with(server).await?;
    for pool in [pool, other] {
        assert_eq!(sqlx_0_8::query_scalar::<_, String>(DATABASE).fetch_one(&pool).await?, "shop");
    }
    for connection in [&mut connection, &mut *lent] {
        assert_eq!(sqlx_0_8::query_scalar::<_, String>(DATABASE).fetch_one(connection).await?, "shop");
    }
    Ok(())
}

#[sandboxed_db(snapshot = shop)]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
fn mysql_makes_all_its_types(
    mut connection: mysql::Conn,
    pool: mysql::Pool,
    options: mysql::Opts,
) -> mysql::Result<()> {
    assert_eq!(options.get_db_name(), Some("shop"));
    let (mut one, mut two) = (pool.get_conn()?, pool.get_conn()?);
    for connection in [&mut connection, one.as_mut(), two.as_mut()] {
        assert_eq!(connection.query_first::<String, _>(DATABASE)?.as_deref(), Some("shop"));
    }
    let mine: Option<u64> = one.query_first("select connection_id()")?;
    assert_ne!(mine, two.query_first("select connection_id()")?);
    Ok(())
}

#[sandboxed_db(snapshot = shop)]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
async fn mysql_async_makes_all_its_types(
    mut connection: mysql_async::Conn,
    pool: mysql_async::Pool,
    options: mysql_async::Opts,
) -> mysql_async::Result<()> {
    assert_eq!(options.db_name(), Some("shop"));
    let (mut one, mut two) = (pool.get_conn().await?, pool.get_conn().await?);
    for connection in [&mut connection, &mut one, &mut two] {
        assert_eq!(connection.query_first::<String, _>(DATABASE).await?.as_deref(), Some("shop"));
    }
    assert_ne!(one.id(), two.id());
    Ok(())
}

/// The runtime of the harness drives the connection.
#[sandboxed_db(snapshot = shop)]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
fn mysql_async_works_in_a_plain_test(pool: mysql_async::Pool, mut connection: mysql_async::Conn) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let name: Option<String> = connection.query_first(DATABASE).await.unwrap();
        assert_eq!(name.as_deref(), Some("shop"));
        pool.get_conn().await.unwrap().query_drop("select 1").await.unwrap();
    });
}

#[sandboxed_db(snapshot = shop)]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
fn diesel_makes_a_connection_and_a_pool(
    mut connection: MysqlConnection,
    pool: diesel::r2d2::Pool<ConnectionManager<MysqlConnection>>,
) {
    let (mut one, mut two) = (pool.get().unwrap(), pool.get().unwrap());
    for connection in [&mut connection, &mut one, &mut two] {
        assert_eq!(sql_query(DATABASE).get_result::<Name>(connection).unwrap().name, "shop");
    }
}

#[sandboxed_db(snapshot = shop)]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
async fn diesel_async_connects_in_three_versions(
    mut newest: diesel_async::AsyncMysqlConnection,
    mut newer: diesel_async_0_8::AsyncMysqlConnection,
    mut older: diesel_async_0_7::AsyncMysqlConnection,
) {
    let found: [Name; 3] = [
        diesel_async::RunQueryDsl::get_result(sql_query(DATABASE), &mut newest).await.unwrap(),
        diesel_async_0_8::RunQueryDsl::get_result(sql_query(DATABASE), &mut newer).await.unwrap(),
        diesel_async_0_7::RunQueryDsl::get_result(sql_query(DATABASE), &mut older).await.unwrap(),
    ];
    assert!(found.iter().all(|found| found.name == "shop"));
}

#[sandboxed_db(snapshot = shop)]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
async fn sea_orm_connects_in_two_versions(newer: DatabaseConnection, older: sea_orm_1::DatabaseConnection) {
    let statement = Statement::from_string(DatabaseBackend::MySql, DATABASE);
    let row = newer.query_one_raw(statement).await.unwrap().unwrap();
    assert_eq!(row.try_get::<String>("", "name").unwrap(), "shop");
    let statement = sea_orm_1::Statement::from_string(sea_orm_1::DatabaseBackend::MySql, DATABASE);
    let row = sea_orm_1::ConnectionTrait::query_one(&older, statement).await.unwrap().unwrap();
    assert_eq!(row.try_get::<String>("", "name").unwrap(), "shop");
}

#[sandboxed_db(one(engine = Postgres), other(engine = MariaDb))]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
async fn one_type_is_made_by_the_engine_that_is_named(one: DatabaseConnection, other: DatabaseConnection) {
    assert_eq!(one.get_database_backend(), DatabaseBackend::Postgres);
    assert_eq!(other.get_database_backend(), DatabaseBackend::MySql);
    one.execute_unprepared("select pg_backend_pid()").await.unwrap();
    other.execute_unprepared("select connection_id()").await.unwrap();
}

#[sandboxed_db(engine = [Postgres, MariaDb])]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
async fn engines_make_one_type(url: String, db: DatabaseConnection) {
    let backend = if url.starts_with("mysql:") { DatabaseBackend::MySql } else { DatabaseBackend::Postgres };
    assert_eq!(db.get_database_backend(), backend);
    db.execute_unprepared("create table t (x int)").await.unwrap();
}

#[sandboxed_db(snapshot = shop)]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
async fn drivers_see_what_others_write(
    pool: MySqlPool,
    mut diesel: MysqlConnection,
    mut client: mysql_async::Conn,
) {
    sqlx::query("create table notes (text varchar(20))").execute(&pool).await.unwrap();
    sql_query("insert into notes values ('caf\u{e9} \u{1f375}')").execute(&mut diesel).unwrap();
    let text: Option<String> = client.query_first("select text from notes").await.unwrap();
    assert_eq!(text.as_deref(), Some("caf\u{e9} \u{1f375}"));
}

#[sandboxed_db(snapshot = shop)]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
fn clients_may_outlive_their_mariadb(
    db: Sandbox<MariaDb>,
    mut client: mysql::Conn,
    mut connection: MysqlConnection,
) {
    db.stop().unwrap();
    assert!(client.query_drop("select 1").is_err());
    assert!(sql_query(DATABASE).get_result::<Name>(&mut connection).is_err());
}

/// The URL of a port, for a driver or a version that has no feature.
#[sandboxed_db(snapshot = shop)]
#[ignore = "needs MariaDB, run by `every_driver_of_mariadb_makes_parameters`"]
async fn a_port_serves_each_driver(tcp: sandboxed_db::Tcp) {
    let url = tcp.url();
    let mut connection = mysql::Conn::new(mysql::Opts::from_url(url).unwrap()).unwrap();
    assert_eq!(connection.query_first::<String, _>(DATABASE).unwrap().as_deref(), Some("shop"));
    let mut connection = mysql_async::Conn::new(mysql_async::Opts::from_url(url).unwrap()).await.unwrap();
    assert_eq!(connection.query_first::<String, _>(DATABASE).await.unwrap().as_deref(), Some("shop"));
    let pool = MySqlPool::connect(url).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, String>(DATABASE).fetch_one(&pool).await.unwrap(), "shop");
    let mut connection = <MysqlConnection as diesel::Connection>::establish(url).unwrap();
    assert_eq!(sql_query(DATABASE).get_result::<Name>(&mut connection).unwrap().name, "shop");
}

#[sandboxed_db(orders(engine = MariaDb::new().database("shop")), cache(engine = Redis))]
#[ignore = "needs MariaDB and Redis, run by `every_driver_of_mariadb_makes_parameters`"]
async fn three_engines_serve_one_test(
    db: sqlx::PgPool,
    orders: MySqlPool,
    mut cache: redis::aio::MultiplexedConnection,
) {
    sqlx::query("select pg_backend_pid()").execute(&db).await.unwrap();
    sqlx::query("select connection_id()").execute(&orders).await.unwrap();
    redis::cmd("PING").exec_async(&mut cache).await.unwrap();
}
