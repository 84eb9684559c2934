//! Every PostgreSQL of this machine, which of them is used, and why: for the doctor.

use std::fs;
use std::path::{Path, PathBuf};

use super::programs::{candidates, inspect, named, packages_wanted, used};
use crate::engine::installation::in_path;
use crate::engine::version::Version;
use crate::error::{Error, Result};

/// The installations of PostgreSQL.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) found: Vec<Found>,
    /// The one in use, or why there is none; absent where the distribution's packages are to be
    /// downloaded.
    pub(crate) used: Option<Result<()>>,
}

/// A directory with a server's programs.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) directory: PathBuf,
    pub(crate) version: Result<String>,
    /// The reason for which it is in use.
    pub(crate) used: Option<&'static str>,
}

/// Looks at all installations, the preferred first. Downloads nothing.
pub(crate) fn survey() -> Survey {
    let named = named();
    let bins = match &named[..] {
        _ if packages_wanted() => Vec::new(),
        [] => candidates(),
        named => named.to_vec(),
    };
    let real = |bin: &Path| fs::canonicalize(bin.join("postgres")).ok();
    let in_path: Vec<_> = in_path("postgres").iter().filter_map(|bin| real(bin)).collect();
    let why = |bin: &Path| match real(bin) {
        _ if !named.is_empty() => "named by SANDBOXED_DB_POSTGRES",
        Some(program) if in_path.contains(&program) => "the first in PATH",
        _ => "the newest, and none is in PATH",
    };
    let used = used();
    let bin = match &used {
        Some(Ok(installation)) => Some(installation.bin().to_owned()),
        _ => None,
    };
    let found = bins.into_iter().map(|directory| {
        let real = fs::canonicalize(&directory).ok();
        let version = inspect(&directory).map(|found| Version(found.version()).number().to_owned());
        let is_used = real.is_some() && real == bin;
        Found { used: is_used.then(|| why(&directory)), directory, version }
    });
    Survey { found: found.collect(), used: used.map(|used: Result<_, Error>| used.map(drop)) }
}
