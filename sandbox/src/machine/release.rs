//! The version of the kernel.

/// Parses the major and minor number of a release such as `6.8.0-45-generic`.
pub(crate) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    numbers.next().zip(numbers.next())
}

/// Returns `true` if the running kernel, uname(2), is of that version or newer. A kernel of unknown
/// version is not.
pub(crate) fn is_at_least(wanted: (u32, u32)) -> bool {
    version(&rustix::system::uname().release().to_string_lossy()).is_some_and(|version| version >= wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_parsed_by_number() {
        for (release, expected) in [
            ("6.14.0", Some((6, 14))),
            ("6.18.44-fc", Some((6, 18))),
            ("7.0", Some((7, 0))),
            ("5.15.0-100", Some((5, 15))),
            ("6", None),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
