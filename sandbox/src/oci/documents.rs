//! The documents of an image, as far as they are used: index, manifest, configuration.
//!
//! Image Format Specification of the Open Container Initiative, "image-index.md", "manifest.md" and
//! "config.md"; Docker's documents of version 2 have the same fields.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::digest::Sha256;

/// The most bytes of a document; registries accept no larger ones.
pub(crate) const LARGEST: u64 = 4 << 20;
/// The annotation that holds a tag in an image layout.
const TAG: &str = "org.opencontainers.image.ref.name";

/// A reference from a document to a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    media_type: String,
    pub(super) digest: Sha256,
    pub(super) size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// Describes a document that a registry returned.
    #[cfg(feature = "registries")]
    pub(super) fn of(document: &[u8], media_type: &str) -> Self {
        // Without its parameters.
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let (digest, size) = (Sha256::of(document), document.len() as u64);
        Self { media_type, digest, size, platform: None, annotations: None }
    }

    /// Describes bytes by their digest and size alone.
    #[cfg(feature = "registries")]
    pub(super) fn of_blob(digest: Sha256, size: u64) -> Self {
        Self { media_type: String::new(), digest, size, platform: None, annotations: None }
    }

    pub(super) fn is_index(&self) -> bool {
        self.media_type.ends_with(".image.index.v1+json")
            || self.media_type.ends_with(".manifest.list.v2+json")
    }

    pub(super) fn tag(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(TAG).map(String::as_str)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    architecture: String,
    os: String,
}

/// A list of images, one for each platform or tag.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<Descriptor>,
}

impl Index {
    /// Returns the image for this machine.
    pub(super) fn choose(&self) -> Result<&Descriptor, String> {
        let wanted = architecture();
        let fits = |platform: &Platform| platform.os == "linux" && platform.architecture == wanted;
        let by_platform = self.manifests.iter().find(|it| it.platform.as_ref().is_some_and(fits));
        match (by_platform, &self.manifests[..]) {
            (Some(descriptor), _) => Ok(descriptor),
            // Its configuration says the platform.
            (None, [only]) if only.platform.is_none() => Ok(only),
            _ => {
                let platforms: Vec<_> =
                    self.manifests.iter().filter_map(|it| it.platform.as_ref()).map(Platform::name).collect();
                Err(format!("it has no image for linux/{wanted}, only for {}", platforms.join(", ")))
            }
        }
    }
}

impl Platform {
    fn name(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }
}

/// An image: its configuration, and its layers from the lowest on.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// The configuration of an image. Its digest names the image, since it covers all files and the
/// environment.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Configuration {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    config: Option<Process>,
    rootfs: RootFs,
}

#[derive(Debug, Clone, Deserialize)]
struct Process {
    #[serde(rename = "Env")]
    env: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct RootFs {
    diff_ids: Vec<Sha256>,
}

impl Configuration {
    /// Checks that the image is for this machine.
    pub(super) fn check(&self) -> Result<(), String> {
        let (os, architecture) = (&self.os, &self.architecture);
        if os != "linux" || architecture != self::architecture() {
            return Err(format!(
                "it is for {os}/{architecture}, and this machine is linux/{}",
                self::architecture()
            ));
        }
        Ok(())
    }

    /// Returns the variables of the environment, in their order.
    pub(super) fn env(&self) -> Vec<(String, String)> {
        let env = self.config.iter().flat_map(|config| config.env.iter().flatten());
        env.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// Returns the digest of each layer's uncompressed archive, the lowest first.
    pub(super) fn layers(&self) -> &[Sha256] {
        &self.rootfs.diff_ids
    }
}

/// An image in the archive of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Vec<String>,
}

/// Reads a document, of a limited size.
pub(super) fn read(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("a document of the image is larger than {LARGEST} bytes")));
    }
    Ok(bytes)
}

pub(super) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|error| io::Error::other(format!("its {what} is broken: {error}")))
}

/// The name of this machine's architecture in images, which is that of Go.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let digest = Sha256::of(b"x");
        let manifest = |platform: &&str| {
            let (os, architecture) = platform.split_once('/').unwrap();
            format!(
                r#"{{"digest":"{digest}","size":1,"platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#
            )
        };
        let manifests: Vec<_> = platforms.iter().map(manifest).collect();
        parse("index", format!(r#"{{"manifests":[{}]}}"#, manifests.join(",")).as_bytes()).unwrap()
    }

    #[test]
    fn the_platform_of_this_machine_is_chosen() {
        let here = format!("linux/{}", architecture());
        let chosen = index(&["windows/amd64", "unknown/unknown", &here]);
        assert_eq!(chosen.choose().unwrap().platform.as_ref().unwrap().name(), here);
        let error = index(&["windows/amd64", "linux/m68k"]).choose().unwrap_err();
        assert_eq!(error, format!("it has no image for {here}, only for windows/amd64, linux/m68k"));
    }

    #[test]
    fn a_configuration_of_another_machine_is_refused() {
        let text = r#"{"architecture":"m68k","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let configuration: Configuration = parse("configuration", text.as_bytes()).unwrap();
        assert!(configuration.check().unwrap_err().starts_with("it is for linux/m68k, and"));
        assert!(configuration.env().is_empty());
    }
}
