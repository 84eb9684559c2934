//! The packages of an image's distribution: which are installed, and where others come from.
//!
//! apt-get(8) of this machine gets copies of the image's sources, keys, preferences and
//! credentials, and none of its settings: these may name programs, and so may sources of other
//! kinds than HTTP, which would all run on this machine.

use std::fs;
use std::io::{self, Error};
use std::path::{Path, PathBuf};

use super::sources::{self, Keys};
use crate::engine::image::Image;

const STATUS: &str = "/var/lib/dpkg/status";
/// The lists of the files of each package, `<package>.list`.
const LISTS: &str = "/var/lib/dpkg/info";
const ETC: &str = "/etc/apt";
/// The files of [`ETC`] that are copied as they are.
const COPIED: [&str; 3] = ["trusted.gpg", "preferences", "auth.conf"];
/// The directories of further such files.
const COPIED_PARTS: [&str; 3] = ["trusted.gpg.d", "preferences.d", "auth.conf.d"];

/// The beginnings of two errors.
pub(super) const NO_SOURCE: &str = "there is no source of packages by HTTP";
pub(super) const UNNAMED_KEY: &str = "sources cannot name the key";

/// Returns the status file of the image's packages; `None` if it has none.
pub(super) fn status(image: &Image) -> Option<String> {
    let status = String::from_utf8_lossy(&image.read(Path::new(STATUS)).ok()?).into_owned();
    status.contains("Package: ").then_some(status)
}

/// Returns the name of the image's package that has one of these files.
pub(super) fn owner(image: &Image, files: &[PathBuf]) -> Option<String> {
    let lists = image.children(Path::new(LISTS)).into_iter();
    lists.filter(|list| list.extension().is_some_and(|extension| extension == "list")).find_map(|list| {
        let contents = image.read(&list).ok()?;
        let has_file = |line: &[u8]| files.iter().any(|file| file.as_os_str().as_encoded_bytes() == line);
        let name = list.file_stem()?.to_str()?.split(':').next()?.to_owned();
        contents.split(|byte| *byte == b'\n').any(has_file).then_some(name)
    })
}

/// Copies the image's sources, keys and preferences into a new directory. Returns the options by
/// which apt-get uses these instead of the machine's.
pub(super) fn configure(image: &Image, directory: &Path) -> io::Result<Vec<(&'static str, PathBuf)>> {
    for parts in ["sources.list.d", "keys"].iter().chain(&COPIED_PARTS) {
        fs::create_dir_all(directory.join(parts))?;
    }
    let etc = Path::new(ETC);
    let parts = COPIED_PARTS.iter().flat_map(|parts| image.children(&etc.join(parts)));
    for file in COPIED.iter().map(|file| etc.join(file)).chain(parts) {
        if let (Ok(contents), Ok(name)) = (image.read(&file), file.strip_prefix(etc)) {
            fs::write(directory.join(name), contents)?;
        }
    }
    let mut keys = ImageKeys { image, directory: directory.join("keys"), copied: 0 };
    let mut is_empty = true;
    for file in [etc.join("sources.list")].into_iter().chain(image.children(&etc.join("sources.list.d"))) {
        let (Ok(contents), Ok(name)) = (image.read(&file), file.strip_prefix(etc)) else { continue };
        let contents = String::from_utf8_lossy(&contents);
        let usable = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources::lines(&contents, &mut keys)?,
            Some("sources") => sources::stanzas(&contents, &mut keys)?,
            _ => continue,
        };
        is_empty &= usable.is_empty();
        fs::write(directory.join(name), usable)?;
    }
    if is_empty {
        return Err(Error::other(format!("{NO_SOURCE} in {ETC} of the image")));
    }
    Ok([
        ("Dir::Etc", ""),
        ("Dir::Etc::sourcelist", "sources.list"),
        ("Dir::Etc::sourceparts", "sources.list.d"),
        ("Dir::Etc::trusted", "trusted.gpg"),
        ("Dir::Etc::trustedparts", "trusted.gpg.d"),
        ("Dir::Etc::preferences", "preferences"),
        ("Dir::Etc::preferencesparts", "preferences.d"),
        ("Dir::Etc::netrc", "auth.conf"),
        ("Dir::Etc::netrcparts", "auth.conf.d"),
    ]
    .map(|(option, name)| (option, directory.join(name)))
    .into())
}

