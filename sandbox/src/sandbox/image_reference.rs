//! The image that a description names: from its reference to a root for an engine.

use std::path::PathBuf;

use crate::engine::Image;
use crate::error::{Error, ErrorKind, Result};

/// A reference to an image, and where its relative path starts.
#[derive(Debug, Clone)]
pub(crate) struct ImageReference {
    pub(crate) written: String,
    #[cfg_attr(not(feature = "images"), expect(dead_code, reason = "only images have paths"))]
    pub(crate) base: PathBuf,
}

impl ImageReference {
    /// Returns a reference without a relative path.
    pub(crate) fn absolute(written: &str) -> Self {
        Self { written: written.to_owned(), base: PathBuf::new() }
    }

    /// Returns the unpacked image.
    #[cfg(feature = "images")]
    pub(crate) fn obtain(&self) -> Result<Image> {
        let reference = self.parse()?;
        let image = crate::oci::obtain(&reference)?;
        Ok(Image::new(image.root(), image.id(), image.env().to_vec(), super::run_in_image::run_in_image))
    }

    /// Returns the reference with an absolute path, for programs with another working directory.
    #[cfg(feature = "images")]
    pub(crate) fn resolved(&self) -> Result<String> {
        self.parse().map(|reference| reference.to_string())
    }

    #[cfg(feature = "images")]
    fn parse(&self) -> Result<crate::oci::Reference> {
        let reference = self.written.parse::<crate::oci::Reference>().map_err(|why| {
            Error::new(ErrorKind::InvalidConfig, format!("use the image `{}`", self.written)).caused_by(why)
        })?;
        Ok(reference.relative_to(&self.base))
    }

    #[cfg(not(feature = "images"))]
    pub(crate) fn obtain(&self) -> Result<Image> {
        Err(without_feature(&self.written))
    }

    #[cfg(not(feature = "images"))]
    pub(crate) fn resolved(&self) -> Result<String> {
        Err(without_feature(&self.written))
    }
}

#[cfg(not(feature = "images"))]
fn without_feature(reference: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("use the image `{reference}`"))
        .caused_by("sandboxed-db is built without its feature `images`")
        .with_hint("add the feature, as by `cargo add --dev sandboxed-db --features images`")
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(not(feature = "images"))]
    fn a_build_without_the_feature_refuses_images() {
        let error = crate::Snapshot::new(crate::Postgres::new()).image("oci:x").start().unwrap_err();
        assert!(format!("{error:?}").contains("--features images"), "{error:?}");
    }
}
