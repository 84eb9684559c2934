//! The name of a checkpoint: a hash of everything that it depends on.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use serde::Serialize;

use crate::launch::image::platform::Platform;
use crate::launch::plan::{Data, Plan};

/// Enters the name of a checkpoint, so that one of another form is never read.
const FORMAT: u32 = 9;

#[derive(Debug, Serialize)]
struct Dependencies<'a> {
    format: u32,
    platform: Platform,
    /// Limits that a server inherits.
    limits: String,
    /// The layer that is in its place now: device, inode and time.
    layer: Option<(u64, u64, i64, i64)>,
    plan: &'a Plan,
}

impl<'a> Dependencies<'a> {
    fn of(plan: &'a Plan) -> io::Result<Self> {
        let layer = match &plan.data {
            Data::Overlay { lower, .. } => {
                let lower = fs::metadata(lower)?;
                Some((lower.dev(), lower.ino(), lower.ctime(), lower.ctime_nsec()))
            }
            Data::Writable { .. } => None,
        };
        let limits = fs::read_to_string("/proc/self/limits")?;
        Ok(Self { format: FORMAT, platform: Platform::current()?, limits, layer, plan })
    }

    fn key(&self) -> io::Result<String> {
        Ok(blake3::hash(&serde_json::to_vec(self)?).to_hex().to_string())
    }
}

/// Returns the key of a plan's checkpoint.
pub(super) fn key(plan: &Plan) -> Result<String, String> {
    Dependencies::of(plan).and_then(|all| all.key()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::launch::plan::root;

    #[test]
    fn a_key_depends_on_machine_libraries_limits_layer_and_plan() {
        let place = tempfile::tempdir().unwrap();
        let lower = place.path().join("data");
        fs::create_dir(&lower).unwrap();
        let data = Data::Overlay { lower: lower.clone(), changes: None, upper_size: 1 };
        let plan = root(vec![PathBuf::from("/usr")], data, "/data".into(), "x");
        let usual = key(&plan).unwrap();
        assert_eq!(key(&plan), Ok(usual.clone()));
        type Change = fn(&mut Dependencies<'_>);
        let changes: [(&str, Change); 7] = [
            ("form", |of| of.format += 1),
            ("boot", |of| of.platform.boot.push('x')),
            ("release of the kernel", |of| of.platform.kernel[0].push('x')),
            ("build of the kernel", |of| of.platform.kernel[1].push('x')),
            ("processor", |of| of.platform.processor.push("x")),
            ("C library", |of| of.platform.linker = Some((0, 0, 0))),
            ("limits", |of| of.limits.push('x')),
        ];
        for (what, change) in changes {
            let mut other = Dependencies::of(&plan).unwrap();
            change(&mut other);
            assert_ne!(other.key().unwrap(), usual, "{what}");
        }
        let mut other = plan.clone();
        other.limits.memory += 1;
        assert_ne!(key(&other), Ok(usual.clone()));
        // A layer that was built again in the same place is another one.
        fs::rename(&lower, place.path().join("old")).unwrap();
        fs::create_dir(&lower).unwrap();
        assert_ne!(key(&plan), Ok(usual));
    }
}
