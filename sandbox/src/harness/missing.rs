//! Tests whose server is not installed: they fail or are skipped.

use crate::environment::MISSING;
use crate::error::{Error, ErrorKind, Result};

/// Returns `true` if the error skips the test instead of failing it.
pub(super) fn may_be_skipped(error: &Error) -> Result<bool> {
    Ok(error.kind() == ErrorKind::NotInstalled && MISSING.word()? == Some("skip"))
}
