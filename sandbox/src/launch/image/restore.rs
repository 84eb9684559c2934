//! Restores a linked program: a fork of init replaces its memory by an image.
//!
//! The child inherits from init as an executed program does. This file does the rest of the work of
//! execve(2).

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, chdir, kill_process, waitpid};

use super::format::{Image, Source};
use crate::launch::command::ResolvedCommand;
use crate::launch::protocol::{Holds, NoImage, encode};
use crate::machine::maps::Mapping;
use crate::sys::process::{SingleThreaded, fork, reset_signals};
use crate::sys::socket;
use crate::sys::trampoline::{SyscallList, Trampoline, leave_restartable_sequences};

/// The deadline of a restore, which takes about a millisecond.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Room for the system calls, of which 300 take 20 kB.
const ROOM: u64 = 256 << 10;

/// The end of a process's address space.
const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// The report of a restored process.
const ARRIVED: &[u8] = b"\0";

/// Starts a child that becomes the program of the image, with these descriptors and no capability.
///
/// # Errors
/// No child is left.
pub(in crate::launch) fn restore(
    image: &File,
    command: &ResolvedCommand,
    stdio: [OwnedFd; 3],
) -> Result<Pid, NoImage> {
    let proof = SingleThreaded::check()?;
    let (report, reporter) = pipe_with(PipeFlags::CLOEXEC)?;
    let pid = fork(&proof, |_| {
        let Err(why) = become_program(image, command, &stdio, &reporter, &proof);
        let report = encode(&why).expect("a text can be encoded");
        let _ = rustix::io::write(&reporter, &report);
    })?;
    drop((reporter, stdio));
    let mut words = Vec::new();
    let is_late = !socket::wait_readable(&[report.as_fd()], Instant::now() + TIMEOUT)?;
    if !is_late {
        File::from(report).read_to_end(&mut words)?;
        if words == ARRIVED {
            return Ok(pid);
        }
    }
    let _ = kill_process(pid, Signal::KILL);
    let ended = waitpid(Some(pid), WaitOptions::empty());
    // The exit code of a child that fails in its list of calls is the errno.
    let errno = ended.ok().flatten().and_then(|(_, status)| status.exit_status());
    Err(match (serde_json::from_slice(&words), errno) {
        (Ok(why), _) => why,
        _ if is_late => NoImage::new(format!("it takes longer than {TIMEOUT:?}"), Holds::Process),
        (Err(_), Some(errno)) => io::Error::from_raw_os_error(errno).into(),
        (Err(_), None) => NoImage::new("it was killed", Holds::Process),
    })
}

fn become_program(
    image: &File,
    command: &ResolvedCommand,
    [stdin, stdout, stderr]: &[OwnedFd; 3],
    reporter: &OwnedFd,
    proof: &SingleThreaded,
) -> Result<Infallible, NoImage> {
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    chdir(&command.current_dir)?;
    reset_signals();
    let (description, pages) = Image::read(image)?;
    let files = description.files.iter().map(|file| {
        file.open().map_err(|error| {
            let NoImage { why, holds } = error.into();
            NoImage::new(format!("`{}`: {why}", file.path.display()), holds)
        })
    });
    let files = files.collect::<Result<Vec<_>, _>>()?;
    let program = File::open(&command.program)?;
    let sequence = RestoreSequence { image: &description, files: &files, pages, page_file: image };

    let mut list = SyscallList::default();
    sequence.clear(&mut list)?;
    sequence.map(&mut list);
    sequence.name(&mut list, &program, &command.program);
    sequence.thread(&mut list);
    sequence.randomness(&mut list);
    disable_signal_stack(&mut list);
    give_up_capabilities(&mut list);
    let arrived = list.lay(ARRIVED);
    list.call(libc::SYS_write, &[descriptor(reporter), arrived, ARRIVED.len() as u64]);
    list.call(libc::SYS_close_range, &[3, u64::from(u32::MAX), 0]);
    let entry = description.entry;
    let trampoline = Trampoline {
        entry: entry.instruction,
        stack: entry.stack,
        at_exit: entry.at_exit,
        farewell: entry.farewell,
    };
    leave_restartable_sequences(proof)?;
    Ok(list.go(proof, ROOM, trampoline)?)
}

/// The system calls that turn this process's memory into the image's, in parts.
struct RestoreSequence<'a> {
    image: &'a Image,
    files: &'a [File],
    /// The offset of the image's pages in `page_file`.
    pages: u64,
    page_file: &'a File,
}

