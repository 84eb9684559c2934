//! References to images, as skopeo(1) spells them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::digest::Sha256;

/// The accepted forms, for errors.
const FORMS: &str = "`oci:DIRECTORY[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME:TAG]`, \
                     or a name in a registry such as `docker.io/library/postgres:17`";

/// Kinds of skopeo(1) that would else be names of repositories on docker.io.
const FOREIGN: [&str; 4] = ["containers-storage:", "dir:", "docker-daemon:", "ostree:"];

/// The place of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// A directory in the image layout of the Open Container Initiative.
    Layout {
        directory: PathBuf,
        tag: Option<String>,
    },
    /// Such a directory in a tar archive.
    LayoutArchive {
        file: PathBuf,
        tag: Option<String>,
    },
    /// An archive of `docker save`.
    DockerArchive {
        file: PathBuf,
        name: Option<String>,
    },
    Registry(RegistryReference),
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegistryReference {
    /// `http` for registries on this machine's loopback.
    pub(crate) is_http: bool,
    /// A name or an address, perhaps with a port.
    pub(crate) host: String,
    pub(crate) repository: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<Sha256>,
}

impl Reference {
    /// Returns the same place, whose relative path starts at `base`.
    pub(crate) fn relative_to(mut self, base: &Path) -> Self {
        match &mut self {
            Self::Layout { directory: path, .. }
            | Self::LayoutArchive { file: path, .. }
            | Self::DockerArchive { file: path, .. } => *path = base.join(&path),
            Self::Registry(_) => {}
        }
        self
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let empty = || format!("a path is missing in `{text}`; accepted are {FORMS}");
        let path = |rest: &str| {
            // A path with a colon is not possible here, nor is it with skopeo.
            let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
            let tag = tag.filter(|tag| !tag.is_empty()).map(str::to_owned);
            if path.is_empty() { Err(empty()) } else { Ok((PathBuf::from(path), tag)) }
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            path(rest).map(|(directory, tag)| Self::Layout { directory, tag })
        } else if let Some(rest) = text.strip_prefix("oci-archive:") {
            path(rest).map(|(file, tag)| Self::LayoutArchive { file, tag })
        } else if let Some(rest) = text.strip_prefix("docker-archive:") {
            path(rest).map(|(file, name)| Self::DockerArchive { file, name })
        } else if let Some(kind) = FOREIGN.into_iter().find(|kind| text.starts_with(kind)) {
            Err(format!("images of the kind `{kind}` are not read; accepted are {FORMS}"))
        } else {
            registry(text).map(Self::Registry).map_err(|why| format!("{why}; accepted are {FORMS}"))
        }
    }
}

impl FromStr for RegistryReference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        registry(text)
    }
}

fn registry(text: &str) -> Result<RegistryReference, String> {
    let wrong = |why: &str| format!("`{text}` is no reference to an image: {why}");
    let (is_http, rest) = match text.strip_prefix("http://") {
        Some(rest) => (true, rest),
        None => {
            (false, ["docker://", "https://"].iter().find_map(|it| text.strip_prefix(it)).unwrap_or(text))
        }
    };
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse().map_err(|why: String| wrong(&why))?)),
        None => (rest, None),
    };
    // A colon in the last part begins a tag, one in the first a port.
    let name_from = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (rest, tag) = match rest[name_from..].split_once(':') {
        Some((name, tag)) => (&rest[..name_from + name.len()], Some(tag.to_owned())),
        None => (rest, None),
    };
    let (host, repository) = match rest.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest.to_owned()),
        _ => ("docker.io", rest.to_owned()),
    };
    let repository = match host {
        "docker.io" if !repository.contains('/') => format!("library/{repository}"),
        _ => repository,
    };
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let is_part =
        |part: &str| part.bytes().all(is_name) && part.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !repository.split('/').all(is_part) {
        return Err(wrong("a repository has lower-case letters, digits, `.`, `_` and `-` between slashes"));
    }
    let is_tag_char = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if tag.as_ref().is_some_and(|tag| tag.is_empty() || tag.len() > 128 || !tag.chars().all(is_tag_char)) {
        return Err(wrong("a tag has letters, digits, `.`, `_` and `-`"));
    }
    let (name, port) = name_and_port(host);
    let is_address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_address = is_address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    let is_label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
    };
    if !(is_address || name.split('.').all(is_label)) || port.is_some_and(|port| port.parse::<u16>().is_err())
    {
        return Err(wrong("the host is no name or address, with or without a port"));
    }
    let is_loopback = is_loopback(host);
    if is_http && !is_loopback {
        return Err(wrong("`http://` is accepted for this machine's loopback only"));
    }
    Ok(RegistryReference {
        is_http: is_loopback && (is_http || !text.starts_with("https://")),
        host: host.to_owned(),
        repository,
        tag,
        digest,
    })
}

