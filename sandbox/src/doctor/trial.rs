//! Starts, measures and ends one sandbox with its server.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::deadline::within;
use super::examination::{Examination, fix_of};
use crate::engine::Engine;
use crate::error::Result;
use crate::launch::{Container, NoImage, ProcessOrigin};
use crate::snapshot::Snapshot;

/// Long enough to download packages and to build a layer from nothing.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// How long a checkpoint is waited for: an attempt at a server without rest takes five seconds.
const CHECKPOINT: Duration = Duration::from_secs(15);

/// The durations of the parts of one sandbox's life, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TrialTimings {
    /// The time to find or build the layer.
    pub layer: f64,
    /// `true` if the layer was built.
    pub layer_built: bool,
    /// The time from the request to the executed server.
    pub launch: f64,
    /// The time from the executed server to a ready one.
    pub server: f64,
    /// The time from the drop of the handle to the end of all processes.
    pub teardown: f64,
}

pub(super) fn examine<E: Engine>(examination: &mut Examination, engine: &E) -> Option<TrialTimings> {
    const NAME: &str = "trial";
    let snapshot = Snapshot::new(engine.clone());
    match within(LIMIT, "to start a server", move || trial(&snapshot)) {
        Ok(Ok((timings, way))) => {
            let built = if timings.layer_built { "built" } else { "found" };
            examination.ok(
                NAME,
                format!(
                    "layer {built} in {:.1} ms, launch {:.1} ms, server {:.1} ms, teardown {:.1} ms",
                    timings.layer, timings.launch, timings.server, timings.teardown
                ),
            );
            examination.ok("start", way);
            Some(timings)
        }
        Ok(Err(error)) => {
            examination.fail(NAME, fix_of(&error));
            None
        }
        Err(fix) => {
            examination.fail(NAME, fix);
            None
        }
    }
}

fn trial<E: Engine>(snapshot: &Snapshot<E>) -> Result<(TrialTimings, String)> {
    let mut sandbox = snapshot.start()?;
    // One of the first starts makes a checkpoint, perhaps that of a prewarmed sandbox.
    let deadline = Instant::now() + CHECKPOINT;
    let may_be_later = |why: &NoImage| why.may_pass() && Instant::now() < deadline;
    while sandbox.container().not_resumed().is_some_and(may_be_later) {
        drop(sandbox);
        sandbox = snapshot.start()?;
    }
    let timings = sandbox.timings();
    let way = way(sandbox.container());
    let begin = Instant::now();
    drop(sandbox);
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    let timings = TrialTimings {
        layer: milliseconds(timings.layer),
        layer_built: timings.layer_built,
        launch: milliseconds(timings.launch),
        server: milliseconds(timings.server),
        teardown: milliseconds(begin.elapsed()),
    };
    Ok((timings, way))
}

/// How servers are started, and why not in the faster ways.
fn way(container: &Container) -> String {
    let why = container.not_resumed().map(|reason| reason.why.as_str()).unwrap_or_default();
    match container.origin() {
        ProcessOrigin::Resumed => "servers are resumed from the checkpoint of a ready one".to_owned(),
        ProcessOrigin::Linked => {
            format!("servers are restored from the image of a linked one; without a checkpoint: {why}")
        }
        ProcessOrigin::Executed(linking) => {
            format!("each server is executed and linked: {}; without a checkpoint: {why}", linking.why)
        }
    }
}
