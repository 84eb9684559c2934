//! The application: customers and their orders.

use std::path::Path as Directory;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::error::ErrorKind;
use sqlx::migrate::{MigrateError, Migrator};

pub(crate) fn router(pool: PgPool) -> Router {
    Router::new()
        .route("/customers", post(create_customer))
        .route("/customers/{id}/orders", post(create_order).get(list_orders))
        .with_state(pool)
}

/// Migrates the database, as the application does before it listens.
pub(crate) async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let directory = Directory::new(env!("CARGO_MANIFEST_DIR")).join("axum/migrations");
    Migrator::new(directory).await?.run(pool).await
}

#[derive(serde::Deserialize)]
struct Customer {
    email: String,
}

#[derive(serde::Deserialize)]
struct Order {
    article: String,
}

async fn create_customer(
    State(pool): State<PgPool>,
    Json(Customer { email }): Json<Customer>,
) -> Result<impl IntoResponse, DatabaseError> {
    let insert = "insert into customers (email) values ($1) returning id";
    let id: i32 = sqlx::query_scalar(insert).bind(email).fetch_one(&pool).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

async fn create_order(
    State(pool): State<PgPool>,
    Path(customer): Path<i32>,
    Json(Order { article }): Json<Order>,
) -> Result<impl IntoResponse, DatabaseError> {
    let insert = "insert into orders (customer_id, article) values ($1, $2) returning id";
    let id: i32 = sqlx::query_scalar(insert).bind(customer).bind(article).fetch_one(&pool).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

async fn list_orders(
    State(pool): State<PgPool>,
    Path(customer): Path<i32>,
) -> Result<Json<Value>, DatabaseError> {
    let select = "select id, article from orders where customer_id = $1 order by id";
    let orders: Vec<(i32, String)> = sqlx::query_as(select).bind(customer).fetch_all(&pool).await?;
    Ok(orders
        .into_iter()
        .map(|(id, article)| json!({ "id": id, "article": article }))
        .collect::<Value>()
        .into())
}

/// An error of the database, reported to the client.
struct DatabaseError(sqlx::Error);

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for DatabaseError {
    fn into_response(self) -> Response {
        let kind = self.0.as_database_error().map(|error| error.kind());
        let (status, error) = match kind {
            Some(ErrorKind::UniqueViolation) => (StatusCode::CONFLICT, "this customer exists already"),
            Some(ErrorKind::ForeignKeyViolation) => (StatusCode::NOT_FOUND, "this customer does not exist"),
            Some(ErrorKind::CheckViolation) => (StatusCode::UNPROCESSABLE_ENTITY, "the article is missing"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "the database failed"),
        };
        (status, Json(json!({ "error": error }))).into_response()
    }
}
