//! Containers whose root is an image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use crate::engine::{Engine, Image};
use crate::launch::SandboxPath;
use crate::launch::plan::{self, Bind, Data, Plan};

/// initdb(1) runs programs by a shell, which small images lack.
const SHELL: &str = "/bin/sh";

/// Returns the plan of a server of an image, on whose `/usr` trees of packages show.
pub(super) fn plan<E: Engine>(
    image: &Image,
    packages: &[PathBuf],
    engine: &E,
    data: Data,
    account: &str,
) -> Plan {
    // The image's locale and the address of its server are not those of a sandbox.
    let foreign =
        |name: &str| name.starts_with("LC_") || name.starts_with("LANG") || engine.is_client_variable(name);
    let env = image.env().iter().filter(|(name, _)| !foreign(name)).cloned().collect();
    let mut plan = plan::image_root(image.root(), env, data, engine.data_dir(), account);
    if !packages.is_empty() {
        plan.usr = packages.iter().cloned().chain(image.on_host(Path::new("/usr"))).collect();
    }
    plan
}

/// Returns the binds of a shell for an image without one: a static busybox(1) of the host, else the
/// host's shell, with the host's C library if the image has none of that kind.
pub(super) fn shell(image: &Image) -> Vec<Bind> {
    if image.is_file(Path::new(SHELL)) {
        return Vec::new();
    }
    let bind = |source: PathBuf, target: &Path| Bind { source, target: place(image, target) };
    let busybox = Path::new("/bin/busybox");
    if fs::read(busybox).is_ok_and(|program| interpreter(&program).is_none()) {
        return vec![bind(busybox.to_owned(), Path::new(SHELL))];
    }
    let Ok(program) = fs::canonicalize(SHELL) else { return Vec::new() };
    let mut binds = vec![bind(program, Path::new(SHELL))];
    let interpreter = fs::read(SHELL).ok().and_then(|program| interpreter(&program));
    if interpreter.is_some_and(|interpreter| !image.is_file(&interpreter)) {
        let libraries = libraries(Path::new(SHELL));
        let missing = libraries.iter().filter(|library| !image.is_file(library));
        binds.extend(missing.filter_map(|path| Some(bind(fs::canonicalize(path).ok()?, path))));
    }
    binds
}

/// Returns advice for a failure that the lack of a shell may explain.
pub(super) fn shell_hint(image: &Image) -> Option<String> {
    (!image.is_file(Path::new(SHELL))).then(|| {
        "the image has no shell, and the host's may not run there: install the host's package `busybox-static`, or add \
         `/bin/sh` to the image"
            .to_owned()
    })
}

/// Returns the place for a file in an image: the links of its directories lead where they lead in
/// the image, instead of being covered.
fn place(image: &Image, path: &Path) -> SandboxPath {
    let existing = path.ancestors().skip(1).find_map(|above| Some((above, image.canonical(above)?)));
    existing.map_or_else(
        || SandboxPath::new(path),
        |(above, real)| SandboxPath::new(real.join(path.strip_prefix(above).unwrap_or(path))),
    )
}

/// Returns the dynamic linker that a program names; `None` for a static program.
fn interpreter(program: &[u8]) -> Option<PathBuf> {
    // It is in the first page of a program, as a path that ends with a NUL.
    let start = &program[..program.len().min(4096)];
    let at = memchr::memmem::find_iter(start, b"\0/").map(|at| at + 1);
    at.filter_map(|at| {
        let text = start[at..].split(|byte| *byte == 0).next()?;
        let path = Path::new(str::from_utf8(text).ok()?);
        path.file_name()?.to_str()?.starts_with("ld").then(|| path.to_owned())
    })
    .next()
}

/// Returns the libraries of a program of the host, and its dynamic linker, as ldd(1) finds them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Process::new(program)
        .env_clear()
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let words = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_of_a_program_is_found_in_it() {
        let program = b"\x7fELF\0\0\0/usr/lib/x\0\0/lib64/ld-linux-x86-64.so.2\0\0";
        assert_eq!(interpreter(program).unwrap(), Path::new("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(interpreter(b"\x7fELF\0\0\0/usr/lib/x\0"), None);
        assert_eq!(interpreter(b""), None);
    }
}
