//! The crate pgtemp: initdb and a server for each test.

use ::pgtemp::PgTempDBBuilder;

use super::contestant::{Answered, Assignment, Tests};
use super::server::{connect_soon, load};
use crate::Result;

#[derive(Debug)]
pub(super) struct PgTemp {
    assignment: Assignment,
}

impl PgTemp {
    pub(super) fn new(assignment: &Assignment) -> Self {
        Self { assignment: assignment.clone() }
    }
}

impl Tests for PgTemp {
    fn test(&self, query: &'static str, answered: &Answered) -> Result<()> {
        let mut builder = PgTempDBBuilder::new().with_data_dir_prefix(&self.assignment.place);
        builder.bin_path = Some(self.assignment.programs.clone());
        for (name, value) in self.assignment.settings.configuration() {
            builder = builder.with_config_param(name, value);
        }
        let server = builder.start();
        let mut client = connect_soon(&server.connection_uri())?;
        load(&mut client, &self.assignment.files)?;
        client.query_one(query, &[])?;
        answered();
        client.close()?;
        server.shutdown();
        Ok(())
    }
}
