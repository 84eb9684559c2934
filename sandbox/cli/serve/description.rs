//! The description of a database in a request.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use sandboxed_db::{Engine, MigrationTool, Postgres, Snapshot};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::problem::Problem;

/// An engine and the steps that prepare a database.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Description {
    pub(super) engine: EngineName,
    version: Option<String>,
    database: Option<String>,
    initdb_args: Vec<String>,
    settings: BTreeMap<String, Value>,
    steps: Vec<Step>,
    #[serde(deserialize_with = "time")]
    start_timeout: Option<Duration>,
    #[serde(deserialize_with = "time")]
    build_timeout: Option<Duration>,
    disk: Option<ByteSize>,
    memory: Option<ByteSize>,
    pids: Option<u32>,
    tls: bool,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EngineName {
    #[default]
    Postgres,
}

/// A step: one of the first four, the others describe it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Step {
    migrations: Option<PathBuf>,
    migrations_of: Option<(String, PathBuf)>,
    seed: Option<PathBuf>,
    /// A program and its arguments.
    prepare: Option<Vec<String>>,
    depends_on: Vec<PathBuf>,
    env: BTreeMap<String, String>,
    tcp: bool,
}

const STEPS: &str = "`migrations`, `migrations_of`, `seed`, `prepare` or `depends_on`";

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| humantime::parse_duration(&text).map_err(|_| de::Error::custom(not_a_time(&text))))
        .transpose()
}

fn not_a_time(text: &str) -> String {
    format!("`{text}` is not a time, expected a time such as \"30s\" or \"5m\"")
}

impl Description {
    /// Returns the engine, with the parts of the description that only it knows.
    pub(super) fn postgres(&self) -> Postgres {
        let engine = Postgres::new();
        let engine = self.database.iter().fold(engine, |engine, name| engine.database(name));
        self.initdb_args.iter().fold(engine, |engine, argument| engine.initdb_arg(argument))
    }

    /// Returns the snapshot of an engine. Relative paths start at the directory.
    pub(super) fn snapshot<E: Engine>(&self, engine: E, directory: PathBuf) -> Result<Snapshot<E>, Problem> {
        let mut snapshot = Snapshot::new(engine).relative_to(directory);
        for step in &self.steps {
            snapshot = step.add(snapshot)?;
        }
        for (name, value) in &self.settings {
            snapshot = match value {
                Value::String(value) => snapshot.setting(name, value),
                Value::Bool(_) | Value::Number(_) => snapshot.setting(name, value),
                _ => {
                    let operation = format!("read the setting `{name}`");
                    return Err(Problem::request(&operation, "expected a string, a number or a boolean"));
                }
            };
        }
        if self.tls {
            snapshot = snapshot.tls();
        }
        if let Some(version) = &self.version {
            snapshot = snapshot.version(version);
        }
        if let Some(limit) = self.start_timeout {
            snapshot = snapshot.start_timeout(limit);
        }
        if let Some(limit) = self.build_timeout {
            snapshot = snapshot.build_timeout(limit);
        }
        if let Some(size) = self.disk {
            snapshot = snapshot.disk(size.as_u64());
        }
        if let Some(size) = self.memory {
            snapshot = snapshot.memory(size.as_u64());
        }
        Ok(match self.pids {
            Some(count) => snapshot.pids(count),
            None => snapshot,
        })
    }
}

impl Step {
    fn add<E: Engine>(&self, snapshot: Snapshot<E>) -> Result<Snapshot<E>, Problem> {
        let Self { migrations, migrations_of, seed, prepare, depends_on, env, tcp } = self;
        let refused = |cause: String| Err(Problem::request("read a step", cause));
        if prepare.is_none() && (*tcp || !env.is_empty()) {
            return refused("`env` and `tcp` belong to `prepare`".to_owned());
        }
        let snapshot =
            if depends_on.is_empty() { snapshot } else { snapshot.depends_on(depends_on.iter().cloned()) };
        Ok(match (migrations, migrations_of, seed, prepare) {
            (Some(directory), None, None, None) => snapshot.migrations(directory),
            (None, Some((tool, directory)), None, None) => match MigrationTool::from_str(tool, false) {
                Ok(tool) => snapshot.migrations_of(tool, directory),
                Err(_) => {
                    let tools =
                        MigrationTool::value_variants().iter().filter_map(ValueEnum::to_possible_value);
                    let tools: Vec<_> = tools.map(|tool| format!("`{}`", tool.get_name())).collect();
                    return refused(format!("the tool `{tool}` is unknown, expected {}", tools.join(", ")));
                }
            },
            (None, None, Some(file), None) => snapshot.seed(file),
            (None, None, None, Some(words)) => {
                let pairs = env.iter().map(|(name, value)| format!("{name}={value}"));
                // env(1) sets variables, and the layer is found by its arguments.
                let env = (!env.is_empty()).then(|| "env".to_owned());
                let mut words = env.into_iter().chain(pairs).chain(words.iter().cloned());
                match words.next() {
                    Some(program) if *tcp => snapshot.run_tcp(program, words),
                    Some(program) => snapshot.run(program, words),
                    None => {
                        return refused("`prepare` is empty, expected a program".to_owned());
                    }
                }
            }
            (None, None, None, None) if !depends_on.is_empty() => snapshot,
            (None, None, None, None) => return refused(format!("it is empty, expected {STEPS}")),
            _ => return refused(format!("it is several steps, expected one of {STEPS}")),
        })
    }
}
