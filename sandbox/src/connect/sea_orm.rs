//! SeaORM.

/// Implements the parameter for one version of SeaORM and one database. The type is the same for
/// all databases, so a test names its engine.
macro_rules! parameter {
    ($sea_orm:ident, $engine:ident) => {
        use $sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr};

        use crate::connect::FromSandbox;
        use crate::engine::$engine;
        use crate::sandbox::Sandbox;

        /// A pool with SeaORM's default options, except that statements are not logged.
        #[diagnostic::do_not_recommend]
        impl FromSandbox<$engine> for DatabaseConnection {
            type Error = DbErr;

            async fn from_sandbox(sandbox: &Sandbox<$engine>) -> Result<Self, DbErr> {
                let mut options = ConnectOptions::new(sandbox.url());
                options.sqlx_logging(false);
                Database::connect(options).await
            }
        }
    };
}

#[cfg(feature = "sea-orm-1")]
mod postgres_v1 {
    parameter!(sea_orm_1, Postgres);
}
#[cfg(feature = "sea-orm")]
mod postgres_v2 {
    parameter!(sea_orm, Postgres);
}
#[cfg(feature = "sea-orm-1-mysql")]
mod mariadb_v1 {
    parameter!(sea_orm_1, MariaDb);
}
#[cfg(feature = "sea-orm-mysql")]
mod mariadb_v2 {
    parameter!(sea_orm, MariaDb);
}
