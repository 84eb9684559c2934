//! When the state of a sandbox is kept.

use crate::error::{Error, ErrorKind, Result};

const VARIABLE: &str = "SANDBOXED_DB_KEEP";

/// When the data of a sandbox is kept after its end, for `sandboxed-db open` and `sandboxed-db diff`.
///
/// See [`Snapshot::keep`](crate::Snapshot::keep).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// Nothing outlives a sandbox.
    #[default]
    Never,
    /// When its test fails.
    OnFailure,
    /// However its test ends.
    Always,
}

/// The policy from the environment, or else from the description.
pub(crate) fn wanted(described: Keep) -> Result<Keep> {
    match std::env::var_os(VARIABLE) {
        None => Ok(described),
        Some(value) => Ok(parse(&value.to_string_lossy())?.unwrap_or(described)),
    }
}

fn parse(value: &str) -> Result<Option<Keep>> {
    match value {
        "" => Ok(None),
        "never" => Ok(Some(Keep::Never)),
        "on_failure" => Ok(Some(Keep::OnFailure)),
        "always" => Ok(Some(Keep::Always)),
        other => Err(Error::new(ErrorKind::InvalidConfig, format!("use {VARIABLE}={other}"))
            .with_hint("it is `never`, `on_failure` or `always`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_parsed_by_their_names() {
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(parse("never").unwrap(), Some(Keep::Never));
        assert_eq!(parse("on_failure").unwrap(), Some(Keep::OnFailure));
        assert_eq!(parse("always").unwrap(), Some(Keep::Always));
        let error = parse("yes").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.hint().unwrap().contains("`on_failure`"), "{error:?}");
    }
}
