//! The crate postgresql_embedded, with the installed PostgreSQL.

use postgresql_embedded::{PostgreSQL, SettingsBuilder};

use super::contestant::{Answered, Assignment, Tests};
use super::server::{connect_soon, load};
use crate::Result;

pub(super) struct Embedded(pub(super) Assignment);

impl Tests for Embedded {
    fn test(&self, query: &'static str, answered: &Answered) -> Result<()> {
        let Assignment { place, programs, settings, files, .. } = &self.0;
        let directory = tempfile::tempdir_in(place)?;
        let mut builder = SettingsBuilder::new()
            .installation_dir(
                programs.parent().ok_or("the directory of PostgreSQL's programs has no parent")?,
            )
            .trust_installation_dir(true)
            .data_dir(directory.path().join("data"))
            .password_file(directory.path().join("password"))
            .socket_dir(directory.path().join("socket"))
            .temporary(true);
        for (name, value) in settings.configuration() {
            builder = builder.config(*name, *value);
        }
        let mut server = PostgreSQL::new(builder.build());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            server.setup().await?;
            server.start().await
        })?;
        let mut client = connect_soon(&server.settings().url("postgres"))?;
        load(&mut client, files)?;
        client.query_one(query, &[])?;
        answered();
        client.close()?;
        // Stops the server and removes its data.
        drop(server);
        Ok(())
    }
}
