//! A stopped server, and the lists of calls that make it anew.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;

use super::descriptors::{Open, Table};
use super::frozen::{Frozen, State};
use super::memory::{FirstMemory, Shared, Stopped};
use super::random::Generators;
use super::rest::Processes;
use super::restless;
use super::scratch::{Scratch, lay_path};
use super::segments::{check_namespace, map_shared};
use super::start::Start;
use super::threads::PreparedThread;
use crate::launch::image::format::{Description, ImageWriter, LAST_PID};
use crate::launch::image::kernel::{arrive, close_files, draw_randomness, set_name, set_signal_stack};
use crate::launch::image::memory::{Files, protection};
use crate::launch::image::refused;
use crate::launch::plan::NOTIFY_SOCKET;
use crate::sys::call_list::{self, Calls, Exit, StoredLists};

pub(super) struct Tree {
    init: u32,
    first: Frozen,
    children: Vec<Frozen>,
}

impl Tree {
    pub(super) fn stop(init: u32, processes: Processes) -> io::Result<Self> {
        let first = Frozen::stop(processes.first, init)?;
        let children = processes.children.iter().map(|&child| Frozen::stop(child, init));
        let children = children.collect::<io::Result<Vec<_>>>()?;
        if Processes::below(init)? != processes {
            return Err(restless("a process has begun or ended meanwhile"));
        }
        let mut tree = Self { init, first, children };
        let generators = Generators::find(&tree.first)?;
        for process in [&mut tree.first].into_iter().chain(&mut tree.children) {
            generators.forget(process)?;
            process.reread()?;
        }
        Ok(tree)
    }

    /// Writes the checkpoint.
    pub(super) fn write(&self, into: &File) -> io::Result<()> {
        let first = &self.first;
        let root = first.proc.join("root");
        let state = first.state(self.init)?;
        let (mut lists, mut list) = (StoredLists::default(), Calls::default());
        let ending = Ending::prepare(first, &state, &mut lists)?;
        let mut files = Files::below(&root);
        let mut image = ImageWriter::new(into)?;
        let memory = FirstMemory::look(&ending.stopped(first, &state), &mut files, &mut image)?;
        let segments = memory.shared.iter().filter(|(_, shared)| matches!(shared, Shared::Segment(_)));
        check_namespace(first, segments.count())?;
        let scratch = Scratch::look(&root, Path::new(NOTIFY_SOCKET))?;
        let log = log(first)?;
        let table = Table::look(first, self.init)?;
        table.check_sockets(&scratch.sockets)?;
        let program = fs::read_link(first.proc.join("exe"))?;
        let program = files.number(&program.to_string_lossy())?;

        let start = Start::prepare(&memory, &mut image, &mut lists)?;
        if state.has_small_pages {
            list.call(libc::SYS_prctl, &[libc::PR_SET_THP_DISABLE as u64, 1]);
        }
        state.layout.set(&mut lists, &mut list, &state.auxiliary, Some(program));
        set_name(&mut lists, &mut list, &state.thread.name);
        state.thread.registrations.register(&mut list);
        draw_randomness(&mut list, &state.auxiliary);
        close_files(&mut list);
        let mut open = Open::standard();
        list.call(libc::SYS_umask, &[0]);
        scratch.make(open.lowest(), &mut lists, &mut list);
        let mut passing = Vec::new();
        for (mapping, shared) in &memory.shared {
            let protection = protection(mapping);
            match shared {
                Shared::Anonymous(memory) => {
                    let region = (mapping, protection);
                    memory.make(region, open.lowest(), &mut passing, &mut lists, &mut list);
                }
                Shared::Named(path) => {
                    let path = lay_path(&mut lists, Path::new(path));
                    let flags = (libc::O_RDWR | libc::O_CLOEXEC) as u64;
                    list.call_for(libc::SYS_open, &[path, flags, 0], open.lowest());
                    map_shared(mapping, protection, open.lowest(), &mut list);
                    list.call(libc::SYS_close, &[open.lowest()]);
                }
                Shared::Segment(segment) => segment.make(mapping, &mut image, &mut list)?,
            }
        }
        if !log.is_empty() {
            const STDERR: u64 = 2;
            let (place, length) = (lists.lay(&log), log.len() as u64);
            list.call_for(libc::SYS_write, &[STDERR, place, length], length);
        }
        change_directory(&mut lists, &mut list, &state.directory);
        for (action, signal) in state.actions.iter().zip(1_u64..) {
            // Init lets programs ignore SIGXFSZ.
            let before = if signal == libc::SIGXFSZ as u64 { [0xff; 32] } else { [0; 32] };
            set_action(&mut lists, &mut list, signal, action, &before);
        }
        set_signal_stack(&mut lists, &mut list, state.thread.signal_stack);
        table.make(&mut open, &scratch.sockets, &mut passing, &mut lists, &mut list)?;
        let passing = match passing.len() as u64 {
            0 => None,
            length => {
                let Range { start, end } = call_list::passing(length);
                list.call(libc::SYS_munmap, &[start, end - start]);
                Some((image.add_pages(&passing)?, length))
            }
        };
        list.call(libc::SYS_umask, &[state.umask]);
        for (number, limit) in &state.limits {
            let limit = lists.lay(&limit.map(u64::to_ne_bytes).concat());
            list.call(libc::SYS_prlimit64, &[0, *number, limit, 0]);
        }
        for child in &self.children {
            let child_list = self.child(child, (&state, &memory, &table, &open), &mut image, &mut lists)?;
            let child_list = lists.lay_list(&child_list);
            choose_next_id(child.first.id, &mut lists, &mut list);
            list.fork(child.first.id, child_list);
        }
        if state.leads || state.death_signal != 0 {
            return Err(refused("its first process leads a session or depends on its parent"));
        }
        ending.add(&state, &mut lists, &mut list);
        let rest = lists.lay_list(&list);
        let (entry, inheritance) = start.lead_to(rest, &memory, &mut lists);
        let processes = 1 + self.children.len();
        let description = Description {
            files: files.all,
            system: memory.system,
            entry,
            id: Some(first.first.id),
            processes,
            passing,
            inheritance,
        };
        image.finish(&lists, &description)
    }

