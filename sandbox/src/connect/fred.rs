//! Parameters of fred.

use std::convert::Infallible;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::Builder;
use fred::types::config::{Config, ServerConfig};

use super::FromSandbox;
use crate::engine::Redis;
use crate::sandbox::Sandbox;

/// The address, for a client or a pool with other options.
impl FromSandbox<Redis> for Config {
    type Error = Infallible;

    async fn from_sandbox(sandbox: &Sandbox<Redis>) -> Result<Self, Self::Error> {
        // fred has no URL for a Unix socket of a path alone.
        let path = Redis::socket().below(&sandbox.root());
        Ok(Self { server: ServerConfig::Unix { path }, ..Self::default() })
    }
}

/// A connected client.
impl FromSandbox<Redis> for Client {
    type Error = Error;

    async fn from_sandbox(sandbox: &Sandbox<Redis>) -> Result<Self, Self::Error> {
        let Ok(config) = Config::from_sandbox(sandbox).await;
        let client = Builder::from_config(config).build()?;
        client.init().await?;
        Ok(client)
    }
}
