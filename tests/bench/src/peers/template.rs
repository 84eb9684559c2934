//! `CREATE DATABASE … TEMPLATE`, as pgtestdb and integresql do it, without their overhead.
//! Connections of administrators stay open, as in a pool.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use postgres::{Client, NoTls};

use super::contestant::{Answered, Assignment, Tests};
use super::server::load;
use crate::Result;

pub(super) struct Clones {
    server: String,
    strategy: &'static str,
    administrators: Mutex<Vec<Client>>,
    number: AtomicU64,
}

impl Clones {
    pub(super) fn new(assignment: &Assignment, strategy: &'static str) -> Result<Self> {
        let server = assignment.server()?.to_owned();
        let mut administrator = Client::connect(&server, NoTls)?;
        administrator.batch_execute("create database prepared")?;
        load(&mut Client::connect(&url(&server, "prepared"), NoTls)?, &assignment.files)?;
        administrator.batch_execute("alter database prepared is_template true allow_connections false")?;
        // Otherwise the first clone would write the pages of the preparation.
        administrator.batch_execute("checkpoint")?;
        let administrators = Mutex::new(vec![administrator]);
        Ok(Self { server, strategy, administrators, number: AtomicU64::new(0) })
    }
}

impl Tests for Clones {
    fn test(&self, query: &'static str, answered: &Answered) -> Result<()> {
        let idle = || self.administrators.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = idle().pop();
        let mut administrator = match spare {
            Some(administrator) => administrator,
            None => Client::connect(&self.server, NoTls)?,
        };
        let name = format!("test_{}", self.number.fetch_add(1, Ordering::Relaxed));
        let strategy = self.strategy;
        administrator
            .batch_execute(&format!("create database {name} template prepared strategy {strategy}"))?;
        let mut client = Client::connect(&url(&self.server, &name), NoTls)?;
        client.query_one(query, &[])?;
        answered();
        client.close()?;
        administrator.batch_execute(&format!("drop database {name} with (force)"))?;
        idle().push(administrator);
        Ok(())
    }
}

/// Replaces the database in the server's URL.
fn url(server: &str, database: &str) -> String {
    server.replacen("/postgres?", &format!("/{database}?"), 1)
}
