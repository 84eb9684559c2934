//! Images on this machine: from a directory or an archive to a configuration and layers.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::digest::{Hashed, Sha256};
use super::documents::{self, Configuration, Descriptor, DockerImage, Index, Manifest};
use super::reference::Reference;
use super::unpack::Metered;

/// An image whose documents are read and checked, and whose layers are not read yet.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The digest of the configuration.
    pub(super) id: Sha256,
    pub(super) configuration: Configuration,
    pub(super) layers: Vec<Layer>,
}

/// An archive of files, perhaps compressed.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    blob: Blob,
    /// The digest of the blob, where a manifest names it.
    digest: Option<Sha256>,
    /// The digest of the uncompressed archive.
    pub(super) contents: Sha256,
}

/// Bytes in a file.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) file: PathBuf,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Blob {
    fn open(&self) -> io::Result<io::Take<File>> {
        let mut file = File::open(&self.file)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(file.take(self.size))
    }
}

impl Layer {
    /// Returns the number of its bytes, as they are stored.
    pub(super) fn size(&self) -> u64 {
        self.blob.size
    }

    /// Reads the archive as it is stored. [`Hashed::finish`] must be compared by
    /// [`check_stored`](Self::check_stored).
    pub(super) fn open(&self) -> io::Result<Hashed<BufReader<io::Take<File>>>> {
        Ok(Hashed::new(BufReader::with_capacity(1 << 18, self.blob.open()?)))
    }

    pub(super) fn check_stored(&self, found: Sha256) -> io::Result<()> {
        self.digest.map_or(Ok(()), |digest| same("a layer", digest, found))
    }
}

/// Returns an error if a digest is not the expected one.
pub(super) fn same(what: &str, expected: Sha256, found: Sha256) -> io::Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(io::Error::other(format!("{what} is damaged: its digest is {found}, and {expected} was expected")))
}

/// Finds an image of this machine by its reference.
pub(super) fn open(reference: &Reference) -> io::Result<Source> {
    match reference {
        Reference::Layout { directory, tag } => {
            let blobs = Files::Directory(directory.clone());
            layout(&blobs, tag.as_deref())
        }
        Reference::LayoutArchive { file, tag } => layout(&Files::archive(file)?, tag.as_deref()),
        Reference::DockerArchive { file, name } => docker(&Files::archive(file)?, name.as_deref()),
        Reference::Registry(_) => Err(io::Error::other(
            "it is in a registry, and sandboxed-db is built without its feature `registries`: add the feature, \
             as by `cargo add --dev sandboxed-db --features registries`",
        )),
    }
}

/// Files by their names: in a directory, or in an archive, which is not unpacked.
enum Files {
    Directory(PathBuf),
    Archive(PathBuf, BTreeMap<PathBuf, Blob>),
}

impl Files {
    /// Reads the headers of an archive, and nothing else of it.
    fn archive(path: &Path) -> io::Result<Self> {
        /// The archive of an image holds a file for each layer.
        const MOST: usize = 10_000;
        /// Their headers are read, and what lies between is skipped.
        const MOST_BYTES: u64 = 64 << 20;
        let mut start = [0; 4];
        let read = File::open(path)?.take(4).read(&mut start)?;
        if Compression::of(&start[..read]) != Compression::None {
            return Err(io::Error::other("the archive is compressed as a whole: uncompress it first"));
        }
        let allowance = Cell::new(MOST_BYTES);
        let mut archive = tar::Archive::new(Metered { reader: File::open(path)?, allowance: &allowance });
        let (mut files, mut links) = (BTreeMap::new(), Vec::new());
        // The library quotes the bytes that it could not read.
        let strange = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged, or no tar archive");
        let entries = archive.entries_with_seek()?;
        for entry in entries.take(MOST) {
            let entry = entry.map_err(|error| match error.kind() {
                io::ErrorKind::Other => strange(),
                _ => error,
            })?;
            let name = normal(&entry.path()?);
            // Docker links equal layers of an archive to each other.
            if let (true, Some(target)) = (entry.header().entry_type().is_symlink(), entry.link_name()?) {
                let target = normal(&name.parent().unwrap_or(Path::new("")).join(target));
                links.push((name, target));
            } else if entry.header().entry_type().is_file() {
                let (offset, size) = (entry.raw_file_position(), entry.size());
                files.insert(name, Blob { file: path.to_owned(), offset, size });
            }
        }
        for (name, target) in links {
            if let Some(blob) = files.get(&target).cloned() {
                files.insert(name, blob);
            }
        }
        Ok(Self::Archive(path.to_owned(), files))
    }

