//! The migrations of a test whose attribute names none.

use std::path::Path;

use super::Test;
use crate::engine::Postgres;
use crate::snapshot::Snapshot;
use crate::step::holds_scripts;

/// Where they are searched, in the package of the test.
const DIRECTORY: &str = "migrations";

impl Test {
    /// Returns the description that the arguments of the attribute extend, where none says how the
    /// schema is made.
    ///
    /// The directory is searched when the test runs: cargo does not compile a crate again when a
    /// directory appears.
    #[must_use]
    pub fn discovered(&self) -> Snapshot {
        let snapshot = self.extend(Snapshot::new(Postgres::new()));
        if !holds_scripts(&snapshot.package_directory().join(DIRECTORY)) {
            return snapshot;
        }
        tracing::info!(package = %snapshot.package_directory().display(), "found `{DIRECTORY}`");
        snapshot.found_migrations(Path::new(DIRECTORY))
    }
}
