//! Files by which a database's clients find their server.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::engine::{Engine, SandboxPath};
use crate::error::{Error, ErrorKind, Result};

/// Writes the files of [`Engine::client_files`] below a sandbox's root.
pub(super) fn write<E: Engine>(engine: &E, root: &Path) -> Result<()> {
    for (path, contents) in engine.client_files(root) {
        create(root, &path, &contents).map_err(|error| {
            let step = format!("write `{}` of the sandbox", path.as_path().display());
            Error::new(ErrorKind::Control, step).caused_by(error)
        })?;
    }
    Ok(())
}

/// Replaces a file. The server may have put links in its place, which must not lead out.
fn create(root: &Path, path: &SandboxPath, contents: &str) -> io::Result<()> {
    let relative = path.as_path().strip_prefix("/").map_err(io::Error::other)?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, directory, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let parent = relative.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = openat2(&root, parent.unwrap_or(Path::new(".")), directory, Mode::empty(), resolve)?;
    let name = relative.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    match rustix::fs::unlinkat(&parent, name, rustix::fs::AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) | Ok(()) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?;
    File::from(file).write_all(contents.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_a_server_lead_no_file_out_of_its_root() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        fs::create_dir_all(root.join("run/own")).unwrap();
        let outside = place.path().join("outside");
        fs::write(&outside, "outside").unwrap();
        symlink(&outside, root.join("run/own/my.cnf")).unwrap();
        symlink(place.path(), root.join("run/link")).unwrap();
        create(&root, &"/run/own/my.cnf".into(), "inside").unwrap();
        assert_eq!(fs::read_to_string(root.join("run/own/my.cnf")).unwrap(), "inside");
        assert!(create(&root, &"/run/link/outside".into(), "inside").is_err());
        assert_eq!(fs::read_to_string(outside).unwrap(), "outside");
    }
}
