//! `#[sqlx::test]`: the calls that the attribute expands to, so that tests can be made of them by the thousand.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::migrate::Migrator;
use sqlx::testing::{TestArgs, TestFn};
use sqlx::{PgPool, Row};

use super::contestant::{Answered, Part, Tests};
use super::workload::Workload;
use crate::Outcome;

thread_local! {
    /// What the test on this thread is to do: sqlx takes a plain function, and calls it on the thread that asks.
    static TASK: RefCell<Option<(&'static str, Answered)>> = const { RefCell::new(None) };
}

pub(super) struct SqlxTests {
    migrator: Option<&'static Migrator>,
    number: AtomicU64,
}

impl SqlxTests {
    pub(super) fn new(part: &Part) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let migrator = match part.workload {
            Workload::Empty => None,
            // The attribute compiles migrations in; reading them here is no part of a test either.
            _ => Some(&*Box::leak(Box::new(runtime.block_on(Migrator::new(part.files.as_path()))?))),
        };
        Ok(Self { migrator, number: AtomicU64::new(0) })
    }
}

impl Tests for SqlxTests {
    fn test(&self, query: &'static str, answered: &Answered) -> Outcome<()> {
        // Names are constants of the program, and one is made for each test: some bytes each, for as long as it runs.
        let path: &'static str =
            Box::leak(format!("bench::t{}", self.number.fetch_add(1, Ordering::Relaxed)).into());
        let mut arguments = TestArgs::new(path);
        if let Some(migrator) = self.migrator {
            arguments.migrator(migrator);
        }
        TASK.set(Some((query, answered.clone())));
        let function: fn(PgPool) -> _ = ask;
        Ok(TestFn::run_test(function, arguments)?)
    }
}

async fn ask(pool: PgPool) -> Result<(), sqlx::Error> {
    let Some((query, answered)) = TASK.take() else {
        return Err(sqlx::Error::Configuration("the test runs on another thread than asked for it".into()));
    };
    let mut connection = pool.acquire().await?;
    let row = sqlx::query(query).fetch_one(&mut *connection).await?;
    if row.is_empty() {
        return Err(sqlx::Error::RowNotFound);
    }
    answered();
    Ok(())
}
