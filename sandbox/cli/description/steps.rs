//! The steps of a description.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use sandboxed_db::engine::Scripts;
use sandboxed_db::{Engine, Error, ErrorKind, MigrationTool, Snapshot};
use serde::Deserialize;

/// The steps in the order in which they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<StepObject>")]
pub(super) struct Steps(Vec<WrittenStep>);

#[derive(Debug)]
enum WrittenStep {
    Migrations(PathBuf, Option<MigrationTool>),
    Seed(PathBuf),
    Program { program: String, args: Vec<String>, tcp: bool },
    DependsOn(Vec<PathBuf>),
}

/// The options that add steps.
#[derive(Debug, Args)]
struct StepOptions {
    /// Run the migrations in a directory.
    #[arg(long, value_name = "DIRECTORY")]
    migrations: Vec<PathBuf>,
    /// The tool for which the migrations are written, if their names do not show it.
    #[arg(long, value_enum, requires = "migrations")]
    tool: Option<MigrationTool>,
    /// Load a file of SQL, rows (.csv) or a dump of pg_dump; SQL and rows may be compressed.
    #[arg(long, value_name = "FILE")]
    seed: Vec<PathBuf>,
    /// Run a shell command that prepares the database, such as a migration tool.
    #[arg(long = "prepare", alias = "run", value_name = "COMMAND")]
    run: Vec<String>,
    /// Run a shell command that prepares the database by TCP.
    ///
    /// As --prepare, for programs that cannot use Unix sockets.
    #[arg(long = "prepare-tcp", alias = "run-tcp", value_name = "COMMAND")]
    run_tcp: Vec<String>,
    /// Run commands again when this file or directory has changed.
    ///
    /// It applies to the commands directly before this option and to all later steps.
    #[arg(long, value_name = "PATH")]
    depends_on: Vec<PathBuf>,
}

impl Args for Steps {
    fn augment_args(command: clap::Command) -> clap::Command {
        StepOptions::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        StepOptions::augment_args_for_update(command)
    }
}

