//! The causes of a failure in the output of a package client, with the fix.

use std::io;

use super::of_image::{NO_SOURCE, UNNAMED_KEY};
use crate::cache;
use crate::error::{Error, ErrorKind};

/// The usual causes. A later one may follow from an earlier one, so their order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    NoClient,
    FullDisk,
    Damaged,
    Unsigned,
    Network,
    Unknown,
    Conflict,
    NoSource,
    UnnamedKey,
    Other,
}

const SIGNS: [(Cause, &[&str]); 8] = [
    (Cause::FullDisk, &["No space left on device", "enough free space", "Disk quota exceeded"]),
    (
        Cause::Damaged,
        &[
            "Hash Sum mismatch",
            "unexpected size",
            "is not a Debian format archive",
            "lzma error",
            "unexpected end of file",
        ],
    ),
    (
        Cause::Unsigned,
        &[
            "is not signed", "does not have a Release file", "NO_PUBKEY", "EXPKEYSIG", "BADSIG",
            "cannot be authenticated",
        ],
    ),
    (
        Cause::Network,
        &[
            "Failed to fetch", "Unable to fetch", "Could not resolve", "Could not connect",
            "Temporary failure", "did not end in time",
        ],
    ),
    (Cause::Unknown, &["Unable to locate package", "has no installation candidate", "was not found"]),
    (Cause::Conflict, &["unmet dependencies", "have held broken packages"]),
    (Cause::NoSource, &[NO_SOURCE]),
    (Cause::UnnamedKey, &[UNNAMED_KEY]),
];

fn cause(error: &io::Error, text: &str) -> Cause {
    match error.kind() {
        io::ErrorKind::NotFound if text.starts_with("run `") => Cause::NoClient,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Cause::FullDisk,
        _ => {
            let found = SIGNS.iter().find(|(_, signs)| signs.iter().any(|sign| text.contains(sign)));
            found.map_or(Cause::Other, |(cause, _)| *cause)
        }
    }
}

/// Returns the error of a failed `step`, which asked the sources in `sources`. `otherwise` is
/// another way to what the step is for, where it is a server.
///
/// Tests may be skipped for a missing server and for a machine that cannot fetch packages, not for
/// a wrong name.
pub(super) fn explained(step: String, error: io::Error, sources: &str, otherwise: Option<&str>) -> Error {
    let text = error.to_string();
    let found = cause(&error, &text);
    let (kind, advice) = match found {
        Cause::FullDisk => {
            return Error::new(ErrorKind::Cache, step).caused_by(text).with_fix(cache::full());
        }
        Cause::NoClient => (
            ErrorKind::NotInstalled,
            "packages are unpacked by `apt-get` and `dpkg-deb` of this machine, the programs of Debian and Ubuntu".to_owned(),
        ),
        Cause::Damaged => (
            ErrorKind::NotInstalled,
            "the mirror, or a proxy before it, delivered a damaged file, of which nothing is used: run the tests again"
                .to_owned(),
        ),
        Cause::Unsigned => (
            ErrorKind::NotInstalled,
            format!("a source in {sources} has no valid signature: `apt-get update` must accept it"),
        ),
        Cause::Network => (
            ErrorKind::NotInstalled,
            format!(
                "this machine does not reach the sources in {sources}: run once where it does, the cache directory keeps \
                 the packages"
            ),
        ),
        Cause::Unknown => (
            ErrorKind::InvalidConfig,
            format!(
                "the sources in {sources} have no such package: `apt-cache search` finds names, and further sources have \
                 more"
            ),
        ),
        Cause::Conflict => (
            ErrorKind::InvalidConfig,
            format!("the sources in {sources} have no versions that fit together: they may be of several releases"),
        ),
        Cause::NoSource => (
            ErrorKind::InvalidConfig,
            "use an image with sources by HTTP, or one that has the packages, and leave out `package`".to_owned(),
        ),
        Cause::UnnamedKey => (
            ErrorKind::InvalidConfig,
            "set SANDBOXED_DB_CACHE to a path of letters, digits and `/._-+~`".to_owned(),
        ),
        Cause::Other => (ErrorKind::NotInstalled, String::new()),
    };
    let advice = match (found, otherwise) {
        // A server's package is named by its engine, not by the user.
        (Cause::Unknown, Some(_)) => String::new(),
        _ => advice,
    };
    let kind = if otherwise.is_some() { ErrorKind::NotInstalled } else { kind };
    let hint = match (advice.as_str(), otherwise) {
        ("", None) => return Error::new(kind, step).caused_by(text),
        ("", Some(otherwise)) => otherwise.to_owned(),
        (advice, None) => advice.to_owned(),
        (advice, Some(otherwise)) => format!("{advice}; or {otherwise}"),
    };
    Error::new(kind, step).caused_by(text).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_of_a_failure_is_found() {
        let network = "W: Failed to fetch http://mirror.example/InRelease  Temporary failure resolving\n\
                       E: Unable to locate package redis-server";
        for (text, expected) in [
            (network, Cause::Network),
            ("E: Unable to locate package postgresql-15-none", Cause::Unknown),
            ("E: Version '9' for 'redis-server' was not found", Cause::Unknown),
            ("E: Failed to fetch http://mirror.example/x.deb  Hash Sum mismatch", Cause::Damaged),
            ("E: You don't have enough free space in /var/cache/apt/archives/.", Cause::FullDisk),
            ("dpkg-deb: error: failed to write: No space left on device", Cause::FullDisk),
            ("E: The repository 'http://mirror.example stable Release' is not signed.", Cause::Unsigned),
            ("E: Broken things", Cause::Other),
        ] {
            assert_eq!(cause(&io::Error::other(text), text), expected, "{text}");
        }
        let missing = io::Error::new(io::ErrorKind::NotFound, "run `apt-get`: No such file");
        assert_eq!(cause(&missing, &missing.to_string()), Cause::NoClient);
    }

    #[test]
    fn only_a_package_that_cannot_be_fetched_may_be_skipped() {
        let kind = |text: &str| {
            explained("get".to_owned(), io::Error::other(text.to_owned()), "/etc/apt", None).kind()
        };
        assert_eq!(kind("Could not connect to mirror.example"), ErrorKind::NotInstalled);
        assert_eq!(kind("Unable to locate package x"), ErrorKind::InvalidConfig);
        assert_eq!(kind("No space left on device"), ErrorKind::Cache);
        let error =
            explained("get".to_owned(), io::Error::other("Unable to fetch"), "/etc/apt", Some("install it"));
        assert!(error.hint().unwrap().ends_with("keeps the packages; or install it"));
        let error =
            explained("get".to_owned(), io::Error::other("was not found"), "/etc/apt", Some("install it"));
        assert_eq!((error.kind(), error.hint()), (ErrorKind::NotInstalled, Some("install it")));
    }
}
