//! diesel-async.

/// Implements the parameter for one version of diesel-async.
macro_rules! parameter {
    ($diesel_async:ident) => {
        use std::error::Error;

        use $diesel_async::{AsyncConnection as _, AsyncPgConnection};

        use crate::connect::FromSandbox;
        use crate::sandbox::Sandbox;

        /// A task drives the connection, and ends with the connection or with the test.
        #[diagnostic::do_not_recommend]
        impl FromSandbox for AsyncPgConnection {
            // The exact type is Diesel's, which is a dependency only with the feature `diesel`.
            type Error = Box<dyn Error + Send + Sync>;

            async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error> {
                Ok(Self::establish(sandbox.url()).await?)
            }
        }
    };
}

#[cfg(feature = "diesel-async-0-7")]
mod v0_7 {
    parameter!(diesel_async_0_7);
}
#[cfg(feature = "diesel-async-0-8")]
mod v0_8 {
    parameter!(diesel_async_0_8);
}
#[cfg(feature = "diesel-async")]
mod v0_9 {
    parameter!(diesel_async);
}
