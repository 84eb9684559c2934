//! The root of a container: read-only pieces of the host, a tmpfs for the rest, the data directory, pivot_root(2).

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, pivot_root};

use crate::launch::plan::{Bind, Data, Plan};
use crate::launch::protocol::{Failure, Step};
use crate::sys::mount::{
    MountError, MountOption, attach, clone_tree, create, make_read_only, open_directory,
};

const CLOSED: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
const READ_ONLY: MountAttrFlags = CLOSED.union(MountAttrFlags::MOUNT_ATTR_RDONLY);
const NO_EXEC: MountAttrFlags = CLOSED.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Devices that programs expect everywhere. Binds, since a user namespace may not make device nodes.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// What a container's /proc does not show, as in the runtime specification of the Open Container Initiative, and what only
/// root may read. Where the user outside is root, the id inside owns all of it.
const MASKED_FILES: [&str; 15] = [
    "interrupts",
    "kallsyms",
    "kcore",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "sched_debug",
    "slabinfo",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
];
const MASKED_DIRECTORIES: [&str; 3] = ["acpi", "asound", "scsi"];

/// Where the new root is put together: a directory that every system has, and that is not needed any more once the
/// devices have been taken from it.
const STAGE: &str = "/dev";

/// A root that was entered.
#[derive(Debug)]
pub(super) struct Root {
    /// The server's log: a file on the root's tmpfs that has no name.
    pub(super) log: File,
    /// Whether /proc is the outer one, which shows outer processes.
    pub(super) outer_proc: bool,
}

/// A /proc that can still be written and is not attached yet, or is the outer one.
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

/// A fresh /proc of the new pid namespace; the kernel refuses one where the outer /proc is partly hidden ("mount too
/// revealing"), as in most containers. Then it is the outer one, which shows outer processes.
pub(super) fn proc() -> Result<Proc, Failure> {
    match create("proc", &[], NO_EXEC) {
        Ok(root) => Ok(Proc { root, is_outer: false }),
        Err(MountError { errno: Errno::PERM, .. }) => {
            let outer = open_directory(rustix::fs::CWD, "/proc");
            let root = outer.map_err(|errno| Failure::new(Step::Proc, "/proc", errno))?;
            Ok(Proc { root, is_outer: true })
        }
        Err(error) => Err(refused(Step::Proc, "/proc", error)),
    }
}

/// Builds the root and enters it.
pub(super) fn build(plan: &Plan, proc: Proc) -> Result<Root, Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|errno| Failure::new(Step::PrivateMounts, "/", errno))?;

    let devices = devices()?;
    let usr = usr(&plan.usr)?;
    let data = data(&plan.data)?;
    let binds = binds(plan)?;

    let scratch = tmpfs(plan.scratch_size, "0755", NO_EXEC)?;
    attach(scratch.as_fd(), STAGE).map_err(|errno| Failure::new(Step::Attach, "the new root", errno))?;
    chdir(STAGE).map_err(|errno| Failure::new(Step::Attach, STAGE, errno))?;
    skeleton(plan)?;

    mount_at(&usr, "usr")?;
    hide(plan)?;
    for (name, device) in devices {
        mount_file(&device, Path::new(&format!("dev/{name}")))?;
    }
    mount_at(&tmpfs(plan.shm_size, "1777", NO_EXEC)?, "dev/shm")?;
    // Bound onto themselves these stay writable when the root no longer is.
    for writable in ["tmp", "run"] {
        mount_at(&take(writable, NO_EXEC)?, writable)?;
    }
    for Taken { tree, is_directory, target } in binds {
        if is_directory {
            make_directory(target)?;
            mount_at(&tree, &utf8(relative(target)))?;
        } else {
            make_parent(target)?;
            mount_file(&tree, relative(target))?;
        }
    }
    // The places of binds are made in them.
    for hidden in plan.hidden.iter().filter(|hidden| holds_binds(plan, hidden)) {
        let path = CString::new(utf8(relative(hidden))).expect("a path of the host has no NUL");
        make_read_only(&path).map_err(|errno| Failure::new(Step::Attach, &utf8(hidden), errno))?;
    }
    // Below a mount that stays writable: one with a file open for writing cannot be made read-only.
    let log = File::options()
        .read(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open("run")
        .map_err(|error| Failure::io(Step::Skeleton, "the log file", &error))?;
    make_directory(&plan.data_dir)?;
    mount_at(&data, &utf8(relative(&plan.data_dir)))?;
    let empty = empty_directories()?;
    let outer_proc = proc.is_outer;
    mount_proc(proc)?;
    mask_proc(empty)?;
    make_read_only(c".").map_err(|errno| Failure::new(Step::Attach, "the read-only root", errno))?;
    enter()?;
    Ok(Root { log, outer_proc })
}

