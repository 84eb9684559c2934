//! The application: customers, who order.

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
        .route("/customers", post(enrol))
        .route("/customers/{id}/orders", post(order).get(orders))
        .with_state(pool)
}

/// What its `main` does before it listens.
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

async fn enrol(
    State(pool): State<PgPool>,
    Json(Customer { email }): Json<Customer>,
) -> Result<impl IntoResponse, Failure> {
    let insert = "insert into customers (email) values ($1) returning id";
    let id: i32 = sqlx::query_scalar(insert).bind(email).fetch_one(&pool).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

async fn order(
    State(pool): State<PgPool>,
    Path(customer): Path<i32>,
    Json(Order { article }): Json<Order>,
) -> Result<impl IntoResponse, Failure> {
    let insert = "insert into orders (customer_id, article) values ($1, $2) returning id";
    let id: i32 = sqlx::query_scalar(insert).bind(customer).bind(article).fetch_one(&pool).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

async fn orders(State(pool): State<PgPool>, Path(customer): Path<i32>) -> Result<Json<Value>, Failure> {
    let select = "select id, article from orders where customer_id = $1 order by id";
    let orders: Vec<(i32, String)> = sqlx::query_as(select).bind(customer).fetch_all(&pool).await?;
    Ok(orders
        .into_iter()
        .map(|(id, article)| json!({ "id": id, "article": article }))
        .collect::<Value>()
        .into())
}

/// What the database refused, as the client is told.
struct Failure(sqlx::Error);

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let kind = self.0.as_database_error().map(|error| error.kind());
        let (status, error) = match kind {
            Some(ErrorKind::UniqueViolation) => (StatusCode::CONFLICT, "this customer is there already"),
            Some(ErrorKind::ForeignKeyViolation) => (StatusCode::NOT_FOUND, "there is no such customer"),
            Some(ErrorKind::CheckViolation) => (StatusCode::UNPROCESSABLE_ENTITY, "an article is missing"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "the database failed"),
        };
        (status, Json(json!({ "error": error }))).into_response()
    }
}
