//! What the test process, the launcher and init say to each other: one JSON document a message.
//!
//! A request to launch goes to the launcher with one end of a socket pair; from then on the test process talks over
//! its other end to the init of that container alone, and the pair's end of file is how either learns of the other's
//! death.

use std::fmt;
use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::plan::Command;

/// The longest message either side sends. Plans, which may be longer, travel as a file descriptor.
pub(crate) const LONGEST_MESSAGE: usize = 64 << 10;

/// From the test process to the launcher; carries the control socket, the plan and, if the plan needs one, an image.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// What a control group is to hold the sandbox to.
    pub(crate) limits: Limits,
    /// How many bytes its files may take in memory.
    pub(crate) files: u64,
    /// No container, but a process of the host.
    pub(crate) on_host: bool,
}

/// From the test process to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Start the server.
    Start(Command),
    /// Run a program to its end, which is told with that number; carries its standard input, output and error.
    Run { number: u32, command: Command },
    /// The server was reached before it said that it is ready: what is done when it says so would come too late.
    Reached,
    /// Send the server a signal, by number.
    Signal(i32),
    /// Forward connections to that port of the container's loopback; carries the sockets that listen for them outside.
    Forward { port: u16 },
}

/// From the launcher (`Spawned`, and `Failed` before it) and from init to the test process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The container's init exists, in a control group if there is one to have; carries its pidfd.
    Spawned { pid: i32, group: Option<String> },
    /// The root is built and a planned server executed; carries the log file. `outer_proc`: /proc is the outer one.
    /// `root`: where the files of a server are that has no container.
    /// `refused`: why the server was executed though an image of it came along.
    Up { outer_proc: bool, root: Option<String>, refused: Option<String> },
    /// An image was made of the server, or why none can be.
    Captured { refused: Option<String> },
    /// The server said by sd_notify(3) that it is ready.
    Ready,
    /// The server ended.
    ServerExited(Exit),
    /// The program of the `Request::Run` of that number ended.
    RunExited { number: u32, exit: Exit },
    /// The process that does `Request::Forward` is there.
    Forwarding { port: u16 },
    /// A step of the launch failed; the container is gone.
    Failed(Failure),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    pub(crate) fn success(self) -> bool {
        self == Self::Code(0)
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

/// A launch that failed: where, on what, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    /// What the step was about: a path, a file system, a program.
    pub(crate) object: String,
    /// The error number, or 0 where `detail` says it all.
    pub(crate) errno: i32,
    /// What the kernel added in words, often nothing.
    pub(crate) detail: String,
}

impl Failure {
    /// A step that a system call refused.
    pub(crate) fn new(step: Step, object: &str, errno: Errno) -> Self {
        Self { step, object: shortened(object), errno: errno.raw_os_error(), detail: String::new() }
    }

    /// A step that failed in the standard library: by a system call, or by what it read.
    pub(crate) fn io(step: Step, object: &str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        let detail = if errno == 0 { shortened(&error.to_string()) } else { String::new() };
        Self { step, object: shortened(object), errno, detail }
    }
}

/// The end of a text that may be a path as long as paths go, so that a report fits into a message.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 1000;
    match text.char_indices().rev().nth(LONGEST) {
        Some((at, _)) => format!("…{}", &text[at..]),
        None => text.to_owned(),
    }
}

/// The kernel's words, and what it added.
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
pub(crate) enum Step {
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
    Place,
    Copy,
}

impl fmt::Display for Step {
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
            Self::Place => "make a private directory in",
            Self::Copy => "copy the layer to",
        })
    }
}

/// # Errors
/// A path that is not UTF-8 cannot be encoded.
pub(crate) fn encode(message: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let failure =
            Failure { step: Step::Overlay, object: "/da\"ta".into(), errno: 22, detail: "é".into() };
        let bytes = encode(&Event::Failed(failure.clone())).unwrap();
        match serde_json::from_slice(&bytes).unwrap() {
            Event::Failed(read) => assert_eq!(read, failure),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        for bytes in [&b""[..], b"{", b"[]", b"\"Unknown\"", b"\xff\xfe"] {
            assert!(serde_json::from_slice::<Event>(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        /// A container's processes cannot reach the socket, but a message that was cut or damaged must end nothing but itself.
        #[test]
        fn damaged_messages_are_survived(at in 0_usize..200, byte in any::<u8>(), end in 0_usize..200) {
            let command = Command::new("/bin/sh").args(["-c", "é"]).env("A", "\u{1}");
            let request = Request::Run { number: 1, command };
            let mut bytes = encode(&request).unwrap();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(end.min(length));
            let _ = (serde_json::from_slice::<Request>(&bytes), serde_json::from_slice::<Event>(&bytes));
        }
    }
}
