//! Checks the kernel's version, and the limits of this process that a sandbox inherits.

use super::examination::Examination;
use crate::diagnosis::{HostFacts, shortcoming, too_low};
use crate::fix::Fix;
use crate::machine::rlimit::Resource;

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
    const NAME: &str = "own limits";
    if let Some(fix) = too_low(facts) {
        examination.fail(NAME, fix);
        return;
    }
    let (files, processes) = (facts.limit(Resource::OpenFiles), facts.limit(Resource::Processes));
    let number = |limit: Option<u64>| limit.map_or("any number of".to_owned(), |limit| limit.to_string());
    let sentence = format!(
        "this process may open {} files and its user have {} processes",
        number(files.soft),
        number(processes.soft)
    );
    let few = format!("{sentence}, too few for many sandboxes");
    match (files.soft, processes.soft) {
        (Some(..FEW_FILES), _) => examination.warn(NAME, Resource::OpenFiles.raise(few, files)),
        (_, Some(..FEW_PROCESSES)) => examination.warn(NAME, Resource::Processes.raise(few, processes)),
        _ => examination.ok(NAME, sentence),
    }
}
