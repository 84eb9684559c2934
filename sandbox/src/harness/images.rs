//! `sandboxed-db update`: the names of images, asked for again.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::oci;

/// The digest that a lock file records for the name of an image, before and after an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdatedImage {
    /// The name in full, such as `docker.io/library/postgres:17`.
    pub name: String,
    /// The digest before; `None` for a name that was not recorded.
    pub before: Option<String>,
    /// The digest that is recorded now.
    pub after: String,
}

/// Asks registries again for names, or for all that the lock file of a directory records. Returns
/// the file and the names.
///
/// # Errors
/// For a directory without a place for the file, a name that leads nowhere, and a registry that
/// cannot be reached. The file is left as it is.
pub fn update_images(directory: &Path, names: &[String]) -> Result<(PathBuf, Vec<UpdatedImage>)> {
    let (file, updates) = oci::update(directory, names)?;
    let updates = updates.into_iter().map(|update| UpdatedImage {
        name: update.name,
        before: update.before.map(|digest| digest.to_string()),
        after: update.after.to_string(),
    });
    Ok((file, updates.collect()))
}
