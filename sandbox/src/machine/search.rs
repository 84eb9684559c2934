//! The search for programs in the directories of PATH.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

/// Returns the reason why a program was not executed.
///
/// execvp(3) answers `EACCES` for a missing program if any directory of PATH cannot be searched.
#[must_use]
pub fn not_executed(program: &OsStr, error: io::Error) -> io::Error {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_searched = !program.as_encoded_bytes().contains(&b'/');
    if is_searched && error.kind() == io::ErrorKind::PermissionDenied && !is_below(program, &path) {
        return io::Error::from_raw_os_error(libc::ENOENT);
    }
    error
}

fn is_below(program: &OsStr, path: &OsStr) -> bool {
    std::env::split_paths(path).any(|directory| Path::new(&directory).join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_in_no_directory_is_not_found() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let reason = |program: &str| not_executed(OsStr::new(program), denied()).kind();
        assert_eq!(reason("no-such-program-here"), io::ErrorKind::NotFound);
        assert_eq!(reason("/no/such/program"), io::ErrorKind::PermissionDenied);
        // One that exists and cannot be executed.
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tool"), "").unwrap();
        assert!(is_below(OsStr::new("tool"), directory.path().as_os_str()));
        assert!(!is_below(OsStr::new("other"), directory.path().as_os_str()));
    }
}
