//! This library; with its warm pool and without differ in the environment of their test processes only.

use postgres::{Client, NoTls};
use sandboxed_db::{Postgres, Snapshot};

use super::contestant::{Answered, Part, Tests};
use super::workload::Workload;
use crate::Outcome;
use crate::bare::Bare;

#[derive(Debug)]
pub(super) struct Sandboxes {
    snapshot: Snapshot,
}

impl Sandboxes {
    pub(super) fn new(part: &Part) -> Outcome<Self> {
        let mut snapshot = Snapshot::new(Postgres::new());
        if !matches!(part.workload, Workload::Empty) {
            snapshot = snapshot.migrations(&part.files);
        }
        if part.workload == Workload::Huge {
            snapshot = snapshot.disk(4 << 30);
        }
        // The layer.
        drop(snapshot.start()?);
        Ok(Self { snapshot })
    }
}

impl Tests for Sandboxes {
    fn test(&self, query: &'static str, answered: &Answered) -> Outcome<()> {
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
    pub(super) fn new() -> Outcome<Self> {
        let snapshot = Snapshot::new(Bare);
        drop(snapshot.start()?);
        Ok(Self { snapshot })
    }
}

impl Tests for Containers {
    fn test(&self, _query: &'static str, answered: &Answered) -> Outcome<()> {
        let _container = self.snapshot.start()?;
        answered();
        Ok(())
    }
}
