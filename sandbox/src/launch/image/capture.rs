//! Makes an image: runs the program until the dynamic linker hands over to it, and copies its
//! memory.
//!
//! An image holds memory and the state that `restore.rs` replays. So each system call on the way is
//! watched, and a call that leaves other state refuses the program.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::calls::Calls;
use super::format::{EntryPoint, Image, Layout, MappedFile, PAGE, Region, Source};
use super::prelink::{Binding, PrelinkCall};
use crate::launch::command::ResolvedCommand;
use crate::machine::maps::Mapping;
use crate::machine::process;
use crate::sys::process::SingleThreaded;
use crate::sys::trace::{Registers, Stop, Tracee};

/// The breakpoint instruction of x86-64.
const BREAKPOINT: u64 = 0xcc;

/// Runs `command` up to its entry point, as a child of this process, and writes its image.
/// `prepare` runs in the child. Work of each start is done ahead if possible.
///
/// # Errors
/// The reason why the program has no image.
pub(in crate::launch) fn capture(
    command: &ResolvedCommand,
    into: &mut File,
    prepare: impl FnMut() -> io::Result<()> + Clone + Send + Sync + 'static,
) -> io::Result<()> {
    capture_ahead(command, into, prepare.clone()).or_else(|_| {
        into.set_len(0)?;
        into.rewind()?;
        let program = Program::start(command, prepare)?;
        let (calls, registers) = program.link()?;
        program.write(into, calls, &registers, &Binding::default())
    })
}

/// Writes the image of a program with its work of each start done.
fn capture_ahead(
    command: &ResolvedCommand,
    into: &mut File,
    prepare: impl FnMut() -> io::Result<()> + Clone + Send + Sync + 'static,
) -> io::Result<()> {
    let program = Program::start(command, Binding::executed(command, prepare)?)?;
    let (mut calls, registers) = program.link()?;
    let binding = Binding::undo(&program.tracee, registers.stack, |address| program.word(address))?;
    for call in PrelinkCall::all(&program.mappings("maps")?)? {
        program.run_call(&call, &registers, &mut calls)?;
    }
    program.write(into, calls, &registers, &binding)
}

/// A traced program that has not reached its entry point, or is stopped there.
struct Program {
    tracee: Tracee,
    /// The program's directory in /proc.
    proc: PathBuf,
    memory: File,
    auxiliary: Vec<u64>,
}

impl Program {
    fn start(
        command: &ResolvedCommand,
        prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let proof = SingleThreaded::check()?;
        let mut command = command.process([Stdio::null(), Stdio::null(), Stdio::null()]);
        let tracee = Tracee::start(&proof, &mut command, prepare)?;
        // It is the only child. In an outer /proc it has another id than here.
        let children = process::children("self");
        let id = children.first().ok_or_else(|| refused("its process is not in /proc"))?;
        let proc = Path::new("/proc").join(id.to_string());
        let auxiliary = fs::read(proc.join("auxv"))?;
        let auxiliary =
            auxiliary.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")));
        let program =
            Self { memory: File::open(proc.join("mem"))?, auxiliary: auxiliary.collect(), tracee, proc };
        if program.auxiliary(libc::AT_BASE) == 0 {
            return Err(refused("it is linked statically"));
        }
        if program.auxiliary(libc::AT_SECURE) != 0 {
            return Err(refused("it runs with more rights than its user"));
        }
        Ok(program)
    }

    /// Returns a value of the auxiliary vector, getauxval(3).
    fn auxiliary(&self, kind: u64) -> u64 {
        self.auxiliary.chunks_exact(2).find(|pair| pair[0] == kind).map_or(0, |pair| pair[1])
    }

    /// Lets the program run to its entry point for the first time.
    fn link(&self) -> io::Result<(Calls, Registers)> {
        let entry = self.auxiliary(libc::AT_ENTRY);
        let word = self.word(entry)?;
        self.tracee.poke(entry, word & !0xff | BREAKPOINT)?;
        let mut calls = Calls::default();
        let registers = self.watch(&mut calls)?;
        calls.thread.pointer = registers.thread;
        Ok((calls, registers))
    }

