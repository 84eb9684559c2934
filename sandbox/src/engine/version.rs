//! Version numbers in texts: in what programs print, and in names of directories and packages.

/// A text with a version number in it, such as `postgres (PostgreSQL) 15.18 (Debian
/// 15.18-0+deb12u1)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Version<'a>(pub(crate) &'a str);

impl<'a> Version<'a> {
    /// All numbers of the text, by which versions of one product are in order.
    pub(crate) fn numbers(self) -> impl Iterator<Item = u64> + use<'a> {
        self.0.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok())
    }

    /// The first number, such as 15.
    pub(crate) fn major(self) -> Option<u32> {
        self.numbers().next().and_then(|number| number.try_into().ok())
    }

    /// The first word that begins with a digit, perhaps after `v` or `v=`, such as `15.18`, or the
    /// whole text without one.
    pub(crate) fn number(self) -> &'a str {
        let words = self.0.split_ascii_whitespace();
        let mut words = words.map(|word| word.trim_start_matches(['v', '=']));
        words.find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or(self.0)
    }

    /// Checks whether this is the version wanted: 15.18 is for `15` and for `15.18`, and not for
    /// `15.1`.
    pub(crate) fn is(self, wanted: &str) -> bool {
        let rest = self.number().strip_prefix(wanted);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_matched_by_whole_numbers() {
        let version = Version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)");
        assert_eq!((version.number(), version.major()), ("15.18", Some(15)));
        assert!(version.is("15") && version.is("15.18"));
        assert!(!version.is("1") && !version.is("15.1") && !version.is("16"));
        let redis = Version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64");
        assert!(redis.is("7.0") && !redis.is("7.1") && redis.major() == Some(7));
        let beta = Version("postgres (PostgreSQL) 18beta1");
        assert_eq!((beta.number(), beta.major()), ("18beta1", Some(18)));
        assert_eq!(Version("/usr/lib/postgresql/15/bin").major(), Some(15));
        assert_eq!(Version("").major(), None);
        assert!(Version("a-15_15.9-1").numbers().lt(Version("a-15_15.18-1").numbers()));
    }
}
