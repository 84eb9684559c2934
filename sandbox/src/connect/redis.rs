//! Parameters of redis.

use redis::aio::{ConnectionManager, MultiplexedConnection};
use redis::{Client, Connection, RedisError};

use super::FromSandbox;
use crate::engine::Redis;
use crate::sandbox::Sandbox;

/// A client, which connects when it is used.
impl FromSandbox<Redis> for Client {
    type Error = RedisError;

    async fn from_sandbox(sandbox: &Sandbox<Redis>) -> Result<Self, Self::Error> {
        Self::open(sandbox.url())
    }
}

/// A connection for plain tests.
impl FromSandbox<Redis> for Connection {
    type Error = RedisError;

    async fn from_sandbox(sandbox: &Sandbox<Redis>) -> Result<Self, Self::Error> {
        Client::open(sandbox.url())?.get_connection()
    }
}

/// A connection that all tasks of a test may share.
impl FromSandbox<Redis> for MultiplexedConnection {
    type Error = RedisError;

    async fn from_sandbox(sandbox: &Sandbox<Redis>) -> Result<Self, Self::Error> {
        Client::open(sandbox.url())?.get_multiplexed_async_connection().await
    }
}

/// A connection that connects again after it was lost.
impl FromSandbox<Redis> for ConnectionManager {
    type Error = RedisError;

    async fn from_sandbox(sandbox: &Sandbox<Redis>) -> Result<Self, Self::Error> {
        Self::new(Client::open(sandbox.url())?).await
    }
}
