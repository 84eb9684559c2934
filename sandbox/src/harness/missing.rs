//! Tests whose server is not installed: they fail or are skipped.

use crate::environment::MISSING;
use crate::error::{Error, ErrorKind, Result};

/// Whether the test is skipped for that error instead of failing.
pub(super) fn may_be_skipped(error: &Error) -> Result<bool> {
    Ok(error.kind() == ErrorKind::NotInstalled && MISSING.word()? == Some("skip"))
}
