//! Messages between the test process, the launcher and init, one JSON document each.
//!
//! A request to launch goes to the launcher with one end of a socket pair. From then on the test
//! process talks over the other end to the init of that container alone, and end of file notifies
//! each of them of the other's death.

use std::fmt;
use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::command::Command;
use super::limits::Limits;
use super::signal::Signal;

/// Set in the environment of a launcher, and of no other process.
pub(super) const MARKER: &str = "SANDBOXED_DB_LAUNCHER";

/// The longest message of either side. Plans may be longer and travel as a file descriptor.
pub(super) const LONGEST_MESSAGE: usize = 64 << 10;

/// From the test process to the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum LauncherRequest {
    /// Launch a container. Carries the control socket, the plan and, if the start method needs one,
    /// a file for an image.
    Launch(Launch),
    /// Stop the server of a container for ever, and take its checkpoint. Carries a socket for the
    /// report and a file for the checkpoint.
    Checkpoint {
        /// The container's init.
        init: u32,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launch {
    /// Limits for the sandbox's control group.
    pub(super) limits: Limits,
    /// The bytes of memory that the sandbox's files may take.
    pub(super) files: u64,
    /// `true` to start a supervisor on the host instead of a container.
    pub(super) process_mode: bool,
    pub(super) start: StartMethod<()>,
}

/// The way a planned server's process is started, with the file of its prelinked image where one is
/// involved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StartMethod<I> {
    /// By execve(2); the dynamic linker then links the program.
    Execute,
    /// From this image; by execve(2) should that fail.
    Restore(I),
    /// From this checkpoint of a ready server; if that fails there is no server.
    Resume(I),
    /// The server runs until it is linked, and its image is written to this file.
    Capture(I),
}

impl<I> StartMethod<I> {
    pub(super) fn image(&self) -> Option<&I> {
        match self {
            Self::Execute => None,
            Self::Restore(image) | Self::Resume(image) | Self::Capture(image) => Some(image),
        }
    }

    /// Replaces the image, which travels as a descriptor beside a message.
    pub(super) fn map<J>(self, image: impl FnOnce(I) -> J) -> StartMethod<J> {
        match self {
            Self::Execute => StartMethod::Execute,
            Self::Restore(of) => StartMethod::Restore(image(of)),
            Self::Resume(of) => StartMethod::Resume(image(of)),
            Self::Capture(of) => StartMethod::Capture(image(of)),
        }
    }
}

impl StartMethod<()> {
    /// Joins the method with the descriptor of its message. `None` if the descriptor is missing.
    pub(super) fn with_image<I>(self, image: Option<I>) -> Option<StartMethod<I>> {
        match (self, image) {
            (Self::Execute, _) => Some(StartMethod::Execute),
            (start, image) => image.map(|image| start.map(|()| image)),
        }
    }
}

/// From the test process to init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Start the server.
    Start(Command),
    /// Run a program to its end, which is reported with the number. Carries standard input, output
    /// and error.
    Run { number: u32, command: Command },
    /// Look for the planned sign of readiness once more.
    Probe,
    /// Send the server a signal.
    Signal(Signal),
    /// Forward connections to this port of the container's loopback. Carries the listening sockets
    /// of the host.
    Forward { port: u16 },
}

/// From the launcher (`Spawned`, or `Failed` instead) and from init to the test process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// The container's init exists, in a control group where one is delegated. Carries its pidfd.
    Spawned { pid: i32, group: Option<String> },
    /// The root is built and a planned server started. Carries the log file.
    Up(Up),
    /// An image or a checkpoint of the server was made, or the reason why there is none.
    Captured(Option<NoImage>),
    /// The server is ready: it reported so, or showed the planned sign.
    Ready,
    /// The server ended.
    ServerExited(Exit),
    /// The program of the `Request::Run` with this number ended.
    RunExited { number: u32, exit: Exit },
    /// The process of a `Request::Forward` exists.
    Forwarding { port: u16 },
    /// A step of the launch failed; the container is gone.
    Failed(Failure),
}

/// The reason why a server has no image or checkpoint, or was not restored from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NoImage {
    pub(crate) why: String,
    pub(crate) holds: Holds,
}

