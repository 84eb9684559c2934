//! System calls that no safe library offers. The only folder with `unsafe`; it knows nothing of layers or engines.

pub(crate) mod clone;
pub(crate) mod constructor;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod socket;
