//! The image that a description names: from its reference to a root for an engine.

use std::path::PathBuf;

use crate::engine::Image;
#[cfg(feature = "images")]
use crate::environment::LOCKED;
use crate::environment::Variable;
use crate::error::{Error, ErrorKind, Result};

/// The beginnings of references by which a variable names an image, and no directories.
const SCHEMES: [&str; 6] = ["docker://", "http://", "https://", "oci:", "oci-archive:", "docker-archive:"];

fn server_variable(engine: &str) -> Option<(&'static Variable, String)> {
    let variable = Variable::of_server(engine)?;
    Some((variable, variable.value()?.into_string().ok()?))
}

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

    /// Returns the image that the variable of an engine names, in place of the machine's servers.
    /// Its relative path starts in the working directory.
    pub(crate) fn of_environment(engine: &str) -> Result<Option<Self>> {
        let Some((variable, value)) = server_variable(engine) else { return Ok(None) };
        if !SCHEMES.iter().any(|scheme| value.starts_with(scheme)) {
            return Ok(None);
        }
        let base =
            std::env::current_dir().map_err(|error| variable.refused(value.as_ref()).caused_by(error))?;
        Ok(Some(Self { written: value, base }))
    }

    /// Returns the unpacked image. With `locked` a name must be recorded by the lock file.
    #[cfg(feature = "images")]
    pub(crate) fn obtain(&self, locked: bool) -> Result<Image> {
        let reference = self.written.parse::<crate::oci::Reference>().map_err(|why| {
            Error::new(ErrorKind::InvalidConfig, format!("use the image `{}`", self.written)).caused_by(why)
        })?;
        let new = match locked || LOCKED.word()? == Some("1") {
            true => crate::oci::NewNames::Refused,
            false => crate::oci::NewNames::Recorded,
        };
        let (image, reference) = crate::oci::obtain(&reference.relative_to(&self.base), &self.base, new)?;
        let (id, env) = (image.id(), image.env().to_vec());
        Ok(Image::new(reference.to_string(), image.root(), id, env, super::run_in_image::run_in_image))
    }

    #[cfg(not(feature = "images"))]
    pub(crate) fn obtain(&self, _locked: bool) -> Result<Image> {
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
