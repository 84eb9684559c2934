//! The application: articles in PostgreSQL, and what was read last in Redis.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use redis::aio::ConnectionManager;
use redis::{AsyncTypedCommands as _, RedisResult};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::time::timeout;

/// The time for an answer of the cache, after which the application does without.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long an article stays in the cache.
const SECONDS: u64 = 60;

#[derive(Clone)]
pub(crate) struct App {
    db: PgPool,
    cache: ConnectionManager,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Article {
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) cents: i32,
}

#[derive(Deserialize)]
struct Price {
    cents: i32,
}

pub(crate) fn router(db: PgPool, cache: ConnectionManager) -> Router {
    Router::new().route("/articles/{id}", get(read).put(change)).with_state(App { db, cache })
}

impl App {
    async fn cached(&mut self, id: i32) -> Option<Article> {
        let found = in_time(self.cache.get(key(id))).await??;
        serde_json::from_str(&found).ok()
    }

    async fn stored(&self, id: i32) -> Result<Option<Article>, StatusCode> {
        let select = "select name, cents from articles where id = $1";
        let found = sqlx::query_as(select).bind(id).fetch_optional(&self.db).await;
        let found: Option<(String, i32)> = found.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        Ok(found.map(|(name, cents)| Article { id, name, cents }))
    }
}

fn key(id: i32) -> String {
    format!("article:{id}")
}

/// Returns `None` if the cache is late or lost.
async fn in_time<T>(answer: impl Future<Output = RedisResult<T>>) -> Option<T> {
    timeout(PATIENCE, answer).await.ok()?.ok()
}

async fn read(State(mut app): State<App>, Path(id): Path<i32>) -> Result<impl IntoResponse, StatusCode> {
    if let Some(article) = app.cached(id).await {
        return Ok((AppendHeaders([("x-cache", "hit")]), Json(article)));
    }
    let article = app.stored(id).await?.ok_or(StatusCode::NOT_FOUND)?;
    let text = serde_json::to_string(&article).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    in_time(app.cache.set_ex(key(id), text, SECONDS)).await;
    Ok((AppendHeaders([("x-cache", "miss")]), Json(article)))
}

async fn change(
    State(mut app): State<App>,
    Path(id): Path<i32>,
    Json(Price { cents }): Json<Price>,
) -> Result<StatusCode, StatusCode> {
    let update = "update articles set cents = $2 where id = $1";
    let changed = sqlx::query(update).bind(id).bind(cents).execute(&app.db).await;
    match changed {
        Ok(done) if done.rows_affected() == 0 => return Err(StatusCode::NOT_FOUND),
        Ok(_) => {}
        Err(sqlx::Error::Database(_)) => return Err(StatusCode::UNPROCESSABLE_ENTITY),
        Err(_) => return Err(StatusCode::SERVICE_UNAVAILABLE),
    }
    in_time(app.cache.del(key(id))).await;
    Ok(StatusCode::NO_CONTENT)
}