fn name_and_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        // The colons of an address in brackets are its own.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// Returns `true` for a host that is this machine, where nobody listens in between.
pub(super) fn is_loopback(host: &str) -> bool {
    let (name, _) = name_and_port(host);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, name) = match self {
            Self::Layout { directory, tag } => ("oci", directory, tag),
            Self::LayoutArchive { file, tag } => ("oci-archive", file, tag),
            Self::DockerArchive { file, name } => ("docker-archive", file, name),
            Self::Registry(registry) => return registry.fmt(f),
        };
        write!(f, "{kind}:{}", path.display())?;
        name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Else it would be read as one without TLS.
        if !self.is_http && is_loopback(&self.host) {
            f.write_str("https://")?;
        }
        write!(f, "{}/{}", self.host, self.repository)?;
        match (&self.tag, &self.digest) {
            (Some(tag), None) => write!(f, ":{tag}"),
            (None, None) => write!(f, ":latest"),
            (Some(tag), Some(digest)) => write!(f, ":{tag}@{digest}"),
            (None, Some(digest)) => write!(f, "@{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Reference>().map_or_else(|error| error, |reference| reference.to_string())
    }

    #[test]
    fn references_are_spelled_as_by_skopeo() {
        let digest = Sha256::of(b"x");
        let pinned = format!("ghcr.io/team/db:1@{digest}");
        for (text, expected) in [
            ("oci:images/pg", "oci:images/pg"),
            ("oci:/images/pg:17", "oci:/images/pg:17"),
            ("oci-archive:pg.tar", "oci-archive:pg.tar"),
            ("docker-archive:pg.tar:postgres:17", "docker-archive:pg.tar:postgres:17"),
            ("postgres", "docker.io/library/postgres:latest"),
            ("docker://postgres:17", "docker.io/library/postgres:17"),
            ("pgvector/pgvector:pg17", "docker.io/pgvector/pgvector:pg17"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("http://127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
            ("https://127.0.0.1:5000/a", "https://127.0.0.1:5000/a:latest"),
            ("https://ghcr.io/a/b", "ghcr.io/a/b:latest"),
            (&pinned, &pinned),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_accepted_forms() {
        for text in [
            "", "oci:", "oci::tag", "docker-archive:", "Postgres", "a//b", "a/../b", "x:", "x:a b",
            "x@sha256:1", "http://registry.example/a", "re gistry.io/a", "user@host.io/a", "-a", "x:../y",
            "docker-daemon:postgres:17", "containers-storage:postgres", "dir:images/pg",
        ] {
            let refused = text.parse::<Reference>().unwrap_err();
            assert!(refused.contains("docker-archive:FILE[:NAME:TAG]"), "{text}: {refused}");
        }
    }

    #[test]
    fn loopback_is_reached_without_tls_and_the_rest_with() {
        for (host, is_http) in
            [("localhost:5000", true), ("127.0.0.1", true), ("[::1]:5000", true), ("a.io", false)]
        {
            let Ok(Reference::Registry(registry)) = format!("{host}/a").parse() else { panic!("{host}") };
            assert_eq!(registry.is_http, is_http, "{host}");
        }
        let Ok(Reference::Registry(registry)) = "https://localhost:5000/a".parse() else { panic!() };
        assert!(!registry.is_http);
    }

    proptest! {
        #[test]
        fn an_accepted_reference_reads_as_it_is_written(text in "[a-zA-Z0-9:/@._\\[\\] -]{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let again = reference.to_string().parse::<Reference>();
                prop_assert_eq!(again.map(|again| again.to_string()), Ok(reference.to_string()));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<Reference>();
        }
    }
}