fn devices() -> Result<Vec<(&'static str, OwnedFd)>, Failure> {
    let mut devices = Vec::new();
    for name in DEVICES {
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        match clone_tree(&format!("/dev/{name}"), flags) {
            Ok(device) => devices.push((name, device)),
            // A container around this one may be sparing; servers depend on the first and the last only.
            Err(Errno::NOENT) if !matches!(name, "null" | "urandom") => {}
            Err(errno) => return Err(Failure::new(Step::HostTree, &format!("/dev/{name}"), errno)),
        }
    }
    Ok(devices)
}

/// A piece of the host, and where it is to be.
struct Taken<'a> {
    tree: OwnedFd,
    is_directory: bool,
    target: &'a Path,
}

/// Taken while the host's tree is whole: the new root covers a part of it.
fn binds(plan: &Plan) -> Result<Vec<Taken<'_>>, Failure> {
    let taken = plan.binds.iter().map(|Bind { source, target }| {
        Ok(Taken { tree: take(&utf8(source), READ_ONLY)?, is_directory: source.is_dir(), target })
    });
    taken.collect()
}

/// Covers what is not to be seen with empty directories, those in which something else is to be shown with ones that can
/// still be written.
fn hide(plan: &Plan) -> Result<(), Failure> {
    for hidden in &plan.hidden {
        let empty = if holds_binds(plan, hidden) {
            tmpfs(1 << 20, "0755", NO_EXEC)?
        } else {
            // The place of /proc is an empty directory, as long as that is not mounted.
            take("proc", READ_ONLY.union(NO_EXEC))?
        };
        mount_at(&empty, &utf8(relative(hidden)))?;
    }
    Ok(())
}

fn holds_binds(plan: &Plan, hidden: &Path) -> bool {
    plan.binds.iter().any(|bind| bind.target.starts_with(hidden))
}

/// The programs' tree: the host's /usr, or an overlay of further trees on it.
fn usr(lowers: &[PathBuf]) -> Result<OwnedFd, Failure> {
    match lowers {
        [only] => take(&utf8(only), READ_ONLY),
        several => {
            let lowers = several.iter().map(|path| open_lower(path)).collect::<Result<Vec<_>, _>>()?;
            overlay(&lowers, None, READ_ONLY).map_err(|error| refused(Step::Overlay, "/usr", error))
        }
    }
}

fn data(data: &Data) -> Result<OwnedFd, Failure> {
    match data {
        Data::Writable { source } => take(&utf8(source), NO_EXEC),
        Data::Overlay { lower, upper_size } => {
            let upper = tmpfs_with(*upper_size, "0700", NO_EXEC, Some(LARGE_PAGES))?;
            let lower = open_lower(lower)?;
            overlay(&[lower], Some(&upper), NO_EXEC)
                .map_err(|error| refused(Step::Overlay, "the data directory", error))
        }
    }
}

