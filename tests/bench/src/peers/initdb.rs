//! initdb, and a server on what it made: a test's own server without any library.

use std::process::Command;

use postgres::{Client, NoTls};

use super::contestant::{Answered, Part, Tests};
use super::server::{Server, load};
use crate::Outcome;

/// PostgreSQL's own default.
const MAX_CONNECTIONS: u32 = 100;

#[derive(Debug)]
pub(super) struct InitDb {
    part: Part,
}

impl InitDb {
    pub(super) fn new(part: &Part) -> Self {
        Self { part: part.clone() }
    }
}

impl Tests for InitDb {
    fn test(&self, query: &'static str, answered: &Answered) -> Outcome<()> {
        let Part { place, programs, settings, files, .. } = &self.part;
        let directory = tempfile::tempdir_in(place)?;
        let command = |program: &str| Command::new(programs.join(program));
        let server = Server::start(&command, directory.path().to_owned(), *settings, MAX_CONNECTIONS)?;
        let mut client = Client::connect(&server.url("postgres"), NoTls)?;
        load(&mut client, files)?;
        client.query_one(query, &[])?;
        answered();
        Ok(())
    }
}
