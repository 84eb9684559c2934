//! Copies of directories with all that is in them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use walkdir::WalkDir;

/// Copies the tree below `from` to `to`, which must not exist: contents, modes and links, by reflink where the file system
/// can. `wanted` is asked before each entry, and ends it by an error.
pub(crate) fn copy_tree(
    from: &Path,
    to: &Path,
    wanted: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<()> {
    // copy_file_range(2), which shares the blocks where it can.
    copy_tree_by(from, to, wanted, &mut |_, source, target| fs::copy(source, target).map(drop))
}

/// The same, where `copy` is told of each file by its path in the tree, where it is, and where its copy belongs.
pub(crate) fn copy_tree_by(
    from: &Path,
    to: &Path,
    wanted: &mut dyn FnMut() -> io::Result<()>,
    copy: &mut dyn FnMut(&Path, &Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    for entry in WalkDir::new(from) {
        wanted()?;
        let entry = entry?;
        let path = entry.path().strip_prefix(from).map_err(io::Error::other)?;
        let target = to.join(path);
        let kind = entry.file_type();
        if kind.is_dir() {
            fs::create_dir(&target)?;
            fs::set_permissions(&target, entry.metadata()?.permissions())?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            copy(path, entry.path(), &target)?;
        }
    }
    Ok(())
}