/// An overlay of `lowers`, the first on top, writable if there is a tmpfs for its upper.
///
/// `userxattr` is what lets an unprivileged overlay mark a directory opaque; `volatile` makes fsync(2) a no-op, which
/// costs nothing since the upper dies with the sandbox (Documentation/filesystems/overlayfs.rst).
fn overlay(
    lowers: &[OwnedFd],
    upper: Option<&OwnedFd>,
    flags: MountAttrFlags,
) -> Result<OwnedFd, MountError> {
    let mut options = vec![MountOption::Flag("userxattr")];
    options.extend(lowers.iter().map(|lower| MountOption::Fd("lowerdir+", lower.as_fd())));
    let directories = upper.map(upper_directories).transpose()?;
    if let Some((upper, work)) = &directories {
        options.extend([
            MountOption::Fd("upperdir", upper.as_fd()),
            MountOption::Fd("workdir", work.as_fd()),
            MountOption::Flag("volatile"),
        ]);
    }
    match create("overlay", &options, flags) {
        // Before Linux 6.13 layers are given by path.
        Err(MountError { errno: Errno::INVAL | Errno::BADF | Errno::OPNOTSUPP, .. }) => {
            overlay_by_path(lowers, upper, flags)
        }
        result => result,
    }
}

/// The upper takes its mode to the overlay's root, and servers refuse a data directory that others may enter.
fn upper_directories(upper: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Errno> {
    for name in ["upper", "work"] {
        rustix::fs::mkdirat(upper, name, rustix::fs::Mode::RWXU)?;
    }
    Ok((open_directory(upper.as_fd(), "upper")?, open_directory(upper.as_fd(), "work")?))
}

/// The same by paths, which /proc makes short and free of the characters that the option would split at.
fn overlay_by_path(
    lowers: &[OwnedFd],
    upper: Option<&OwnedFd>,
    flags: MountAttrFlags,
) -> Result<OwnedFd, MountError> {
    let path = |fd: BorrowedFd<'_>| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let lowerdir = lowers.iter().map(|lower| path(lower.as_fd())).collect::<Vec<_>>().join(":");
    let mut options = vec![MountOption::Flag("userxattr"), MountOption::Text("lowerdir", &lowerdir)];
    let Some(upper) = upper else {
        return create("overlay", &options, flags);
    };
    let (upperdir, workdir) =
        (format!("{}/upper", path(upper.as_fd())), format!("{}/work", path(upper.as_fd())));
    options.extend([
        MountOption::Text("upperdir", &upperdir),
        MountOption::Text("workdir", &workdir),
        MountOption::Flag("volatile"),
    ]);
    // These kernels take an upper from an attached mount only; the overlay keeps it when it is detached again.
    attach(upper.as_fd(), STAGE)?;
    let overlay = create("overlay", &options, flags);
    unmount(STAGE, UnmountFlags::DETACH)?;
    overlay
}

/// How many files a tmpfs may hold: as many as have a page each, and a freshly copied schema in the smallest.
fn inodes(size: u64) -> u64 {
    (size / 4096).max(16 << 10)
}

/// What is copied up comes in large pages, never beyond a file's end: a large table is copied and read in half the time,
/// since Linux 6.14. tmpfs(5).
const LARGE_PAGES: MountOption<'_> = MountOption::Wish("huge", "within_size");

fn tmpfs(bytes: u64, mode: &str, flags: MountAttrFlags) -> Result<OwnedFd, Failure> {
    tmpfs_with(bytes, mode, flags, None)
}

fn tmpfs_with(
    bytes: u64,
    mode: &str,
    flags: MountAttrFlags,
    further: Option<MountOption<'_>>,
) -> Result<OwnedFd, Failure> {
    let size = bytes.to_string();
    // Files without contents take no pages, but they take the kernel's memory.
    let files = inodes(bytes).to_string();
    let mut options = vec![
        MountOption::Text("size", &size),
        MountOption::Text("nr_inodes", &files),
        MountOption::Text("mode", mode),
    ];
    options.extend(further);
    create("tmpfs", &options, flags)
        .map_err(|error| refused(Step::Scratch, &format!("of {size} bytes"), error))
}

fn skeleton(plan: &Plan) -> Result<(), Failure> {
    for name in ["usr", "etc", "dev", "dev/shm", "proc", "run", "tmp"] {
        fs::create_dir(name).map_err(|error| Failure::io(Step::Skeleton, name, &error))?;
    }
    fs::set_permissions("tmp", Permissions::from_mode(0o1777))
        .map_err(|error| Failure::io(Step::Skeleton, "/tmp", &error))?;
    let links =
        [("dev/fd", "/proc/self/fd"), ("dev/stdin", "fd/0"), ("dev/stdout", "fd/1"), ("dev/stderr", "fd/2")];
    let links = links.iter().map(|&(path, target)| (Path::new(path), Path::new(target)));
    let planned = plan.symlinks.iter().map(|link| (relative(&link.path), link.target.as_path()));
    for (path, target) in links.chain(planned) {
        symlink(target, path).map_err(|error| Failure::io(Step::Skeleton, &utf8(path), &error))?;
    }
    for directory in &plan.directories {
        make_directory(&directory.path)?;
        set_mode(&directory.path, directory.mode)?;
    }
    for file in &plan.files {
        make_parent(&file.path)?;
        let written = fs::write(relative(&file.path), &file.contents);
        written.map_err(|error| Failure::io(Step::Skeleton, &utf8(&file.path), &error))?;
        set_mode(&file.path, file.mode)?;
    }
    Ok(())
}

/// Read-only from here on: where the user outside is root, the kernel's settings belong to the id that the server has.
fn mount_proc(proc: Proc) -> Result<(), Failure> {
    if proc.is_outer {
        return mount_at(&take("/proc", READ_ONLY.union(NO_EXEC))?, "proc");
    }
    mount_at(&proc.root, "proc")?;
    make_read_only(c"proc").map_err(|errno| Failure::new(Step::Attach, "/proc", errno))
}

/// An empty directory for each of [`MASKED_DIRECTORIES`] that there is.
fn empty_directories() -> Result<Vec<(&'static str, OwnedFd)>, Failure> {
    let there = MASKED_DIRECTORIES.into_iter().filter(|name| Path::new("/proc").join(name).is_dir());
    // The place of /proc is one, until that is mounted.
    there.map(|name| Ok((name, take("proc", READ_ONLY.union(NO_EXEC))?))).collect()
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

/// pivot_root(2), "pivot_root(".", ".")": the old root ends up stacked on the new one and is then let go.
fn enter() -> Result<(), Failure> {
    pivot_root(".", ".")
        .and_then(|()| unmount(".", UnmountFlags::DETACH))
        .and_then(|()| chdir("/"))
        .map_err(|errno| Failure::new(Step::PivotRoot, "the new root", errno))
}

fn take(path: &str, attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    clone_tree(path, attributes).map_err(|errno| Failure::new(Step::HostTree, path, errno))
}

fn open_lower(path: &Path) -> Result<OwnedFd, Failure> {
    open_directory(rustix::fs::CWD, &utf8(path))
        .map_err(|errno| Failure::new(Step::Overlay, &utf8(path), errno))
}

fn mount_at(mount: &OwnedFd, target: &str) -> Result<(), Failure> {
    attach(mount.as_fd(), target).map_err(|errno| Failure::new(Step::Attach, &format!("/{target}"), errno))
}

fn mount_file(mount: &OwnedFd, target: &Path) -> Result<(), Failure> {
    File::create(target).map_err(|error| Failure::io(Step::Skeleton, &utf8(target), &error))?;
    mount_at(mount, &utf8(target))
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(relative(path)).map_err(|error| Failure::io(Step::Skeleton, &utf8(path), &error))
}

fn make_parent(path: &Path) -> Result<(), Failure> {
    path.parent().map_or(Ok(()), make_directory)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Failure> {
    let set = |path: &Path| -> io::Result<()> { fs::set_permissions(path, Permissions::from_mode(mode)) };
    set(relative(path)).map_err(|error| Failure::io(Step::Skeleton, &utf8(path), &error))
}

/// The staged place of a path of the new root.
fn relative(path: &Path) -> &Path {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Plans travel as JSON, so their paths are UTF-8.
fn utf8(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn refused(step: Step, object: &str, error: MountError) -> Failure {
    Failure { detail: error.message, ..Failure::new(step, object, error.errno) }
}
