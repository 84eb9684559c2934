//! Tests a web application from the request to the table.
//!
//! The application is a router made from a pool; nothing in it is made for tests. `FromSandbox`
//! makes it from a sandbox, so each test has its own application with its own server. The
//! application's migrations run once and are then part of the layer that all tests start from.
//!
//! Run it by `cargo test -p sandboxed-db-examples --features axum --test axum`.

mod app;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use sandboxed_db::{FromSandbox, Sandbox, sandboxed_db};
use serde_json::{Value, json};
use sqlx::PgPool;
use tower::ServiceExt as _;

/// The application under test.
struct App(Router);

impl FromSandbox for App {
    type Error = sqlx::Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error> {
        Ok(Self(app::router(PgPool::from_sandbox(sandbox).await?)))
    }
}

impl App {
    async fn request(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.request(Method::POST, path, body).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.request(Method::GET, path, Value::Null).await
    }
}

#[sandboxed_db(migrations_of(Sqlx, "axum/migrations"))]
async fn a_customer_orders(app: App) {
    let (status, customer) = app.post("/customers", json!({ "email": "ada@example.org" })).await;
    assert_eq!((status, &customer), (StatusCode::CREATED, &json!({ "id": 1 })));

    let (status, order) = app.post("/customers/1/orders", json!({ "article": "tea" })).await;
    assert_eq!((status, order), (StatusCode::CREATED, json!({ "id": 1 })));

    let (status, orders) = app.get("/customers/1/orders").await;
    assert_eq!((status, orders), (StatusCode::OK, json!([{ "id": 1, "article": "tea" }])));
}

#[sandboxed_db(migrations_of(Sqlx, "axum/migrations"))]
async fn an_email_address_is_unique(app: App) {
    let ada = json!({ "email": "ada@example.org" });
    assert_eq!(app.post("/customers", ada.clone()).await.0, StatusCode::CREATED);
    let (status, error) = app.post("/customers", ada).await;
    assert_eq!((status, error), (StatusCode::CONFLICT, json!({ "error": "this customer exists already" })));
}

#[sandboxed_db(migrations_of(Sqlx, "axum/migrations"))]
async fn an_order_needs_a_customer(app: App) {
    let (status, _) = app.post("/customers/7/orders", json!({ "article": "tea" })).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

/// Takes a pool beside the application, to query its database.
#[sandboxed_db(migrations_of(Sqlx, "axum/migrations"))]
async fn an_order_without_an_article_is_not_stored(app: App, pool: PgPool) -> sqlx::Result<()> {
    app.post("/customers", json!({ "email": "ada@example.org" })).await;
    let (status, _) = app.post("/customers/1/orders", json!({ "article": "" })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let orders: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(&pool).await?;
    assert_eq!(orders, 0);
    Ok(())
}

/// Stops the database under the running application.
#[sandboxed_db(migrations_of(Sqlx, "axum/migrations"))]
async fn a_lost_database_is_a_server_error(db: Sandbox, app: App) -> sandboxed_db::Result<()> {
    db.stop()?;
    assert_eq!(app.get("/customers/1/orders").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    Ok(())
}

/// An application that migrates at its start has nothing to do, since the attribute names the tool.
#[sandboxed_db(migrations_of(Sqlx, "axum/migrations"))]
async fn migrations_are_applied_before_the_application_starts(
    pool: PgPool,
) -> Result<(), sqlx::migrate::MigrateError> {
    let applied = "select count(*) from _sqlx_migrations where success";
    let before: i64 = sqlx::query_scalar(applied).fetch_one(&pool).await?;
    app::migrate(&pool).await?;
    let after: i64 = sqlx::query_scalar(applied).fetch_one(&pool).await?;
    assert_eq!((before, after), (2, 2));
    Ok(())
}
