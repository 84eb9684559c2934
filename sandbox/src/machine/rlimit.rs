//! Limits of processes, getrlimit(2), and the command that raises one.

use rustix::process::{Resource as Raw, getrlimit};

use crate::fix::Fix;

/// The least limit for files with which a server starts: a segment of PostgreSQL's write-ahead log.
pub(crate) const LEAST_FILE_SIZE: u64 = 16 << 20;

/// A resource of this process that may be too scarce for a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    OpenFiles,
    Processes,
    FileSize,
    Stack,
    Data,
    AddressSpace,
}

/// A soft and a hard limit; `None` if unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rlimit {
    pub(crate) soft: Option<u64>,
    pub(crate) hard: Option<u64>,
}

/// Parses the limit of that name in proc_pid_limits(5).
pub(crate) fn parse(limits: &str, name: &str) -> Option<Rlimit> {
    let mut fields = limits.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace();
    let mut limit = || match fields.next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    };
    Some(Rlimit { soft: limit()?, hard: limit()? })
}

impl Resource {
    /// The name in proc_pid_limits(5).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OpenFiles => "Max open files",
            Self::Processes => "Max processes",
            Self::FileSize => "Max file size",
            Self::Stack => "Max stack size",
            Self::Data => "Max data size",
            Self::AddressSpace => "Max address space",
        }
    }

    /// Returns the limit of this process.
    pub(crate) fn own(self) -> Rlimit {
        let limit = getrlimit(match self {
            Self::OpenFiles => Raw::Nofile,
            Self::Processes => Raw::Nproc,
            Self::FileSize => Raw::Fsize,
            Self::Stack => Raw::Stack,
            Self::Data => Raw::Data,
            Self::AddressSpace => Raw::As,
        });
        Rlimit { soft: limit.current, hard: limit.maximum }
    }

    /// Returns the fix for a limit that is too low: ulimit as far as the hard limit allows. Beyond,
    /// the fix is up to the administrator.
    pub(crate) fn raise(self, sentence: impl Into<String>, limit: Rlimit) -> Fix {
        const KILOBYTE: u64 = 1 << 10;
        let (option, unit, ample) = match self {
            Self::OpenFiles => ("n", 1, Some(65_536)),
            Self::Processes => ("u", 1, Some(65_536)),
            Self::Stack => ("s", KILOBYTE, Some(8 << 20)),
            Self::FileSize => ("f", KILOBYTE, None),
            Self::Data => ("d", KILOBYTE, None),
            Self::AddressSpace => ("v", KILOBYTE, None),
        };
        let soft = limit.soft.unwrap_or(u64::MAX);
        let ample = ample.map(|ample: u64| ample.max(soft.saturating_mul(2)));
        let most = match (ample, limit.hard) {
            (Some(ample), Some(hard)) => Some(ample.min(hard)),
            (ample, hard) => ample.or(hard),
        };
        match most {
            None => Fix::run(sentence, format!("ulimit -{option} unlimited")),
            Some(most) if most > soft => Fix::run(sentence, format!("ulimit -{option} {}", most / unit)),
            Some(_) => Fix::none(format!(
                "{}; the hard limit (ulimit -H{option}) is no higher: raise that where it is set, in limits.conf(5), the \
                 systemd unit or the container",
                sentence.into()
            )),
        }
    }
}

/// Returns the fix for EMFILE.
pub(crate) fn too_many_files(limit: Rlimit) -> Fix {
    let files = limit.soft.map(|files| format!("{files} ")).unwrap_or_default();
    Resource::OpenFiles.raise(format!("this process has all {files}files open that it may"), limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_parsed_by_name() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max core file size        0                    unlimited            bytes     \n\
                    Max processes             unlimited            96366                processes \n";
        let limit = |soft, hard| Some(Rlimit { soft, hard });
        assert_eq!(parse(text, "Max core file size"), limit(Some(0), None));
        assert_eq!(parse(text, Resource::Processes.name()), limit(None, Some(96_366)));
        assert_eq!(parse(text, "Max"), None);
        assert_eq!(parse("", "Max processes"), None);
    }

    #[test]
    fn a_limit_is_raised_as_far_as_its_hard_limit() {
        let raised = |resource: Resource, soft, hard| {
            resource.raise("it is low", Rlimit { soft: Some(soft), hard }).command
        };
        assert_eq!(raised(Resource::OpenFiles, 32, None), "ulimit -n 65536");
        assert_eq!(raised(Resource::OpenFiles, 32, Some(1 << 20)), "ulimit -n 65536");
        assert_eq!(raised(Resource::OpenFiles, 65_536, Some(1 << 20)), "ulimit -n 131072");
        assert_eq!(raised(Resource::Processes, 20, Some(4096)), "ulimit -u 4096");
        assert_eq!(raised(Resource::FileSize, 0, None), "ulimit -f unlimited");
        assert_eq!(raised(Resource::Stack, 100 << 10, None), "ulimit -s 8192");
        assert_eq!(raised(Resource::Data, 1 << 20, Some(2 << 20)), "ulimit -d 2048");
    }

    #[test]
    fn no_command_goes_beyond_the_hard_limit() {
        let fix = Resource::OpenFiles.raise("it is low", Rlimit { soft: Some(32), hard: Some(32) });
        assert_eq!((fix.how, fix.command.as_str()), ("", ""));
        assert!(fix.sentence.starts_with("it is low; the hard limit (ulimit -Hn) is no higher"), "{fix}");
    }
}
