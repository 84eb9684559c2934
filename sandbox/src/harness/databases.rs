//! The databases of a test: described by the attribute, started together, lent to the parameters.

use std::cell::{Ref, RefCell};
use std::sync::Arc;

use super::Test;
use crate::engine::{Engine, Postgres};
use crate::report;
use crate::sandbox::{EXIT_GRACE, Keeper, Postmortem, Sandbox};
use crate::snapshot::Snapshot;
use crate::timings::Timings;

/// Facts about a sandbox of a test, which stay available when the test drops its handle.
#[derive(Debug)]
pub struct Witness {
    pub(super) pid: u32,
    pub(super) timings: Timings,
    pub(super) postmortem: Arc<Postmortem>,
    pub(super) report: report::Recorder,
    /// Holds the container too.
    pub(super) keeper: Option<Box<dyn Keeper>>,
}

impl Witness {
    pub(super) fn of<E: Engine>(sandbox: &mut Sandbox<E>) -> Self {
        Self {
            pid: sandbox.pid(),
            timings: sandbox.timings(),
            postmortem: sandbox.postmortem().clone(),
            report: sandbox.report().clone(),
            keeper: sandbox.take_keeper(),
        }
    }
}

/// A running server of a test, until a parameter takes it.
#[derive(Debug)]
pub struct Lease<E: Engine = Postgres> {
    sandbox: RefCell<Option<Sandbox<E>>>,
    description: Snapshot<E>,
    postmortem: Arc<Postmortem>,
}

const TAKEN: &str =
    "two parameters of the test take the sandbox itself, one of them by value: take `&Sandbox` in both";

impl<E: Engine> Lease<E> {
    pub(super) fn lend(&self) -> Ref<'_, Sandbox<E>> {
        Ref::map(self.sandbox.borrow(), |sandbox| sandbox.as_ref().expect(TAKEN))
    }

    pub(super) fn take(&self) -> Sandbox<E> {
        let taken = self.sandbox.try_borrow_mut().ok().and_then(|mut sandbox| sandbox.take());
        taken.expect(TAKEN)
    }
}

/// Descriptions of databases, `(first, (second, ()))`, whose engines may differ.
pub trait Databases {
    type Leases: Leases;
    /// # Errors
    /// The error of the first database that does not start.
    fn start(self, test: Test, witnesses: &mut Vec<Witness>) -> crate::Result<Self::Leases>;

    /// Prepares the layers, and starts nothing.
    ///
    /// # Errors
    /// The error of the first layer that cannot be built.
    fn prepare(&self) -> crate::Result<()>;
}

/// Running databases, `(first, (second, ()))`.
pub trait Leases {
    /// Notes a cause of failure for each server.
    fn diagnose(&self);
}

impl Databases for () {
    type Leases = ();

    fn start(self, _: Test, _: &mut Vec<Witness>) -> crate::Result<()> {
        Ok(())
    }

    fn prepare(&self) -> crate::Result<()> {
        Ok(())
    }
}

impl<E: Engine, D: Databases> Databases for (Snapshot<E>, D) {
    type Leases = (Lease<E>, D::Leases);

    fn start(self, test: Test, witnesses: &mut Vec<Witness>) -> crate::Result<Self::Leases> {
        let mut sandbox = self.0.start_for_test(Some(test.function()))?;
        witnesses.push(Witness::of(&mut sandbox));
        let postmortem = sandbox.postmortem().clone();
        let lease = Lease { sandbox: RefCell::new(Some(sandbox)), description: self.0, postmortem };
        Ok((lease, self.1.start(test, witnesses)?))
    }

    fn prepare(&self) -> crate::Result<()> {
        self.0.prepare_layer()?;
        self.1.prepare()
    }
}

impl Leases for () {
    fn diagnose(&self) {}
}

impl<E: Engine, L: Leases> Leases for (Lease<E>, L) {
    fn diagnose(&self) {
        // After a panic the sandbox may still be lent; a shared borrow is possible.
        let lease = &self.0;
        if let Some(sandbox) = lease.sandbox.try_borrow().ok().as_deref().and_then(Option::as_ref) {
            sandbox.diagnose(EXIT_GRACE);
        }
        if let Some(advice) = lease.description.migrated_twice(&lease.postmortem.log()) {
            lease.postmortem.diagnosed(advice);
        }
        self.1.diagnose();
    }
}
