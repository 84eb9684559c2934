//! Machines, each a cache, and a registry that they share.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use sandboxed_db::Redis;
use sandboxed_db_tests::{TestedEngine, alone, alone_in, is_missing, passed, skip};
use tempfile::TempDir;

use crate::registries::DockerRegistry;

/// The directory of a test, which all its machines share: seeds, and a line for each build.
pub(super) const SHARED: &str = "SANDBOXED_DB_TEST_SHARED";
/// A further step of one machine.
pub(super) const MORE: &str = "SANDBOXED_DB_TEST_MORE";

/// The repository that a test by hand uses.
pub(super) const PLACE: &str = "SANDBOXED_DB_TEST_PLACE";

/// Machines, each a cache, and what they share.
pub(super) struct Machines {
    engine: &'static str,
    pub(super) place: TempDir,
}

impl Machines {
    pub(super) fn of<E: TestedEngine>(engine: &'static str) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join(E::SEED_NAME), E::SEED).unwrap();
        Self { engine, place }
    }

    pub(super) fn cache(&self, machine: &str) -> PathBuf {
        self.place.path().join(machine)
    }

    pub(super) fn command(&self, machine: &str, registry: &str) -> Command {
        let mut command = alone(&format!("layer_registry::machine::{}", self.engine));
        command.arg("--nocapture").env("SANDBOXED_DB_REGISTRY", registry);
        self.on_machine(command, machine)
    }

    /// Runs all tests of a module.
    pub(super) fn command_of(&self, machine: &str, tests: &str) -> Command {
        self.on_machine(alone_in(tests), machine)
    }

    pub(super) fn on_machine(&self, mut command: Command, machine: &str) -> Command {
        for variable in ["GITHUB_RUN_ID", "CI_PIPELINE_ID", "BUILDKITE_BUILD_ID", "NEXTEST_RUN_ID"] {
            command.env_remove(variable);
        }
        command
            .env("SANDBOXED_DB_CACHE", self.cache(machine))
            .env("DOCKER_CONFIG", self.place.path())
            .env(SHARED, self.place.path());
        command
    }

    /// Runs a machine that only reads. Returns what it said.
    pub(super) fn run(&self, machine: &str, registry: &str) -> String {
        passed(&mut self.command(machine, registry))
    }

    pub(super) fn run_and_push(&self, machine: &str, registry: &str) -> String {
        passed(self.command(machine, registry).env("SANDBOXED_DB_PUSH", "1"))
    }

    /// The names of the steps that were run, on any machine.
    pub(super) fn built(&self) -> Vec<String> {
        let text = fs::read_to_string(self.place.path().join("built")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The layers of a machine, and whether each was pulled.
    pub(super) fn layers(&self, machine: &str) -> Vec<(String, bool)> {
        let directory = self.cache(machine).join("layers");
        let names = fs::read_dir(&directory).into_iter().flatten().flatten();
        let mut layers: Vec<_> = names.map(|entry| entry.file_name().into_string().unwrap()).collect();
        layers.sort();
        let is_pulled = |name: &String| {
            fs::read_to_string(directory.join(name).join("manifest.json")).unwrap().contains("\"origin\":\"")
        };
        layers.into_iter().map(|name| (name.clone(), is_pulled(&name))).collect()
    }

    pub(super) fn all_pulled(&self, machine: &str) -> bool {
        let layers = self.layers(machine);
        !layers.is_empty() && layers.iter().all(|(_, is_pulled)| *is_pulled)
    }

    /// Notices, without the progress of long work.
    pub(super) fn notices(said: &str) -> Vec<&str> {
        let lines = said.lines().filter(|line| line.contains("sandboxed-db: ") && !line.ends_with(" s)"));
        lines.collect()
    }
}

impl DockerRegistry {
    /// The repository of layers.
    pub(super) fn layers(&self) -> String {
        format!("127.0.0.1:{}/team/test-layers", self.port)
    }
}

pub(super) fn registry() -> Option<DockerRegistry> {
    let registry = DockerRegistry::start();
    if registry.is_none() {
        skip("docker-registry is not installed");
    }
    registry
}

/// A registry that has the layers of a machine, which used Redis.
pub(super) fn filled_registry() -> Option<(DockerRegistry, Machines)> {
    if is_missing::<Redis>() {
        return None;
    }
    let registry = registry()?;
    let machines = Machines::of::<Redis>("redis");
    machines.run_and_push("one", &registry.layers());
    Some((registry, machines))
}
