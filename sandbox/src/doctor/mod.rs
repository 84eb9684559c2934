//! Can this machine run sandboxes; and if not, which switch is off, and which command turns it on.
//!
//! [`doctor`] goes the way of a launch in a throw-away container, with the program that calls it as the launcher, and
//! stops at the first step that fails. What it says of a failure is what the error of a launch says.

mod cache;
mod container;
mod deadline;
mod examination;
mod findings;
mod kernel;
mod limits;
mod servers;
mod trial;

use std::path::Path;

pub use cache::CacheInfo;
pub use findings::{Check, CheckStatus, Findings};
pub use limits::LimitInfo;
pub use servers::ServerInfo;
pub use trial::TrialTimings;

use crate::diagnosis::HostFacts;
use crate::fix::Fix;
use crate::isolation::{self, Isolation};
use examination::Examination;

/// Examines this machine: whether sandboxes start here, and with what.
///
/// Everything is tried and not guessed; only where a trial fails, files such as those of sysctl(8) are read to tell why.
/// When all has passed a server is started and ended once, with its layer built first if the cache has none; where no
/// PostgreSQL is installed this downloads the distribution's packages, as any start does. Each check has a deadline.
/// Nothing is left behind but what a start leaves in the cache.
///
/// # Example
/// ```no_run
/// let report = sandboxed_db::doctor();
/// println!("{report}");
/// assert!(report.works, "{}", report.verdict);
/// ```
#[must_use]
pub fn doctor() -> Findings {
    let facts = HostFacts::read(Path::new("/"));
    let mut examination = Examination::default();
    kernel::examine(&mut examination, &facts);
    let cache = cache::examine(&mut examination, &facts);
    let limits = match isolation::wanted() {
        Ok(Isolation::Container) => container::examine(&mut examination, &facts, cache.as_ref()),
        Ok(Isolation::Process) => {
            let sentence = "SANDBOXED_DB_ISOLATION=process is set: servers run without containers, on the host's network and \
                 with its files within their reach";
            examination.warn("isolation", Fix::run(sentence, "unset SANDBOXED_DB_ISOLATION"));
            Vec::new()
        }
        Err(error) => {
            examination.fail("isolation", examination::fix_of(&error));
            Vec::new()
        }
    };
    let servers = servers::examine(&mut examination);
    let trial = if examination.has_failed() { None } else { trial::examine(&mut examination) };
    examination.report(facts.release, cache, servers, limits, trial)
}