    /// The list of a child, which begins as a copy of the first process.
    fn child(
        &self,
        child: &Frozen,
        (of_first, memory, table, open): (&State, &FirstMemory, &Table, &Open),
        image: &mut ImageWriter<'_>,
        lists: &mut StoredLists,
    ) -> io::Result<Calls> {
        let state = child.state(self.init)?;
        let ending = Ending::prepare(child, &state, lists)?;
        let (thread, of_first_thread) = (&state.thread.registrations, &of_first.thread.registrations);
        if (thread.pointer, thread.sequences) != (of_first_thread.pointer, of_first_thread.sequences) {
            return Err(refused("its processes have different threads"));
        }
        if state.limits != of_first.limits {
            return Err(refused("its processes have different limits"));
        }
        if state.has_small_pages || of_first.has_small_pages {
            return Err(refused("it has several processes and excludes large pages"));
        }
        let mut list = Calls::default();
        if state.leads {
            list.call(libc::SYS_setsid, &[]);
        }
        memory.turn_into(&ending.stopped(child, &state), image, lists, &mut list)?;
        if state.layout != of_first.layout {
            state.layout.set(lists, &mut list, &state.auxiliary, None);
        }
        set_name(lists, &mut list, &state.thread.name);
        thread.register_child(&mut list);
        draw_randomness(&mut list, &state.auxiliary);
        if state.directory != of_first.directory {
            change_directory(lists, &mut list, &state.directory);
        }
        for ((action, of_first), signal) in state.actions.iter().zip(&of_first.actions).zip(1_u64..) {
            set_action(lists, &mut list, signal, action, of_first);
        }
        if state.thread.signal_stack != of_first.thread.signal_stack {
            set_signal_stack(lists, &mut list, state.thread.signal_stack);
        }
        let own = Table::look(child, self.init)?;
        own.turn_from(table, open.clone(), lists, &mut list)?;
        if state.umask != of_first.umask {
            list.call(libc::SYS_umask, &[state.umask]);
        }
        ending.add(&state, lists, &mut list);
        Ok(list)
    }
}

/// Reads the log of a server's start, which each server of the checkpoint shows.
fn log(first: &Frozen) -> io::Result<Vec<u8>> {
    const LONGEST: usize = 64 << 10;
    let log = fs::read(first.proc.join("fd/2"))?;
    if log.len() > LONGEST {
        return Err(refused("its log is long"));
    }
    Ok(log)
}

/// The end of a process's list: its threads are made, and all continue where they were stopped.
struct Ending {
    exit: Exit,
    threads: Vec<PreparedThread>,
}

impl Ending {
    /// Writes the frames of all threads.
    fn prepare(process: &Frozen, state: &State, lists: &mut StoredLists) -> io::Result<Self> {
        let exit = process.prepare(&process.first, &state.thread)?;
        Ok(Self { exit, threads: PreparedThread::all(process, lists)? })
    }

    /// The process, whose memory is complete by now.
    fn stopped<'a>(&self, process: &'a Frozen, state: &State) -> Stopped<'a> {
        Stopped { process, layout: state.layout, stack: self.exit.stack }
    }

    fn add(self, state: &State, lists: &mut StoredLists, list: &mut Calls) {
        PreparedThread::make_all(self.threads, lists, list);
        arrive(lists, list, state.death_signal);
        list.leave_and_unmap(self.exit);
    }
}

/// Gives the next process or thread an id, by what the kernel keeps as the last one.
pub(super) fn choose_next_id(id: u32, lists: &mut StoredLists, list: &mut Calls) {
    let before = (id - 1).to_string();
    let (text, length) = (lists.lay(before.as_bytes()), before.len() as u64);
    list.call_for(libc::SYS_pwrite64, &[LAST_PID, text, length, 0], length);
}

fn change_directory(lists: &mut StoredLists, list: &mut Calls, directory: &Path) {
    let path = lay_path(lists, directory);
    list.call(libc::SYS_chdir, &[path]);
}

/// Sets the action of a signal, unless it is there already.
fn set_action(lists: &mut StoredLists, list: &mut Calls, signal: u64, action: &[u8; 32], before: &[u8; 32]) {
    if action != before {
        let action = lists.lay(action);
        list.call(libc::SYS_rt_sigaction, &[signal, action, 0, 8]);
    }
}
