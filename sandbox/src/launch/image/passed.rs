//! Images as the launcher passes them to its containers, with pages that it has read.
//!
//! A server that is resumed writes its shared memory anew. To map the pages for that from the image
//! takes as long as to copy them; memory of the launcher is there after clone(2).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::format::passing;
use super::seal::Fingerprint;
use crate::sys::inherited_pages::InheritedPages;

/// An image in a container.
#[derive(Debug)]
pub(in crate::launch) struct PassedImage {
    pub(super) file: File,
    /// Pages that this process has inherited.
    pub(super) pages: Option<InheritedPages>,
}

impl AsFd for PassedImage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<PassedImage> for File {
    fn from(image: PassedImage) -> Self {
        image.file
    }
}

/// The start from an image after which its pages are read. That takes a millisecond, which each
/// further start saves in part.
const READ_AFTER: u32 = 3;

/// The image of a launcher's last start, and the pages that its containers inherit.
#[derive(Debug, Default)]
pub(in crate::launch) struct LauncherImage {
    /// The file, and the number of its starts.
    last: Option<(Fingerprint, u32)>,
    pages: Option<InheritedPages>,
}

impl LauncherImage {
    /// Notes a start from an image. The container that is cloned next inherits its pages, if they
    /// were read, until [`done`](Self::done) is called.
    pub(in crate::launch) fn choose(&mut self, image: BorrowedFd<'_>) {
        let found = image.try_clone_to_owned().and_then(|image| Fingerprint::of(&image.into()));
        let Ok(found) = found else { return };
        match &mut self.last {
            Some((last, starts)) if *last == found => *starts += 1,
            last => {
                *last = Some((found, 1));
                self.pages = None;
            }
        }
        if self.pages.as_ref().is_some_and(|pages| pages.let_children_inherit(true).is_err()) {
            self.pages = None;
        }
    }

    /// Returns the image for a container that was cloned since `choose`, which owns the pages.
    pub(in crate::launch) fn pass(&mut self, image: OwnedFd) -> PassedImage {
        PassedImage { file: image.into(), pages: self.pages.take() }
    }

    /// Ends what `choose` has begun.
    pub(in crate::launch) fn done(&mut self) {
        // Pages that every container inherits are none.
        if self.pages.as_ref().is_some_and(|pages| pages.let_children_inherit(false).is_err()) {
            self.pages = None;
        }
    }

    /// Returns `true` if [`read`](Self::read) pays for the image that was chosen last.
    pub(in crate::launch) fn is_due(&self) -> bool {
        self.pages.is_none() && matches!(self.last, Some((_, READ_AFTER)))
    }

    /// Reads the pages of the image that was chosen last. Without them a container maps its own.
    pub(in crate::launch) fn read(&mut self, image: &File) {
        let part = passing(image).unwrap_or_default();
        self.pages = part.and_then(|part| InheritedPages::read(image.as_fd(), part).ok());
    }
}
