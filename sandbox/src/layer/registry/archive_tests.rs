use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::layer::manifest::{self, Manifest};
use crate::layer::registry::artifact::Link;

fn digest(byte: u8) -> crate::layer::digest::Digest {
    blake3::hash(&[byte]).to_hex().as_str().parse().unwrap()
}

/// Describes a directory as a link after `parent`.
fn link(data: &Path, parent: &Contents, archive: Packed) -> CheckedLink {
    let entries = manifest::entries(data).unwrap();
    let contents = Contents::of(&entries);
    let manifest = Manifest { entries, ..Manifest::empty() };
    CheckedLink { link: Link::of(digest(1), &manifest, &contents, parent), contents, archive }
}

/// Packs a directory, and describes it as a link after `parent`.
fn packed(data: &Path, parent: &Contents, file: &Path) -> CheckedLink {
    let contents = Contents::of(&manifest::entries(data).unwrap());
    let archive = write(data, &contents.since(parent), file).unwrap();
    link(data, parent, archive)
}

/// A data directory with a file, a hole, a link and directories.
fn directory() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    fs::create_dir_all(data.join("a/b")).unwrap();
    fs::write(data.join("a/file"), "contents").unwrap();
    fs::write(data.join("a/b/empty"), "").unwrap();
    fs::write(data.join("zeros"), [vec![0; 1 << 20], vec![1]].concat()).unwrap();
    symlink("a/file", data.join("link")).unwrap();
    for (name, mode) in [("", 0o700), ("a", 0o750), ("a/b", 0o700), ("zeros", 0o640)] {
        fs::set_permissions(data.join(name), Permissions::from_mode(mode)).unwrap();
    }
    root
}

#[test]
fn a_chain_is_laid_as_it_was_packed() {
    let root = directory();
    let at = |name: &str| root.path().join(name);
    let base = packed(&at("data"), &Contents::default(), &at("base.tar.gz"));
    lay(&at("base"), &base, None, &at("base.tar.gz")).unwrap();
    assert_eq!(Contents::of(&manifest::entries(&at("base")).unwrap()), base.contents);
    let blocks = fs::metadata(at("base/zeros")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 19, "{blocks} blocks for zeros");

    fs::remove_dir_all(at("data/a/b")).unwrap();
    fs::write(at("data/new"), "new").unwrap();
    let top = packed(&at("data"), &base.contents, &at("top.tar.gz"));
    let below = at("base");
    lay(&at("top"), &top, Some((&below, &base.contents)), &at("top.tar.gz")).unwrap();
    assert_eq!(Contents::of(&manifest::entries(&at("top")).unwrap()), top.contents);
    let inode = |name: &str| fs::metadata(at(name)).unwrap().ino();
    assert_eq!(inode("base/zeros"), inode("top/zeros"));
    assert!(fs::metadata(at("top.tar.gz")).unwrap().len() < 500);
}

#[test]
fn the_same_files_make_the_same_archive() {
    let (one, other) = (directory(), directory());
    let pack = |root: &TempDir| {
        packed(&root.path().join("data"), &Contents::default(), &root.path().join("x")).archive
    };
    assert_eq!(pack(&one), pack(&other));
}

#[test]
fn a_file_that_has_changed_is_not_packed() {
    let root = directory();
    let data = root.path().join("data");
    let difference = Contents::of(&manifest::entries(&data).unwrap()).since(&Contents::default());
    fs::write(data.join("a/file"), "CONTENTS").unwrap();
    let error = write(&data, &difference, &root.path().join("x")).unwrap_err();
    assert_eq!(error.to_string(), "`a/file`: its contents are not those of the list");
}

/// Lays an archive that `fill` writes, as if it were that of a directory with one file. Returns the
/// error, after a look at what was written outside.
fn refused(fill: impl FnOnce(&mut tar::Builder<&mut Vec<u8>>)) -> String {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir(at("source")).unwrap();
    fs::write(at("source/file"), "contents").unwrap();
    let mut bytes = Vec::new();
    let mut archive = tar::Builder::new(&mut bytes);
    fill(&mut archive);
    archive.finish().unwrap();
    drop(archive);
    let mut file = GzEncoder::new(File::create(at("archive")).unwrap(), Compression::fast());
    file.write_all(&bytes).unwrap();
    file.finish().unwrap();
    let diff_id = Hashed::new(&bytes[..]).finish().unwrap();
    let archive = Packed::new(Blob { digest: diff_id, size: 0 }, diff_id);
    let link = link(&at("source"), &Contents::default(), archive);
    let refused = lay(&at("data"), &link, None, &at("archive")).unwrap_err().to_string();
    let mut names: Vec<_> = fs::read_dir(root.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["archive", "data", "source"]);
    refused
}

