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

/// Unpacks a package file into `tree`, and runs none of its scripts. Returns its control file and
/// the links that its script makes.
pub(super) fn unpack(
    file: &Path,
    tree: &Path,
    scratch: &Path,
    deadline: Instant,
) -> io::Result<(String, Vec<Alternative>)> {
    let mut command = Command::new("dpkg-deb");
    let (done, output) = run(command.arg("--raw-extract").arg(file).arg(tree), scratch, deadline, &|| {})?;
    done.map_err(|why| Error::other(format!("{why}\n{}", complaints(&output))))?;
    let parts = tree.join(CONTROL);
    let control = fs::read_to_string(parts.join("control"))?;
    let script = match fs::read(parts.join("postinst")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        script => script?,
    };
    fs::remove_dir_all(parts)?;
    Ok((control, alternatives::read(&String::from_utf8_lossy(&script))))
}

/// Makes an unpacked tree fit over the `/usr` of a merged-usr system: all is below `usr`, and
/// nothing sets user or group IDs.
pub(super) fn tidy(tree: &Path) -> io::Result<()> {
    fs::create_dir_all(tree.join("usr"))?;
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
        if name == "bin" || name == "sbin" || name.to_string_lossy().starts_with("lib") {
            merge(&path, &tree.join("usr").join(name))?;
        } else {
            fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path))?;
        }
    }
    Ok(())
}

/// Moves a directory's content into another; directories that both have are united.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() && target.is_dir() {
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
