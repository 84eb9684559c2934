//! A stopped process, and what the kernel knows of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::restless;
use crate::launch::image::format::PAGE;
use crate::launch::image::kernel::{FAREWELL, Layout, Thread, find_instructions, page_of, read_auxiliary};
use crate::launch::image::refused;
use crate::machine::maps::Mapping;
use crate::machine::process::stat_fields;
use crate::sys::seize::Seized;

/// Bytes below the stack pointer that belong to a function (System V ABI for x86-64, "The Stack
/// Frame").
const RED_ZONE: u64 = 128;
/// Room for the frame by which a process continues.
const FRAME: u64 = 512;

/// `mov $15, %rax; syscall`: rt_sigreturn(2), by which the C library returns from a handler.
const RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

/// The calls in which a process may rest. They are made again, with their whole timeouts.
const RESTING: [libc::c_long; 8] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
];

/// The results of interrupted calls: EINTR, ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND,
/// ERESTART_RESTARTBLOCK of linux/errno.h.
const INTERRUPTED: [i64; 5] = [-4, -512, -513, -514, -516];

/// Files of a process's directory in /proc that must be those of init, since a restored process
/// inherits from it.
const INHERITED: [&str; 7] =
    ["limits", "oom_score_adj", "personality", "timerslack_ns", "coredump_filter", "cgroup", "uid_map"];

/// Lines of the status that must have these values, proc_pid_status(5).
const STATUS: [(&str, &str); 8] = [
    ("Threads", "1"),
    ("NoNewPrivs", "1"),
    ("SigPnd", "0000000000000000"),
    ("ShdPnd", "0000000000000000"),
    ("CapEff", "0000000000000000"),
    ("CapPrm", "0000000000000000"),
    ("CapInh", "0000000000000000"),
    ("TracerPid", "0"),
];

/// The number of signals.
pub(super) const SIGNALS: i32 = 64;

#[derive(Debug)]
pub(super) struct Frozen {
    seized: Seized,
    pub(super) proc: PathBuf,
    pub(super) memory: File,
    pub(super) mappings: Vec<Mapping>,
    /// The id in its own namespace.
    pub(super) id: u32,
    /// The address of the instructions `syscall; ret`.
    pub(super) farewell: u64,
    /// The address of the instructions that return from a signal.
    pub(super) sigreturn: u64,
}

/// The kernel's state of a process beside memory and descriptors.
#[derive(Debug)]
pub(super) struct State {
    pub(super) name: Vec<u8>,
    pub(super) auxiliary: Vec<u64>,
    pub(super) layout: Layout,
    pub(super) thread: Thread,
    /// The arguments of rt_sigaction(2) for each signal, in their order.
    pub(super) actions: Vec<[u8; 32]>,
    /// Address, flags and size.
    pub(super) signal_stack: [u64; 3],
    pub(super) blocked: u64,
    pub(super) death_signal: u32,
    pub(super) umask: u64,
    pub(super) directory: PathBuf,
    /// `true` if it leads a session.
    pub(super) leads: bool,
}

