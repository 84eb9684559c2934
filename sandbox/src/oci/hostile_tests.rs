//! Whole images of hostile bytes: each is refused or unpacked, and nothing is written elsewhere.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::digest::Sha256;
use super::reference::Reference;
use super::{documents, source, store};
use crate::progress::Progress;

/// Changes of bytes at some places.
fn damage() -> impl Strategy<Value = Vec<(usize, u8)>> {
    vec((any::<usize>(), any::<u8>()), 0..6)
}

fn damaged(mut bytes: Vec<u8>, damage: &[(usize, u8)]) -> Vec<u8> {
    let length = bytes.len();
    damage.iter().for_each(|(at, byte)| bytes[at % length] = *byte);
    bytes
}

/// A layer with a file, a link, a long name and an extended header.
fn layer() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(1);
    archive.append_data(&mut header, "a/b", &b"1"[..]).unwrap();
    archive.append_pax_extensions([("path", &b"a/c"[..]), ("mtime", b"1.5")]).unwrap();
    archive.append_data(&mut header, "short", &b"2"[..]).unwrap();
    archive.append_data(&mut header, "d/".repeat(60) + "f", &b"3"[..]).unwrap();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    archive.append_link(&mut header, "a/link", "../../..").unwrap();
    archive.into_inner().unwrap()
}

/// The documents and the layer of an image. Digests are right where nothing is damaged later.
struct Image {
    layer: Vec<u8>,
    configuration: Vec<u8>,
    manifest: Vec<u8>,
    index: Vec<u8>,
}

impl Image {
    fn of(archive: &[u8], layer: Vec<u8>) -> Self {
        let descriptor = |bytes: &[u8]| format!(r#""digest":"{}","size":{}"#, Sha256::of(bytes), bytes.len());
        let architecture = documents::architecture();
        let configuration = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{"Env":["A=1","B"]}},"rootfs":{{"diff_ids":["{}"]}}}}"#,
            Sha256::of(archive)
        );
        let configuration = configuration.into_bytes();
        let manifest = format!(
            r#"{{"config":{{{}}},"layers":[{{{}}}]}}"#,
            descriptor(&configuration),
            descriptor(&layer)
        );
        let manifest = manifest.into_bytes();
        let index = format!(r#"{{"manifests":[{{{}}}]}}"#, descriptor(&manifest)).into_bytes();
        Self { layer, configuration, manifest, index }
    }

    /// Writes a layout in which the blobs have their right names.
    fn write(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for blob in [&self.layer, &self.configuration, &self.manifest] {
            fs::write(blobs.join(Sha256::of(blob).hex()), blob).unwrap();
        }
        fs::write(directory.join("index.json"), &self.index).unwrap();
    }
}

/// Opens and unpacks an image. Returns `true` if that succeeds.
fn unpack(place: &TempDir, reference: &str) -> bool {
    let reference: Reference = reference.parse().unwrap();
    let Ok(source) = source::open(&reference) else { return false };
    let beside = || fs::read_dir(place.path()).unwrap().count();
    let before = beside();
    let target = place.path().join("target");
    fs::create_dir(&target).unwrap();
    let unpacked = store::unpack(&source, &target.join("root"), &Progress::start("test"));
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
    fs::remove_dir_all(&target).unwrap();
    assert_eq!(beside(), before, "something was written beside the root");
    unpacked.is_ok()
}

fn layout(image: &Image) -> bool {
    let place = tempfile::tempdir().unwrap();
    image.write(&place.path().join("layout"));
    unpack(&place, &format!("oci:{}", place.path().join("layout").display()))
}

fn compressed(archive: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(archive).unwrap();
    encoder.finish().unwrap()
}

/// Compressed by `zstd`: an archive of one file.
const ZSTD: &[u8] = include_bytes!("hostile_layer.tar.zst");

#[test]
fn images_without_damage_are_unpacked() {
    assert!(layout(&Image::of(&layer(), layer())));
    assert!(layout(&Image::of(&layer(), compressed(&layer()))));
    let mut archive = Vec::new();
    std::io::Read::read_to_end(&mut crate::zstd::Zstd::new(ZSTD), &mut archive).unwrap();
    assert!(layout(&Image::of(&archive, ZSTD.to_vec())));
}

/// Each case writes files.
fn fewer() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases / 4, ..usual }
}

proptest! {
    #![proptest_config(fewer())]

    #[test]
    fn a_damaged_layer_panics_nowhere(damage in damage()) {
        let archive = damaged(layer(), &damage);
        // The digests are those of the damaged layer, so that only its entries can be refused.
        layout(&Image::of(&archive, archive.clone()));
        layout(&Image::of(&archive, compressed(&archive)));
    }

    #[test]
    fn damaged_compression_is_refused(damage in damage()) {
        for whole in [compressed(&layer()), ZSTD.to_vec()] {
            let damaged = damaged(whole.clone(), &damage);
            // The contents have another digest, or the same bytes came out.
            layout(&Image::of(&layer(), damaged));
        }
    }

    #[test]
    fn damaged_documents_panic_nowhere(damage in damage(), which in 0..3) {
        let mut image = Image::of(&layer(), layer());
        let document = match which {
            0 => &mut image.configuration,
            1 => &mut image.manifest,
            _ => &mut image.index,
        };
        *document = damaged(document.clone(), &damage);
        layout(&image);
    }

    #[test]
    fn hostile_fields_panic_nowhere(
        size in prop_oneof![Just(0), Just(u64::MAX), any::<u64>()],
        names in vec("(\\.\\./|/|blobs/sha256/|\\PC){0,6}", 3),
    ) {
        let place = tempfile::tempdir().unwrap();
        let text = serde_json::to_string(&names).unwrap();
        let docker = format!(r#"[{{"Config":{:?},"RepoTags":{text},"Layers":{text}}}]"#, names[0]);
        let digest = Sha256::of(b"x");
        let index = format!(
            r#"{{"manifests":[{{"digest":"{digest}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":{:?}}}}}]}}"#,
            names[1]
        );
        let mut archive = tar::Builder::new(Vec::new());
        for (name, contents) in [("manifest.json", docker), ("index.json", index), (&names[2][..], "x".into())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            // A name that an archive cannot have.
            let _ = archive.append_data(&mut header, name, contents.as_bytes());
        }
        let file = place.path().join("image.tar");
        fs::write(&file, archive.into_inner().unwrap()).unwrap();
        for kind in ["oci-archive", "docker-archive"] {
            let reference = format!("{kind}:{}", file.display());
            prop_assert!(!unpack(&place, &reference));
        }
    }

    #[test]
    fn a_damaged_archive_of_an_image_panics_nowhere(damage in damage()) {
        let place = tempfile::tempdir().unwrap();
        let image = Image::of(&layer(), layer());
        let mut archive = tar::Builder::new(Vec::new());
        image.write(&place.path().join("layout"));
        archive.append_dir_all(".", place.path().join("layout")).unwrap();
        let file = place.path().join("image.tar");
        fs::write(&file, damaged(archive.into_inner().unwrap(), &damage)).unwrap();
        unpack(&place, &format!("oci-archive:{}", file.display()));
    }
}
