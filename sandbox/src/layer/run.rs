//! The test run that a layer is built by, and whether layers of earlier runs are rebuilt.

use std::sync::OnceLock;

use crate::environment::REBUILD;
use crate::machine::process::identity;
use crate::test_id::shared_run;

/// Names the run: the shared one, or this process.
pub(super) fn id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| shared_run().map_or_else(|| identity(std::process::id()), str::to_owned))
}

/// Returns `true` if layers of earlier runs are to be rebuilt.
pub(super) fn rebuilds() -> bool {
    // Other values are refused at the beginning of each start.
    matches!(REBUILD.word(), Ok(Some("1")))
}
