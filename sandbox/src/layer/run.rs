//! The test run that this process belongs to, and whether its layers are to be rebuilt.

use std::sync::OnceLock;

use crate::machine::process::identity;

const VARIABLE: &str = "SANDBOXED_DB_REBUILD";

/// Names the run of many processes that this one is part of: nextest's.
pub(super) fn shared() -> Option<&'static str> {
    static SHARED: OnceLock<Option<String>> = OnceLock::new();
    SHARED.get_or_init(|| std::env::var("NEXTEST_RUN_ID").ok()).as_deref()
}

/// Names the run: the shared one, or this process.
pub(super) fn id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| shared().map_or_else(|| identity(std::process::id()), str::to_owned))
}

/// Whether layers of earlier runs are to be rebuilt.
pub(super) fn rebuilds() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty() && value != "0")
}
