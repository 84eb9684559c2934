//! Copies of directories with their contents.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use walkdir::WalkDir;

/// Copies the tree below `from` to `to`, which must not exist: contents, modes and links, by
/// reflink where the file system can. `before_each` runs before each entry, and ends the copy by an
/// error.
pub(crate) fn copy_tree(
    from: &Path,
    to: &Path,
    before_each: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<()> {
    // copy_file_range(2), which shares the blocks where it can.
    copy_tree_by(from, to, before_each, &mut |_, source, target| fs::copy(source, target).map(drop))
}

/// Copies as [`copy_tree`] does, with `copy` for each file: it gets the path in the tree, the
/// source and the target.
pub(crate) fn copy_tree_by(
    from: &Path,
    to: &Path,
    before_each: &mut dyn FnMut() -> io::Result<()>,
    copy: &mut dyn FnMut(&Path, &Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    for entry in WalkDir::new(from) {
        before_each()?;
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
