//! The mounts that a process sees, proc_pid_mountinfo(5).

use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The directory of the file system that is mounted.
    root: PathBuf,
    /// The mount point, seen from the process's root.
    pub(crate) target: PathBuf,
    /// The file system's type, such as `ext4`.
    pub(crate) kind: String,
    options: Vec<String>,
}

impl Mount {
    /// Returns `true` if the mount itself, as opposed to its file system, has an option such as
    /// `ro`.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }
}

/// Parses all mounts in their order, and ignores other lines.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

/// Returns the mount that shows at `path`: the nearest above it, and of several there the last.
pub(crate) fn of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.target));
    above.max_by_key(|mount| mount.target.components().count())
}

/// Returns the directory of this process's control group, cgroups(7) version 2, from the text of
/// /proc/self/cgroup.
pub(crate) fn control_group(mounts: &[Mount], cgroup: &str) -> Option<PathBuf> {
    let group = Path::new(cgroup.lines().find_map(|line| line.strip_prefix("0::"))?);
    mounts.iter().filter(|mount| mount.kind == "cgroup2").find_map(|mount| {
        let below = group.strip_prefix(&mount.root).ok()?;
        Some(mount.target.join(below))
    })
}

/// Returns the directory of this process's control group.
pub(crate) fn own_control_group() -> Option<PathBuf> {
    let read = |path| std::fs::read_to_string(path).ok();
    control_group(&parse(&read("/proc/self/mountinfo")?), &read("/proc/self/cgroup")?)
}

fn line(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, target, options) = (fields.next()?, fields.next()?, fields.next()?);
    Some(Mount {
        root: PathBuf::from(unescape(root)),
        target: PathBuf::from(unescape(target)),
        kind: file_system.split(' ').next()?.to_owned(),
        options: options.split(',').map(str::to_owned).collect(),
    })
}

/// Decodes space, tab, newline and backslash, each written as a backslash and three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .filter(|digits| !digits.starts_with('+'))
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                plain.push(code.into());
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
23 22 0:21 / /proc rw,nosuid,nodev,noexec - proc proc rw
24 23 0:21 /sys /proc/sys ro,nosuid - proc proc rw
25 22 0:40 / /home/a\\040b rw master:1 shared:7 - btrfs /dev/sda rw,subvol=/x
26 22 0:41 / /proc ro - proc proc ro
";

    #[test]
    fn the_nearest_and_last_mount_shows() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 5);
        assert_eq!(of(&mounts, Path::new("/home/a b/cache")).unwrap().kind, "btrfs");
        assert_eq!(of(&mounts, Path::new("/home")).unwrap().kind, "ext4");
        assert!(of(&mounts, Path::new("/proc/self")).unwrap().has("ro"));
        assert!(!of(&mounts, Path::new("/")).unwrap().has("ro"));
        assert_eq!(of(&[], Path::new("/")), None);
    }

    #[test]
    fn a_control_group_is_found_among_the_mounts() {
        let mounts = parse(
            "25 21 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs rw\n\
             31 25 0:27 / /sys/fs/cgroup/pids rw shared:9 - cgroup cgroup rw,pids\n\
             40 25 0:36 / /sys/fs/cgroup/unified rw,nosuid shared:11 master:2 - cgroup2 cgroup2 rw\n",
        );
        let directory = |below: &str| Some(PathBuf::from(format!("/sys/fs/cgroup/unified{below}")));
        assert_eq!(
            control_group(&mounts, "8:pids:/x\n0::/user.slice/a.scope\n"),
            directory("/user.slice/a.scope")
        );
        assert_eq!(control_group(&mounts, "0::/\n"), directory("/"));
        assert_eq!(control_group(&mounts, "8:pids:/x\n"), None);
        // A container sees the part of the tree that it was given.
        let inner = parse("40 25 0:36 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(control_group(&inner, "0::/docker/abc/x\n"), Some("/sys/fs/cgroup/x".into()));
        assert_eq!(control_group(&inner, "0::/elsewhere\n"), None);
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        // Replaces each byte of a good text by each special one, and cuts the text there.
        for index in 0..TEXT.len() {
            for byte in ["\\", " ", "\n", "-", "é", "9", ""] {
                let changed = format!("{}{byte}{}", &TEXT[..index], &TEXT[index + 1..]);
                assert!(parse(&changed).len() <= 6);
                parse(&TEXT[..index]);
            }
        }
        assert_eq!(unescape("\\"), "\\");
        assert_eq!(unescape("a\\134b\\9\\777\\04"), "a\\b\\9\\777\\04");
    }
}
