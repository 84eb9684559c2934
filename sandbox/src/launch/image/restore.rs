//! Restores processes from an image: a fork of init replaces its memory, and forks the others.
//!
//! The child inherits from init as an executed program does. This file prepares what an image takes
//! for granted; the image's own lists do the rest of the work of execve(2).

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, chdir, kill_process, waitpid};

use super::format::{FIRST_FILE, IMAGE, Image, LAST_PID, SHARED_MEMORY};
use super::kernel::ARRIVED;
use super::{Handles, InheritedMemory};
use crate::launch::command::ResolvedCommand;
use crate::launch::protocol::{Holds, NoImage, encode};
use crate::machine::maps::Mapping;
use crate::sys::call_list::{CALL, Calls, PASSING, RANGE, REPORT};
use crate::sys::process::{FreshProcess, SingleThreaded, fork, reset_signals};
use crate::sys::socket;
use crate::sys::trampoline::{StoredAt, go, leave_restartable_sequences};

/// The deadline of a restore, which takes about a millisecond.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The end of a process's address space.
const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// Starts a child that becomes the first process of the image, with these descriptors and no
/// capability. Only a checkpoint needs the handles.
///
/// # Errors
/// The reason. Processes that the first one has forked may be left.
pub(in crate::launch) fn restore(
    file: &File,
    command: &ResolvedCommand,
    stdio: [OwnedFd; 3],
    handles: &Handles,
) -> Result<Pid, NoImage> {
    let proof = SingleThreaded::check()?;
    let image = Image::read(file)?;
    let expected = image.description.id.and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(id) = image.description.id {
        let last_pid = handles.last_pid.as_ref().ok_or(Errno::NOENT)?;
        last_pid.write_all_at((id - 1).to_string().as_bytes(), 0)?;
    }
    let (report, reporter) = pipe_with(PipeFlags::CLOEXEC)?;
    let pid = fork(&proof, |fresh| {
        let say = |reporter: &OwnedFd, why: &NoImage| {
            let report = encode(why).expect("a text can be encoded");
            let _ = rustix::io::write(reporter, &report);
        };
        match put(reporter.as_fd(), REPORT.unsigned_abs().into()) {
            Ok(kept) => {
                let descriptors = Descriptors { image: file, reporter: &kept, handles };
                let Err(why) = become_program(fresh, &image, command, &stdio, descriptors, &proof);
                say(&kept, &why);
            }
            Err(errno) => say(&reporter, &errno.into()),
        }
    })?;
    drop((reporter, stdio));
    // The server has it now.
    drop(handles.memory.take());
    let mut words = Vec::new();
    let arrived = vec![ARRIVED; image.description.processes];
    let deadline = Instant::now() + TIMEOUT;
    let mut source = File::from(report);
    let mut is_late;
    // The pipe ends when the last process has closed it.
    loop {
        is_late = !socket::wait_readable(&[source.as_fd()], deadline)?;
        let mut buffer = [0; 1024];
        match if is_late { 0 } else { source.read(&mut buffer)? } {
            0 => break,
            length => words.extend_from_slice(&buffer[..length]),
        }
    }
    if !is_late && words == arrived && expected.is_none_or(|expected| expected == pid) {
        return Ok(pid);
    }
    let _ = kill_process(pid, Signal::KILL);
    let ended = waitpid(Some(pid), WaitOptions::empty());
    // The exit code of a child that fails in its list of calls is the errno.
    let errno = ended.ok().flatten().and_then(|(_, status)| status.exit_status());
    if let Ok(why) = serde_json::from_slice(&words) {
        return Err(why);
    }
    if is_late {
        return Err(NoImage::new(format!("it takes longer than {TIMEOUT:?}"), Holds::Pause));
    }
    // After the arrivals comes the call that failed, with its result.
    let call: Vec<u64> = words
        .last_chunk::<CALL>()
        .map(|call| call.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes"))))
        .into_iter()
        .flatten()
        .collect();
    Err(match (call.as_slice(), errno) {
        (&[number, .., result, _], _) => {
            let error = io::Error::from_raw_os_error(result.wrapping_neg() as i32);
            let NoImage { why, holds } = error.into();
            NoImage::new(format!("system call {number} failed: {why}"), holds)
        }
        (_, Some(errno)) => io::Error::from_raw_os_error(errno).into(),
        (_, None) => NoImage::new("it was killed", Holds::Pause),
    })
}

/// Descriptors that lists find by their numbers.
struct Descriptors<'a> {
    image: &'a File,
    reporter: &'a OwnedFd,
    handles: &'a Handles,
}

