//! The kernel's version, and the limits of this process that come before all others.

use super::examination::Examination;
use crate::diagnosis::{HostFacts, shortcoming};
use crate::fix::Fix;

/// A sandbox takes four descriptors of the test process, and some processes of the user.
const FEW_FILES: u64 = 256;
const FEW_PROCESSES: u64 = 128;

pub(super) fn examine(examination: &mut Examination, facts: &HostFacts) {
    let release = if facts.release.is_empty() { "of unknown version" } else { &facts.release };
    match shortcoming(facts) {
        None => examination.ok("kernel", format!("Linux {release}")),
        Some(fix) => {
            let sentence = format!("Linux {release}: {}", fix.sentence);
            examination.warn("kernel", Fix { sentence, ..fix });
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
            examination
                .warn("own limits", Fix::run(sentence + ", too few for many sandboxes", "ulimit -n 65536"));
        }
        (_, Some(..FEW_PROCESSES)) => {
            examination
                .warn("own limits", Fix::run(sentence + ", too few for many sandboxes", "ulimit -u 65536"));
        }
        _ => examination.ok("own limits", sentence),
    }
}
