//! `CREATE DATABASE … TEMPLATE`: what pgtestdb and integresql do, without their own cost. Administrators' connections are
//! kept, as a pool would.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use postgres::{Client, NoTls};

use super::contestant::{Answered, Part, Tests};
use super::server::load;
use crate::Outcome;

pub(super) struct Clones {
    server: String,
    strategy: &'static str,
    administrators: Mutex<Vec<Client>>,
    number: AtomicU64,
}

impl Clones {
    pub(super) fn new(part: &Part, strategy: &'static str) -> Outcome<Self> {
        let server = part.server()?.to_owned();
        let mut administrator = Client::connect(&server, NoTls)?;
        administrator.batch_execute("create database prepared")?;
        load(&mut Client::connect(&url(&server, "prepared"), NoTls)?, &part.files)?;
        administrator.batch_execute("alter database prepared is_template true allow_connections false")?;
        // Otherwise the first clone would pay for what the preparation wrote.
        administrator.batch_execute("checkpoint")?;
        let administrators = Mutex::new(vec![administrator]);
        Ok(Self { server, strategy, administrators, number: AtomicU64::new(0) })
    }
}

impl Tests for Clones {
    fn test(&self, query: &'static str, answered: &Answered) -> Outcome<()> {
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

/// The same server's URL, with another database in it.
fn url(server: &str, database: &str) -> String {
    server.replacen("/postgres?", &format!("/{database}?"), 1)
}
