//! sqlx.

/// Implements the parameters for one version of sqlx.
macro_rules! parameters {
    ($sqlx:ident) => {
        use $sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
        use $sqlx::{ConnectOptions as _, Error};

        use crate::connect::FromSandbox;
        use crate::sandbox::Sandbox;

        impl FromSandbox for PgConnectOptions {
            type Error = Error;

            async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
                sandbox.url().parse()
            }
        }

        /// For a pool with options that the test sets, as with `#[sqlx::test]`.
        impl FromSandbox for (PgPoolOptions, PgConnectOptions) {
            type Error = Error;

            async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
                Ok((PgPoolOptions::new(), PgConnectOptions::from_sandbox(sandbox).await?))
            }
        }

        /// A pool with sqlx's default options. It connects once, so that an unreachable server
        /// fails here.
        impl FromSandbox for PgPool {
            type Error = Error;

            async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
                let (pool, options) = <(PgPoolOptions, PgConnectOptions)>::from_sandbox(sandbox).await?;
                pool.connect_with(options).await
            }
        }

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