impl Frozen {
    /// Stops a process. `init` is the container's, by whose state it is judged.
    pub(super) fn stop(pid: u32, init: u32) -> io::Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        check_status(&proc, init)?;
        let number = Pid::from_raw(pid.cast_signed()).ok_or_else(|| refused("it has no id"))?;
        let seized = Seized::stop(number)?;
        let memory = File::options().read(true).write(true).open(proc.join("mem"))?;
        let mappings = Mapping::parse_all(&fs::read_to_string(proc.join("smaps"))?);
        let status = fs::read_to_string(proc.join("status"))?;
        let id = field(&status, "NSpid").and_then(|ids| ids.split_ascii_whitespace().last()?.parse().ok());
        let id = id.ok_or_else(|| refused("its id is not known"))?;
        let mut frozen = Self { seized, proc, memory, mappings, id, farewell: 0, sigreturn: 0 };
        frozen.check_registers()?;
        for mapping in frozen.mappings.iter().filter(|mapping| mapping.may('x') && is_libc(mapping)) {
            let bytes = frozen.read(mapping.start, mapping.end)?;
            let find = |instructions: &[u8]| find_instructions(&bytes, mapping.start, instructions);
            if let (Some(farewell), Some(sigreturn)) = (find(&FAREWELL), find(&RETURN)) {
                (frozen.farewell, frozen.sigreturn) = (farewell, sigreturn);
                break;
            }
        }
        if frozen.sigreturn == 0 {
            return Err(refused("its C library is not the GNU one"));
        }
        Ok(frozen)
    }

    pub(super) fn pid(&self) -> Pid {
        self.seized.pid()
    }

    pub(super) fn read(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; (end - start) as usize];
        self.memory.read_exact_at(&mut bytes, start)?;
        Ok(bytes)
    }

    /// Reads the mappings again.
    pub(super) fn reread(&mut self) -> io::Result<()> {
        self.mappings = Mapping::parse_all(&fs::read_to_string(self.proc.join("smaps"))?);
        Ok(())
    }

    /// The address of free memory below the stack, for results of calls.
    pub(super) fn room(&self) -> u64 {
        page_of(self.seized.registers().rsp) - 16 * PAGE
    }

    /// Lets the process make a call that must not fail.
    pub(super) fn call(&self, call: libc::c_long, arguments: &[u64]) -> io::Result<u64> {
        match self.seized.call(self.farewell, call, arguments)? {
            error @ ..0 => Err(io::Error::from_raw_os_error(error.wrapping_neg() as i32)),
            result => Ok(result.unsigned_abs()),
        }
    }

    /// Lets the process call a function of one of its libraries.
    pub(super) fn enter(&self, function: u64, arguments: [u64; 2]) -> io::Result<u64> {
        // Aligned as after a call.
        let frame = ((self.seized.registers().rsp - RED_ZONE - FRAME) & !0xf) - 8;
        self.memory.write_all_at(&[0; 8], frame)?;
        Ok(self.seized.enter(function, arguments, frame)?)
    }

    fn words<const N: usize>(&self, address: u64) -> io::Result<[u64; N]> {
        let bytes = self.read(address, address + 8 * N as u64)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
        }
        Ok(words)
    }

    fn check_registers(&self) -> io::Result<()> {
        let registers = self.seized.registers();
        let call = registers.orig_rax.cast_signed();
        if !RESTING.contains(&call) || !INTERRUPTED.contains(&registers.rax.cast_signed()) {
            return Err(restless(format!("it is amid system call {call}")));
        }
        // A set of signals that is blocked during the call, or the address of one.
        let mask = match call {
            libc::SYS_epoll_pwait => registers.r8,
            libc::SYS_ppoll => registers.r10,
            libc::SYS_pselect6 if registers.r9 != 0 => self.words::<1>(registers.r9)?[0],
            _ => 0,
        };
        if mask != 0 {
            return Err(refused("it rests with another set of blocked signals"));
        }
        if self.words::<1>(registers.rip - 8)?[0] >> 48 != u64::from(u16::from_le_bytes([0x0f, 0x05])) {
            return Err(refused("it makes system calls in an unknown way"));
        }
        if registers.gs_base != 0 || self.seized.control_words()? != (0x37f, 0x1f80) {
            return Err(refused("it has changed registers that are not restored"));
        }
        Ok(())
    }

    /// Asks for the kernel's state. Writes to memory below the stack.
    pub(super) fn state(&self) -> io::Result<State> {
        let (proc, room) = (&self.proc, self.room());
        let status = fs::read_to_string(proc.join("status"))?;
        let number = |name, radix| {
            let text = field(&status, name).unwrap_or_default();
            u64::from_str_radix(text, radix).map_err(|_| refused("its status is not readable"))
        };
        let mut actions = Vec::new();
        for signal in 1..=SIGNALS {
            self.call(libc::SYS_rt_sigaction, &[signal.unsigned_abs().into(), 0, room, 8])?;
            actions.push(self.words::<4>(room)?);
        }
        self.call(libc::SYS_sigaltstack, &[0, room])?;
        let mut signal_stack = self.words::<3>(room)?;
        // The flags have four bytes.
        signal_stack[1] &= u64::from(u32::MAX);
        self.call(libc::SYS_prctl, &[libc::PR_GET_PDEATHSIG as u64, room])?;
        let death_signal = self.words::<1>(room)?[0] as u32;
        self.call(libc::SYS_prctl, &[libc::PR_GET_TID_ADDRESS as u64, room])?;
        let id = self.words::<1>(room)?[0];
        for timer in 0..3 {
            self.call(libc::SYS_getitimer, &[timer, room])?;
            if self.words::<4>(room)? != [0; 4] {
                return Err(restless("one of its timers runs"));
            }
        }
        match self.call(libc::SYS_get_mempolicy, &[room, 0, 0, 0, 0]) {
            Ok(_) if self.words::<1>(room)?[0] as i32 == libc::MPOL_DEFAULT => {}
            // This kernel has none.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
            _ => return Err(refused("it keeps a policy for its memory")),
        }
        let end_of_heap = self.call(libc::SYS_brk, &[0])?;
        if fs::read_to_string(proc.join("timers")).is_ok_and(|timers| !timers.is_empty()) {
            return Err(refused("it has timers"));
        }
        let area = self.seized.sequences()?;
        let sequences = [area.address, area.length.into(), 0, area.signature.into()];
        let robust = self.seized.robust_list()?;
        let stat = fs::read_to_string(proc.join("stat"))?;
        let fields: Vec<_> = stat_fields(&stat).collect();
        let (group, session) = (fields.get(2), fields.get(3));
        let own = self.pid().as_raw_nonzero().to_string();
        let leads = session.is_some_and(|session| *session == own);
        if (group.is_some_and(|group| *group == own)) != leads {
            return Err(refused("it leads a process group"));
        }
        Ok(State {
            name: fs::read(proc.join("comm"))?.trim_ascii_end().to_vec(),
            auxiliary: read_auxiliary(proc)?,
            layout: Layout::read(proc, end_of_heap)?,
            thread: Thread {
                pointer: self.seized.registers().fs_base,
                id,
                robust: (robust[0] != 0).then_some(robust),
                sequences: (area.address != 0).then_some(sequences),
            },
            actions: actions
                .iter()
                .map(|words| words.map(u64::to_ne_bytes).concat().try_into().expect("32 bytes"))
                .collect(),
            signal_stack,
            blocked: number("SigBlk", 16)?,
            death_signal,
            umask: number("Umask", 8)?,
            directory: fs::read_link(proc.join("cwd"))?,
            leads,
        })
    }

    /// The address of the frame by which the process continues, in free memory below its stack.
    pub(super) fn frame(&self) -> u64 {
        (self.seized.registers().rsp - RED_ZONE - FRAME) & !0xf
    }

    /// Writes the frame, with which rt_sigreturn(2) continues the process: before the instruction
    /// of the interrupted call, which is thereby made again.
    pub(super) fn write_frame(&self, state: &State) -> io::Result<()> {
        let of = self.seized.registers();
        // UC_SIGCONTEXT_SS and UC_STRICT_RESTORE_SS of asm/ucontext.h, and no link.
        let mut words = vec![6, 0];
        words.extend(state.signal_stack);
        words.extend([
            of.r8,
            of.r9,
            of.r10,
            of.r11,
            of.r12,
            of.r13,
            of.r14,
            of.r15,
            of.rdi,
            of.rsi,
            of.rbp,
            of.rbx,
            of.rdx,
            of.orig_rax,
            of.rcx,
            of.rsp,
            of.rip - 2,
            of.eflags,
        ]);
        // The segments, then error, trap, mask, address, and no state of floating point.
        words.push(of.cs & 0xffff | (of.ss & 0xffff) << 48);
        words.extend([0; 5]);
        words.extend([0; 8]);
        words.push(state.blocked);
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
        self.memory.write_all_at(&bytes, self.frame())
    }
}

