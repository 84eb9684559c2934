//! Archives as programs write them, and archives that are made to do harm.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

/// An archive in the making.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Adds an entry, whose name is written as it is: the builder would refuse some.
    fn entry(mut self, kind: EntryType, name: &str, target: &str, mode: u32, contents: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(4_000_000);
        header.set_gid(7);
        header.set_mtime(1_000_000_000);
        header.set_size(contents.len() as u64);
        let old = header.as_old_mut();
        for (field, text) in [(&mut old.name, name), (&mut old.linkname, target)] {
            field[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_cksum();
        self.0.append(&header, contents).unwrap();
        self
    }

    fn file(self, name: &str, contents: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, contents.as_bytes())
    }

    fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, name, "", mode, b"")
    }

    fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        self.entry(kind, name, target, 0o777, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A directory with a root in it, and a file beside that no archive may touch.
struct Target {
    place: TempDir,
}

impl Target {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("root")).unwrap();
        fs::write(place.path().join("outside"), "untouched").unwrap();
        Self { place }
    }

    fn root(&self) -> PathBuf {
        self.place.path().join("root")
    }

    fn unpack(&self, layers: &[Vec<u8>]) -> io::Result<()> {
        let mut unpacking = Unpacking::into(&self.root(), 1 << 20)?;
        let outcome = layers.iter().try_for_each(|layer| unpacking.layer(&layer[..]));
        let beside: Vec<_> = fs::read_dir(self.place.path()).unwrap().flatten().collect();
        assert_eq!(beside.len(), 2, "something was written beside the root");
        assert_eq!(fs::read_to_string(self.place.path().join("outside")).unwrap(), "untouched");
        outcome
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.root().join(name)).unwrap()
    }

    fn has(&self, name: &str) -> bool {
        self.root().join(name).symlink_metadata().is_ok()
    }

    fn mode(&self, name: &str) -> u32 {
        self.root().join(name).symlink_metadata().unwrap().permissions().mode() & 0o7777
    }
}

fn unpacked(layers: &[Vec<u8>]) -> Target {
    let target = Target::new();
    target.unpack(layers).unwrap();
    target
}

fn refused(archive: Archive) -> String {
    Target::new().unpack(&[archive.bytes()]).unwrap_err().to_string()
}

#[test]
fn modes_keep_the_owners_access_and_lose_special_bits() {
    let archive = Archive::new()
        .directory("closed", 0o055)
        .entry(EntryType::Regular, "closed/file", "", 0o000, b"x")
        .entry(EntryType::Regular, "su", "", 0o4755, b"x")
        .entry(EntryType::Directory, "tmp/", "", 0o1777, b"");
    let target = unpacked(&[archive.bytes()]);
    let modes = ["closed", "closed/file", "su", "tmp"].map(|name| target.mode(name));
    assert_eq!(modes, [0o755, 0o400, 0o755, 0o777]);
    let file = target.root().join("su").metadata().unwrap();
    assert_eq!((file.uid(), file.mtime()), (rustix::process::geteuid().as_raw(), 1_000_000_000));
}

#[test]
fn upper_layers_replace_and_hide_files_of_lower_ones() {
    let lower = Archive::new()
        .file("a/gone", "1")
        .file("a/kept", "1")
        .file("b/old", "1")
        .file("b/sub/old", "1")
        .file("changed", "1")
        .file("directory/file", "1")
        .file("file", "1");
    let upper = Archive::new()
        .file("a/.wh.gone", "")
        .file("b/sub/new", "2")
        .file("b/.wh..wh..opq", "")
        .file("b/new", "2")
        .file("changed", "2")
        .file("directory", "2")
        .directory("file", 0o755)
        .file("file/below", "2")
        .file(".wh..wh.plnk", "")
        .file("none/.wh.missing", "");
    let target = unpacked(&[lower.bytes(), upper.bytes()]);
    assert!(!target.has("a/gone") && !target.has("b/old") && !target.has("b/sub/old") && !target.has("none"));
    assert_eq!(["a/kept", "b/sub/new", "b/new"].map(|name| target.read(name)), ["1", "2", "2"]);
    assert_eq!(["changed", "directory", "file/below"].map(|name| target.read(name)), ["2", "2", "2"]);
}

#[test]
fn repeated_and_nested_opaque_directories_keep_their_own_layer() {
    let lower = ["a/x", "a/b/x", "a/b/c/x", "a/b/d/x", "e/x"];
    let lower = lower.iter().fold(Archive::new(), |archive, name| archive.file(name, "1"));
    // From below and from above, with entries of this layer between.
    let upper = Archive::new()
        .file("a/b/c/new", "2")
        .file("a/b/c/.wh..wh..opq", "")
        .file("a/b/.wh..wh..opq", "")
        .file("a/b/late", "2")
        .file("a/.wh..wh..opq", "")
        .file("a/f/g/new", "2")
        .file("a/f/.wh..wh..opq", "")
        .file("a/f/later", "2")
        .file(".wh.a", "")
        .file("a/.wh..wh..opq", "");
    let target = unpacked(&[lower.bytes(), upper.bytes()]);
    for gone in ["a/x", "a/b/x", "a/b/c/x", "a/b/d"] {
        assert!(!target.has(gone), "{gone}");
    }
    for own in ["a/b/c/new", "a/b/late", "a/f/g/new", "a/f/later"] {
        assert_eq!(target.read(own), "2", "{own}");
    }
    assert_eq!(target.read("e/x"), "1");
    // The next layer clears it again.
    let next = Archive::new().file("a/.wh..wh..opq", "").file("a/last", "3");
    target.unpack(&[next.bytes()]).unwrap();
    assert!(!target.has("a/b") && !target.has("a/f") && target.has("a/last"));
}

