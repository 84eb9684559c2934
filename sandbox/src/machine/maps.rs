//! The memory of a process, proc_pid_maps(5) and proc_pid_smaps(5).

use std::ops::Range;

/// A mapping of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Such as `r-xp`.
    pub(crate) permissions: String,
    pub(crate) offset: u64,
    /// Major and minor number of the file's device, as `fe:00`.
    pub(crate) device: String,
    /// Zero without a file.
    pub(crate) inode: u64,
    /// The file's path, the name of a special mapping, or nothing.
    pub(crate) name: String,
    /// The bytes that were written since they were mapped; from smaps only.
    pub(crate) written: u64,
    /// The bytes that are swapped out; from smaps only.
    pub(crate) swapped: u64,
    /// Two letters each; from smaps only.
    pub(crate) flags: Vec<String>,
}

impl Mapping {
    /// Parses the contents of either file; lines of unknown form are skipped.
    pub(crate) fn parse_all(text: &str) -> Vec<Self> {
        let mut mappings: Vec<Self> = Vec::new();
        for line in text.lines() {
            if let Some(mapping) = Self::parse(line) {
                mappings.push(mapping);
            } else if let Some((mapping, (name, value))) = mappings.last_mut().zip(line.split_once(':')) {
                let bytes = || {
                    let number = value.split_ascii_whitespace().next();
                    number.and_then(|number| number.parse().ok()).unwrap_or(0_u64) << 10
                };
                match name {
                    "Anonymous" => mapping.written = bytes(),
                    "Swap" => mapping.swapped = bytes(),
                    "VmFlags" => mapping.flags = value.split_ascii_whitespace().map(str::to_owned).collect(),
                    _ => {}
                }
            }
        }
        mappings
    }

    fn parse(line: &str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        // The name begins after padding, and may hold spaces itself.
        let mut fields = rest.splitn(5, ' ');
        let (permissions, offset, device, inode) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        Some(Self {
            start: number(start)?,
            end: number(end)?,
            permissions: permissions.to_owned(),
            offset: number(offset)?,
            device: device.to_owned(),
            inode: inode.parse().ok()?,
            name: fields.next().unwrap_or("").trim_start().to_owned(),
            written: 0,
            swapped: 0,
            flags: Vec::new(),
        })
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    /// Returns `true` if the memory has a permission: `r`, `w` or `x`.
    #[cfg(any(test, target_arch = "x86_64"))]
    pub(crate) fn may(&self, permission: char) -> bool {
        self.permissions.contains(permission)
    }

    /// Returns `true` if the kernel maps it into every process by itself, vdso(7).
    #[cfg(any(test, target_arch = "x86_64"))]
    pub(crate) fn is_system(&self) -> bool {
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
        let mappings = Mapping::parse_all(text);
        let [file, vdso, anonymous] = mappings.as_slice() else { panic!("{mappings:?}") };
        assert_eq!((file.range(), file.offset, file.inode), (0x55d0_a000..0x55d0_b000, 0x1000, 1973));
        assert_eq!((file.name.as_str(), file.written), ("/usr/lib/a b.so", 8 << 10));
        assert!(file.may('r') && !file.may('w') && !file.is_system());
        assert_eq!(file.flags, ["rd", "mr", "mw", "me", "ac", "sd"]);
        assert!(vdso.is_system() && vdso.may('x') && vdso.written == 0);
        assert!(anonymous.name.is_empty() && anonymous.inode == 0 && anonymous.may('w'));
    }
}
