//! The crate pgtemp: a server for each test, by initdb.

use ::pgtemp::PgTempDBBuilder;

use super::contestant::{Answered, Part, Tests};
use super::server::{connect_soon, load};
use crate::Outcome;

#[derive(Debug)]
pub(super) struct PgTemp {
    part: Part,
}

impl PgTemp {
    pub(super) fn new(part: &Part) -> Self {
        Self { part: part.clone() }
    }
}

impl Tests for PgTemp {
    fn test(&self, query: &'static str, answered: &Answered) -> Outcome<()> {
        let mut builder = PgTempDBBuilder::new().with_data_dir_prefix(&self.part.place);
        builder.bin_path = Some(self.part.programs.clone());
        for (name, value) in self.part.settings.configuration() {
            builder = builder.with_config_param(name, value);
        }
        let server = builder.start();
        let mut client = connect_soon(&server.connection_uri())?;
        load(&mut client, &self.part.files)?;
        client.query_one(query, &[])?;
        answered();
        client.close()?;
        server.shutdown();
        Ok(())
    }
}