/// How long the reason against an image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Holds {
    /// For one start: resources were short.
    Once,
    /// For half a minute in the test process: a deadline has passed, or a process was killed.
    Pause,
    /// For the test process.
    Process,
    /// For all processes, until the program changes or the machine boots.
    Boot,
}

impl NoImage {
    pub(crate) fn new(why: impl Into<String>, holds: Holds) -> Self {
        Self { why: why.into(), holds }
    }

    /// Returns `true` if the reason may be gone at the next start.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self.holds, Holds::Once | Holds::Pause)
    }
}

impl From<io::Error> for NoImage {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string(), if is_shortage(&error) { Holds::Once } else { Holds::Boot })
    }
}

/// A sandbox whose root is built.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Up {
    /// `true` if its /proc is the outer one.
    pub(super) outer_proc: bool,
    /// `true` if a seccomp filter is installed. There is none in process mode, and on architectures
    /// without a compiler.
    pub(super) filtered: bool,
    /// The private directory of process mode.
    pub(super) directory: Option<String>,
    /// The reason why the server was not restored though an image of it came along.
    pub(super) not_restored: Option<NoImage>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exit {
    Code(i32),
    /// The number of the signal, which may be a real-time one.
    Signal(i32),
}

impl Exit {
    pub(crate) fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// Returns `true` if the process ended by that signal.
    pub(crate) fn was_by(self, signal: Signal) -> bool {
        self == Self::Signal(rustix::process::Signal::from(signal).as_raw())
    }

    /// Returns `true` if the process was killed by SIGKILL, which says nothing about the process
    /// itself.
    pub(crate) fn was_killed(self) -> bool {
        self == Self::Signal(libc::SIGKILL)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// A failed step of a launch: the step, its object and the kernel's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) step: LaunchStep,
    /// The step's object: a path, a file system, a program.
    pub(crate) object: String,
    /// The error number, or 0 where `detail` is the whole reason.
    pub(crate) errno: i32,
    /// The kernel's words beside the number, often none.
    pub(crate) detail: String,
}

impl Failure {
    /// A step that a system call refused.
    pub(crate) fn new(step: LaunchStep, object: &str, errno: Errno) -> Self {
        Self { step, object: shortened(object), errno: errno.raw_os_error(), detail: String::new() }
    }

    /// A step that failed for a reason in words.
    pub(super) fn other(step: LaunchStep, object: &str, reason: &str) -> Self {
        Self { step, object: shortened(object), errno: 0, detail: shortened(reason) }
    }

    /// A step that failed in the standard library, by a system call or by unusable data.
    pub(crate) fn io(step: LaunchStep, object: &str, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self { step, object: shortened(object), errno, detail: String::new() },
            None => Self::other(step, object, &error.to_string()),
        }
    }
}

impl From<Errno> for NoImage {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// Returns `true` if an error comes from a shortage, which may pass: of descriptors, memory,
/// processes, disk space or rest.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::NOSPC, Errno::DQUOT];
    error.kind() == io::ErrorKind::WouldBlock
        || Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

/// Returns the end of a text that may be a path of any length, so that a report fits into a
/// message.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 1000;
    match text.char_indices().rev().nth(LONGEST) {
        Some((at, _)) => format!("…{}", &text[at..]),
        None => text.to_owned(),
    }
}

/// The kernel's answer and its additional words.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.errno, self.detail.as_str()) {
            (0, detail) => f.write_str(detail),
            (errno, "") => io::Error::from_raw_os_error(errno).fmt(f),
            (errno, detail) => write!(f, "{}: {detail}", io::Error::from_raw_os_error(errno)),
        }
    }
}

impl std::error::Error for Failure {}

/// The steps of a launch, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum LaunchStep {
    Launcher,
    Receive,
    Clone,
    Descriptors,
    MapIds,
    Loopback,
    Hostname,
    PrivateMounts,
    HostTree,
    Scratch,
    Skeleton,
    Attach,
    Overlay,
    Proc,
    PivotRoot,
    Limits,
    Capabilities,
    Filter,
    Execute,
    Forward,
    PrivateDirectory,
    Copy,
}

