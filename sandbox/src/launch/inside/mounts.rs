//! The root of a container: read-only pieces of the host, a tmpfs for the rest, the data directory,
//! pivot_root(2).

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, pivot_root};

use super::file_systems::{LARGE_PAGES, overlay, tmpfs, tmpfs_with};
use crate::launch::image::Handles;
use crate::launch::path::SandboxPath;
use crate::launch::plan::{Bind, Data, Plan};
use crate::launch::protocol::{Failure, LaunchStep};
use crate::sys::mount::{
    MountError, MountOption, attach, clone_tree, create, make_read_only, open_directory,
};

const CLOSED: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
const READ_ONLY: MountAttrFlags = CLOSED.union(MountAttrFlags::MOUNT_ATTR_RDONLY);
const NO_EXEC: MountAttrFlags = CLOSED.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Devices that programs expect everywhere. They are binds, since a user namespace may not make
/// device nodes.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Files of /proc that the runtime specification of the Open Container Initiative masks, and those
/// that only root may read: where the user outside is root, the id inside owns all of them.
const MASKED_FILES: [&str; 15] = [
    "interrupts", "kallsyms", "kcore", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags",
    "latency_stats", "sched_debug", "slabinfo", "sysrq-trigger", "timer_list", "timer_stats", "vmallocinfo",
];
const MASKED_DIRECTORIES: [&str; 3] = ["acpi", "asound", "scsi"];

/// The directory in which the new root is built: every system has it, and it is not needed any more
/// once its devices have been cloned.
pub(super) const STAGE: &str = "/dev";

/// The root of a container that has been entered.
#[derive(Debug)]
pub(super) struct Root {
    /// The server's log: a file on the root's tmpfs that has no name.
    pub(super) log: File,
    /// `true` if /proc is the outer one, which shows outer processes.
    pub(super) outer_proc: bool,
    /// Empty unless a server is resumed.
    pub(super) handles: Handles,
}

/// A /proc that is still writable and not attached yet, or the outer one.
#[derive(Debug)]
pub(super) struct Proc {
    root: OwnedFd,
    is_outer: bool,
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Makes a /proc of the new pid namespace. The kernel refuses one where the outer /proc is partly
/// hidden ("mount too revealing"), as in most containers; the outer one, which shows outer
/// processes, then takes its place.
pub(super) fn proc() -> Result<Proc, Failure> {
    match create("proc", &[], NO_EXEC) {
        Ok(root) => Ok(Proc { root, is_outer: false }),
        Err(MountError { errno: Errno::PERM, .. }) => {
            let outer = open_directory(rustix::fs::CWD, "/proc");
            let root = outer.map_err(|errno| Failure::new(LaunchStep::Proc, "/proc", errno))?;
            Ok(Proc { root, is_outer: true })
        }
        Err(error) => Err(refused(LaunchStep::Proc, "/proc", error)),
    }
}

/// Builds the root and enters it. `resumes` asks for the handles.
pub(super) fn build(plan: &Plan, proc: Proc, resumes: bool) -> Result<Root, Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|errno| Failure::new(LaunchStep::PrivateMounts, "/", errno))?;

    let devices = devices()?;
    let programs = match &plan.image {
        None => Programs::Usr(usr(&plan.usr)?),
        Some(image) => Programs::Image { root: open_lower(image)?, usr: open_lowers(&plan.usr)? },
    };
    let (data, upper) = data(&plan.data)?;
    let binds = binds(plan)?;

    // Attached, it goes with the old root. A detached mount costs its own wait for the kernel when
    // it is closed. Before Linux 6.13 this one cannot be attached again.
    if let Some(upper) = upper {
        let _ = attach(upper.as_fd(), STAGE);
    }
    let scratch = tmpfs(plan.scratch_size, "0755", NO_EXEC)?;
    attach(scratch.as_fd(), STAGE)
        .map_err(|errno| Failure::new(LaunchStep::Attach, "the new root", errno))?;
    chdir(STAGE).map_err(|errno| Failure::new(LaunchStep::Attach, STAGE, errno))?;
    skeleton(plan)?;

    for (name, _) in &devices {
        make_file(Path::new(&format!("dev/{name}")))?;
    }
    make_directory(&plan.data_dir)?;
    // Bound onto themselves, they stay writable when the root becomes read-only.
    let writable = ["tmp", "run"].map(|name| Ok((take(name, NO_EXEC)?, name)));
    let writable = writable.into_iter().collect::<Result<Vec<_>, Failure>>()?;
    match programs {
        Programs::Usr(usr) => mount_at(&usr, "usr")?,
        Programs::Image { root, usr } => {
            for bind in &binds {
                bind.make_mount_point()?;
            }
            cover(root, usr)?;
        }
    }
    hide(plan)?;
    for (name, device) in devices {
        mount_at(&device, &format!("dev/{name}"))?;
    }
    let shared_memory = resumes.then(shared_memory).transpose()?;
    mount_at(&tmpfs(plan.shm_size, "1777", NO_EXEC)?, "dev/shm")?;
    for (tree, name) in writable {
        mount_at(&tree, name)?;
    }
    for bind in binds {
        // Beneath an image the mount points exist already, in the read-only root.
        if plan.image.is_none() {
            bind.make_mount_point()?;
        }
        mount_at(&bind.tree, &utf8(staged(bind.target)))?;
    }
    // The mount points of binds have been made in them.
    for hidden in plan.hidden.iter().filter(|hidden| holds_binds(plan, hidden)) {
        let path = CString::new(utf8(staged(&hidden.into()))).expect("a path of the host has no NUL");
        make_read_only(&path).map_err(|errno| Failure::new(LaunchStep::Attach, &utf8(hidden), errno))?;
    }
    // Below a mount that stays writable: a mount with a file open for writing cannot be made
    // read-only.
    let log = File::options()
        .read(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open("run")
        .map_err(|error| Failure::io(LaunchStep::Skeleton, "the log file", &error))?;
    mount_at(&data, &utf8(staged(&plan.data_dir)))?;
    let empty = empty_directories()?;
    let outer_proc = proc.is_outer;
    let last_pid = mount_proc(proc, resumes)?;
    mask_proc(empty)?;
    make_read_only(c".").map_err(|errno| Failure::new(LaunchStep::Attach, "the read-only root", errno))?;
    enter()?;
    Ok(Root { log, outer_proc, handles: Handles { last_pid, shared_memory, ..Handles::default() } })
}

