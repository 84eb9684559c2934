//! Tests with MariaDB and sqlx; other drivers are other features.
//!
//! `mariadb-server` must be installed; its service need not run.
//!
//! Run it by `cargo test -p sandboxed-db-examples --features mariadb --test mariadb`.

use sandboxed_db::{MariaDb, Sandbox, Snapshot, sandboxed_db};
use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use sqlx::{Connection as _, MySqlConnection};

/// The database of most tests. Its preparation is cached.
fn shop() -> Snapshot<MariaDb> {
    Snapshot::new(MariaDb::new().database("shop"))
        .migrations("mariadb/migrations")
        .seed("mariadb/customers.sql")
}

async fn order(pool: &MySqlPool, customer: i32, article: &str) -> sqlx::Result<u64> {
    let insert = "insert into orders (customer_id, article) values (?, ?)";
    let done = sqlx::query(insert).bind(customer).bind(article).execute(pool).await?;
    Ok(done.last_insert_id())
}

#[sandboxed_db(snapshot = shop)]
async fn an_order_is_stored(pool: MySqlPool) -> sqlx::Result<()> {
    assert_eq!(order(&pool, 1, "Tea").await?, 1);
    let article: String = sqlx::query_scalar("select article from orders").fetch_one(&pool).await?;
    assert_eq!(article, "tea");
    assert!(order(&pool, 7, "Milk").await.is_err());
    Ok(())
}

/// Statements that no transaction takes back.
#[sandboxed_db(snapshot = shop)]
async fn a_test_may_change_the_schema(pool: MySqlPool) -> sqlx::Result<()> {
    sqlx::query("drop table orders").execute(&pool).await?;
    sqlx::query("truncate table customers").execute(&pool).await?;
    sqlx::query("set global max_connections = 20").execute(&pool).await?;
    Ok(())
}

#[sandboxed_db(engine = MariaDb, settings(lower_case_table_names = 1, sql_mode = "ANSI"))]
async fn settings_are_those_of_my_cnf(mut connection: MySqlConnection) -> sqlx::Result<()> {
    sqlx::query("create table \"Customers\" (id int)").execute(&mut connection).await?;
    sqlx::query("select * from cUSTOMERS").execute(&mut connection).await?;
    Ok(())
}

/// Two sessions of one server.
#[sandboxed_db(snapshot = shop)]
async fn the_second_session_waits_for_the_first(db: Sandbox<MariaDb>, pool: MySqlPool) -> sqlx::Result<()> {
    let mut first = pool.begin().await?;
    sqlx::query("update customers set name = 'Alan' where id = 1").execute(&mut *first).await?;
    let mut second = MySqlConnection::connect(db.url()).await?;
    sqlx::query("set innodb_lock_wait_timeout = 0").execute(&mut second).await?;
    let update = "update customers set name = 'Kurt' where id = 1";
    assert!(sqlx::query(update).execute(&mut second).await.is_err());
    first.commit().await?;
    sqlx::query(update).execute(&mut second).await?;
    second.close().await
}

/// A pool with options of the test, for the URL.
#[sandboxed_db(snapshot = shop)]
async fn the_url_serves_any_pool(url: String) -> sqlx::Result<()> {
    let pool = MySqlPoolOptions::new().max_connections(2).connect(&url).await?;
    let customers: i64 = sqlx::query_scalar("select count(*) from customers").fetch_one(&pool).await?;
    assert_eq!(customers, 2);
    Ok(())
}