#[test]
fn a_whiteout_spares_what_its_own_layer_adds() {
    let lower = Archive::new().file("a/lower", "1");
    let upper = Archive::new().file("a/upper", "2").file(".wh.a", "").file("b", "2").file(".wh.b", "");
    let target = unpacked(&[lower.bytes(), upper.bytes()]);
    assert!(!target.has("a/lower"));
    assert_eq!((target.read("a/upper"), target.read("b")), ("2".to_owned(), "2".to_owned()));
}

#[test]
fn the_last_of_several_entries_of_a_name_counts() {
    let archive = Archive::new()
        .file("x", "1")
        .link(EntryType::Link, "y", "x")
        .file("x", "2")
        .link(EntryType::Symlink, "z", "x")
        .file("z", "3")
        .link(EntryType::Link, "x", "x");
    let target = unpacked(&[archive.bytes()]);
    assert_eq!(["x", "y", "z"].map(|name| target.read(name)), ["2", "1", "3"]);
}

#[test]
fn hard_links_share_a_file_and_may_be_of_links() {
    let archive = Archive::new()
        .file("a", "1")
        .link(EntryType::Link, "b/c", "/a")
        .link(EntryType::Symlink, "s", "/nowhere")
        .link(EntryType::Link, "t", "s");
    let target = unpacked(&[archive.bytes()]);
    let number = |name: &str| target.root().join(name).symlink_metadata().unwrap().ino();
    assert_eq!((number("a"), number("s")), (number("b/c"), number("t")));
}

#[test]
fn links_are_kept_as_text_and_followed_inside_only() {
    let archive = Archive::new()
        .directory("usr/lib", 0o755)
        .link(EntryType::Symlink, "lib", "usr/lib")
        .link(EntryType::Symlink, "absolute", "/usr/lib")
        .link(EntryType::Symlink, "up", "../../../../usr")
        .link(EntryType::Symlink, "host", "/etc/passwd")
        .file("lib/one", "1")
        .file("absolute/two", "2")
        .file("up/lib/three", "3");
    let target = unpacked(&[archive.bytes()]);
    assert_eq!(["one", "two", "three"].map(|name| target.read(&format!("usr/lib/{name}"))), ["1", "2", "3"]);
    assert_eq!(fs::read_link(target.root().join("host")).unwrap(), Path::new("/etc/passwd"));
}

#[test]
fn paths_out_of_the_image_are_refused_or_stay_inside() {
    for name in ["../outside", "a/../../outside", "/../outside", ".."] {
        assert!(refused(Archive::new().file(name, "x")).contains("leads out of the image"), "{name}");
    }
    let target = unpacked(&[Archive::new().file("/outside", "x").file("//a//./b", "y").bytes()]);
    assert_eq!((target.read("outside"), target.read("a/b")), ("x".to_owned(), "y".to_owned()));
    for (name, target) in [("x", "../outside"), ("x", "/etc/passwd"), ("x", "missing"), ("x", "")] {
        let refused = refused(Archive::new().link(EntryType::Link, name, target));
        assert!(refused.contains("link"), "{target}: {refused}");
    }
}

#[test]
fn a_link_to_the_outside_is_no_way_out() {
    let target = Target::new();
    let outside = target.place.path().display().to_string();
    // A link of the image leads nowhere inside, and no directory is made in its place.
    for way in ["..", "../..", &outside, "/proc/self/cwd", "/proc/self/root"] {
        let archive =
            Archive::new().link(EntryType::Symlink, "way", way).file("way/outside", "x").file("way/new", "x");
        // Inside `..` is the root itself.
        let _ = target.unpack(&[archive.bytes()]);
    }
    // A link that the directory itself holds is no way out either.
    symlink(target.place.path(), target.root().join("planted")).unwrap();
    assert!(target.unpack(&[Archive::new().file("planted/outside", "x").bytes()]).is_err());
    let hidden = Archive::new().file("planted/.wh.outside", "").file("planted/.wh..wh..opq", "");
    target.unpack(&[hidden.bytes()]).unwrap();
    let hard = Archive::new().link(EntryType::Link, "hard", "planted/outside");
    assert!(target.unpack(&[hard.bytes()]).is_err());
}

