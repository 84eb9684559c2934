//! When the state of a sandbox is kept.

use crate::environment::KEEP;
use crate::error::Result;

/// Decides whether the data of a sandbox is kept after its end, for `sandboxed-db open` and
/// `sandboxed-db diff`.
///
/// See [`Snapshot::keep`](crate::Snapshot::keep).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// Keeps nothing.
    #[default]
    Never,
    /// Keeps the data if the test fails.
    OnFailure,
    /// Keeps the data, whether the test passes or fails.
    Always,
}

/// Returns the policy from the environment, or else from the description.
pub(crate) fn wanted(described: Keep) -> Result<Keep> {
    Ok(match KEEP.word()? {
        Some("never") => Keep::Never,
        Some("on_failure") => Keep::OnFailure,
        Some(_) => Keep::Always,
        None => described,
    })
}
