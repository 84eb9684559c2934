//! SeaORM.

/// Implements the parameter for one version of SeaORM.
macro_rules! parameter {
    ($sea_orm:ident) => {
        use $sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr};

        use crate::connect::FromSandbox;
        use crate::sandbox::Sandbox;

        /// A pool with SeaORM's default options, except that statements are not logged.
        #[diagnostic::do_not_recommend]
        impl FromSandbox for DatabaseConnection {
            type Error = DbErr;

            async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, DbErr> {
                let mut options = ConnectOptions::new(sandbox.url());
                options.sqlx_logging(false);
                Database::connect(options).await
            }
        }
    };
}

#[cfg(feature = "sea-orm-1")]
mod v1 {
    parameter!(sea_orm_1);
}
#[cfg(feature = "sea-orm")]
mod v2 {
    parameter!(sea_orm);
}
