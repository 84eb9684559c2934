//! Makes an image: runs the program until the dynamic linker hands over to it, and copies its
//! memory.
//!
//! An image holds memory and the state that `restore.rs` replays. So each system call on the way is
//! watched, and a call that leaves other state refuses the program.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::calls::Calls as Left;
use super::format::{Description, ImageWriter, PAGE};
use super::kernel::{
    FAREWELL, Layout, NO_SIGNAL_STACK, arrive, auxiliary, close_files, draw_canary, draw_randomness,
    find_instructions, page_of, read_auxiliary, set_name, set_signal_stack,
};
use super::memory::{Copies, Files, Region, Source, check_mapping, may_be_given_back, merge, special};
use super::prelink::{Binding, PrelinkCall};
use super::refused;
use crate::launch::command::ResolvedCommand;
use crate::machine::maps::Mapping;
use crate::machine::process;
use crate::sys::call_list::{Calls, StoredLists, Trampoline};
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
    into: &File,
    prepare: impl FnMut() -> io::Result<()> + Clone + Send + Sync + 'static,
) -> io::Result<()> {
    capture_ahead(command, into, prepare.clone()).or_else(|_| {
        let program = Program::start(command, prepare)?;
        let (calls, registers) = program.link()?;
        program.write(into, command, calls, &registers, &Binding::default())
    })
}

