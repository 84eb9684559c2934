//! The crate pgtemp: initdb and a server for each test.

use ::pgtemp::PgTempDBBuilder;

use super::contestant::{Answered, Assignment, Tests};
use super::server::{connect_soon, load};
use crate::Result;

pub(super) struct PgTemp(pub(super) Assignment);

impl Tests for PgTemp {
    fn test(&self, query: &'static str, answered: &Answered) -> Result<()> {
        let mut builder = PgTempDBBuilder::new().with_data_dir_prefix(&self.0.place);
        builder.bin_path = Some(self.0.programs.clone());
        for (name, value) in self.0.settings.configuration() {
            builder = builder.with_config_param(name, value);
        }
        let server = builder.start();
        let mut client = connect_soon(&server.connection_uri())?;
        load(&mut client, &self.0.files)?;
        client.query_one(query, &[])?;
        answered();
        client.close()?;
        server.shutdown();
        Ok(())
    }
}