    /// Lets the program call a function of one of its libraries at its entry point, which has a
    /// breakpoint.
    fn run_call(&self, call: &PrelinkCall, registers: &Registers, calls: &mut Calls) -> io::Result<()> {
        self.tracee.enter(call.function, call.arguments, registers.stack, self.auxiliary(libc::AT_ENTRY))?;
        match self.watch(calls)?.result {
            0 => Err(refused("one of its libraries cannot be prelinked")),
            _ => Ok(()),
        }
    }

    /// Lets the program run to its entry point, and notes the system calls on the way.
    fn watch(&self, calls: &mut Calls) -> io::Result<Registers> {
        let entry = self.auxiliary(libc::AT_ENTRY);
        let mut begun: Option<Registers> = None;
        loop {
            let stop = self.tracee.run()?;
            let registers = self.tracee.registers()?;
            match (stop, begun.take()) {
                (Stop::Call, None) => begun = Some(registers),
                // A failed call changes nothing.
                (Stop::Call, Some(_)) if registers.result > u64::MAX - 4095 => {}
                (Stop::Call, Some(begun)) => {
                    if !calls
                        .note(&begun, registers.result, |address| Ok(self.word(address)?.to_ne_bytes()))?
                    {
                        return Err(refused(&format!(
                            "it makes system call {} before it begins",
                            begun.call
                        )));
                    }
                }
                (Stop::Signal(libc::SIGTRAP), _) if registers.instruction == entry + 1 => {
                    return Ok(registers);
                }
                (Stop::Signal(signal), _) => {
                    return Err(refused(&format!("it gets signal {signal} before it begins")));
                }
            }
        }
    }

    /// Refuses a program with threads or open files.
    fn check(&self) -> io::Result<()> {
        let count = |name: &str| Ok::<_, io::Error>(fs::read_dir(self.proc.join(name))?.count());
        if count("task")? != 1 {
            return Err(refused("it starts threads before it begins"));
        }
        if count("fd")? != 3 {
            return Err(refused("it keeps files open before it begins"));
        }
        Ok(())
    }

    /// Returns the program's mappings from a file of its directory in /proc.
    fn mappings(&self, file: &str) -> io::Result<Vec<Mapping>> {
        Ok(Mapping::parse_all(&fs::read_to_string(self.proc.join(file))?))
    }

    fn write(
        &self,
        into: &mut File,
        calls: Calls,
        registers: &Registers,
        binding: &Binding,
    ) -> io::Result<()> {
        self.check()?;
        let Calls { thread, end_of_heap, memory_policy } = calls;
        if memory_policy != libc::MPOL_DEFAULT as u64 {
            return Err(refused("it keeps a policy for its memory"));
        }
        // Other C libraries let the kernel clear other memory at a thread's end.
        let own = thread.pointer..thread.pointer + PAGE;
        if !own.contains(&thread.id) || thread.robust.is_none() {
            return Err(refused("its C library is not the GNU one"));
        }
        let entry = self.auxiliary(libc::AT_ENTRY);
        let mappings = self.mappings("smaps")?;
        let mut files = Files::default();
        let (mut regions, mut system, mut copied) = (Vec::new(), Vec::new(), Vec::new());
        let (mut pages, mut farewell) = (0, None);
        for mapping in &mappings {
            if mapping.is_system() {
                system.push((mapping.name.clone(), mapping.start, mapping.end));
                continue;
            }
            if mapping.name == "[vsyscall]" {
                continue;
            }
            check_mapping(mapping)?;
            let source = if mapping.name == "[stack]" {
                let used = (registers.stack & !(PAGE - 1)) - mapping.start;
                copied.push(mapping.start + used..mapping.end);
                let source = Source::Stack { used, offset: pages };
                pages += mapping.end - mapping.start - used;
                source
            } else if mapping.may('x') {
                // The breakpoint was written to this page.
                let expected = if mapping.range().contains(&entry) { PAGE } else { 0 };
                if mapping.inode == 0 || mapping.written != expected {
                    return Err(refused("it makes instructions before it begins"));
                }
                if farewell.is_none() {
                    farewell = self.farewell(mapping)?;
                }
                Source::File { file: files.number(mapping)?, offset: mapping.offset }
            } else if mapping.written == 0 && mapping.inode != 0 {
                Source::File { file: files.number(mapping)?, offset: mapping.offset }
            } else if mapping.written == 0 {
                Source::Zeroes
            } else {
                copied.push(mapping.range());
                let source = Source::Pages { offset: pages };
                pages += mapping.end - mapping.start;
                source
            };
            regions.push(Region {
                start: mapping.start,
                end: mapping.end,
                protection: protection(mapping),
                source,
            });
        }
        let regions = merge(regions);
        let image = Image {
            files: files.all,
            regions,
            system,
            layout: self.layout(end_of_heap, binding)?,
            auxiliary: self.auxiliary.clone(),
            thread,
            entry: EntryPoint {
                instruction: entry,
                stack: registers.stack,
                at_exit: registers.at_exit,
                farewell: farewell.ok_or_else(|| refused("its C library makes no system call"))?,
            },
        };
        image.write(into, |file| {
            for range in copied {
                self.copy(range, file)?;
            }
            Ok(())
        })
    }

