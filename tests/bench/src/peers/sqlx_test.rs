//! `#[sqlx::test]`: makes the calls to which the attribute expands.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::migrate::Migrator;
use sqlx::testing::{TestArgs, TestFn};
use sqlx::{PgPool, Row};

use super::contestant::{Answered, Assignment, Tests};
use super::workload::Workload;
use crate::Result;

thread_local! {
    /// The task of the test on this thread: sqlx takes a plain function and calls it on the calling
    /// thread.
    static TASK: RefCell<Option<(&'static str, Answered)>> = const { RefCell::new(None) };
}

pub(super) struct SqlxTests {
    migrator: Option<&'static Migrator>,
    number: AtomicU64,
}

impl SqlxTests {
    pub(super) fn new(assignment: &Assignment) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let migrator = match assignment.workload {
            Workload::Empty => None,
            // The attribute embeds migrations at compile time, so they are not read by a test here
            // either.
            _ => Some(&*Box::leak(Box::new(runtime.block_on(Migrator::new(assignment.files.as_path()))?))),
        };
        Ok(Self { migrator, number: AtomicU64::new(0) })
    }
}

impl Tests for SqlxTests {
    fn test(&self, query: &'static str, answered: &Answered) -> Result<()> {
        // sqlx takes names as constants; each leaks a few bytes.
        let path: &'static str =
            Box::leak(format!("bench::t{}", self.number.fetch_add(1, Ordering::Relaxed)).into());
        let mut arguments = TestArgs::new(path);
        if let Some(migrator) = self.migrator {
            arguments.migrator(migrator);
        }
        TASK.set(Some((query, answered.clone())));
        let function: fn(PgPool) -> _ = query_once;
        Ok(TestFn::run_test(function, arguments)?)
    }
}

async fn query_once(pool: PgPool) -> Result<(), sqlx::Error> {
    let Some((query, answered)) = TASK.take() else {
        return Err(sqlx::Error::Configuration("the test runs on another thread than its caller".into()));
    };
    let mut connection = pool.acquire().await?;
    let row = sqlx::query(query).fetch_one(&mut *connection).await?;
    if row.is_empty() {
        return Err(sqlx::Error::RowNotFound);
    }
    answered();
    Ok(())
}
