//! Checks whether this machine can run sandboxes, and names the switch that is off and the command
//! that turns it on.
//!
//! [`doctor`] launches a throw-away container, with the calling program as the launcher, and stops
//! at the first step that fails. It reports a failure in the words of the error of a launch.

mod cache;
mod container;
mod deadline;
mod examination;
mod findings;
mod kernel;
mod limits;
mod packages;
mod servers;
mod trial;

use std::path::Path;

pub use cache::CacheInfo;
pub use findings::{Check, CheckStatus, Findings};
pub use limits::LimitInfo;
pub use servers::ServerInfo;
pub use trial::TrialTimings;

use crate::diagnosis::HostFacts;
use crate::engine::{Engine, Postgres};
use crate::fix::Fix;
use crate::isolation::{self, Isolation};
use examination::Examination;

/// Examines whether this machine can run sandboxes, and reports the means that it offers.
///
/// The doctor tries each operation. Only after a failure it reads files such as those of sysctl(8),
/// to find the reason. At the end it starts and ends one server. The server's layer is built if the
/// cache has none, and without an installed PostgreSQL the distribution's packages are downloaded,
/// as by any start. Each check has a deadline. Nothing remains except the files of a start in the
/// cache.
///
/// # Example
/// ```no_run
/// let findings = sandboxed_db::doctor();
/// println!("{findings}");
/// assert!(findings.works, "{}", findings.verdict);
/// ```
#[must_use]
pub fn doctor() -> Findings {
    examine(servers::examine, &Postgres::new())
}

/// Examines this machine as [`doctor()`] does, with the servers of another engine.
///
/// # Example
/// ```no_run
/// use sandboxed_db::Redis;
/// let findings = sandboxed_db::doctor::doctor_of(&Redis::new());
/// assert!(findings.works, "{}", findings.verdict);
/// ```
#[must_use]
pub fn doctor_of<E: Engine>(engine: &E) -> Findings {
    examine(|examination| servers::examine_engine(examination, engine), engine)
}

fn examine<E: Engine>(servers: impl FnOnce(&mut Examination) -> Vec<ServerInfo>, engine: &E) -> Findings {
    let facts = HostFacts::read(Path::new("/"));
    let mut examination = Examination::default();
    kernel::examine(&mut examination, &facts);
    let cache = cache::examine(&mut examination, &facts);
    let limits = match isolation::wanted() {
        Ok(Isolation::Container) => container::examine(&mut examination, &facts, cache.as_ref()),
        Ok(Isolation::Process) => {
            let sentence = "SANDBOXED_DB_ISOLATION=process is set: servers run without containers, on the host's \
                            network, and can access its files";
            examination.warn("isolation", Fix::run(sentence, "unset SANDBOXED_DB_ISOLATION"));
            Vec::new()
        }
        Err(error) => {
            examination.fail("isolation", examination::fix_of(&error));
            Vec::new()
        }
    };
    let servers = servers(&mut examination);
    packages::examine(&mut examination);
    let trial = if examination.has_failed() { None } else { trial::examine(&mut examination, engine) };
    examination.findings(facts.release, cache, servers, limits, trial)
}