/// Where the programs of a root come from.
enum Programs {
    /// A mount for /usr.
    Usr(OwnedFd),
    /// The root directory of an image, and directories for its /usr if others show there too.
    Image { root: OwnedFd, usr: Vec<OwnedFd> },
}

/// Covers the staged root by a read-only overlay of itself on an image. Nothing is written into the
/// image, which may lack the places of all that is mounted.
fn cover(image: OwnedFd, mut usr: Vec<OwnedFd>) -> Result<(), Failure> {
    let failed = |errno| Failure::new(LaunchStep::Overlay, "the image", errno);
    let skeleton = |path| open_directory(rustix::fs::CWD, path).map_err(failed);
    let whole = overlay(&[skeleton(".")?, image], None, CLOSED)
        .map_err(|error| refused(LaunchStep::Overlay, "/", error))?;
    // Beside the whole instead of on it: the kernel stacks two overlays, and the cache may be on
    // one.
    let usr = match usr.is_empty() {
        true => None,
        false => {
            usr.insert(0, skeleton("usr")?);
            let usr = overlay(&usr, None, READ_ONLY);
            Some(usr.map_err(|error| refused(LaunchStep::Overlay, "/usr", error))?)
        }
    };
    attach(whole.as_fd(), STAGE).map_err(failed)?;
    chdir(STAGE).map_err(failed)?;
    usr.map_or(Ok(()), |usr| mount_at(&usr, "usr"))
}

fn devices() -> Result<Vec<(&'static str, OwnedFd)>, Failure> {
    let mut devices = Vec::new();
    for name in DEVICES {
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        match clone_tree(&format!("/dev/{name}"), flags) {
            Ok(device) => devices.push((name, device)),
            // An outer container may lack some; servers depend on the first and the last only.
            Err(Errno::NOENT) if !matches!(name, "null" | "urandom") => {}
            Err(errno) => return Err(Failure::new(LaunchStep::HostTree, &format!("/dev/{name}"), errno)),
        }
    }
    Ok(devices)
}

/// A copy of a part of the host's file system, and its mount point.
struct ClonedBind<'a> {
    tree: OwnedFd,
    is_directory: bool,
    target: &'a SandboxPath,
}

impl ClonedBind<'_> {
    fn make_mount_point(&self) -> Result<(), Failure> {
        if self.is_directory {
            return make_directory(self.target);
        }
        make_parent(self.target)?;
        make_file(staged(self.target))
    }
}