impl RestoreSequence<'_> {
    /// Moves the kernel's own mappings to the addresses that the program knows, and unmaps all
    /// other memory but the list.
    fn clear(&self, list: &mut SyscallList) -> io::Result<()> {
        let mappings = Mapping::parse_all(&fs::read_to_string("/proc/self/maps")?);
        let own: Vec<_> = mappings.iter().filter(|mapping| mapping.is_system()).collect();
        let same = own.len() == self.image.system.len()
            && own.iter().zip(&self.image.system).all(|(mapping, (name, start, end))| {
                mapping.name == *name && mapping.end - mapping.start == end - start
            });
        if !same {
            return Err(io::Error::other(
                "the kernel's own mappings are others than when the program was linked",
            ));
        }
        let targets: Vec<_> = self.image.system.iter().map(|&(_, start, end)| start..end).collect();
        let moves = own.iter().map(|mapping| mapping.range()).zip(targets.iter().cloned());
        let moves: Vec<_> = moves.filter(|(from, to)| from != to).collect();
        let overlap = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
        let place = SyscallList::range(ROOM);
        if moves.iter().any(|(from, _)| targets.iter().any(|to| overlap(from, to)))
            || self.image.regions.iter().any(|region| overlap(&(region.start..region.end), &place))
        {
            return Err(io::Error::other("the two processes' mappings are in each other's way"));
        }
        for (from, to) in moves {
            let length = from.end - from.start;
            let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
            list.call(libc::SYS_mremap, &[from.start, length, length, flags, to.start]);
        }
        let mut kept = targets;
        kept.push(place);
        kept.sort_by_key(|range| range.start);
        let ends = [0].into_iter().chain(kept.iter().map(|range| range.end));
        let starts = kept.iter().map(|range| range.start).chain([TASK_SIZE]);
        for (start, end) in ends.zip(starts).filter(|(start, end)| start < end) {
            list.call(libc::SYS_munmap, &[start, end - start]);
        }
        Ok(())
    }

    fn map(&self, list: &mut SyscallList) {
        let fixed = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
        let anonymous = fixed | libc::MAP_ANONYMOUS as u64;
        for region in &self.image.regions {
            let length = region.end - region.start;
            let (flags, file, offset) = match region.source {
                Source::File { file, offset } => (fixed, descriptor(&self.files[file]), offset),
                Source::Pages { offset } => (fixed, descriptor(self.page_file), self.pages + offset),
                Source::Zeroes => (anonymous, u64::MAX, 0),
                Source::Stack { .. } => {
                    (anonymous | (libc::MAP_GROWSDOWN | libc::MAP_STACK) as u64, u64::MAX, 0)
                }
            };
            list.call(libc::SYS_mmap, &[region.start, length, region.protection, flags, file, offset]);
            if let Source::Stack { used, offset } = region.source {
                let into = region.start + used;
                let bytes = [descriptor(self.page_file), into, region.end - into, self.pages + offset];
                list.call(libc::SYS_pread64, &bytes);
            }
        }
    }

    /// Sets the memory layout and the name at the kernel, for brk(2) and /proc.
    fn name(&self, list: &mut SyscallList, program: &File, path: &Path) {
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        let auxiliary = list.lay(&bytes(&self.image.auxiliary));
        let size = size_of_val(self.image.auxiliary.as_slice()) as u64;
        let mut map = self.image.layout.0.to_vec();
        // A `prctl_mm_map` ends with two 32-bit numbers, the size and the program's descriptor.
        map.extend([auxiliary, size | descriptor(program) << 32]);
        let length = size_of_val(map.as_slice()) as u64;
        let map = list.lay(&bytes(&map));
        list.call(libc::SYS_prctl, &[libc::PR_SET_MM as u64, libc::PR_SET_MM_MAP as u64, map, length, 0]);
        let mut name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        name.push(0);
        let name = list.lay(&name);
        list.call(libc::SYS_prctl, &[libc::PR_SET_NAME as u64, name]);
    }

    fn thread(&self, list: &mut SyscallList) {
        let thread = &self.image.thread;
        const ARCH_SET_FS: u64 = 0x1002;
        list.call(libc::SYS_arch_prctl, &[ARCH_SET_FS, thread.pointer]);
        list.call_and_store(libc::SYS_set_tid_address, &[thread.id], thread.id);
        if let Some(arguments) = thread.robust {
            list.call(libc::SYS_set_robust_list, &arguments);
        }
        if let Some(arguments) = thread.sequences {
            list.call(libc::SYS_rseq, &arguments);
        }
    }

    /// Draws the random bytes that execve(2) gives each program, and the C library's canary: no two
    /// servers share them. The canary begins with a zero byte in the sixth word of the thread's
    /// data.
    fn randomness(&self, list: &mut SyscallList) {
        let pairs = self.image.auxiliary.chunks_exact(2);
        if let Some(random) = pairs.clone().find(|pair| pair[0] == libc::AT_RANDOM) {
            list.call(libc::SYS_getrandom, &[random[1], 16, 0]);
        }
        list.call(libc::SYS_getrandom, &[self.image.thread.pointer + 0x29, 7, 0]);
    }
}

/// Disables the alternate signal stack, whose memory is gone.
fn disable_signal_stack(list: &mut SyscallList) {
    const SS_DISABLE: u64 = 2;
    let stack = [0, SS_DISABLE, 0].map(u64::to_ne_bytes).concat();
    let stack = list.lay(&stack);
    list.call(libc::SYS_sigaltstack, &[stack, 0]);
}

/// Drops the capability that naming the program needed, as execve(2) does for all users but root.
fn give_up_capabilities(list: &mut SyscallList) {
    // _LINUX_CAPABILITY_VERSION_3, and the calling process.
    let header = list.lay(&[0x2008_0522_u32.to_ne_bytes(), [0; 4]].concat());
    let none = list.lay(&[0; 24]);
    list.call(libc::SYS_capset, &[header, none]);
}

fn descriptor(fd: &impl AsRawFd) -> u64 {
    u64::from(fd.as_raw_fd().unsigned_abs())
}