    /// Copies a part of the program's memory to the end of a file.
    fn copy(&self, range: std::ops::Range<u64>, into: &mut File) -> io::Result<()> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.memory.read_exact_at(&mut bytes, range.start)?;
        io::Write::write_all(into, &bytes)
    }

    /// Returns the address of the instructions `syscall; ret` in a mapping, if it has them.
    fn farewell(&self, mapping: &Mapping) -> io::Result<Option<u64>> {
        const INSTRUCTIONS: [u8; 3] = [0x0f, 0x05, 0xc3];
        let mut bytes = vec![0; (mapping.end - mapping.start) as usize];
        self.memory.read_exact_at(&mut bytes, mapping.start)?;
        let at = memchr::memmem::find(&bytes, &INSTRUCTIONS);
        Ok(at.map(|at| mapping.start + at as u64))
    }

    /// Returns the memory layout: fields of proc_pid_stat(5) by number, in the order of
    /// PR_SET_MM(2const).
    fn layout(&self, end_of_heap: u64, binding: &Binding) -> io::Result<Layout> {
        let stat = fs::read_to_string(self.proc.join("stat"))?;
        let fields: Vec<u64> = process::stat_fields(&stat).map(|field| field.parse().unwrap_or(0)).collect();
        // The first after the name is the third of all.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        let start_of_heap = field(47);
        let end_of_heap = end_of_heap.max(start_of_heap);
        Ok(Layout([
            field(26),
            field(27),
            field(45),
            field(46),
            start_of_heap,
            end_of_heap,
            field(28),
            field(48),
            field(49),
            field(50),
            // The end of the environment.
            field(51) - binding.bytes,
        ]))
    }

    fn word(&self, address: u64) -> io::Result<u64> {
        let mut word = [0; 8];
        self.memory.read_exact_at(&mut word, address)?;
        Ok(u64::from_ne_bytes(word))
    }
}

/// Refuses memory with properties that a restore does not reproduce.
fn check_mapping(mapping: &Mapping) -> io::Result<()> {
    // Permissions now and by mprotect(2); growing, accounted, not mergeable, soft-dirty.
    // proc_pid_smaps(5)
    const PLAIN: [&str; 11] = ["rd", "wr", "ex", "mr", "mw", "me", "gd", "ac", "sd", "nr", "dw"];
    let strange = mapping.flags.iter().find(|flag| !PLAIN.contains(&flag.as_str()));
    if !mapping.permissions.ends_with('p') || strange.is_some() {
        return Err(refused(&format!(
            "it has memory with special properties ({} {})",
            mapping.permissions,
            mapping.flags.join(" ")
        )));
    }
    Ok(())
}

