//! A sandbox of a test that runs in another process, for `sandboxed-db serve`.

use super::Witness;
use super::failure::{TO_KEEP, full};
use crate::engine::{Engine, Postgres};
use crate::error::Result;
use crate::report::Outcome;
use crate::sandbox::{EXIT_GRACE, KeepOutcome, Sandbox};
use crate::snapshot::Snapshot;

/// A sandbox whose test is judged by its caller.
#[derive(Debug)]
pub struct Session<E: Engine = Postgres> {
    sandbox: Sandbox<E>,
    witness: Witness,
}

/// The text for the output of a test, and its data.
#[derive(Debug)]
pub struct SessionEnd {
    /// Empty for a test that has not failed, unless its data could not be kept.
    pub report: String,
    /// The data, if it was to be kept.
    pub kept: Option<KeepOutcome>,
}

impl<E: Engine> Session<E> {
    /// Starts a sandbox for the test that this thread is named for.
    ///
    /// # Errors
    /// As [`Snapshot::start`].
    pub fn start(snapshot: &Snapshot<E>) -> Result<Self> {
        let mut sandbox = snapshot.start()?;
        let witness = Witness::of(&mut sandbox);
        Ok(Self { sandbox, witness })
    }

    #[must_use]
    pub fn sandbox(&self) -> &Sandbox<E> {
        &self.sandbox
    }

    /// Ends the sandbox of a test with that name and outcome; `message` is the reason of a failure.
    #[must_use]
    pub fn end(self, test: &str, outcome: Outcome, message: &str) -> SessionEnd {
        let Self { sandbox, witness } = self;
        let failed = outcome == Outcome::Failed;
        let mut report = Vec::new();
        if outcome != Outcome::Unknown {
            witness.report.judged(failed.then_some(message));
        }
        if failed {
            sandbox.diagnose(EXIT_GRACE);
            report.push(full(test, &witness));
        }
        let kept = witness.keeper.as_ref().and_then(|keeper| keeper.at_end(failed));
        match &kept {
            Some(kept) if failed || matches!(kept, KeepOutcome::NotKept(_)) => report.push(kept.to_string()),
            None if failed && witness.keeper.is_none() => report.push(TO_KEEP.to_owned()),
            _ => {}
        }
        SessionEnd { report: report.join("\n  "), kept }
    }
}
