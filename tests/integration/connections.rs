//! Parameters with the feature of a driver: connections and pools; one or several, from one server
//! or several.

use diesel::r2d2::ConnectionManager;
use diesel::sql_types::Text;
use diesel::{QueryableByName, RunQueryDsl as _, sql_query};
use sandboxed_db::{Sandbox, sandboxed_db};
use sandboxed_db_tests::{alone, assert_says, connect, connect_async, failed};
use sea_orm::{ConnectionTrait as _, DatabaseBackend, DatabaseConnection, Statement};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

use crate::parameters::shop;

mod mariadb;

const DATABASE: &str = "select current_database()::text as name";

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

// One by one.

#[sandboxed_db(snapshot = shop)]
async fn sqlx_gets_a_pool(pool: PgPool) {
    let name: String = sqlx::query_scalar(DATABASE).fetch_one(&pool).await.unwrap();
    assert_eq!(name, "shop");
}

#[sandboxed_db]
async fn sqlx_lends_a_pool(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query("create table t (x int)").execute(pool).await?;
    Ok(())
}

#[sandboxed_db]
async fn sqlx_gets_a_connection(mut connection: PgConnection) {
    let one: i32 = sqlx::query_scalar("select 1").fetch_one(&mut connection).await.unwrap();
    assert_eq!(one, 1);
}

#[sandboxed_db]
async fn sqlx_gets_a_connection_of_a_pool(mut connection: PoolConnection<sqlx::Postgres>) {
    let name: String = sqlx::query_scalar(DATABASE).fetch_one(&mut *connection).await.unwrap();
    assert_eq!(name, "postgres");
}

#[sandboxed_db]
async fn sqlx_gets_options(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.max_connections(1).connect_with(options.application_name("mine")).await.unwrap();
    let name: String =
        sqlx::query_scalar("select current_setting('application_name')").fetch_one(&pool).await.unwrap();
    assert_eq!(name, "mine");
}

#[sandboxed_db]
async fn tokio_postgres_gets_a_client(
    mut client: tokio_postgres::Client,
) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute("create table t (x int)").await?;
    transaction.commit().await
}

#[sandboxed_db]
fn postgres_gets_a_client(mut client: postgres::Client) -> Result<(), postgres::Error> {
    client.batch_execute("create table t (x int)")
}

#[sandboxed_db]
async fn deadpool_gets_a_pool(pool: deadpool_postgres::Pool) {
    let (one, other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let backend = "select pg_backend_pid()";
    let one: i32 = one.query_one(backend, &[]).await.unwrap().get(0);
    let other: i32 = other.query_one(backend, &[]).await.unwrap().get(0);
    assert_ne!(one, other);
}

#[sandboxed_db(snapshot = shop)]
fn diesel_gets_a_connection(mut connection: diesel::PgConnection) {
    assert_eq!(sql_query(DATABASE).get_result::<Name>(&mut connection).unwrap().name, "shop");
}

type DieselPool = diesel::r2d2::Pool<ConnectionManager<diesel::PgConnection>>;

#[sandboxed_db(snapshot = shop)]
fn diesel_gets_a_pool(pool: DieselPool) {
    let (mut one, mut other) = (pool.get().unwrap(), pool.get().unwrap());
    for connection in [&mut one, &mut other] {
        assert_eq!(sql_query(DATABASE).get_result::<Name>(connection).unwrap().name, "shop");
    }
}

#[sandboxed_db(snapshot = shop)]
async fn diesel_async_gets_a_connection(mut connection: diesel_async::AsyncPgConnection) {
    let query = sql_query(DATABASE);
    let found: Name = diesel_async::RunQueryDsl::get_result(query, &mut connection).await.unwrap();
    assert_eq!(found.name, "shop");
}

#[sandboxed_db(snapshot = shop)]
async fn sea_orm_gets_a_connection(db: DatabaseConnection) -> Result<(), sea_orm::DbErr> {
    let row = db.query_one_raw(Statement::from_string(DatabaseBackend::Postgres, DATABASE)).await?.unwrap();
    assert_eq!(row.try_get::<String>("", "name")?, "shop");
    Ok(())
}

#[sandboxed_db]
fn clients_get_their_configurations(blocking: postgres::Config, asynchronous: tokio_postgres::Config) {
    assert_eq!(blocking.get_user(), Some("postgres"));
    assert_eq!(asynchronous.get_dbname(), Some("postgres"));
}

// Older versions of drivers, which are in use side by side.

#[sandboxed_db(snapshot = shop)]
async fn sqlx_0_8_connects(
    pool: sqlx_0_8::PgPool,
    mut connection: sqlx_0_8::PgConnection,
    mut lent: sqlx_0_8::pool::PoolConnection<sqlx_0_8::Postgres>,
    options: sqlx_0_8::postgres::PgPoolOptions,
    server: sqlx_0_8::postgres::PgConnectOptions,
) -> Result<(), sqlx_0_8::Error> {
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
async fn sea_orm_1_connects(db: sea_orm_1::DatabaseConnection) -> Result<(), sea_orm_1::DbErr> {
    use sea_orm_1::{ConnectionTrait as _, DatabaseBackend, Statement};
    let row = db.query_one(Statement::from_string(DatabaseBackend::Postgres, DATABASE)).await?.unwrap();
    assert_eq!(row.try_get::<String>("", "name")?, "shop");
    Ok(())
}

#[sandboxed_db(snapshot = shop)]
async fn diesel_async_0_8_connects(mut connection: diesel_async_0_8::AsyncPgConnection) {
    let query = sql_query(DATABASE);
    let found: Name = diesel_async_0_8::RunQueryDsl::get_result(query, &mut connection).await.unwrap();
    assert_eq!(found.name, "shop");
}

#[sandboxed_db(snapshot = shop)]
async fn diesel_async_0_7_connects(mut connection: diesel_async_0_7::AsyncPgConnection) {
    let query = sql_query(DATABASE);
    let found: Name = diesel_async_0_7::RunQueryDsl::get_result(query, &mut connection).await.unwrap();
    assert_eq!(found.name, "shop");
}

#[sandboxed_db]
async fn two_versions_of_sqlx_share_a_server(older: sqlx_0_8::PgPool, newer: sqlx::PgPool) {
    sqlx_0_8::query("create table t as select 7 as x").execute(&older).await.unwrap();
    let seven: i32 = sqlx::query_scalar("select x from t").fetch_one(&newer).await.unwrap();
    assert_eq!(seven, 7);
}

// `async` clients in a plain test: a runtime drives their connections while the test runs.

#[sandboxed_db]
fn async_clients_work_in_a_plain_test(client: tokio_postgres::Client, pool: PgPool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        client.batch_execute("create table t as select 7 as x").await.unwrap();
        let seven: i32 = sqlx::query_scalar("select x from t").fetch_one(&pool).await.unwrap();
        assert_eq!(seven, 7);
    });
}

