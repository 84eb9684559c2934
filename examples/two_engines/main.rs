//! Tests an application that uses PostgreSQL and Redis, by requests to its port.
//!
//! The list of the parameter `cache` names its engine; the other parameters are of PostgreSQL. Each
//! test has both servers for itself and may stop them. `redis-server` must be installed.
//!
//! Run it by `cargo test -p sandboxed-db-examples --features redis --test two_engines`.

mod app;

use app::Article;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use redis::TypedCommands as _;
use redis::aio::ConnectionManager;
use sandboxed_db::{FromSandbox as _, Postgres, Redis, Sandbox, Snapshot, sandboxed_db};
use sqlx::PgPool;
use tokio::net::TcpListener;

/// The database of all tests.
fn articles() -> Snapshot {
    Snapshot::new(Postgres::new()).seed("two_engines/articles.sql")
}

/// The address of a running application.
struct Shop(String);

struct Answer {
    status: StatusCode,
    /// `true` for an answer from the cache.
    cached: bool,
    article: Option<Article>,
}

impl Shop {
    /// Starts the application on a free port, until the test ends.
    async fn open(db: PgPool, cache: ConnectionManager) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, app::router(db, cache)).into_future());
        Self(format!("http://{address}/articles"))
    }

    async fn request(&self, method: Method, id: i32, body: String) -> Answer {
        let request = Request::builder().method(method).uri(format!("{}/{id}", self.0));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request.unwrap()).await.unwrap();
        let cached = response.headers().get("x-cache").is_some_and(|cache| cache == "hit");
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), 1 << 20).await.unwrap();
        Answer { status, cached, article: serde_json::from_slice(&body).ok() }
    }

    async fn get(&self, id: i32) -> Answer {
        self.request(Method::GET, id, String::new()).await
    }

    async fn set_price(&self, id: i32, cents: i32) -> StatusCode {
        self.request(Method::PUT, id, format!("{{\"cents\": {cents}}}")).await.status
    }
}

#[sandboxed_db(snapshot = articles, cache(engine = Redis))]
async fn an_article_is_read_once(db: PgPool, cache: ConnectionManager) {
    let shop = Shop::open(db, cache).await;
    let (first, second) = (shop.get(1).await, shop.get(1).await);
    assert_eq!((first.cached, second.cached), (false, true));
    assert_eq!(first.article, Some(Article { id: 1, name: "tea".to_owned(), cents: 450 }));
    assert_eq!(first.article, second.article);
    assert_eq!(shop.get(7).await.status, StatusCode::NOT_FOUND);
}

#[sandboxed_db(snapshot = articles, cache(engine = Redis))]
async fn a_new_price_is_seen_at_once(db: PgPool, cache: ConnectionManager) {
    let shop = Shop::open(db, cache).await;
    shop.get(2).await;
    assert_eq!(shop.set_price(2, 130).await, StatusCode::NO_CONTENT);
    let answer = shop.get(2).await;
    assert_eq!((answer.cached, answer.article.unwrap().cents), (false, 130));
    assert_eq!(shop.set_price(2, 0).await, StatusCode::UNPROCESSABLE_ENTITY);
}

/// Stops Redis under the running application.
#[sandboxed_db(snapshot = articles, cache(engine = Redis))]
async fn the_shop_works_without_its_cache(db: PgPool, cache: Sandbox<Redis>) -> sandboxed_db::Result<()> {
    let shop = Shop::open(db, ConnectionManager::from_sandbox(&cache).await.unwrap()).await;
    cache.stop()?;
    let answer = shop.get(1).await;
    assert_eq!((answer.status, answer.cached), (StatusCode::OK, false));
    assert_eq!(shop.set_price(1, 500).await, StatusCode::NO_CONTENT);
    Ok(())
}

/// Stops PostgreSQL: what the seed of Redis holds is still served.
#[sandboxed_db(snapshot = articles, cache(engine = Redis, seed = "two_engines/cached.redis"))]
async fn cached_articles_need_no_database(
    db: Sandbox,
    pool: PgPool,
    cache: ConnectionManager,
) -> sandboxed_db::Result<()> {
    let shop = Shop::open(pool, cache).await;
    db.stop()?;
    let answer = shop.get(1).await;
    assert_eq!((answer.cached, answer.article.unwrap().name), (true, "cached tea".to_owned()));
    assert_eq!(shop.get(2).await.status, StatusCode::SERVICE_UNAVAILABLE);
    Ok(())
}

/// Looks into both servers, with blocking clients.
#[sandboxed_db(snapshot = articles, cache(engine = Redis, seed = "two_engines/cached.redis"))]
fn both_servers_have_their_data(mut db: postgres::Client, mut cache: redis::Connection) {
    let articles: i64 = db.query_one("select count(*) from articles", &[]).unwrap().get(0);
    assert_eq!(articles, 2);
    assert!(cache.get("article:1").unwrap().unwrap().contains("cached tea"));
    assert_eq!(cache.get("article:2").unwrap(), None);
}
