//! What the kernel tells of a process's memory, proc_pid_maps(5) and proc_pid_smaps(5).

use std::ops::Range;

/// A mapping of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Such as `r-xp`.
    pub(super) permissions: String,
    pub(super) offset: u64,
    /// Zero where it is of no file.
    pub(super) inode: u64,
    /// The file's path, the name of a special mapping, or nothing.
    pub(super) name: String,
    /// How many bytes are the process's own: written since they were mapped.
    pub(super) own: u64,
    /// Two letters each; from smaps only.
    pub(super) flags: Vec<String>,
}

impl Area {
    /// Parses the contents of either file; lines of no known form are left out.
    pub(super) fn parse_all(text: &str) -> Vec<Self> {
        let mut areas: Vec<Self> = Vec::new();
        for line in text.lines() {
            if let Some(area) = Self::parse(line) {
                areas.push(area);
            } else if let Some((area, (name, value))) = areas.last_mut().zip(line.split_once(':')) {
                match name {
                    "Anonymous" => {
                        let number = value.split_ascii_whitespace().next();
                        area.own = number.and_then(|number| number.parse().ok()).unwrap_or(0) << 10;
                    }
                    "VmFlags" => area.flags = value.split_ascii_whitespace().map(str::to_owned).collect(),
                    _ => {}
                }
            }
        }
        areas
    }

    fn parse(line: &str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        // The name begins after padding, and may hold spaces itself.
        let mut fields = rest.splitn(5, ' ');
        let (permissions, offset, _device, inode) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        Some(Self {
            start: number(start)?,
            end: number(end)?,
            permissions: permissions.to_owned(),
            offset: number(offset)?,
            inode: inode.parse().ok()?,
            name: fields.next().unwrap_or("").trim_start().to_owned(),
            own: 0,
            flags: Vec::new(),
        })
    }

    pub(super) fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    pub(super) fn may(&self, what: char) -> bool {
        self.permissions.contains(what)
    }

    /// Whether the kernel maps it into every process by itself, with what it tells by memory and not by calls, vdso(7).
    pub(super) fn is_system(&self) -> bool {
        self.name == "[vdso]" || self.name.starts_with("[vvar")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaps_are_parsed() {
        let text = "\
55d0a000-55d0b000 r--p 00001000 fe:00 1973                               /usr/lib/a b.so
Size:                  4 kB
Anonymous:             8 kB
VmFlags: rd mr mw me ac sd
7ffd0000-7ffd2000 r-xp 00000000 00:00 0                                  [vdso]
VmFlags: rd ex mr mw me de sd
7ffe0000-7ffe1000 rw-p 00000000 00:00 0
";
        let areas = Area::parse_all(text);
        let [file, vdso, anonymous] = areas.as_slice() else { panic!("{areas:?}") };
        assert_eq!((file.range(), file.offset, file.inode), (0x55d0_a000..0x55d0_b000, 0x1000, 1973));
        assert_eq!((file.name.as_str(), file.own), ("/usr/lib/a b.so", 8 << 10));
        assert!(file.may('r') && !file.may('w') && !file.is_system());
        assert_eq!(file.flags, ["rd", "mr", "mw", "me", "ac", "sd"]);
        assert!(vdso.is_system() && vdso.may('x') && vdso.own == 0);
        assert!(anonymous.name.is_empty() && anonymous.inode == 0 && anonymous.may('w'));
    }
}