// Several from one server.

#[sandboxed_db]
async fn a_sandbox_and_a_pool_share_a_server(db: Sandbox, pool: PgPool) {
    sqlx::query("create table seen_by_both (x int)").execute(&pool).await.unwrap();
    let client = connect_async(db.url()).await.unwrap();
    client.batch_execute("select * from seen_by_both").await.unwrap();
}

#[sandboxed_db]
fn a_url_and_a_client_share_a_server(url: String, mut client: postgres::Client) {
    client.batch_execute("create table seen_by_both (x int)").unwrap();
    connect(&url).batch_execute("select * from seen_by_both").unwrap();
}

// Ends.

#[sandboxed_db]
async fn held_connections_do_not_delay_the_end(
    pool: PgPool,
    orm: DatabaseConnection,
    other: deadpool_postgres::Pool,
) {
    let held = (pool.acquire().await.unwrap(), other.get().await.unwrap());
    orm.execute_unprepared("begin").await.unwrap();
    // The statement outlives the test.
    tokio::spawn(async move { sqlx::query("select pg_sleep(600)").execute(&pool).await });
    tokio::task::yield_now().await;
    std::mem::forget(held);
}

#[sandboxed_db]
async fn a_pool_may_outlive_its_server(db: Sandbox, pool: PgPool, client: tokio_postgres::Client) {
    db.stop().unwrap();
    assert!(sqlx::query("select 1").execute(&pool).await.is_err());
    assert!(client.batch_execute("select 1").await.is_err());
}

#[sandboxed_db]
fn blocking_clients_may_outlive_their_server(mut client: postgres::Client, pool: DieselPool, db: Sandbox) {
    let mut held = pool.get().unwrap();
    db.stop().unwrap();
    assert!(client.batch_execute("select 1").is_err());
    assert!(sql_query(DATABASE).get_result::<Name>(&mut held).is_err());
}

// Several databases.

#[sandboxed_db(
    orders(snapshot = shop, migrations = "data/notes/migrations"),
    audit(settings(work_mem = "7MB"))
)]
async fn two_pools_have_two_databases(orders: PgPool, audit: PgPool) {
    let name: String = sqlx::query_scalar(DATABASE).fetch_one(&orders).await.unwrap();
    assert_eq!(name, "shop");
    sqlx::query("select * from notes").execute(&orders).await.unwrap();
    assert!(sqlx::query("select * from notes").execute(&audit).await.is_err());
    let memory: String = sqlx::query_scalar("show work_mem").fetch_one(&audit).await.unwrap();
    assert_eq!(memory, "7MB");
}

// Runtimes.

