//! Descriptions of databases as a suite's own support crate has them: their paths are relative to
//! this package, whichever package is under test.

use sandboxed_db::{Postgres, Snapshot};

/// A database with one account.
#[must_use]
pub fn accounts() -> Snapshot {
    Snapshot::new(Postgres::new()).migrations("migrations")
}

/// The same, prepared by a program that finds its files in this package.
#[must_use]
pub fn checked_accounts() -> Snapshot {
    accounts().depends_on(["migrations"]).run("test", ["-f", "migrations/1_accounts.sql"])
}

/// A description with a directory that does not exist.
#[must_use]
pub fn missing_migrations() -> Snapshot {
    Snapshot::new(Postgres::new()).migrations("no/such/directory")
}
