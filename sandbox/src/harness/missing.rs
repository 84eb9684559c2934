//! What becomes of a test whose server is not installed.

use crate::error::{Error, ErrorKind, Result};

/// `fail`, which is the default, or `skip`.
const VARIABLE: &str = "SANDBOXED_DB_MISSING";

/// Whether the test is skipped for that error instead of failing.
pub(super) fn may_be_skipped(error: &Error) -> Result<bool> {
    if error.kind() != ErrorKind::NotInstalled {
        return Ok(false);
    }
    let wanted = std::env::var_os(VARIABLE).unwrap_or_default();
    parse(&wanted.to_string_lossy())
}

fn parse(value: &str) -> Result<bool> {
    match value {
        "" | "fail" => Ok(false),
        "skip" => Ok(true),
        other => Err(Error::new(ErrorKind::InvalidConfig, format!("use {VARIABLE}={other}")).with_hint(
            "it is `fail`, which is the default, or `skip`: what a test does whose server is not installed",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_installed_is_skipped_and_only_when_asked_for() {
        assert!(!may_be_skipped(&Error::new(ErrorKind::InvalidConfig, "go on")).unwrap());
        assert!(parse("skip").unwrap() && !parse("fail").unwrap() && !parse("").unwrap());
        let error = parse("ignore").unwrap_err();
        assert_eq!(error.to_string(), "use SANDBOXED_DB_MISSING=ignore");
        assert!(error.hint().is_some_and(|hint| hint.contains("`skip`")));
    }
}