#[sandboxed_db(flavor = "multi_thread", worker_threads = 2)]
async fn multi_thread_drives_connections(pool: PgPool) {
    assert_eq!(tokio::runtime::Handle::current().metrics().num_workers(), 2);
    // Blocks on another task, which a single-threaded runtime would not run.
    let one = tokio::spawn(async move { sqlx::query("select 1").execute(&pool).await.map(drop) });
    let (sender, receiver) = std::sync::mpsc::channel();
    tokio::spawn(async move { sender.send(one.await) });
    receiver.recv().unwrap().unwrap().unwrap();
}

// rstest.

mod with_rstest {
    use rstest::{fixture, rstest};

    use super::*;

    #[fixture]
    fn greeting() -> String {
        "hello".to_owned()
    }

    #[sandboxed_db]
    #[rstest]
    #[case::one(1)]
    #[case::two(2)]
    fn cases(mut client: postgres::Client, #[case] mut n: i32) -> Result<(), postgres::Error> {
        // Each case has its own server.
        client.batch_execute("create table t (x int)")?;
        n += 1;
        assert!(n > client.query_one("select 1", &[])?.get(0));
        Ok(())
    }

    #[sandboxed_db(flavor = "multi_thread", worker_threads = 1)]
    #[rstest]
    async fn values_and_a_fixture(
        pool: PgPool,
        #[values("a", "b")] letter: &str,
        #[from(greeting)] word: String,
        #[values(1, 2)] n: i32,
    ) {
        let query = "select $1 || $2 || $3";
        let joined = sqlx::query_scalar::<_, String>(query).bind(letter).bind(&word).bind(n.to_string());
        assert_eq!(joined.fetch_one(&pool).await.unwrap(), format!("{letter}{word}{n}"));
    }

    #[rstest]
    #[test_attr(sandboxed_db(snapshot = shop))]
    #[case("shop")]
    async fn the_attribute_works_below_rstest(#[ignore] pool: PgPool, #[case] expected: &str) {
        let name: String = sqlx::query_scalar(DATABASE).fetch_one(&pool).await.unwrap();
        assert_eq!(name, expected);
    }
}

// Fixtures.

mod fixtures {
    use rstest::rstest;
    use sandboxed_db_fixtures::{Connected, fresh, fresh_async};

    use super::*;

    #[rstest]
    fn a_plain_test_gets_blocking_clients(
        #[from(fresh)] mut client: Connected<postgres::Client>,
        #[from(fresh)] mut connection: Connected<diesel::PgConnection>,
        #[from(fresh)] pool: Connected<DieselPool>,
    ) {
        client.batch_execute("select 1").unwrap();
        assert_eq!(sql_query(DATABASE).get_result::<Name>(&mut *connection).unwrap().name, "postgres");
        assert_eq!(
            sql_query(DATABASE).get_result::<Name>(&mut pool.get().unwrap()).unwrap().name,
            "postgres"
        );
    }

    /// Only the fixture drives the connection.
    #[rstest]
    fn async_clients_work_in_a_plain_test(#[from(fresh)] client: Connected<tokio_postgres::Client>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(client.batch_execute("select 1")).unwrap();
    }

    #[rstest]
    #[tokio::test]
    async fn an_async_test_gets_clients(
        #[future(awt)]
        #[from(fresh_async)]
        client: Connected<tokio_postgres::Client>,
        #[future(awt)]
        #[from(fresh_async)]
        connection: Connected<diesel_async::AsyncPgConnection>,
    ) {
        let mut connection = connection;
        client.batch_execute("select 1").await.unwrap();
        let query = sql_query(DATABASE);
        let found: Name = diesel_async::RunQueryDsl::get_result(query, &mut *connection).await.unwrap();
        assert_eq!(found.name, "postgres");
    }

    #[rstest]
    #[tokio::test]
    async fn an_async_test_gets_pools(
        #[future(awt)]
        #[from(fresh_async)]
        sqlx: Connected<PgPool>,
        #[future(awt)]
        #[from(fresh_async)]
        orm: Connected<DatabaseConnection>,
        #[future(awt)]
        #[from(fresh_async)]
        deadpool: Connected<deadpool_postgres::Pool>,
    ) {
        sqlx::query("select 1").execute(&*sqlx).await.unwrap();
        orm.execute_unprepared("select 1").await.unwrap();
        deadpool.get().await.unwrap().batch_execute("select 1").await.unwrap();
    }
}

// The test below runs it and reads its output.

#[sandboxed_db]
#[ignore = "fails, run by `a_blocking_client_is_refused_where_it_would_panic`"]
async fn blocks(_: postgres::Client) {}

#[test]
fn a_blocking_client_is_refused_where_it_would_panic() {
    assert_says(&failed(&mut alone("connections::blocks")), &["take a `tokio_postgres::Client`"]);
}