/// Clones the planned binds while the host's tree is whole: the new root covers a part of it.
fn binds(plan: &Plan) -> Result<Vec<ClonedBind<'_>>, Failure> {
    let cloned = plan.binds.iter().map(|Bind { source, target }| {
        Ok(ClonedBind { tree: take(&utf8(source), READ_ONLY)?, is_directory: source.is_dir(), target })
    });
    cloned.collect()
}

/// Covers hidden directories with empty ones; with writable ones where something else shows below.
fn hide(plan: &Plan) -> Result<(), Failure> {
    for hidden in &plan.hidden {
        let empty = if holds_binds(plan, hidden) {
            tmpfs(1 << 20, "0755", NO_EXEC)?
        } else {
            // The mount point of /proc is an empty directory until /proc is mounted.
            take("proc", READ_ONLY.union(NO_EXEC))?
        };
        mount_at(&empty, &utf8(staged(&hidden.into())))?;
    }
    Ok(())
}

fn holds_binds(plan: &Plan, hidden: &Path) -> bool {
    plan.binds.iter().any(|bind| bind.target.as_path().starts_with(hidden))
}

/// Returns the tree of programs: the host's /usr, or an overlay of further trees on it.
fn usr(lowers: &[PathBuf]) -> Result<OwnedFd, Failure> {
    match lowers {
        [only] => take(&utf8(only), READ_ONLY),
        several => overlay(&open_lowers(several)?, None, READ_ONLY)
            .map_err(|error| refused(LaunchStep::Overlay, "/usr", error)),
    }
}

/// Returns the mount of the data directory, and the tmpfs that an overlay writes to.
fn data(data: &Data) -> Result<(OwnedFd, Option<OwnedFd>), Failure> {
    match data {
        Data::Writable { source } => Ok((take(&utf8(source), NO_EXEC)?, None)),
        Data::Overlay { lower, changes, upper_size } => {
            let upper = tmpfs_with(*upper_size, "0700", NO_EXEC, Some(LARGE_PAGES))?;
            let lowers = changes.iter().chain([lower]).map(|path| open_lower(path));
            let mount = overlay(&lowers.collect::<Result<Vec<_>, _>>()?, Some(&upper), NO_EXEC)
                .map_err(|error| refused(LaunchStep::Overlay, "the data directory", error))?;
            Ok((mount, Some(upper)))
        }
    }
}

/// Mounts a tmpfs that the next mount hides: a detached one would cost its own wait for the kernel
/// at the end. The memory of processes has no limit of bytes either.
fn shared_memory() -> Result<OwnedFd, Failure> {
    const UNLIMITED: &str = "0";
    let options = [MountOption::Text("size", UNLIMITED), LARGE_PAGES];
    let memory = create("tmpfs", &options, NO_EXEC)
        .map_err(|error| refused(LaunchStep::Scratch, "for shared memory", error))?;
    mount_at(&memory, "dev/shm")?;
    Ok(memory)
}

fn skeleton(plan: &Plan) -> Result<(), Failure> {
    for name in ["usr", "etc", "dev", "dev/shm", "proc", "run", "tmp"] {
        fs::create_dir(name).map_err(|error| Failure::io(LaunchStep::Skeleton, name, &error))?;
    }
    fs::set_permissions("tmp", Permissions::from_mode(0o1777))
        .map_err(|error| Failure::io(LaunchStep::Skeleton, "/tmp", &error))?;
    let links =
        [("dev/fd", "/proc/self/fd"), ("dev/stdin", "fd/0"), ("dev/stdout", "fd/1"), ("dev/stderr", "fd/2")];
    let links = links.iter().map(|&(path, target)| (Path::new(path), Path::new(target)));
    let planned = plan.symlinks.iter().map(|link| (staged(&link.path), link.target.as_path()));
    for (path, target) in links.chain(planned) {
        symlink(target, path).map_err(|error| Failure::io(LaunchStep::Skeleton, &utf8(path), &error))?;
    }
    for directory in &plan.directories {
        make_directory(&directory.path)?;
        set_mode(&directory.path, directory.mode)?;
    }
    for file in &plan.files {
        make_parent(&file.path)?;
        let written = fs::write(staged(&file.path), file.contents.as_bytes());
        written.map_err(|error| skeleton_failed(&file.path, &error))?;
        set_mode(&file.path, file.mode)?;
    }
    Ok(())
}

