//! The header by which a registry asks for credentials.

/// The scheme of authentication that a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: String },
}

impl Challenge {
    /// Reads the header, RFC 9110, section 11.6.1.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, mut rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, String::new());
        while let Some((name, after)) = rest.split_once('=') {
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            match name.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => value.clone_into(&mut service),
                _ => {}
            }
            rest = after;
        }
        Some(Self::Bearer { realm: realm?, service })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read_in_any_order() {
        let bearer = |header: &str| Challenge::parse(header).unwrap();
        let expected = Challenge::Bearer { realm: "https://a.io/t?x=1".into(), service: "a.io".into() };
        assert_eq!(
            bearer("Bearer realm=\"https://a.io/t?x=1\",service=\"a.io\",scope=\"x:y:pull,push\""),
            expected
        );
        assert_eq!(bearer("bearer service=a.io, realm=\"https://a.io/t?x=1\""), expected);
        assert_eq!(bearer("Basic realm=\"a, b\""), Challenge::Basic);
        for other in ["", "Digest realm=\"x\"", "Bearer", "Bearer service=\"x\"", "Bearer realm=\"x"] {
            assert_eq!(Challenge::parse(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_challenge_panics(header in "(Bearer )?[a-z=\", ]{0,40}") {
            let _ = Challenge::parse(&header);
        }
    }
}
