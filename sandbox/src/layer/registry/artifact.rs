//! The documents of a layer in a registry: a manifest and a configuration as images have them, so
//! that other programs copy and unpack it. Pure; documents from a registry may be hostile.
//!
//! ```text
//! manifest        configuration, and for each link of the chain an archive of its difference
//! configuration   as an image's, and in `dev.sandboxed-db.layer` all links
//! tag             the digest of the layer
//! ```
//!
//! The links of a layer are the layers from the first one on that led to it, each with the entries
//! in which it differs from the one before. The archives of all links together are the data
//! directory.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::contents::{Contents, Difference};
use crate::layer::digest::Digest;
use crate::layer::manifest::Manifest;
use crate::oci::{Blob, Sha256};

/// The type by which registries and their pages tell layers from images.
const ARTIFACT: &str = "application/vnd.sandboxed-db.layer.v1";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const ARCHIVE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Changes when older versions must not read it.
const FORMAT: u32 = 1;
/// The most links of a chain: programs that unpack images take no more than 127 layers.
pub(super) const MOST_LINKS: usize = 100;
/// The most bytes of a blob.
const LARGEST: u64 = 32 << 30;
/// The longest text that a document may have in a field.
const LONGEST: usize = 4096;

/// A layer of the chain, as the configuration describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    pub(super) digest: Digest,
    /// The digest of the layer it was built on, which need not be the link before.
    parent: Option<Digest>,
    engine: String,
    version: String,
    steps: Vec<String>,
    /// When the oldest of all steps was run, in seconds since 1970.
    oldest_step: Option<u64>,
    /// The run of CI that built it.
    pub(super) pipeline: Option<String>,
    /// The hash of all entries, those of the links before included.
    contents: String,
    #[serde(flatten)]
    pub(super) difference: Difference,
}

impl Link {
    /// Describes a layer with those contents, on a link with those of the parent.
    pub(super) fn of(digest: Digest, manifest: &Manifest, contents: &Contents, parent: &Contents) -> Self {
        let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            digest,
            parent: manifest.parent.as_ref().and_then(|parent| parent.parse().ok()),
            engine: manifest.engine.clone(),
            version: manifest.version.clone(),
            steps: manifest.steps.clone(),
            oldest_step: manifest.oldest_step.map(since_1970),
            pipeline: manifest.pipeline.clone(),
            contents: contents.hash(),
            difference: contents.since(parent),
        }
    }

    pub(super) fn oldest_step(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.oldest_step?))
    }

    /// Returns the manifest of the layer in the cache, with the run that pulled it and its origin.
    pub(super) fn manifest(&self, contents: &Contents, run: &str, origin: String) -> Manifest {
        Manifest {
            digest: self.digest.to_string(),
            engine: self.engine.clone(),
            version: self.version.clone(),
            parent: self.parent.map(|parent| parent.to_string()),
            steps: self.steps.clone(),
            oldest_step: self.oldest_step(),
            run: run.to_owned(),
            pipeline: self.pipeline.clone(),
            origin: Some(origin),
            entries: contents.entries().cloned().collect(),
        }
    }

    /// Returns its steps in a line for people.
    fn summary(&self) -> String {
        match &self.steps[..] {
            [] => "a fresh server".to_owned(),
            [one] => one.clone(),
            [first, .., last] => format!("{first} … {last} ({} steps)", self.steps.len()),
        }
    }

    /// Refuses texts that would act on a terminal.
    fn check(&self) -> Result<(), String> {
        let texts = [&self.engine, &self.version, &self.contents].into_iter().chain(&self.steps);
        let is_bad = |text: &String| text.len() > LONGEST || text.chars().any(char::is_control);
        match texts.chain(&self.pipeline).find(|text| is_bad(text)) {
            Some(_) => Err("a text in its configuration is not accepted".to_owned()),
            None => Ok(()),
        }
    }
}

/// A difference as an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packed {
    digest: Sha256,
    size: u64,
    /// The digest of the uncompressed archive.
    pub(super) diff_id: Sha256,
}

impl Packed {
    pub(super) fn new(blob: Blob, diff_id: Sha256) -> Self {
        Self { digest: blob.digest, size: blob.size, diff_id }
    }