impl fmt::Display for LaunchStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Launcher => "start the launcher",
            Self::Receive => "read the plan",
            Self::Clone => "create the namespaces",
            Self::Descriptors => "close inherited descriptors",
            Self::MapIds => "map the user id",
            Self::Loopback => "bring up the loopback interface",
            Self::Hostname => "set the host name",
            Self::PrivateMounts => "make the mounts private",
            Self::HostTree => "take a read-only copy of the mount",
            Self::Scratch => "mount the tmpfs",
            Self::Skeleton => "make",
            Self::Attach => "mount",
            Self::Overlay => "mount the overlay",
            Self::Proc => "mount",
            Self::PivotRoot => "change the root to",
            Self::Limits => "set the limit",
            Self::Capabilities => "drop",
            Self::Filter => "install the filter of system calls",
            Self::Execute => "execute",
            Self::Forward => "start a process to forward to",
            Self::PrivateDirectory => "make a private directory in",
            Self::Copy => "copy the layer to",
        })
    }
}

/// # Errors
/// A path that is not UTF-8 cannot be encoded.
pub(super) fn encode(message: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let failure =
            Failure { step: LaunchStep::Overlay, object: "/da\"ta".into(), errno: 22, detail: "é".into() };
        let bytes = encode(&Event::Failed(failure.clone())).unwrap();
        match serde_json::from_slice(&bytes).unwrap() {
            Event::Failed(read) => assert_eq!(read, failure),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_start_method_needs_its_image() {
        assert_eq!(StartMethod::Restore(()).with_image(Some(7)), Some(StartMethod::Restore(7)));
        assert_eq!(StartMethod::Restore(()).with_image(None::<u8>), None);
        assert_eq!(StartMethod::Execute.with_image(None::<u8>), Some(StartMethod::Execute));
    }

    #[test]
    fn malformed_messages_are_refused() {
        for text in ["", "null", "{}", r#"{"Run":{"number":-1}}"#, r#"{"Captured":"Other"}"#, r#""Ready" 1"#]
        {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
            assert!(serde_json::from_str::<Event>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shortages_differ_from_refusals() {
        let of = |errno| is_shortage(&io::Error::from_raw_os_error(errno));
        assert!([libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN, libc::ENOSPC].into_iter().all(of));
        assert!(![libc::EPERM, libc::EACCES, libc::ENOENT].into_iter().any(of));
        assert_eq!(NoImage::from(io::Error::other("it is linked statically")).holds, Holds::Boot);
        assert_eq!(NoImage::from(io::Error::from_raw_os_error(libc::ENOMEM)).holds, Holds::Once);
    }

    proptest! {
        /// A message that is cut off at any byte is refused, and a whole one is read as it was
        /// sent.
        #[test]
        fn programs_and_failures_survive_the_wire(
            number: u32, program in "/\\PC{0,40}", args in proptest::collection::vec("\\PC{0,40}", 0..4),
            errno: i32, detail in "\\PC{0,40}", cut: proptest::sample::Index,
        ) {
            let command = args.iter().fold(Command::new(&program), Command::arg);
            let bytes = encode(&Request::Run { number, command: command.clone() }).unwrap();
            prop_assert!(serde_json::from_slice::<Request>(&bytes[..cut.index(bytes.len())]).is_err());
            match serde_json::from_slice(&bytes).unwrap() {
                Request::Run { number: read, command: of } => {
                    prop_assert_eq!((read, format!("{of:?}")), (number, format!("{command:?}")));
                }
                other => prop_assert!(false, "{:?}", other),
            }
            let failure = Failure { step: LaunchStep::Execute, object: program, errno, detail };
            let bytes = encode(&Event::Failed(failure.clone())).unwrap();
            prop_assert!(serde_json::from_slice::<Event>(&bytes[..cut.index(bytes.len())]).is_err());
            match serde_json::from_slice(&bytes).unwrap() {
                Event::Failed(read) => prop_assert_eq!(read, failure),
                other => prop_assert!(false, "{:?}", other),
            }
        }

        /// The end of a path survives, on a character's boundary.
        #[test]
        fn long_objects_are_shortened(object in "\\PC{0,1200}") {
            let failure = Failure::other(LaunchStep::Attach, &object, "");
            let kept = failure.object.trim_start_matches('…');
            prop_assert!(object.ends_with(kept) && failure.object.chars().count() <= 1002);
        }
    }
}
