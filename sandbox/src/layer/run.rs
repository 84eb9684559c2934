//! The test run that a layer is built by, and whether layers of earlier runs are rebuilt.

use std::env;
use std::sync::OnceLock;

use super::manifest::Manifest;
use crate::environment::{REBUILD, REGISTRY};
use crate::machine::process::identity;
use crate::test_id::shared_run;

/// Names the run: the shared one, or this process.
pub(super) fn id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| shared_run().map_or_else(|| identity(std::process::id()), str::to_owned))
}

/// Returns `true` if layers of earlier runs are to be rebuilt.
pub(super) fn rebuilds() -> bool {
    // Other values are refused at the beginning of each start.
    matches!(REBUILD.word(), Ok(Some("1")))
}

/// The variables by which CI systems name a run of several machines.
const PIPELINES: [(&str, &str); 5] = [
    ("github", "GITHUB_RUN_ID"),
    ("gitlab", "CI_PIPELINE_ID"),
    ("buildkite", "BUILDKITE_BUILD_ID"),
    ("circleci", "CIRCLE_WORKFLOW_ID"),
    ("slurm", "SLURM_ARRAY_JOB_ID"),
];

/// Names the run of CI that this process belongs to.
pub(super) fn pipeline() -> Option<&'static str> {
    static PIPELINE: OnceLock<Option<String>> = OnceLock::new();
    let find = || {
        let mut named = PIPELINES.iter().filter_map(|(system, name)| Some((system, env::var(name).ok()?)));
        named.find(|(_, id)| !id.is_empty()).map(|(system, id)| format!("{system}:{id}"))
    };
    PIPELINE.get_or_init(find).as_deref()
}

/// Returns `true` for a layer that this run has built: this one, or with a registry another machine
/// of the same run of CI.
pub(super) fn has_built(manifest: &Manifest) -> bool {
    manifest.run == id() || REGISTRY.value().is_some() && is_of_pipeline(manifest.pipeline.as_deref())
}

/// Returns `true` for the run of CI that this process belongs to.
pub(super) fn is_of_pipeline(other: Option<&str>) -> bool {
    other.is_some_and(|other| pipeline() == Some(other))
}
