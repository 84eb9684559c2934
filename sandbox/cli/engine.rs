//! The engines of the program: their names, their descriptions, the engines of kept states.
//!
//! A new engine is a variant of [`EngineName`], an entry of [`EngineName::BUILT_IN`], and a line in
//! each `match` over the names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sandboxed_db::cache::KeptState;
use sandboxed_db::engine::Described;
use sandboxed_db::{Engine, Error, ErrorKind, MariaDb, MySql, Redis, Result, Sandbox, Snapshot, Sqlite};
use serde::Deserialize;

use crate::description::Description;

/// An engine as the user names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum EngineName {
    #[default]
    Postgres,
    MariaDb,
    MySql,
    Redis,
    Sqlite,
    /// A file of TOML that describes it.
    File(PathBuf),
}

impl EngineName {
    const BUILT_IN: [(&str, Self); 5] = [
        ("postgres", Self::Postgres),
        ("mariadb", Self::MariaDb),
        ("mysql", Self::MySql),
        ("redis", Self::Redis),
        ("sqlite", Self::Sqlite),
    ];
}

impl FromStr for EngineName {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        // As databases, servers and types are called elsewhere.
        let lower = name.to_ascii_lowercase();
        let known = match lower.as_str() {
            "pg" | "postgresql" => "postgres",
            "valkey" => "redis",
            "sqlite3" => "sqlite",
            other => other,
        };
        if let Some((_, engine)) = Self::BUILT_IN.into_iter().find(|(name, _)| *name == known) {
            return Ok(engine);
        }
        if Path::new(name).extension().is_some_and(|extension| extension == "toml") {
            return Ok(Self::File(name.into()));
        }
        let names = Self::BUILT_IN.map(|(name, _)| format!("`{name}`"));
        Err(format!(
            "unknown engine `{name}`, expected {}, or a file of TOML that describes one",
            names.join(", ")
        ))
    }
}

impl TryFrom<String> for EngineName {
    type Error = String;

    fn try_from(name: String) -> std::result::Result<Self, String> {
        name.parse()
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            built_in => Self::BUILT_IN
                .iter()
                .filter(|(_, engine)| engine == built_in)
                .try_for_each(|(name, _)| f.write_str(name)),
        }
    }
}

/// Work with an engine, whichever it is.
pub(super) trait OnEngine {
    type Output;

    fn run<E: Engine>(self, engine: E) -> Self::Output;
}

/// Work with a snapshot of any engine.
pub(super) trait OnSnapshot {
    type Output;

    fn run<E: Engine>(self, snapshot: Snapshot<E>) -> Self::Output;
}

impl EngineName {
    /// Does work with the engine, as it is without a description of a database.
    pub(super) fn run<W: OnEngine>(&self, work: W) -> Result<W::Output> {
        Ok(match self {
            Self::Postgres => work.run(sandboxed_db::Postgres::new()),
            Self::MariaDb => work.run(MariaDb::new()),
            Self::MySql => work.run(MySql::new()),
            Self::Redis => work.run(Redis::new()),
            Self::Sqlite => work.run(Sqlite::new()),
            Self::File(path) => work.run(Described::from_toml(path)?),
        })
    }

    /// Returns the name that the engine gives to its layers and kept states.
    pub(super) fn name(&self) -> Result<String> {
        struct Name;

        impl OnEngine for Name {
            type Output = String;

            fn run<E: Engine>(self, engine: E) -> String {
                engine.name().to_owned()
            }
        }

        self.run(Name)
    }

    /// Does work with the snapshot of a description. Relative paths start at the directory.
    pub(super) fn run_on<W: OnSnapshot>(
        &self,
        description: &Description,
        directory: PathBuf,
        work: W,
    ) -> Result<W::Output> {
        Ok(match self {
            Self::Postgres => work.run(description.of_sql(description.postgres(), directory)?),
            Self::MariaDb => work.run(description.of_sql(description.mariadb(), directory)?),
            Self::MySql => work.run(description.of_sql(description.mysql(), directory)?),
            Self::Redis => work.run(description.of_scripts(Redis::new(), directory)?),
            Self::Sqlite => work.run(description.of_sql(Sqlite::new(), directory)?),
            Self::File(path) => {
                let engine = Described::from_toml(directory.join(path))?;
                work.run(description.of_scripts(engine, directory)?)
            }
        })
    }
}