    fn find(&self, name: &Path) -> io::Result<Blob> {
        match self {
            Self::Directory(directory) => {
                let file = directory.join(name);
                let metadata = file.metadata().map_err(|error| named(&file, &error))?;
                // A pipe would be waited for.
                if !metadata.is_file() {
                    return Err(io::Error::other(format!("`{}` is no file", file.display())));
                }
                Ok(Blob { file, offset: 0, size: metadata.len() })
            }
            Self::Archive(archive, files) => files.get(&normal(name)).cloned().ok_or_else(|| {
                let (archive, name) = (archive.display(), name.display());
                io::Error::new(io::ErrorKind::InvalidData, format!("`{archive}` has no file `{name}`"))
            }),
        }
    }

    fn read(&self, name: &Path) -> io::Result<Vec<u8>> {
        documents::read(self.find(name)?.open()?)
    }

    fn blob(&self, descriptor: &Descriptor) -> io::Result<Blob> {
        let blob = self.find(&Path::new("blobs/sha256").join(descriptor.digest.hex()))?;
        if blob.size != descriptor.size {
            let Descriptor { digest, size, .. } = descriptor;
            return Err(io::Error::other(format!("{digest} has {} bytes instead of {size}", blob.size)));
        }
        Ok(blob)
    }

    fn document(&self, descriptor: &Descriptor) -> io::Result<Vec<u8>> {
        let bytes = documents::read(self.blob(descriptor)?.open()?)?;
        same("a document", descriptor.digest, Sha256::of(&bytes))?;
        Ok(bytes)
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

/// Returns a path without `.`, `..` and a leading slash. It is a name only, and opens nothing.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => drop(normal.pop()),
            _ => {}
        }
    }
    normal
}

/// The layout of an image, "image-layout.md" of its specification.
fn layout(files: &Files, tag: Option<&str>) -> io::Result<Source> {
    let index: Index = documents::parse("index.json", &files.read(Path::new("index.json"))?)?;
    let tagged: Vec<_> =
        index.manifests.into_iter().filter(|it| tag.is_none_or(|tag| it.tag() == Some(tag))).collect();
    let several = tagged.iter().filter_map(Descriptor::tag).collect::<Vec<_>>().join("`, `");
    let is_tagged = tagged.iter().any(|it| it.tag().is_some());
    let top = match (&tagged[..], tag) {
        ([only], _) => only.clone(),
        ([], Some(tag)) => return Err(io::Error::other(format!("it has no image with the tag `{tag}`"))),
        ([], None) => return Err(io::Error::other("it has no image")),
        _ if is_tagged && tag.is_none() => {
            return Err(io::Error::other(format!(
                "it has several images: append one of the tags `{several}`"
            )));
        }
        // Without tags it is a list of platforms.
        _ => Index { manifests: tagged }.choose().cloned().map_err(io::Error::other)?,
    };
    let manifest = image(top, &|descriptor| files.document(descriptor))?;
    let configuration = files.document(&manifest.config)?;
    let blobs = manifest.layers.iter().map(|layer| files.blob(layer)).collect::<io::Result<_>>()?;
    from_manifest(&manifest, &configuration, blobs)
}