fn become_program(
    fresh: FreshProcess,
    image: &Image,
    command: &ResolvedCommand,
    [stdin, stdout, stderr]: &[OwnedFd; 3],
    descriptors: Descriptors<'_>,
    proof: &SingleThreaded,
) -> Result<Infallible, NoImage> {
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    chdir(&command.current_dir)?;
    reset_signals();
    let stored = put(descriptors.image.as_fd(), IMAGE)?;
    let Handles { last_pid, shared_memory, memory } = descriptors.handles;
    let last_pid = last_pid.as_ref().map(|file| put(file.as_fd(), LAST_PID)).transpose()?;
    let shared_memory = shared_memory.as_ref().map(|root| put(root.as_fd(), SHARED_MEMORY)).transpose()?;
    let mut calls = Calls::default();
    let (copies, passing) = memory.borrow().as_ref().map(InheritedMemory::ranges).unwrap_or_default();
    let entry = match (&image.description.inheritance, &copies) {
        (Some(inheritance), Some(_)) => inheritance.entry,
        _ => image.description.entry,
    };
    clear(image, copies.into_iter().chain(passing.clone()), &mut calls)?;
    if let (Some((offset, length)), None) = (image.description.passing, passing) {
        let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_POPULATE) as u64;
        let arguments = [PASSING.start, length, libc::PROT_READ as u64, flags, IMAGE, offset];
        calls.call_for(libc::SYS_mmap, &arguments, PASSING.start);
    }
    calls.jump(entry);
    let kept = [Some(&stored), Some(descriptors.reporter), last_pid.as_ref(), shared_memory.as_ref()];
    fresh.keep_only(&kept.into_iter().flatten().map(AsFd::as_fd).collect::<Vec<_>>())?;
    let mut files = Vec::new();
    for (file, number) in image.description.files.iter().zip(FIRST_FILE..) {
        let opened = file.open().map_err(|error| {
            let NoImage { why, holds } = error.into();
            NoImage::new(format!("`{}`: {why}", file.path.display()), holds)
        })?;
        if opened.as_raw_fd() as u64 != number {
            return Err(io::Error::other("its descriptors have other numbers than expected").into());
        }
        files.push(opened);
    }
    leave_restartable_sequences(proof)?;
    let (offset, length) = image.lists;
    Ok(go(&calls, StoredAt { file: stored.as_fd(), offset, length }, proof)?)
}

/// Copies a descriptor to a number that is free.
fn put(descriptor: BorrowedFd<'_>, number: u64) -> Result<OwnedFd, Errno> {
    let lowest = i32::try_from(number).map_err(|_| Errno::MFILE)?;
    match rustix::io::fcntl_dupfd_cloexec(descriptor, lowest) {
        Ok(copy) if copy.as_raw_fd() == lowest => Ok(copy),
        Ok(_) => Err(Errno::BUSY),
        // The process may not have that many.
        Err(Errno::INVAL) => Err(Errno::MFILE),
        Err(errno) => Err(errno),
    }
}

/// Moves the kernel's own mappings to the addresses that the program knows, and unmaps all other
/// memory but the lists and what was inherited.
fn clear(image: &Image, inherited: impl Iterator<Item = Range<u64>>, list: &mut Calls) -> io::Result<()> {
    let system = &image.description.system;
    let mappings = Mapping::parse_all(&fs::read_to_string("/proc/self/maps")?);
    let own: Vec<_> = mappings.iter().filter(|mapping| mapping.is_system()).collect();
    let same = own.len() == system.len()
        && own.iter().zip(system).all(|(mapping, (name, start, end))| {
            mapping.name == *name && mapping.end - mapping.start == end - start
        });
    if !same {
        return Err(io::Error::other(
            "the kernel's own mappings are others than when the program was linked",
        ));
    }
    let targets: Vec<_> = system.iter().map(|&(_, start, end)| start..end).collect();
    let moves = own.iter().map(|mapping| mapping.range()).zip(targets.iter().cloned());
    let moves: Vec<_> = moves.filter(|(from, to)| from != to).collect();
    let overlap = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
    if moves.iter().any(|(from, _)| targets.iter().any(|to| overlap(from, to))) {
        return Err(io::Error::other("the two processes' mappings are in each other's way"));
    }
    for (from, to) in moves {
        let length = from.end - from.start;
        let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
        list.call(libc::SYS_mremap, &[from.start, length, length, flags, to.start]);
    }
    let mut kept = targets;
    kept.push(RANGE);
    kept.extend(inherited);
    kept.sort_by_key(|range| range.start);
    let ends = [0].into_iter().chain(kept.iter().map(|range| range.end));
    let starts = kept.iter().map(|range| range.start).chain([TASK_SIZE]);
    for (start, end) in ends.zip(starts).filter(|(start, end)| start < end) {
        list.call(libc::SYS_munmap, &[start, end - start]);
    }
    Ok(())
}