#[test]
fn devices_and_pipes_are_left_out() {
    let lower = Archive::new().file("dev/null", "1");
    let archive = Archive::new()
        .entry(EntryType::Char, "dev/null", "", 0o666, b"")
        .entry(EntryType::Block, "dev/sda", "", 0o666, b"")
        .entry(EntryType::Fifo, "pipe", "", 0o666, b"");
    let target = unpacked(&[lower.bytes(), archive.bytes()]);
    assert!(!target.has("dev/null") && !target.has("dev/sda") && !target.has("pipe"));
    assert!(
        refused(Archive::new().entry(EntryType::new(b'Z'), "x", "", 0, b"")).contains("unknown kind `Z`")
    );
}

#[test]
fn long_names_and_extended_attributes_are_read() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
    let mut gnu = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    gnu.append_data(&mut header.clone(), &long, &b"1"[..]).unwrap();
    let mut link = header.clone();
    link.set_size(0);
    link.set_entry_type(EntryType::Symlink);
    gnu.append_link(&mut link, "link", &long).unwrap();
    let mut pax = Builder::new(Vec::new());
    let path = format!("pax/{}", "p".repeat(200));
    let extensions = [("path", path.as_bytes()), ("SCHILY.xattr.security.capability", b"\x01\0\0\x02")];
    pax.append_pax_extensions(extensions).unwrap();
    pax.append_data(&mut header, "short", &b"2"[..]).unwrap();
    let target = unpacked(&[gnu.into_inner().unwrap(), pax.into_inner().unwrap()]);
    assert_eq!(
        (target.read(&long), target.read("link"), target.read(&path)),
        ("1".into(), "1".into(), "2".into())
    );
    let mut names = [0; 64];
    assert_eq!(rustix::fs::listxattr(target.root().join(&path), &mut names[..]).unwrap_or(0), 0);
}

#[test]
fn holes_stay_holes_and_posix_sparse_files_are_refused() {
    let mut contents = vec![0; 300_000];
    contents[299_999] = 1;
    let archive = Archive::new().entry(EntryType::Regular, "sparse", "", 0o644, &contents);
    let target = unpacked(&[archive.bytes()]);
    assert_eq!(fs::read(target.root().join("sparse")).unwrap(), contents);
    assert!(target.root().join("sparse").metadata().unwrap().blocks() * 512 < 150_000);
    let mut pax = Builder::new(Vec::new());
    pax.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
    let mut header = Header::new_gnu();
    header.set_size(0);
    pax.append_data(&mut header, "x", io::empty()).unwrap();
    let refused = Target::new().unpack(&[pax.into_inner().unwrap()]).unwrap_err().to_string();
    assert!(refused.contains("sparse"), "{refused}");
}

#[test]
fn sizes_depths_and_headers_are_limited() {
    let large = vec![1; 600_000];
    let twice = Archive::new().entry(EntryType::Regular, "a", "", 0o644, &large).entry(
        EntryType::Regular,
        "b",
        "",
        0o644,
        &large,
    );
    assert!(refused(twice).contains("unpacks into more than"));
    // A size that is only claimed.
    let mut header = Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_size(1 << 60);
    header.set_cksum();
    let bomb = [&header.as_bytes()[..], &[0; 4096]].concat();
    assert!(Target::new().unpack(&[bomb]).unwrap_err().to_string().contains("unpacks into more than"));
    let mut pax = Builder::new(Vec::new());
    pax.append_pax_extensions([("comment", &vec![b'x'; 3 << 20][..])]).unwrap();
    let refused_header = Target::new().unpack(&[pax.into_inner().unwrap()]).unwrap_err().to_string();
    assert!(refused_header.contains("header of an entry is too long"), "{refused_header}");
    let mut deep = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    deep.append_data(&mut header, "d/".repeat(500) + "f", io::empty()).unwrap();
    let deep = Target::new().unpack(&[deep.into_inner().unwrap()]).unwrap_err().to_string();
    assert!(deep.contains("more than 128 deep"), "{deep}");
}

fn kind() -> impl Strategy<Value = EntryType> {
    prop::sample::select(vec![
        EntryType::Regular,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Fifo,
    ])
}

/// Names from few parts, so that entries meet each other.
fn name() -> impl Strategy<Value = String> {
    let part =
        prop::sample::select(vec!["a", "b", "..", ".", "", "outside", ".wh.a", ".wh..wh..opq", ".wh.."]);
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #[test]
    fn no_archive_leads_out(entries in prop::collection::vec((kind(), name(), name(), 0_u32..0o10000), 0..20)) {
        let archive = entries.into_iter().fold(Archive::new(), |archive, (kind, name, target, mode)| {
            let contents: &[u8] = if kind == EntryType::Regular { b"x" } else { b"" };
            archive.entry(kind, &name, &target, mode, contents)
        });
        // Refused or not, the check of what lies beside the root is in `unpack`.
        let target = Target::new();
        let _ = target.unpack(&[archive.bytes()]);
        // The cache can always remove it.
        fs::remove_dir_all(target.root()).unwrap();
    }
}
