//! The mounts that a process sees, proc_pid_mountinfo(5).

use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is, seen from the process's root.
    pub(crate) target: PathBuf,
    /// The file system's type, such as `ext4`.
    pub(crate) kind: String,
    options: Vec<String>,
}

impl Mount {
    /// Whether the mount itself, as opposed to its file system, has an option such as `ro`.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }
}

/// The mounts in the order in which they are listed; lines that are none are passed over.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

/// The mount that shows at `path`: of those above it the nearest, of several there the last.
pub(crate) fn of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.target));
    above.max_by_key(|mount| mount.target.components().count())
}

fn line(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(4);
    let (target, options) = (fields.next()?, fields.next()?);
    Some(Mount {
        target: PathBuf::from(unescape(target)),
        kind: file_system.split(' ').next()?.to_owned(),
        options: options.split(',').map(str::to_owned).collect(),
    })
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
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
    fn the_nearest_and_last_mount_is_the_one_that_shows() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 5);
        assert_eq!(of(&mounts, Path::new("/home/a b/cache")).unwrap().kind, "btrfs");
        assert_eq!(of(&mounts, Path::new("/home")).unwrap().kind, "ext4");
        assert!(of(&mounts, Path::new("/proc/self")).unwrap().has("ro"));
        assert!(!of(&mounts, Path::new("/")).unwrap().has("ro"));
        assert_eq!(of(&[], Path::new("/")), None);
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        // Each byte of a good text is replaced by each of those that mean something, and the text is cut there.
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