/// Writes the image of a program with its work of each start done.
fn capture_ahead(
    command: &ResolvedCommand,
    into: &File,
    prepare: impl FnMut() -> io::Result<()> + Clone + Send + Sync + 'static,
) -> io::Result<()> {
    let program = Program::start(command, Binding::executed(command, prepare)?)?;
    let (mut calls, registers) = program.link()?;
    let binding = Binding::undo(&program.tracee, registers.stack, |address| program.word(address))?;
    for call in PrelinkCall::all(&program.mappings("maps")?)? {
        program.run_call(&call, &registers, &mut calls)?;
    }
    program.write(into, command, calls, &registers, &binding)
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
        let (auxiliary, memory) = (read_auxiliary(&proc)?, File::open(proc.join("mem"))?);
        let program = Self { memory, auxiliary, tracee, proc };
        if program.auxiliary(libc::AT_BASE) == 0 {
            return Err(refused("it is linked statically"));
        }
        if program.auxiliary(libc::AT_SECURE) != 0 {
            return Err(refused("it runs with more rights than its user"));
        }
        Ok(program)
    }

    fn auxiliary(&self, kind: u64) -> u64 {
        auxiliary(&self.auxiliary, kind)
    }

    /// Lets the program run to its entry point for the first time.
    fn link(&self) -> io::Result<(Left, Registers)> {
        let entry = self.auxiliary(libc::AT_ENTRY);
        let word = self.word(entry)?;
        self.tracee.poke(entry, word & !0xff | BREAKPOINT)?;
        let mut calls = Left::default();
        let registers = self.watch(&mut calls)?;
        calls.thread.pointer = registers.thread;
        Ok((calls, registers))
    }

    /// Lets the program call a function of one of its libraries at its entry point, which has a
    /// breakpoint.
    fn run_call(&self, call: &PrelinkCall, registers: &Registers, calls: &mut Left) -> io::Result<()> {
        self.tracee.enter(call.function, call.arguments, registers.stack, self.auxiliary(libc::AT_ENTRY))?;
        match self.watch(calls)?.result {
            0 => Err(refused("one of its libraries cannot be prelinked")),
            _ => Ok(()),
        }
    }

    /// Lets the program run to its entry point, and notes the system calls on the way.
    fn watch(&self, calls: &mut Left) -> io::Result<Registers> {
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
        into: &File,
        command: &ResolvedCommand,
        left: Left,
        registers: &Registers,
        binding: &Binding,
    ) -> io::Result<()> {
        self.check()?;
        let Left { thread, end_of_heap, memory_policy } = left;
        if memory_policy != libc::MPOL_DEFAULT as u64 {
            return Err(refused("it keeps a policy for its memory"));
        }
        // Other C libraries let the kernel clear other memory at a thread's end.
        let own = thread.pointer..thread.pointer + PAGE;
        if !own.contains(&thread.id) || thread.robust.is_none() {
            return Err(refused("its C library is not the GNU one"));
        }
        let entry = self.auxiliary(libc::AT_ENTRY);
        let mut files = Files::below(Path::new("/"));
        let mut image = ImageWriter::new(into)?;
        let (mut regions, mut system, mut farewell) = (Vec::new(), Vec::new(), None);
        let layout = Layout::read(&self.proc, end_of_heap)?;
        let (mut copies, mut previous) = (Copies::default(), None);
        let mappings = self.mappings("smaps")?;
        for mapping in &mappings {
            let before = previous.replace(mapping);
            if mapping.is_system() {
                system.push((mapping.name.clone(), mapping.start, mapping.end));
                continue;
            }
            if mapping.name == "[vsyscall]" {
                continue;
            }
            check_mapping(mapping)?;
            if mapping.permissions.ends_with('s') {
                return Err(special(mapping));
            }
            let source = if mapping.name == "[stack]" {
                let used = page_of(registers.stack) - mapping.start;
                let offset = image.add_pages(&self.bytes(mapping.start + used, mapping.end)?)?;
                Source::Stack { used, offset }
            } else if mapping.may('x') {
                // The breakpoint was written to this page.
                let expected = if mapping.range().contains(&entry) { PAGE } else { 0 };
                if mapping.inode == 0 || mapping.written != expected {
                    return Err(refused("it makes instructions before it begins"));
                }
                if farewell.is_none() {
                    let instructions = self.bytes(mapping.start, mapping.end)?;
                    farewell = find_instructions(&instructions, mapping.start, &FAREWELL);
                }
                Source::File { file: files.number(&mapping.name)?, offset: mapping.offset }
            } else if mapping.written == 0 && mapping.inode != 0 {
                Source::File { file: files.number(&mapping.name)?, offset: mapping.offset }
            } else if mapping.written == 0 {
                Source::Zeroes
            } else {
                let bytes = self.bytes(mapping.start, mapping.end)?;
                match may_be_given_back(mapping, before, &layout) {
                    true => copies.add(mapping, &bytes),
                    false => Source::Pages { offset: image.add_pages(&bytes)? },
                }
            };
            regions.push(Region::of(mapping, source));
        }
        let (mut lists, mut list) = (StoredLists::default(), Calls::default());
        merge(regions).iter().for_each(|region| region.map(&mut list));
        copies.make(&mut image, &mut lists, &mut list)?;
        let program = fs::canonicalize(&command.program)?;
        let layout = layout.without_variable(binding.bytes);
        let number = files.number(&program.to_string_lossy())?;
        layout.set(&mut lists, &mut list, &self.auxiliary, Some(number));
        let name = command.program.file_name().unwrap_or_default();
        set_name(&mut lists, &mut list, name.as_bytes());
        thread.register_and_tell(&mut list);
        draw_randomness(&mut list, &self.auxiliary);
        draw_canary(&mut list, &thread);
        // The memory of the one that the process had is gone.
        set_signal_stack(&mut lists, &mut list, NO_SIGNAL_STACK);
        close_files(&mut list);
        arrive(&mut lists, &mut list, 0);
        list.end(Trampoline {
            entry,
            stack: registers.stack,
            at_exit: registers.at_exit,
            farewell: farewell.ok_or_else(|| refused("its C library makes no system call"))?,
        });
        let entry = lists.lay_list(&list);
        let description = Description {
            files: files.all,
            system,
            entry,
            id: None,
            processes: 1,
            passing: None,
            inheritance: None,
        };
        image.finish(&lists, &description)
    }

    /// Returns a part of the program's memory.
    fn bytes(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; (end - start) as usize];
        self.memory.read_exact_at(&mut bytes, start)?;
        Ok(bytes)
    }

    fn word(&self, address: u64) -> io::Result<u64> {
        let mut word = [0; 8];
        self.memory.read_exact_at(&mut word, address)?;
        Ok(u64::from_ne_bytes(word))
    }
}
