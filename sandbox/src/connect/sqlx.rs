//! sqlx.

/// Implements the parameters for one version of sqlx.
macro_rules! parameters {
    ($sqlx:ident) => {
        use std::convert::Infallible;

        use $sqlx::pool::PoolConnection;
        use $sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
        use $sqlx::{ConnectOptions as _, Error, Postgres};

        use crate::connect::FromSandbox;
        use crate::sandbox::Sandbox;

        #[diagnostic::do_not_recommend]
        impl FromSandbox for PgConnectOptions {
            type Error = Error;

            async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
                sandbox.url().parse()
            }
        }

        /// For a pool with options that the test sets, beside `PgConnectOptions`.
        #[diagnostic::do_not_recommend]
        impl FromSandbox for PgPoolOptions {
            type Error = Infallible;

            async fn from_sandbox(_: &Sandbox) -> Result<Self, Infallible> {
                Ok(Self::new())
            }
        }

        /// A pool with sqlx's default options. It connects once, so that an unreachable server
        /// fails here.
        #[diagnostic::do_not_recommend]
        impl FromSandbox for PgPool {
            type Error = Error;

            async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
                PgPoolOptions::new().connect_with(PgConnectOptions::from_sandbox(sandbox).await?).await
            }
        }

        #[diagnostic::do_not_recommend]
        impl FromSandbox for PoolConnection<Postgres> {
            type Error = Error;

            async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
                PgPool::from_sandbox(sandbox).await?.acquire().await
            }
        }

        #[diagnostic::do_not_recommend]
        impl FromSandbox for PgConnection {
            type Error = Error;

            async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
                PgConnectOptions::from_sandbox(sandbox).await?.connect().await
            }
        }
    };
}

#[cfg(feature = "sqlx-0-8")]
mod v0_8 {
    parameters!(sqlx_0_8);
}
#[cfg(feature = "sqlx")]
mod v0_9 {
    parameters!(sqlx);
}