/// Copies of the image's keys.
struct ImageKeys<'a> {
    image: &'a Image,
    directory: PathBuf,
    copied: usize,
}

impl ImageKeys<'_> {
    fn write(&mut self, contents: &[u8]) -> io::Result<PathBuf> {
        // The ending must be that of the form, and older programs know no others.
        let ending = if contents.starts_with(b"-----BEGIN") { "asc" } else { "gpg" };
        self.copied += 1;
        let copy = self.directory.join(format!("{}.{ending}", self.copied));
        let is_plain = |c: char| c.is_alphanumeric() || "/._-+~".contains(c);
        if !copy.to_str().is_some_and(|path| path.chars().all(is_plain)) {
            let copy = copy.display();
            return Err(Error::other(format!("{UNNAMED_KEY} `{copy}`: its path has a special character")));
        }
        fs::write(&copy, contents)?;
        Ok(copy)
    }
}

impl Keys for ImageKeys<'_> {
    fn copy(&mut self, key: &Path) -> io::Result<PathBuf> {
        // Without the key nothing is verified, so the source is refused.
        let contents = self.image.read(key).unwrap_or_default();
        self.write(&contents)
    }

    fn store(&mut self, key: &str) -> io::Result<PathBuf> {
        self.write(key.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn image(root: &Path) -> Image {
        Image::new("x".to_owned(), root.to_owned(), "x".to_owned(), Vec::new(), |_, _| Ok(String::new()))
    }

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, contents) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
    }

    #[test]
    fn only_sources_keys_and_preferences_are_copied() {
        let (root, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(
            root.path(),
            &[
                ("etc/apt/sources.list", "deb [signed-by=/keys/a] http://a.example x main\n"),
                ("etc/apt/sources.list.d/b.sources", "Types: deb\nURIs: http://b.example\nSuites: x\n"),
                ("etc/apt/sources.list.d/c.save", "deb http://c.example x main\n"),
                ("etc/apt/apt.conf.d/hook", "APT::Update::Pre-Invoke {\"touch /tmp/x\";};\n"),
                ("etc/apt/preferences.d/pin", "Package: x\n"),
                ("keys/a", "-----BEGIN PGP PUBLIC KEY BLOCK-----"),
            ],
        );
        // Inside it is a file of the image, and outside it would be one of this machine.
        fs::create_dir_all(root.path().join("etc/apt/trusted.gpg.d")).unwrap();
        symlink("/etc/passwd", root.path().join("etc/apt/trusted.gpg.d/link.gpg")).unwrap();
        let options = configure(&image(root.path()), place.path()).unwrap();
        let read = |name: &str| fs::read_to_string(place.path().join(name)).unwrap_or_default();
        let key = place.path().join("keys/1.asc");
        assert_eq!(
            read("sources.list"),
            format!("deb [signed-by={}] http://a.example x main\n", key.display())
        );
        assert!(read("keys/1.asc").starts_with("-----BEGIN"));
        assert!(read("sources.list.d/b.sources").contains("URIs: http://b.example"));
        assert_eq!(read("preferences.d/pin"), "Package: x\n");
        for left_out in ["sources.list.d/c.save", "apt.conf.d", "trusted.gpg.d/link.gpg"] {
            assert!(!place.path().join(left_out).exists(), "{left_out}");
        }
        assert!(options.iter().all(|(_, path)| path.starts_with(place.path())));
    }

    #[test]
    fn an_image_without_usable_sources_is_refused() {
        let (root, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(
            root.path(),
            &[("etc/apt/sources.list", "deb ssh://a.example x main\n# deb http://a x main\n")],
        );
        let refused = configure(&image(root.path()), place.path()).unwrap_err().to_string();
        assert!(refused.contains("no source of packages"), "{refused}");
    }

    #[test]
    fn the_owner_of_a_file_is_found_in_the_image() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(status(&image(root.path())), None);
        write(
            root.path(),
            &[
                ("var/lib/dpkg/status", "Package: db\n"),
                ("var/lib/dpkg/info/db:amd64.list", "/.\n/usr/bin/server\n"),
                ("var/lib/dpkg/info/db.postinst", "/usr/bin/other\n"),
            ],
        );
        let image = image(root.path());
        assert_eq!(status(&image).as_deref(), Some("Package: db\n"));
        assert_eq!(owner(&image, &["/usr/bin/server".into()]).as_deref(), Some("db"));
        assert_eq!(owner(&image, &["/usr/bin/other".into()]), None);
    }
}