/// Goes from a descriptor to the manifest for this machine.
pub(super) fn image(
    mut descriptor: Descriptor,
    document: &dyn Fn(&Descriptor) -> io::Result<Vec<u8>>,
) -> io::Result<Manifest> {
    /// An index may hold indexes.
    const DEEPEST: usize = 4;
    for _ in 0..DEEPEST {
        let bytes = document(&descriptor)?;
        if !descriptor.is_index() {
            return documents::parse("manifest", &bytes);
        }
        let index: Index = documents::parse("index", &bytes)?;
        descriptor = index.choose().cloned().map_err(io::Error::other)?;
    }
    Err(io::Error::other("its indexes are nested too deeply"))
}

/// Puts together what a manifest names.
pub(super) fn from_manifest(
    manifest: &Manifest,
    configuration: &[u8],
    blobs: Vec<Blob>,
) -> io::Result<Source> {
    let digests = manifest.layers.iter().map(|layer| Some(layer.digest)).collect();
    assemble(configuration, blobs, digests)
}

fn assemble(configuration: &[u8], blobs: Vec<Blob>, digests: Vec<Option<Sha256>>) -> io::Result<Source> {
    let id = Sha256::of(configuration);
    let configuration: Configuration = documents::parse("configuration", configuration)?;
    configuration.check().map_err(io::Error::other)?;
    let contents = configuration.layers();
    if contents.len() != blobs.len() {
        let (stored, named) = (blobs.len(), contents.len());
        return Err(io::Error::other(format!("it has {stored} layers, and its configuration names {named}")));
    }
    let layers = blobs.into_iter().zip(digests).zip(contents);
    let layers = layers.map(|((blob, digest), &contents)| Layer { blob, digest, contents }).collect();
    Ok(Source { id, configuration, layers })
}

/// The archive of `docker save`: `manifest.json` names the files of each image.
fn docker(files: &Files, name: Option<&str>) -> io::Result<Source> {
    let images: Vec<DockerImage> =
        documents::parse("manifest.json", &files.read(Path::new("manifest.json"))?)?;
    let names = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
    // `postgres:17` and `docker.io/library/postgres:17` are one name.
    let normal = |name: &str| name.parse::<Reference>().map_or(name.to_owned(), |name| name.to_string());
    let wanted = |image: &&DockerImage| {
        name.is_none_or(|name| names(image).iter().any(|it| normal(it) == normal(name)))
    };
    let found: Vec<_> = images.iter().filter(wanted).collect();
    let [image] = found[..] else {
        let all = images.iter().flat_map(names).collect::<Vec<_>>().join("`, `");
        return Err(io::Error::other(match name {
            Some(name) => format!("it has no image `{name}`, only `{all}`"),
            None => format!("it has {} images: append one of the names `{all}`", images.len()),
        }));
    };
    let configuration = files.read(Path::new(&image.config))?;
    let blobs: Vec<_> =
        image.layers.iter().map(|layer| files.find(Path::new(layer))).collect::<io::Result<_>>()?;
    // Their names are no digests in old archives. The configuration has those of the contents.
    let digests = vec![None; blobs.len()];
    assemble(&configuration, blobs, digests)
}

/// The compression of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Returns the compression of a file that begins so. Media types do not always tell it.
    pub(super) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_archives_lead_nowhere_else() {
        for (name, expected) in
            [("./a/b", "a/b"), ("/a", "a"), ("../../a", "a"), ("x/../y/layer.tar", "y/layer.tar"), ("..", "")]
        {
            assert_eq!(normal(Path::new(name)), Path::new(expected));
        }
    }

    #[test]
    fn compression_is_known_by_the_first_bytes() {
        assert_eq!(Compression::of(&[0x1f, 0x8b, 8, 0]), Compression::Gzip);
        assert_eq!(Compression::of(&0xFD2F_B528_u32.to_le_bytes()), Compression::Zstd);
        assert_eq!(Compression::of(&0x184D_2A50_u32.to_le_bytes()), Compression::Zstd);
        assert_eq!(Compression::of(b"usr/"), Compression::None);
        assert_eq!(Compression::of(b""), Compression::None);
    }
}
