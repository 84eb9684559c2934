//! Images in registries.
//!
//! Distribution Specification of the Open Container Initiative, "Pull".

use std::io;
use std::path::Path;

use super::digest::Sha256;
use super::documents::{Descriptor, Manifest};
use super::reference::RegistryReference;
use super::requests::{ANY, Access, DOCUMENTS, Meter, Registry};
use super::source::{self, Blob, Source, same};
use super::unpack::MOST_BYTES;
use crate::progress::Progress;

/// An image in a registry whose documents are read and checked, and whose layers are not.
#[derive(Debug)]
pub(super) struct Remote {
    registry: Registry,
    /// The digest of the document to which the reference leads.
    digest: Sha256,
    manifest: Manifest,
    configuration: Vec<u8>,
}

impl Remote {
    /// Finds an image.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] for a registry that cannot be reached.
    pub(super) fn open(reference: &RegistryReference) -> io::Result<Self> {
        let registry = Registry::of(reference, Access::Pull)?;
        let _progress = Progress::start(&format!("asking {} for {reference}", reference.host));
        let wanted = reference.digest.map(|digest| digest.to_string());
        let wanted = wanted.or_else(|| reference.tag.clone()).unwrap_or_else(|| "latest".to_owned());
        let (bytes, media_type) = registry.document(&format!("manifests/{wanted}"), DOCUMENTS)?;
        if let Some(digest) = reference.digest {
            same("the manifest", digest, Sha256::of(&bytes))?;
        }
        let top = Descriptor::of(&bytes, &media_type);
        let manifest = source::image(top.clone(), &|descriptor| {
            if descriptor.digest == top.digest {
                return Ok(bytes.clone());
            }
            let (bytes, _) = registry.document(&format!("manifests/{}", descriptor.digest), DOCUMENTS)?;
            same("a manifest", descriptor.digest, Sha256::of(&bytes))?;
            Ok(bytes)
        })?;
        let (configuration, _) = registry.document(&format!("blobs/{}", manifest.config.digest), ANY)?;
        same("the configuration", manifest.config.digest, Sha256::of(&configuration))?;
        Ok(Self { registry, digest: top.digest, manifest, configuration })
    }

    /// Returns the digest by which a reference names the image, for all its platforms.
    pub(super) fn digest(&self) -> Sha256 {
        self.digest
    }

    /// Returns the digest of the configuration, which names the image.
    pub(super) fn id(&self) -> Sha256 {
        self.manifest.config.digest
    }

    /// Downloads all layers into a directory.
    pub(super) fn download(&self, into: &Path, progress: &Progress) -> io::Result<Source> {
        let all = total(&self.manifest.layers)?;
        let mut meter = Meter::new(progress, "downloading", all);
        let mut blobs = Vec::new();
        for layer in &self.manifest.layers {
            let file = into.join(layer.digest.hex());
            // A manifest may name a layer twice, such as an empty one.
            if !file.exists() {
                self.registry.blob(layer, &file, &mut meter)?;
            }
            blobs.push(Blob { file, offset: 0, size: layer.size });
        }
        source::from_manifest(&self.manifest, &self.configuration, blobs)
    }
}

/// Returns the size of all layers, as far as a disk may be filled with them.
fn total(layers: &[Descriptor]) -> io::Result<u64> {
    let total = layers.iter().try_fold(0_u64, |total, layer| total.checked_add(layer.size));
    total
        .filter(|total| *total <= MOST_BYTES)
        .ok_or_else(|| io::Error::other(format!("its layers have more than {} GiB", MOST_BYTES >> 30)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::documents;

    #[test]
    fn layers_of_absurd_sizes_are_refused() {
        let digest = Sha256::of(b"x");
        let layers = |sizes: [u64; 2]| {
            let text = sizes.map(|size| format!(r#"{{"digest":"{digest}","size":{size}}}"#)).join(",");
            documents::parse::<Vec<Descriptor>>("layers", format!("[{text}]").as_bytes()).unwrap()
        };
        assert_eq!(total(&layers([1, 2])).unwrap(), 3);
        for sizes in [[u64::MAX, 1], [MOST_BYTES, 1], [u64::MAX, u64::MAX]] {
            assert!(total(&layers(sizes)).unwrap_err().to_string().contains("more than 32 GiB"));
        }
    }
}
