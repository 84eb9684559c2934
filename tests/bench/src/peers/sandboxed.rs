//! This library. The environment of the test process turns the pool on or off.

use postgres::{Client, NoTls};
use sandboxed_db::{Postgres, Snapshot};

use super::contestant::{Answered, Assignment, Tests};
use super::workload::Workload;
use crate::Result;
use crate::bare::Bare;

#[derive(Debug)]
pub(super) struct Sandboxes {
    snapshot: Snapshot,
}

impl Sandboxes {
    pub(super) fn new(assignment: &Assignment) -> Result<Self> {
        let mut snapshot = Snapshot::new(Postgres::new());
        if !matches!(assignment.workload, Workload::Empty) {
            snapshot = snapshot.migrations(&assignment.files);
        }
        if assignment.workload == Workload::Huge {
            snapshot = snapshot.disk(4 << 30);
        }
        // Builds the layer.
        drop(snapshot.start()?);
        Ok(Self { snapshot })
    }
}

impl Tests for Sandboxes {
    fn test(&self, query: &'static str, answered: &Answered) -> Result<()> {
        let db = self.snapshot.start()?;
        let mut client = Client::connect(db.url(), NoTls)?;
        client.query_one(query, &[])?;
        answered();
        Ok(())
    }
}

/// Containers without a server.
#[derive(Debug)]
pub(super) struct Containers {
    snapshot: Snapshot<Bare>,
}

impl Containers {
    pub(super) fn new() -> Result<Self> {
        let snapshot = Snapshot::new(Bare);
        drop(snapshot.start()?);
        Ok(Self { snapshot })
    }
}

impl Tests for Containers {
    fn test(&self, _query: &'static str, answered: &Answered) -> Result<()> {
        let _container = self.snapshot.start()?;
        answered();
        Ok(())
    }
}
