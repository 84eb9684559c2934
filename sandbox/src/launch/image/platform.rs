//! The machine and its libraries, which programs in memory have adapted to.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use serde::Serialize;

use crate::machine::boot_id;

/// Everything outside of a plan that an image depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Platform {
    /// The kernel's own mappings are the same for a boot.
    pub(super) boot: String,
    /// A virtual machine may continue on another host, in the same boot.
    pub(super) kernel: [String; 2],
    pub(super) processor: Vec<&'static str>,
    /// The linker's cache, which is written anew whenever a library is installed. It stands for the
    /// libraries; each mapped file is compared when an image is used.
    pub(super) linker: Option<(u64, i64, i64)>,
}

impl Platform {
    pub(super) fn current() -> io::Result<Self> {
        let uname = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let linker = fs::metadata("/etc/ld.so.cache");
        Ok(Self {
            boot: boot_id()?,
            kernel: [text(uname.release()), text(uname.version())],
            processor: features(),
            linker: linker.map(|cache| (cache.ino(), cache.ctime(), cache.ctime_nsec())).ok(),
        })
    }
}

/// The processor's features by which libraries choose their functions.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt)*) => {
            [$(($name, std::arch::is_x86_feature_detected!($name))),*]
        };
    }
    let all = detected! {
        "sse3" "ssse3" "sse4.1" "sse4.2" "sse4a" "popcnt" "lzcnt" "bmi1" "bmi2" "movbe" "aes" "pclmulqdq" "sha"
        "rdrand" "rdseed" "avx" "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl"
        "avx512vbmi" "avx512ifma" "avx512vpopcntdq" "vaes" "vpclmulqdq" "gfni" "xsave" "xsavec" "xsaves" "rtm" "adx"
    };
    all.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    Vec::new()
}
