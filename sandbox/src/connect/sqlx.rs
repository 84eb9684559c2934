//! sqlx.

/// Implements the parameters for one version of sqlx and one database.
macro_rules! parameters {
    (
        $sqlx:ident :: $module:ident, $engine:ident, $database:ident,
        $options:ident, $connection:ident, $pool:ident, $pool_options:ident
    ) => {
        use std::convert::Infallible;

        use $sqlx::pool::PoolConnection;
        use $sqlx::$module::{$connection, $options, $pool, $pool_options};
        use $sqlx::{ConnectOptions as _, Error};

        use crate::connect::FromSandbox;
        use crate::engine;
        use crate::sandbox::Sandbox;

        #[diagnostic::do_not_recommend]
        impl FromSandbox<engine::$engine> for $options {
            type Error = Error;

            async fn from_sandbox(sandbox: &Sandbox<engine::$engine>) -> Result<Self, Error> {
                sandbox.url().parse()
            }
        }

        /// For a pool with options that the test sets, beside the options of its connections.
        #[diagnostic::do_not_recommend]
        impl FromSandbox<engine::$engine> for $pool_options {
            type Error = Infallible;

            async fn from_sandbox(_: &Sandbox<engine::$engine>) -> Result<Self, Infallible> {
                Ok(Self::new())
            }
        }

        /// A pool with sqlx's default options. It connects once, so that an unreachable server
        /// fails here.
        #[diagnostic::do_not_recommend]
        impl FromSandbox<engine::$engine> for $pool {
            type Error = Error;

            async fn from_sandbox(sandbox: &Sandbox<engine::$engine>) -> Result<Self, Error> {
                $pool_options::new().connect_with($options::from_sandbox(sandbox).await?).await
            }
        }

        #[diagnostic::do_not_recommend]
        impl FromSandbox<engine::$engine> for PoolConnection<$sqlx::$database> {
            type Error = Error;

            async fn from_sandbox(sandbox: &Sandbox<engine::$engine>) -> Result<Self, Error> {
                $pool::from_sandbox(sandbox).await?.acquire().await
            }
        }

        #[diagnostic::do_not_recommend]
        impl FromSandbox<engine::$engine> for $connection {
            type Error = Error;

            async fn from_sandbox(sandbox: &Sandbox<engine::$engine>) -> Result<Self, Error> {
                $options::from_sandbox(sandbox).await?.connect().await
            }
        }
    };
}

#[cfg(any(feature = "sqlx", feature = "sqlx-0-8"))]
macro_rules! of_postgres {
    ($sqlx:ident) => {
        parameters!(
            $sqlx::postgres,
            Postgres,
            Postgres,
            PgConnectOptions,
            PgConnection,
            PgPool,
            PgPoolOptions
        );
    };
}

#[cfg(any(feature = "sqlx-mysql", feature = "sqlx-0-8-mysql"))]
macro_rules! of_mariadb {
    ($sqlx:ident) => {
        parameters!(
            $sqlx::mysql,
            MariaDb,
            MySql,
            MySqlConnectOptions,
            MySqlConnection,
            MySqlPool,
            MySqlPoolOptions
        );
    };
}

#[cfg(feature = "sqlx-0-8")]
mod postgres_v0_8 {
    of_postgres!(sqlx_0_8);
}
#[cfg(feature = "sqlx")]
mod postgres_v0_9 {
    of_postgres!(sqlx);
}
#[cfg(feature = "sqlx-0-8-mysql")]
mod mariadb_v0_8 {
    of_mariadb!(sqlx_0_8);
}
#[cfg(feature = "sqlx-mysql")]
mod mariadb_v0_9 {
    of_mariadb!(sqlx);
}
