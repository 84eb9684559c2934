//! Architectures without support for images.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Pid;

use super::Handles;
use crate::launch::command::ResolvedCommand;
use crate::launch::protocol::NoImage;

pub(in crate::launch) fn capture(
    _command: &ResolvedCommand,
    _into: &File,
    _prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(in crate::launch) fn take_checkpoint(_init: u32, _into: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// No memory is held.
#[derive(Debug, Default)]
pub(in crate::launch) struct Held;

#[derive(Debug)]
pub(in crate::launch) enum InheritedMemory {}

impl Held {
    pub(in crate::launch) fn prepare(&mut self, _checkpoint: Option<&File>) {}

    pub(in crate::launch) fn take(&mut self) -> Option<InheritedMemory> {
        None
    }

    pub(in crate::launch) fn is_due(&self) -> bool {
        false
    }

    pub(in crate::launch) fn read(&mut self, _image: &File) {}
}

pub(in crate::launch) fn restore(
    _image: &File,
    _command: &ResolvedCommand,
    _stdio: [OwnedFd; 3],
    _handles: &Handles,
) -> Result<Pid, NoImage> {
    Err(io::Error::from(io::ErrorKind::Unsupported).into())
}