fn add(archive: &mut tar::Builder<&mut Vec<u8>>, kind: EntryType, name: &str, contents: &str) {
    let mut header = header(kind, 0o600);
    header.set_size(contents.len() as u64);
    // As any program might write it.
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    archive.append(&header, contents.as_bytes()).unwrap();
}

#[test]
fn an_archive_holds_what_is_listed_and_no_more() {
    let file = |name: &'static str, contents: &'static str| {
        move |archive: &mut tar::Builder<&mut Vec<u8>>| add(archive, EntryType::Regular, name, contents)
    };
    assert_eq!(refused(|_| ()), "`file`: the archive lacks it");
    for name in ["../outside", "/tmp/outside", "other", "a/../file", "./file"] {
        assert_eq!(refused(file(name, "contents")), format!("`{name}`: the archive must not hold it"));
    }
    for contents in ["", "content", "CONTENTS", "contents and more"] {
        assert_eq!(refused(file("file", contents)), "`file`: its contents are not those of the list");
    }
    let twice = refused(|archive| {
        add(archive, EntryType::Regular, "file", "contents");
        add(archive, EntryType::Regular, "file", "contents");
    });
    assert_eq!(twice, "`file`: the archive must not hold it");
    for kind in
        [EntryType::Link, EntryType::Fifo, EntryType::Block, EntryType::GNULongName, EntryType::XHeader]
    {
        let refused = refused(|archive| add(archive, kind, "file", ""));
        assert_eq!(refused, "`file`: the archive must not hold such an entry");
    }
    // A link in the way is not made.
    let linked = refused(|archive| {
        let mut header = header(EntryType::Symlink, 0o777);
        header.set_link_name("/tmp").unwrap();
        append(archive, &mut header, Path::new("file"), io::empty()).unwrap();
        add(archive, EntryType::Regular, "file/outside", "contents");
    });
    assert_eq!(linked, "`file/outside`: the archive must not hold it");
}

#[test]
fn an_archive_that_unpacks_into_more_is_cut() {
    let bomb = refused(|archive| {
        add(archive, EntryType::Regular, "file", "contents");
        archive
            .append(
                &{
                    let mut header = header(EntryType::Directory, 0o700);
                    header.set_size(1 << 24);
                    header.set_path("d/").unwrap();
                    header.set_cksum();
                    header
                },
                io::repeat(0).take(1 << 24),
            )
            .unwrap();
    });
    assert!(bomb.contains("unexpected EOF") || bomb.contains("lacks"), "{bomb}");
}

#[test]
fn another_digest_of_the_uncompressed_archive_is_refused() {
    let root = directory();
    let at = |name: &str| root.path().join(name);
    let mut link = packed(&at("data"), &Contents::default(), &at("x"));
    link.archive = Packed::new(link.archive.blob(), link.archive.blob().digest);
    let error = lay(&at("other"), &link, None, &at("x")).unwrap_err();
    assert!(error.to_string().contains("another digest"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_archive_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), end in any::<prop::sample::Index>()) {
        let root = directory();
        let at_path = |name: &str| root.path().join(name);
        let link = packed(&at_path("data"), &Contents::default(), &at_path("x"));
        let mut bytes = Vec::new();
        MultiGzDecoder::new(BufReader::new(File::open(at_path("x")).unwrap())).read_to_end(&mut bytes).unwrap();
        bytes.truncate(4096);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(end.index(bytes.len()) + 1);
        let mut file = GzEncoder::new(File::create(at_path("y")).unwrap(), Compression::fast());
        file.write_all(&bytes).unwrap();
        file.finish().unwrap();
        prop_assert!(lay(&at_path("other"), &link, None, &at_path("y")).is_err());
    }
}
