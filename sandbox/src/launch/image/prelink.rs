//! Work that a program repeats at each start, done once before its image is taken: the dynamic
//! linker binds all functions, and OpenSSL initialises itself. It leaves nothing but memory, as if
//! the program had done it.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use elf::ElfBytes;
use elf::endian::NativeEndian;

use crate::launch::command::ResolvedCommand;
use crate::machine::maps::Mapping;
use crate::sys::trace::{Argument, Tracee, execute};

/// Makes the dynamic linker bind all functions before the program begins, instead of each at its
/// first call, ld.so(8). Each process of a server would bind its own, in pages that it then owns.
const BIND_NOW: &CStr = c"LD_BIND_NOW=1";

/// A bound on arguments and variables, of which programs have some tens.
const MOST_WORDS: u64 = 4096;

/// The variable for the dynamic linker, which is removed again before the program runs.
#[derive(Debug, Default)]
pub(super) struct Binding {
    /// The bytes at the end of the environment that it takes.
    pub(super) bytes: u64,
}

impl Binding {
    /// Returns the hook that executes the program in a child after `prepare`. The standard library
    /// sorts variables by name, and only the last variable can be removed again.
    pub(super) fn executed(
        command: &ResolvedCommand,
        mut prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<impl FnMut() -> io::Result<()> + Send + Sync + 'static> {
        let program = CString::new(command.program.as_os_str().as_bytes())?;
        let mut arguments = vec![program.clone()];
        for argument in &command.args {
            arguments.push(CString::new(argument.as_str())?);
        }
        let mut environment = Vec::new();
        for (name, value) in command.env.iter().map(|(name, value)| (name, value)).collect::<BTreeMap<_, _>>()
        {
            environment.push(CString::new(format!("{name}={value}"))?);
        }
        environment.push(BIND_NOW.to_owned());
        Ok(move || {
            prepare()?;
            Err(execute(&program, &arguments, &environment).into())
        })
    }

    /// Removes the variable from a program at its entry point. `stack` is the address of its
    /// arguments; `word` reads its memory.
    pub(super) fn undo(
        tracee: &Tracee,
        stack: u64,
        word: impl Fn(u64) -> io::Result<u64>,
    ) -> io::Result<Self> {
        // The number of arguments, these, a zero, the variables, a zero (System V ABI for x86-64,
        // "Initial Stack").
        let arguments = word(stack)?.min(MOST_WORDS);
        let first = stack + 8 * (arguments + 2);
        let mut last = None;
        for place in (0..MOST_WORDS).map(|index| first + 8 * index) {
            match word(place)? {
                0 => break,
                text => last = Some((place, text)),
            }
        }
        let (place, text) = last.ok_or_else(|| io::Error::other("it has no environment"))?;
        let expected = BIND_NOW.to_bytes_with_nul();
        let length = expected.len() as u64;
        // Two words that overlap are its fourteen bytes.
        let ends = [text, text + length - 8];
        let found = [word(ends[0])?, word(ends[1])?].map(u64::to_ne_bytes);
        if found[0] != expected[..8] || found[1] != expected[expected.len() - 8..] {
            return Err(io::Error::other("its environment is not as it was given"));
        }
        tracee.poke(place, 0)?;
        for end in ends {
            tracee.poke(end, 0)?;
        }
        Ok(Self { bytes: length })
    }
}

/// A function of one of the program's libraries to call. It returns zero if it fails.
#[derive(Debug)]
pub(super) struct PrelinkCall {
    /// Its address.
    pub(super) function: u64,
    pub(super) arguments: [Argument; 3],
}

pub(super) const LIBRARY: &str = "libcrypto.so.3";

/// OPENSSL_INIT_NO_ATEXIT: memory is not given back to the process just before that ends.
/// OPENSSL_init_crypto(3ssl).
const NO_ATEXIT: u64 = 0x0008_0000;

/// The digest that the random generator of a sandbox's configuration uses.
const DIGEST: &CStr = c"SHA2-256";

/// Calls that initialise OpenSSL. To look up a digest it reads its configuration and constructs all
/// its digests, which the first request for random bytes would wait for. It draws none by that, and
/// keeps no file open. EVP_MD_fetch(3ssl).
const CALLS: [(&str, [Argument; 3]); 2] = [
    ("OPENSSL_init_crypto", [Argument::Number(NO_ATEXIT), Argument::Number(0), Argument::Number(0)]),
    ("EVP_MD_fetch", [Argument::Number(0), Argument::Text(DIGEST), Argument::Number(0)]),
];

impl PrelinkCall {
    /// Returns the calls for a program with these mappings.
    pub(super) fn all(mappings: &[Mapping]) -> io::Result<Vec<Self>> {
        let is_begin = |mapping: &&Mapping| {
            mapping.offset == 0 && Path::new(&mapping.name).file_name().is_some_and(|name| name == LIBRARY)
        };
        let Some(library) = mappings.iter().find(is_begin) else { return Ok(Vec::new()) };
        let functions = addresses_of(library, Path::new("/"), CALLS.map(|(name, _)| name))?;
        let calls = functions.into_iter().zip(CALLS);
        Ok(calls.map(|(function, (_, arguments))| Self { function, arguments }).collect())
    }
}

/// Returns the addresses of functions of a library. `library` is the mapping of its first bytes, of
/// a file below `root`.
pub(super) fn addresses_of<const N: usize>(
    library: &Mapping,
    root: &Path,
    functions: [&str; N],
) -> io::Result<[u64; N]> {
    let bytes = fs::read(root.join(library.name.trim_start_matches('/')))?;
    let parsed = ElfBytes::<NativeEndian>::minimal_parse(&bytes).map_err(io::Error::other)?;
    let table = parsed.dynamic_symbol_table().map_err(io::Error::other)?;
    let (symbols, names) = table.ok_or_else(|| io::Error::other(format!("{LIBRARY} has no symbols")))?;
    let mut addresses = [0; N];
    for symbol in symbols.iter().filter(|symbol| !symbol.is_undefined()) {
        let name = names.get(symbol.st_name as usize).unwrap_or_default();
        if let Some(at) = functions.iter().position(|function| *function == name) {
            // The first bytes of a library's file are at its address zero.
            addresses[at] = library.start + symbol.st_value;
        }
    }
    match addresses.iter().position(|address| *address == 0) {
        None => Ok(addresses),
        Some(missing) => Err(io::Error::other(format!("{LIBRARY} has no {}", functions[missing]))),
    }
}