impl FromArgMatches for Steps {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let StepOptions { migrations, tool, seed, run, run_tcp, depends_on } =
            StepOptions::from_arg_matches(matches)?;
        let shell = |line, tcp| WrittenStep::Program {
            program: "sh".to_owned(),
            args: vec!["-c".to_owned(), line],
            tcp,
        };
        let mut steps: Vec<(usize, WrittenStep)> = Vec::new();
        let mut add = |id, values: &mut dyn Iterator<Item = WrittenStep>| {
            steps.extend(matches.indices_of(id).into_iter().flatten().zip(values));
        };
        add(
            "migrations",
            &mut migrations.into_iter().map(|directory| WrittenStep::Migrations(directory, tool)),
        );
        add("seed", &mut seed.into_iter().map(WrittenStep::Seed));
        add("run", &mut run.into_iter().map(|line| shell(line, false)));
        add("run_tcp", &mut run_tcp.into_iter().map(|line| shell(line, true)));
        add("depends_on", &mut depends_on.into_iter().map(|path| WrittenStep::DependsOn(vec![path])));
        steps.sort_by_key(|(index, _)| *index);
        Ok(Self(in_order(steps.into_iter().map(|(_, step)| step))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Moves inputs before the commands that they follow, since an input counts from its place on.
fn in_order(steps: impl Iterator<Item = WrittenStep>) -> Vec<WrittenStep> {
    let mut ordered: Vec<WrittenStep> = Vec::new();
    for step in steps {
        let at = match step {
            WrittenStep::DependsOn(_) => ordered
                .iter()
                .rposition(|step| !matches!(step, WrittenStep::Program { .. }))
                .map_or(0, |last| last + 1),
            _ => ordered.len(),
        };
        ordered.insert(at, step);
    }
    ordered
}

/// A step in a request: one of the first four keys, the others describe it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StepObject {
    migrations: Option<PathBuf>,
    migrations_of: Option<(String, PathBuf)>,
    seed: Option<PathBuf>,
    /// A program and its arguments.
    prepare: Option<Vec<String>>,
    depends_on: Vec<PathBuf>,
    env: BTreeMap<String, String>,
    tcp: bool,
}

const KEYS: &str = "`migrations`, `migrations_of`, `seed`, `prepare` or `depends_on`";

impl TryFrom<Vec<StepObject>> for Steps {
    type Error = String;

    fn try_from(objects: Vec<StepObject>) -> Result<Self, String> {
        let mut steps = Vec::new();
        for object in objects {
            let StepObject { migrations, migrations_of, seed, prepare, depends_on, env, tcp } = object;
            if prepare.is_none() && (tcp || !env.is_empty()) {
                return Err("`env` and `tcp` of a step belong to `prepare`".to_owned());
            }
            let has_inputs = !depends_on.is_empty();
            if has_inputs {
                steps.push(WrittenStep::DependsOn(depends_on));
            }
            steps.push(match (migrations, migrations_of, seed, prepare) {
                (Some(directory), None, None, None) => WrittenStep::Migrations(directory, None),
                (None, Some((name, directory)), None, None) => {
                    WrittenStep::Migrations(directory, Some(tool(&name)?))
                }
                (None, None, Some(file), None) => WrittenStep::Seed(file),
                (None, None, None, Some(words)) => program(words, env, tcp)?,
                (None, None, None, None) if has_inputs => continue,
                (None, None, None, None) => return Err(format!("a step is empty, expected {KEYS}")),
                _ => return Err(format!("a step is several steps, expected one of {KEYS}")),
            });
        }
        Ok(Self(steps))
    }
}

fn tool(name: &str) -> Result<MigrationTool, String> {
    MigrationTool::from_str(name, false).map_err(|_| {
        let tools = MigrationTool::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let tools: Vec<_> = tools.map(|tool| format!("`{}`", tool.get_name())).collect();
        format!("the tool `{name}` is unknown, expected {}", tools.join(", "))
    })
}

/// Returns the step of a program. env(1) sets its variables, and the layer is found by its
/// arguments.
fn program(words: Vec<String>, env: BTreeMap<String, String>, tcp: bool) -> Result<WrittenStep, String> {
    if words.is_empty() {
        return Err("`prepare` is empty, expected a program".to_owned());
    }
    let setter = (!env.is_empty()).then(|| "env".to_owned());
    let pairs = env.into_iter().map(|(name, value)| format!("{name}={value}"));
    let mut words = setter.into_iter().chain(pairs).chain(words);
    let program = words.next().unwrap_or_default();
    Ok(WrittenStep::Program { program, args: words.collect(), tcp })
}

/// Adds migrations to a snapshot.
pub(super) type Migrate<E> = fn(Snapshot<E>, &Path, Option<MigrationTool>) -> Snapshot<E>;

impl Steps {
    /// Adds the steps to a snapshot of the engine `name`.
    pub(super) fn add<E: Engine + Scripts>(
        &self,
        snapshot: Snapshot<E>,
        name: &str,
        migrate: Option<Migrate<E>>,
    ) -> sandboxed_db::Result<Snapshot<E>> {
        self.0.iter().try_fold(snapshot, |snapshot, step| {
            Ok(match step {
                WrittenStep::Migrations(directory, tool) => {
                    let migrate = migrate.ok_or_else(|| {
                        Error::new(
                            ErrorKind::InvalidConfig,
                            format!("migrate `{name}` by `{}`", directory.display()),
                        )
                        .caused_by(
                            "migrations are SQL, which this engine does not speak; postgres, mariadb, mysql and sqlite do",
                        )
                        .with_hint(
                            "load a file in its language by `seed`, or prepare it by a program with `run`",
                        )
                    })?;
                    migrate(snapshot, directory, *tool)
                }
                WrittenStep::Seed(file) => snapshot.seed(file),
                WrittenStep::Program { program, args, tcp: false } => snapshot.run(program, args),
                WrittenStep::Program { program, args, tcp: true } => snapshot.run_tcp(program, args),
                WrittenStep::DependsOn(paths) => snapshot.depends_on(paths),
            })
        })
    }
}
