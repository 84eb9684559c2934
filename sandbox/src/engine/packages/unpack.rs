//! Package files, unpacked into a tree that fits over the `/usr` of a merged-usr system.

use std::fs::{self, Permissions};
use std::io::{self, Error};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::alternatives::{self, Alternative};
use super::client::{complaints, run};

/// Where `dpkg-deb --raw-extract` puts a package's control files.
const CONTROL: &str = "DEBIAN";

/// Unpacks a package file into `tree`, and runs none of its scripts. `scratch` is a directory on
/// the same file system. Returns the package's control file and the links that its script makes.
pub(super) fn unpack(
    file: &Path,
    tree: &Path,
    scratch: &Path,
    deadline: Instant,
) -> io::Result<(String, Vec<Alternative>)> {
    // A link of one package must not lead files of another one out of the tree: tar(1) follows
    // those that exist before.
    let package = scratch.join("package");
    fs::create_dir(&package)?;
    let mut command = Command::new("dpkg-deb");
    let command = command.arg("--raw-extract").arg(file).arg(&package);
    let (done, output) = run(command, &scratch.join("output"), deadline, &|| {})?;
    done.map_err(|why| Error::other(format!("{why}\n{}", complaints(&output))))?;
    let parts = package.join(CONTROL);
    let control = fs::read_to_string(parts.join("control"))?;
    let script = match fs::read(parts.join("postinst")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        script => script?,
    };
    fs::remove_dir_all(parts)?;
    merge(&package, tree)?;
    Ok((control, alternatives::read(&String::from_utf8_lossy(&script))))
}

/// Makes an unpacked tree fit over the `/usr` of a merged-usr system: all is below `usr`, and
/// nothing sets user or group IDs.
pub(super) fn tidy(tree: &Path) -> io::Result<()> {
    if !is_directory(&tree.join("usr")) {
        fs::create_dir(tree.join("usr"))?;
    }
    merge_usr(tree)?;
    drop_set_id(&tree.join("usr"))
}

/// Moves what packages ship in `/bin`, `/lib`, `/lib64` and `/sbin` below `usr`, where these
/// directories are links to in a merged-usr system, and removes all else beside `usr`.
fn merge_usr(tree: &Path) -> io::Result<()> {
    for entry in fs::read_dir(tree)? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        if name == "usr" {
            continue;
        }
        let is_merged = name == "bin" || name == "sbin" || name.to_string_lossy().starts_with("lib");
        if is_merged && is_directory(&path) {
            merge(&path, &tree.join("usr").join(name))?;
        } else {
            fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path))?;
        }
    }
    Ok(())
}

/// Returns `true` for a directory, and not for a link to one, which may lead out of the tree.
fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|file| file.is_dir())
}

/// Moves a directory's content into another; directories that both have are united.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    if !is_directory(to) {
        fs::create_dir(to)?;
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() && is_directory(&target) {
            merge(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), target)?;
        }
    }
    fs::remove_dir(from)
}

/// Clears the set-user-ID and set-group-ID bits, which a tree unpacked by root has.
fn drop_set_id(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_symlink() {
            continue;
        }
        let mode = metadata.permissions().mode();
        if mode & 0o6000 != 0 {
            fs::set_permissions(entry.path(), Permissions::from_mode(mode & 0o1777))?;
        }
        if metadata.is_dir() {
            drop_set_id(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_a_package_lead_nothing_out_of_the_tree() {
        let (temp, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("file"), "of the host").unwrap();
        let (tree, package) = (temp.path().join("tree"), temp.path().join("package"));
        let link = |path: &Path| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(outside.path(), path).unwrap();
        };
        link(&tree.join("usr/share/x"));
        fs::create_dir_all(package.join("usr/share/x")).unwrap();
        fs::write(package.join("usr/share/x/evil"), "").unwrap();
        assert!(merge(&package, &tree).is_err(), "a directory takes the place of a link");
        // A directory that would be moved below `usr`.
        link(&tree.join("lib"));
        tidy(&tree).unwrap();
        assert!(tree.join("lib").symlink_metadata().is_err());
        let usr = temp.path().join("linked");
        link(&usr.join("usr"));
        assert!(tidy(&usr).is_err(), "`usr` is a link");
        let left: Vec<_> =
            fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["file"]);
    }

    #[test]
    fn everything_ends_below_usr_and_without_set_id_bits() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path();
        for dir in ["usr/lib/x", "lib/x", "lib64", "sbin", "etc/default", "usr/bin"] {
            fs::create_dir_all(tree.join(dir)).unwrap();
        }
        for file in
            ["usr/lib/x/a.so", "lib/x/b.so.1", "lib64/ld.so", "sbin/tool", "etc/default/c", "usr/bin/su"]
        {
            fs::write(tree.join(file), file).unwrap();
        }
        std::os::unix::fs::symlink("b.so.1", tree.join("lib/x/b.so")).unwrap();
        fs::set_permissions(tree.join("usr/bin/su"), Permissions::from_mode(0o6755)).unwrap();
        tidy(tree).unwrap();
        let left: Vec<_> = fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["usr"]);
        assert_eq!(fs::read_to_string(tree.join("usr/lib/x/b.so")).unwrap(), "lib/x/b.so.1");
        assert!(tree.join("usr/lib/x/a.so").is_file() && tree.join("usr/lib64/ld.so").is_file());
        assert!(tree.join("usr/sbin/tool").is_file());
        assert_eq!(fs::metadata(tree.join("usr/bin/su")).unwrap().permissions().mode() & 0o7777, 0o755);
    }
}