/// Mounts /proc read-only: where the user outside is root, the server's id owns the kernel's
/// settings. Returns the setting of the last process id, if it is asked for.
fn mount_proc(proc: Proc, chooses_ids: bool) -> Result<Option<File>, Failure> {
    const LAST_PID: &str = "sys/kernel/ns_last_pid";
    let open = |path: PathBuf| File::options().write(true).open(path).ok();
    if proc.is_outer {
        let last_pid = if chooses_ids { open(Path::new("/proc").join(LAST_PID)) } else { None };
        mount_at(&take("/proc", READ_ONLY.union(NO_EXEC))?, "proc")?;
        return Ok(last_pid);
    }
    mount_at(&proc.root, "proc")?;
    // By a separate mount: one with a file open for writing cannot be made read-only.
    let last_pid = match chooses_ids {
        true => {
            // It goes with the old root.
            mount_at(&take("proc", NO_EXEC)?, "/proc")?;
            open(Path::new("/proc").join(LAST_PID))
        }
        false => None,
    };
    make_read_only(c"proc").map_err(|errno| Failure::new(LaunchStep::Attach, "/proc", errno))?;
    Ok(last_pid)
}

/// Returns an empty directory for each existing one of [`MASKED_DIRECTORIES`].
fn empty_directories() -> Result<Vec<(&'static str, OwnedFd)>, Failure> {
    let existing = MASKED_DIRECTORIES.into_iter().filter(|name| Path::new("/proc").join(name).is_dir());
    // The mount point of /proc is empty until /proc is mounted.
    existing.map(|name| Ok((name, take("proc", READ_ONLY.union(NO_EXEC))?))).collect()
}

/// Covers files of /proc with a device that cannot be opened, and directories with empty ones.
fn mask_proc(directories: Vec<(&'static str, OwnedFd)>) -> Result<(), Failure> {
    for (name, empty) in directories {
        mount_at(&empty, &format!("proc/{name}"))?;
    }
    for name in MASKED_FILES {
        let path = format!("proc/{name}");
        if Path::new(&path).exists() {
            mount_at(&take("dev/null", READ_ONLY.union(NO_EXEC))?, &path)?;
        }
    }
    Ok(())
}

/// Enters the new root. The old one ends up stacked on it and is then detached: pivot_root(2),
/// `pivot_root(".", ".")`.
fn enter() -> Result<(), Failure> {
    pivot_root(".", ".")
        .and_then(|()| unmount(".", UnmountFlags::DETACH))
        .and_then(|()| chdir("/"))
        .map_err(|errno| Failure::new(LaunchStep::PivotRoot, "the new root", errno))
}

fn take(path: &str, attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    clone_tree(path, attributes).map_err(|errno| Failure::new(LaunchStep::HostTree, path, errno))
}

fn open_lower(path: &Path) -> Result<OwnedFd, Failure> {
    open_directory(rustix::fs::CWD, &utf8(path))
        .map_err(|errno| Failure::new(LaunchStep::Overlay, &utf8(path), errno))
}

fn open_lowers(paths: &[PathBuf]) -> Result<Vec<OwnedFd>, Failure> {
    paths.iter().map(|path| open_lower(path)).collect()
}

fn mount_at(mount: &OwnedFd, target: &str) -> Result<(), Failure> {
    attach(mount.as_fd(), target).map_err(|errno| {
        Failure::new(LaunchStep::Attach, &format!("/{}", target.trim_start_matches('/')), errno)
    })
}

fn make_file(path: &Path) -> Result<(), Failure> {
    File::create(path).map(drop).map_err(|error| Failure::io(LaunchStep::Skeleton, &utf8(path), &error))
}

fn make_directory(path: &SandboxPath) -> Result<(), Failure> {
    fs::create_dir_all(staged(path)).map_err(|error| skeleton_failed(path, &error))
}

fn make_parent(path: &SandboxPath) -> Result<(), Failure> {
    path.as_path().parent().map_or(Ok(()), |parent| make_directory(&parent.into()))
}

fn set_mode(path: &SandboxPath, mode: u32) -> Result<(), Failure> {
    fs::set_permissions(staged(path), Permissions::from_mode(mode))
        .map_err(|error| skeleton_failed(path, &error))
}

fn skeleton_failed(path: &SandboxPath, error: &io::Error) -> Failure {
    Failure::io(LaunchStep::Skeleton, &utf8(path.as_path()), error)
}

/// Returns a path of the new root in the stage, which is the working directory.
fn staged(path: &SandboxPath) -> &Path {
    let path = path.relative();
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Returns a path as text. Plans travel as JSON, so their paths are UTF-8.
fn utf8(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

pub(super) fn refused(step: LaunchStep, object: &str, error: MountError) -> Failure {
    Failure { detail: error.message, ..Failure::new(step, object, error.errno) }
}
