//! initdb and a server for each test, without a library.

use std::process::Command;

use postgres::{Client, NoTls};

use super::contestant::{Answered, Assignment, Tests};
use super::server::{Server, load};
use crate::Result;

/// PostgreSQL's default.
const MAX_CONNECTIONS: u32 = 100;

pub(super) struct InitDb(pub(super) Assignment);

impl Tests for InitDb {
    fn test(&self, query: &'static str, answered: &Answered) -> Result<()> {
        let Assignment { place, programs, settings, files, .. } = &self.0;
        let directory = tempfile::tempdir_in(place)?;
        let command = |program: &str| Command::new(programs.join(program));
        let server = Server::start(&command, directory.path().to_owned(), (*settings, &[]), MAX_CONNECTIONS)?;
        let mut client = Client::connect(&server.url("postgres"), NoTls)?;
        load(&mut client, files)?;
        client.query_one(query, &[])?;
        answered();
        Ok(())
    }
}
