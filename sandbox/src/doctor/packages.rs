//! Checks whether packages of the distribution can be unpacked here.

use super::examination::Examination;
use crate::engine::packages;

/// A finding only: an installed server needs no packages.
pub(super) fn examine(examination: &mut Examination) {
    const NAME: &str = "packages";
    let sentence = match (packages::possible(), packages::unpacked()) {
        (true, 0) => "servers and extensions can be unpacked from the distribution, without root".to_owned(),
        (true, count) => {
            format!(
                "servers and extensions can be unpacked from the distribution, without root; {count} in the cache"
            )
        }
        (false, _) => {
            "none can be unpacked without apt-get and dpkg-deb: servers and extensions must be installed"
                .to_owned()
        }
    };
    examination.ok(NAME, sentence);
}
