//! Versions of a driver that are in use side by side, each as a parameter of a test.

use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use sandboxed_db::{Postgres, Snapshot, sandboxed_db};

const DATABASE: &str = "select current_database()::text as name";

fn shop() -> Snapshot {
    Snapshot::new(Postgres::new().database("shop"))
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

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
