//! Random generators, whose state all servers of a checkpoint would share.
//!
//! OpenSSL's generators are made empty in each process; they draw from the kernel at their next
//! use. Those of further threads are made to. The C library's and PostgreSQL's generators of a new
//! backend are seeded by OpenSSL or by the kernel.

use std::io;
use std::path::Path;

use super::frozen::Frozen;
use crate::launch::image::prelink::{LIBRARY, addresses_of};
use crate::launch::image::refused;
use crate::machine::maps::Mapping;

/// The libraries of OpenSSL with their functions: those that return a generator, the one that
/// others draw from last, the function that empties one, and the one that seeds it again.
/// EVP_RAND(7), RAND_DRBG(7).
const KNOWN: [(&str, [&str; 5]); 2] = [
    (
        LIBRARY,
        [
            "RAND_get0_public", "RAND_get0_private", "RAND_get0_primary", "EVP_RAND_uninstantiate",
            "EVP_RAND_reseed",
        ],
    ),
    (
        "libcrypto.so.1.1",
        [
            "RAND_DRBG_get0_public", "RAND_DRBG_get0_private", "RAND_DRBG_get0_master",
            "RAND_DRBG_uninstantiate", "RAND_DRBG_reseed",
        ],
    ),
];

/// Libraries with generators that are not known, by the beginnings of their names.
const UNKNOWN: [&str; 4] = ["libcrypto.so", "libssl3.so", "libnss3.so", "libsofthsm"];

/// The generators of a server, by the addresses of their functions. All its processes have the same
/// libraries.
#[derive(Debug)]
pub(super) struct Generators {
    library: Option<(u64, [u64; 5])>,
}

impl Generators {
    /// Finds the generators in the first process.
    pub(super) fn find(process: &Frozen) -> io::Result<Self> {
        let root = process.proc.join("root");
        let found: Option<io::Result<_>> = library(process)?
            .map(|(library, functions)| Ok((library.start, addresses_of(library, &root, functions)?)));
        Ok(Self { library: found.transpose()? })
    }

    /// Empties the generators of a process.
    pub(super) fn forget(&self, process: &Frozen) -> io::Result<()> {
        if library(process)?.map(|(library, _)| library.start) != self.library.map(|(start, _)| start) {
            return Err(refused("its processes have different random generators"));
        }
        let Some((_, [public, private, primary, empty, seed])) = self.library else { return Ok(()) };
        let enter = |function, arguments| process.first.enter(process, function, arguments);
        let refuse = || refused("its random generator cannot be emptied");
        let get = |function| match enter(function, [0, 0])? {
            0 => Err(refuse()),
            generator => Ok(generator),
        };
        // Such functions return one as an `int`.
        let change = |function, generator| match enter(function, [generator, 0])? as i32 {
            1 => Ok(()),
            _ => Err(refuse()),
        };
        // Each thread has two generators, and seeds them again from the primary one as soon as
        // that has been seeded again.
        let primary = get(primary)?;
        change(seed, primary)?;
        for generator in [get(public)?, get(private)?, primary] {
            change(empty, generator)?;
        }
        Ok(())
    }
}

/// Returns the first mapping of OpenSSL's library, and the names of its functions.
fn library(process: &Frozen) -> io::Result<Option<(&Mapping, [&'static str; 5])>> {
    let mut found = None;
    for mapping in process.mappings.iter().filter(|mapping| mapping.offset == 0) {
        let name = Path::new(&mapping.name).file_name().unwrap_or_default().to_string_lossy();
        match KNOWN.iter().find(|(known, _)| *known == name) {
            Some((_, functions)) if found.is_none() => found = Some((mapping, *functions)),
            None if !UNKNOWN.iter().any(|unknown| name.starts_with(unknown)) => {}
            _ => return Err(refused(&format!("the random generator of `{name}` is not known"))),
        }
    }
    Ok(found)
}