/// Work with a server on a kept state.
pub(super) trait OnKept {
    type Output;

    fn run<E: Engine>(self, sandbox: Sandbox<E>, client: Option<Vec<String>>) -> Self::Output;
}

/// Starts a server on a kept state, and does work with it and its usual client.
pub(super) fn on_kept<W: OnKept>(state: &KeptState, work: W) -> Result<W::Output> {
    Ok(match state.engine.as_str() {
        "postgres" => work.run(state.start()?, Some(vec!["psql".to_owned()])),
        "mariadb" => {
            let engine = database(state).into_iter().fold(MariaDb::new(), MariaDb::database);
            let engine = minor(state).into_iter().fold(engine, MariaDb::version);
            let sandbox = state.start_as(engine)?;
            let client = mysql_client("mariadb", &sandbox.root(), state);
            work.run(sandbox, Some(client))
        }
        "mysql" => {
            let engine = database(state).into_iter().fold(MySql::new(), MySql::database);
            let engine = minor(state).into_iter().fold(engine, MySql::version);
            let sandbox = state.start_as(engine)?;
            let client = mysql_client("mysql", &sandbox.root(), state);
            work.run(sandbox, Some(client))
        }
        "redis" => {
            let sandbox = state.start_as(Redis::new())?;
            let socket = Redis::socket().below(&sandbox.root()).display().to_string();
            work.run(sandbox, Some(vec!["redis-cli".to_owned(), "-s".to_owned(), socket]))
        }
        "sqlite" => {
            let sandbox = state.start_as(Sqlite::new())?;
            let file = Sqlite::file().below(&sandbox.root()).display().to_string();
            work.run(sandbox, Some(vec!["sqlite3".to_owned(), file]))
        }
        _ => work.run(
            state.start_as(Described::from_identity(&state.identity).map_err(|_| unknown(state))?)?,
            None,
        ),
    })
}

/// The version of the server, by two numbers: data of one version is read by no older one.
fn minor(state: &KeptState) -> Option<String> {
    let mut numbers = crate::layers::version(&state.version).split('.');
    Some(format!("{}.{}", numbers.next()?, numbers.next()?))
}

/// The client of MariaDB or MySQL, with its arguments.
fn mysql_client(program: &str, root: &Path, state: &KeptState) -> Vec<String> {
    let socket = MariaDb::socket().below(root).display().to_string();
    let client = [program, "--no-defaults", "--user=root", "--socket", &socket];
    client.into_iter().chain(database(state)).map(str::to_owned).collect()
}

/// The name of its database.
fn database(state: &KeptState) -> Option<&str> {
    state.identity.iter().find(|(name, _)| name == "database").map(|(_, database)| database.as_str())
}

fn unknown(state: &KeptState) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("start a server on `{}`", state.name))
        .caused_by(format!("its engine `{}` is part of another program", state.engine))
        .with_hint("start it there, by `KeptState::start_as`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_a_name_or_a_file() {
        for (name, engine) in
            [("redis", EngineName::Redis), ("a/b.toml", EngineName::File("a/b.toml".into()))]
        {
            assert_eq!(name.parse(), Ok(engine.clone()));
            assert_eq!(engine.to_string(), name);
        }
        for (name, known) in [("MariaDb", "mariadb"), ("valkey", "redis"), ("PostgreSQL", "postgres")] {
            assert_eq!(name.parse::<EngineName>(), known.parse());
        }
        let error = EngineName::from_str("oracle").unwrap_err();
        assert_eq!(
            error,
            "unknown engine `oracle`, expected `postgres`, `mariadb`, `mysql`, `redis`, `sqlite`, or a file of TOML that describes one"
        );
    }
}