    pub(super) fn blob(&self) -> Blob {
        Blob { digest: self.digest, size: self.size }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Sha256,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: String,
    #[serde(default)]
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The configuration of an image, with what this library adds.
#[derive(Debug, Serialize, Deserialize)]
struct Configuration {
    architecture: String,
    os: String,
    config: Process,
    rootfs: RootFs,
    #[serde(default)]
    history: Vec<History>,
    #[serde(rename = "dev.sandboxed-db.layer")]
    layer: Chain,
}

#[derive(Debug, Serialize, Deserialize)]
struct Process {
    #[serde(rename = "Labels", default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<Sha256>,
}

#[derive(Debug, Serialize, Deserialize)]
struct History {
    #[serde(default)]
    created_by: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Chain {
    format: u32,
    links: Vec<Link>,
}

/// Writes the configuration of a layer.
pub(super) fn configuration(
    links: &[Link],
    archives: &[Packed],
    pushed: SystemTime,
) -> serde_json::Result<Vec<u8>> {
    let created_by = |link: &Link| format!("sandboxed-db: {}", link.summary());
    serde_json::to_vec(&Configuration {
        // The name of the machine's architecture matters to nobody: the digest covers the server.
        architecture: crate::oci::architecture().to_owned(),
        os: "linux".to_owned(),
        config: Process { labels: links.last().map(|link| annotations(link, pushed)).unwrap_or_default() },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: archives.iter().map(|archive| archive.diff_id).collect(),
        },
        history: links.iter().map(|link| History { created_by: created_by(link) }).collect(),
        layer: Chain { format: FORMAT, links: links.to_vec() },
    })
}

/// Writes the manifest of a layer.
pub(super) fn manifest(
    links: &[Link],
    archives: &[Packed],
    configuration: Blob,
    pushed: SystemTime,
) -> serde_json::Result<Vec<u8>> {
    let described = |media_type: &str, blob: Blob, annotations| Descriptor {
        media_type: media_type.to_owned(),
        digest: blob.digest,
        size: blob.size,
        annotations,
    };
    let archive = |(link, archive): (&Link, &Packed)| {
        let name = ("dev.sandboxed-db.layer".to_owned(), link.digest.to_string());
        described(ARCHIVE, archive.blob(), Some(BTreeMap::from([name])))
    };
    serde_json::to_vec(&Document {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        artifact_type: ARTIFACT.to_owned(),
        config: described(CONFIGURATION, configuration, None),
        layers: links.iter().zip(archives).map(archive).collect(),
        annotations: links.last().map(|link| annotations(link, pushed)).unwrap_or_default(),
    })
}

/// Returns the description of a layer for the registry's page.
fn annotations(link: &Link, pushed: SystemTime) -> BTreeMap<String, String> {
    let title = format!("{}: {}", link.engine, link.summary());
    let of_image = |name: &str, value: String| (format!("org.opencontainers.image.{name}"), value);
    let own = |name: &str, value: String| (format!("dev.sandboxed-db.{name}"), value);
    let annotations = [
        of_image("title", title),
        of_image("description", format!("A layer of sandboxed-db, prepared by {}", link.version)),
        of_image("created", humantime::format_rfc3339_seconds(pushed).to_string()),
        own("engine", link.engine.clone()),
        own("version", link.version.clone()),
        own("steps", link.summary()),
    ];
    let parent = link.parent.map(|parent| own("parent", parent.to_string()));
    let run = link.pipeline.clone().map(|pipeline| own("run", pipeline));
    annotations.into_iter().chain(parent).chain(run).collect()
}

/// The manifest of a layer in a registry.
#[derive(Debug)]
pub(super) struct Named {
    /// The digest of the manifest.
    pub(super) digest: Sha256,
    pub(super) configuration: Blob,
    archives: Vec<Blob>,
}

impl Named {
    pub(super) fn parse(manifest: &[u8]) -> Result<Self, String> {
        let broken = |error| format!("its manifest is broken: {error}");
        let document: Document = serde_json::from_slice(manifest).map_err(broken)?;
        if document.config.media_type != CONFIGURATION || document.artifact_type != ARTIFACT {
            return Err("it is no layer of this library".to_owned());
        }
        if document.layers.is_empty() || document.layers.len() > MOST_LINKS {
            return Err(format!(
                "it has {} links, and 1 to {MOST_LINKS} are accepted",
                document.layers.len()
            ));
        }
        let blob = |descriptor: &Descriptor| Blob { digest: descriptor.digest, size: descriptor.size };
        let total = document.layers.iter().try_fold(0_u64, |total, layer| total.checked_add(layer.size));
        if total.is_none_or(|total| total > LARGEST) {
            return Err(format!("its archives have more than {} GiB", LARGEST >> 30));
        }
        Ok(Self {
            digest: Sha256::of(manifest),
            configuration: blob(&document.config),
            archives: document.layers.iter().map(blob).collect(),
        })
    }
}

/// A layer of a registry whose documents are read and checked.
#[derive(Debug)]
pub(super) struct Artifact {
    /// The digest of the manifest.
    pub(super) digest: Sha256,
    pub(super) links: Vec<CheckedLink>,
}

/// A link with the contents to which it leads.
#[derive(Debug)]
pub(super) struct CheckedLink {
    pub(super) link: Link,
    pub(super) contents: Contents,
    pub(super) archive: Packed,
}

impl Artifact {
    /// Reads the configuration of the layer `wanted`.
    pub(super) fn parse(named: &Named, configuration: &[u8], wanted: Digest) -> Result<Self, String> {
        let broken = |error| format!("its configuration is broken: {error}");
        let document: Configuration = serde_json::from_slice(configuration).map_err(broken)?;
        let Chain { format, links } = document.layer;
        if format != FORMAT {
            return Err(format!("its format is {format}, and this version reads {FORMAT}"));
        }
        let diff_ids = document.rootfs.diff_ids;
        if links.len() != named.archives.len() || links.len() != diff_ids.len() {
            return Err("its configuration and its manifest have different numbers of links".to_owned());
        }
        if links.last().is_none_or(|link| link.digest != wanted) {
            return Err("it is another layer".to_owned());
        }
        let mut before = Contents::default();
        let mut checked = Vec::new();
        for ((link, archive), diff_id) in links.into_iter().zip(&named.archives).zip(diff_ids) {
            link.check()?;
            let contents = before.with(&link.difference)?;
            if contents.hash() != link.contents {
                return Err("the hash of its entries is wrong".to_owned());
            }
            before = contents.clone();
            checked.push(CheckedLink { link, contents, archive: Packed::new(*archive, diff_id) });
        }
        Ok(Self { digest: named.digest, links: checked })
    }
}

#[cfg(test)]
#[path = "artifact_tests.rs"]
mod tests;
