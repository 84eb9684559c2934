//! One layer from the cache to a registry, and back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::archive;
use super::artifact::{self, Artifact, CheckedLink, Link, MANIFEST, MOST_LINKS, Named, Packed};
use super::contents::Contents;
use super::signature::Key;
use crate::cache::StagedDirectory;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::digest::Digest;
use crate::layer::published::Layer;
use crate::layer::run;
use crate::layer::store::{Store, data_directory};
use crate::oci::{RegistryReference, Repository};
use crate::progress::Progress;

/// How long a question may take, such as whether a layer is there.
const QUESTION: Duration = Duration::from_secs(5);
/// The time that each transfer has, and its least speed after that, in bytes a second.
const START: Duration = Duration::from_secs(30);
const SLOWEST: u64 = 500_000;
/// The note of a layer with its difference as it was packed last.
const PACKED: &str = "packed";

/// A repository of layers.
#[derive(Debug)]
pub(super) struct LayerRepository {
    pub(super) reference: RegistryReference,
    repository: Repository,
    /// The key with which layers must be signed.
    key: Option<Key>,
}

/// A packed difference, and the hashes of the contents that it leads from and to.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    from: String,
    to: String,
    packed: Packed,
}

impl LayerRepository {
    pub(super) fn of(reference: &RegistryReference, key: Option<Key>) -> io::Result<Self> {
        Ok(Self { reference: reference.clone(), repository: Repository::of(reference)?, key })
    }

    /// Returns its name, without a tag.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.reference.host, self.reference.repository)
    }

    /// Returns the digests of all layers.
    pub(super) fn digests(&self) -> io::Result<Vec<Digest>> {
        let tags = self.repository.until(Instant::now() + START).tags()?;
        Ok(tags.iter().filter_map(|tag| tag.parse().ok()).collect())
    }

    /// Reads the documents of a layer; `None` if it is not there.
    pub(super) fn find(&self, digest: Digest) -> io::Result<Option<Artifact>> {
        let repository = self.repository.until(Instant::now() + QUESTION);
        let Some(manifest) = repository.manifest(&digest.to_string())? else { return Ok(None) };
        let named = Named::parse(&manifest).map_err(io::Error::other)?;
        if let Some(key) = &self.key {
            key.check(&repository, named.digest)?;
        }
        let configuration = repository.document(named.configuration)?;
        Artifact::parse(&named, &configuration, digest).map(Some).map_err(io::Error::other)
    }

    /// Brings a layer into the store, whose lock for its build is held. Links that the store lacks
    /// are published too. Returns the number of bytes that were downloaded.
    ///
    /// A digest names inputs, and two builds of the same inputs differ in some bytes. So a
    /// difference is laid on a layer of the store only if that layer has the contents of the link
    /// before it.
    pub(super) fn pull(
        &self,
        store: &Store,
        artifact: &Artifact,
        progress: &Progress,
    ) -> Result<(Layer, u64)> {
        let (last, before) = artifact.links.split_last().expect("an artifact has a link");
        let (mut below, mut from) = (None, 0);
        for (index, link) in before.iter().enumerate().rev() {
            if let Some(layer) = same_in_store(store, link)? {
                (below, from) = (Some(Below::Published(layer)), index + 1);
                break;
            }
        }
        let needed = &artifact.links[from..];
        let blobs: Vec<_> = needed.iter().map(|link| link.archive.blob()).collect();
        let bytes = blobs.iter().map(|blob| blob.size).sum();
        let downloads = store.cache().stage("pull")?;
        let failed = |error| self.failed("pull", last.link.digest, error);
        let limit = START + Duration::from_secs(bytes / SLOWEST);
        let repository = self.repository.until(Instant::now() + limit);
        repository.download(&blobs, downloads.path(), progress).map_err(failed)?;
        progress.step("unpacking");
        let origin = format!("{}:{}@{}", self.name(), last.link.digest, artifact.digest);
        let mut before = from.checked_sub(1).map(|index| &artifact.links[index].contents);
        for link in needed {
            let staged = store.stage(link.link.digest)?;
            let data = data_directory(staged.path());
            let archive = downloads.path().join(link.archive.blob().digest.hex());
            let laid = match (&below, before) {
                (Some(below), Some(contents)) => below
                    .keeping_seal(|| archive::lay(&data, link, Some((&below.data(), contents)), &archive)),
                _ => archive::lay(&data, link, None, &archive),
            };
            laid.map_err(failed)?;
            let manifest = link.link.manifest(&link.contents, run::id(), origin.clone());
            let publish = |staged| store.publish(staged, link.link.digest, &manifest);
            if std::ptr::eq(link, last) {
                let layer = publish(staged)?;
                note(store, &layer, before, link);
                return Ok((layer, bytes));
            }
            // Another build of the same layer stays, and so does one that is being made.
            let lock = store.try_lock_build(link.link.digest)?;
            below = Some(match lock {
                Some(_lock) if store.lock_layer(link.link.digest)?.is_none() => {
                    let layer = publish(staged)?;
                    note(store, &layer, before, link);
                    Below::Published(layer)
                }
                _ => Below::Staged(staged),
            });
            before = Some(&link.contents);
        }
        Err(self.failed("pull", last.link.digest, io::Error::other("it has no link")))
    }

    /// Returns `true` if a layer is there.
    pub(super) fn has(&self, digest: Digest) -> io::Result<bool> {
        self.repository.until(Instant::now() + QUESTION).has_manifest(&digest.to_string())
    }

    /// Pushes a layer. Returns the number of bytes that were uploaded.
    pub(super) fn push(&self, store: &Store, layer: &Layer, progress: &Progress) -> Result<u64> {
        let failed = |error| self.failed("push", layer.digest(), error);
        let chain = chain(store, layer)?;
        let directory = store.cache().stage("push")?;
        let (mut links, mut archives, mut uploads) = (Vec::new(), Vec::new(), Vec::new());
        let mut parent = Contents::default();
        for layer in &chain {
            let manifest = layer.manifest()?;
            let contents = Contents::of(&manifest.entries);
            contents.check().map_err(io::Error::other).map_err(failed)?;
            let link = Link::of(layer.digest(), &manifest, &contents, &parent);
            let known = read_note(layer, &parent, &contents);
            let is_there = |packed: &Packed| {
                self.repository.until(Instant::now() + QUESTION).has_blob(packed.blob().digest)
            };
            let packed = match known {
                Some(packed) if is_there(&packed).map_err(failed)? => packed,
                _ => {
                    progress.step("packing");
                    let file = directory.path().join(layer.digest().to_string());
                    let packed = archive::write(&layer.data(), &link.difference, &file).map_err(failed)?;
                    write_note(store, layer, &Note { from: parent.hash(), to: contents.hash(), packed });
                    if !is_there(&packed).map_err(failed)? {
                        uploads.push((packed, file));
                    }
                    packed
                }
            };
            links.push(link);
            archives.push(packed);
            parent = contents;
        }
        let bytes = uploads.iter().map(|(packed, _)| packed.blob().size).sum();
        progress.step(&format!("uploading {:.1} MB", bytes as f64 / 1e6));
        let repository = self.repository.until(Instant::now() + START + Duration::from_secs(bytes / SLOWEST));
        self.upload(&repository, layer.digest(), &uploads, &links, &archives).map_err(failed)?;
        Ok(bytes)
    }

    fn upload(
        &self,
        repository: &Repository,
        digest: Digest,
        files: &[(Packed, PathBuf)],
        links: &[Link],
        archives: &[Packed],
    ) -> io::Result<()> {
        let now = SystemTime::now();
        let configuration = artifact::configuration(links, archives, now)?;
        // Nothing is pushed that could not be pulled.
        if configuration.len() as u64 > crate::oci::LARGEST_DOCUMENT {
            return Err(io::Error::other("it has too many files"));
        }
        for (packed, file) in files {
            repository.push_file(packed.blob().digest, file)?;
        }
        let configuration = repository.push_document(&configuration)?;
        let manifest = artifact::manifest(links, archives, configuration, now)?;
        repository.push_manifest(&digest.to_string(), MANIFEST, &manifest)
    }

    fn failed(&self, verb: &str, digest: Digest, error: io::Error) -> Error {
        let there = if verb == "push" { "to" } else { "from" };
        Error::new(ErrorKind::Layer, format!("{verb} the layer {digest} {there} {}", self.name()))
            .caused_by(error)
    }
}