/// Returns `true` for the GNU C library, by its name.
fn is_libc(mapping: &Mapping) -> bool {
    let name = Path::new(&mapping.name).file_name().unwrap_or_default().to_string_lossy();
    name == "libc.so.6" || name.starts_with("libc-2.")
}

fn check_status(proc: &Path, init: u32) -> io::Result<()> {
    let status = fs::read_to_string(proc.join("status"))?;
    for (name, expected) in STATUS {
        match field(&status, name) {
            Some(found) if found == expected => {}
            found => {
                let found = found.unwrap_or_default();
                return Err(refused(&format!("its status has {name} {found} instead of {expected}")));
            }
        }
    }
    if field(&status, "x86_Thread_features").is_some_and(|features| !features.is_empty()) {
        return Err(refused("it has a shadow stack"));
    }
    let of_init = PathBuf::from(format!("/proc/{init}"));
    let init_status = fs::read_to_string(of_init.join("status"))?;
    for name in ["Cpus_allowed", "Seccomp", "Seccomp_filters", "Uid", "Gid", "Groups"] {
        if field(&status, name) != field(&init_status, name) {
            return Err(refused(&format!("its {name} is not that of init")));
        }
    }
    for name in INHERITED {
        let read = |proc: &Path| fs::read_to_string(proc.join(name)).ok();
        if read(proc) != read(&of_init) {
            return Err(refused(&format!("its {name} is not that of init")));
        }
    }
    // Priority, nice value, real-time priority and policy, proc_pid_stat(5).
    let scheduling = |proc: &Path| {
        let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
        [19, 40, 41].map(|number: usize| stat_fields(&stat).nth(number - 3).map(str::to_owned))
    };
    if scheduling(proc) != scheduling(&of_init) {
        return Err(refused("it has another priority than init"));
    }
    Ok(())
}

/// Returns the value of a line of a status.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
