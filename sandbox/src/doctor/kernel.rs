//! The kernel's version, and the limits of this process that come before all others.

use super::examination::Examination;
use crate::refusal::{Facts, shortcoming};
use crate::remedy::Remedy;

/// A sandbox takes four descriptors of the test process, and some processes of the user.
const FEW_FILES: u64 = 256;
const FEW_PROCESSES: u64 = 128;

pub(super) fn examine(examination: &mut Examination, facts: &Facts) {
    let release = if facts.release.is_empty() { "of unknown version" } else { &facts.release };
    match shortcoming(facts) {
        None => examination.ok("kernel", format!("Linux {release}")),
        Some(remedy) => {
            let sentence = format!("Linux {release}: {}", remedy.sentence);
            examination.warn("kernel", Remedy { sentence, ..remedy });
        }
    }
    let tell = |limit: Option<u64>| limit.map_or("any number of".to_owned(), |limit| limit.to_string());
    let sentence = format!(
        "this process may open {} files and its user have {} processes",
        tell(facts.open_files),
        tell(facts.processes)
    );
    match (facts.open_files, facts.processes) {
        (Some(..FEW_FILES), _) => {
            examination.warn(
                "own limits",
                Remedy::run(sentence + ", too few for many sandboxes", "ulimit -n 65536"),
            );
        }
        (_, Some(..FEW_PROCESSES)) => {
            examination.warn(
                "own limits",
                Remedy::run(sentence + ", too few for many sandboxes", "ulimit -u 65536"),
            );
        }
        _ => examination.ok("own limits", sentence),
    }
}