/// A layer or a directory with the contents of a link.
enum Below {
    Published(Layer),
    Staged(StagedDirectory),
}

impl Below {
    fn data(&self) -> PathBuf {
        match self {
            Self::Published(layer) => layer.data(),
            Self::Staged(staged) => data_directory(staged.path()),
        }
    }

    fn keeping_seal<T>(&self, work: impl FnOnce() -> T) -> T {
        match self {
            Self::Published(layer) => layer.keeping_seal(work),
            Self::Staged(_) => work(),
        }
    }
}

/// Returns the layer of the store that has the contents of a link.
fn same_in_store(store: &Store, link: &CheckedLink) -> Result<Option<Layer>> {
    let Some(layer) = store.intact(link.link.digest)? else { return Ok(None) };
    let is_same = Contents::of(&layer.manifest()?.entries) == link.contents;
    Ok(is_same.then_some(layer))
}

/// Returns a layer and those in the store that led to it, the first one at the beginning.
fn chain(store: &Store, layer: &Layer) -> Result<Vec<Layer>> {
    let mut chain = Vec::new();
    let mut next = Some(layer.digest());
    while let Some(digest) = next.filter(|_| chain.len() < MOST_LINKS) {
        // A parent that was pruned is left out, and its files are part of the difference.
        let Some(layer) = store.intact(digest)? else { break };
        next = layer.manifest()?.parent.and_then(|parent| parent.parse().ok());
        chain.push(layer);
    }
    if chain.is_empty() {
        let gone = Error::new(ErrorKind::Layer, format!("find the layer {}", layer.digest()));
        return Err(gone.with_hint("list the layers: `sandboxed-db layers`"));
    }
    chain.reverse();
    Ok(chain)
}

/// Notes how the difference of a pulled layer was packed.
fn note(store: &Store, layer: &Layer, before: Option<&Contents>, link: &CheckedLink) {
    let from = before.map_or_else(|| Contents::default().hash(), Contents::hash);
    write_note(store, layer, &Note { from, to: link.contents.hash(), packed: link.archive });
}

/// Without the note, a difference is packed again.
fn write_note(store: &Store, layer: &Layer, note: &Note) {
    if let Ok(text) = serde_json::to_vec(note) {
        let _ = store.cache().write(&note_of(layer), text);
    }
}

fn read_note(layer: &Layer, from: &Contents, to: &Contents) -> Option<Packed> {
    let note: Note = serde_json::from_slice(&fs::read(note_of(layer)).ok()?).ok()?;
    (note.from == from.hash() && note.to == to.hash()).then_some(note.packed)
}

fn note_of(layer: &Layer) -> PathBuf {
    layer.directory().join(Path::new(PACKED))
}