/// Joins a library's instructions with the adjacent constants of its file: a process then makes,
/// copies at fork(2) and unmaps 150 mappings instead of 230. Constants become executable by that,
/// as linkers made them for decades; writable memory does not.
fn merge(regions: Vec<Region>) -> Vec<Region> {
    let mut merged: Vec<Region> = Vec::with_capacity(regions.len());
    for next in regions {
        match merged.last_mut() {
            Some(last) if last.goes_on_in(&next) => {
                last.end = next.end;
                last.protection |= next.protection;
            }
            _ => merged.push(next),
        }
    }
    merged
}

fn protection(mapping: &Mapping) -> u64 {
    let parts = [('r', libc::PROT_READ), ('w', libc::PROT_WRITE), ('x', libc::PROT_EXEC)];
    parts.into_iter().filter(|&(what, _)| mapping.may(what)).map(|(_, flag)| flag as u64).sum()
}

/// The files of an image, without duplicates.
#[derive(Default)]
struct Files {
    all: Vec<MappedFile>,
    numbers: BTreeMap<String, usize>,
}

impl Files {
    fn number(&mut self, mapping: &Mapping) -> io::Result<usize> {
        if let Some(&number) = self.numbers.get(&mapping.name) {
            return Ok(number);
        }
        self.all.push(MappedFile::of(PathBuf::from(&mapping.name))?);
        self.numbers.insert(mapping.name.clone(), self.all.len() - 1);
        Ok(self.all.len() - 1)
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::other(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_with_special_properties_is_refused() {
        let mapping = |permissions: &str, flags: &str| {
            let text = format!("1000-2000 {permissions} 00000000 00:00 0\nVmFlags: {flags}\n");
            Mapping::parse_all(&text).remove(0)
        };
        assert!(check_mapping(&mapping("rw-p", "rd wr mr mw me ac sd")).is_ok());
        for (permissions, flags) in [
            ("rw-s", "rd wr sh mr mw me ms sd"),
            // Excluded from a fork, cleared in a fork, locked.
            ("rw-p", "rd wr mr mw me dc ac"),
            ("rw-p", "rd wr mr mw me wf ac"),
            ("rw-p", "rd wr mr mw me lo ac"),
        ] {
            assert!(check_mapping(&mapping(permissions, flags)).is_err(), "{permissions} {flags}");
        }
    }

    #[test]
    fn a_librarys_constants_and_instructions_become_one_region() {
        let (read, write, execute) =
            (libc::PROT_READ as u64, libc::PROT_WRITE as u64, libc::PROT_EXEC as u64);
        let region = |page: u64, protection, source| Region {
            start: page * PAGE,
            end: (page + 1) * PAGE,
            protection,
            source,
        };
        let file = |file, page| Source::File { file, offset: page * PAGE };
        let pages = Source::Pages { offset: 0 };
        let all = vec![
            region(0, read, file(0, 0)),
            region(1, read | execute, file(0, 1)),
            region(2, read, file(0, 2)),
            region(3, read, pages),
            region(4, read | write, pages),
            region(5, read, file(1, 0)),
            // The first is not adjacent in the file, the second not in memory.
            region(6, read | execute, file(1, 2)),
            region(8, read, file(1, 3)),
            // Constants without instructions stay as they are, but for their number.
            region(10, read, file(2, 0)),
            region(11, read, file(2, 1)),
        ];
        let found: Vec<_> = merge(all)
            .iter()
            .map(|region| (region.start / PAGE, region.end / PAGE, region.protection))
            .collect();
        let expected = [
            (0, 3, read | execute),
            (3, 4, read),
            (4, 5, read | write),
            (5, 6, read),
            (6, 7, read | execute),
            (8, 9, read),
            (10, 12, read),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn protections_are_read_from_permissions() {
        let mapping =
            |permissions: &str| Mapping::parse_all(&format!("1000-2000 {permissions} 0 00:00 0\n")).remove(0);
        let (read, write, execute) =
            (libc::PROT_READ as u64, libc::PROT_WRITE as u64, libc::PROT_EXEC as u64);
        for (permissions, expected) in
            [("---p", 0), ("r--p", read), ("rw-p", read | write), ("r-xp", read | execute)]
        {
            assert_eq!(protection(&mapping(permissions)), expected, "{permissions}");
        }
    }
}
