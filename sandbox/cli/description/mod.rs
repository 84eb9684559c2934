//! The description of a database, from options of the command line or from a request.

mod steps;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use sandboxed_db::engine::{Scripts, Sql};
use sandboxed_db::{Engine, Error, ErrorKind, MariaDb, MySql, Postgres, Result, Snapshot};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use self::steps::{Migrate, Steps};
use crate::engine::EngineName;

/// An engine and the steps that prepare a database.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Description {
    /// The database server: postgres, mariadb, mysql, redis, sqlite, or a file of TOML that
    /// describes one.
    #[arg(long, default_value_t)]
    pub(super) engine: EngineName,
    /// The version of the server, such as 15 [default: the newest found].
    #[arg(long)]
    version: Option<String>,
    /// The name of the database of PostgreSQL or MariaDB [default: postgres; test].
    #[arg(long)]
    database: Option<String>,
    /// A package of the distribution on top of the server, such as postgresql-15-postgis-3.
    ///
    /// It is downloaded and unpacked into the cache, without root.
    #[arg(id = "package", long = "package", value_name = "NAME")]
    packages: Vec<String>,
    /// The image whose server runs, such as oci:images/postgres:17.
    #[arg(long, value_name = "REFERENCE")]
    image: Option<String>,
    /// Refuse an image whose name sandboxed-db.lock does not record.
    #[arg(long)]
    locked: bool,
    #[command(flatten)]
    steps: Steps,
    /// A setting of the server, as in its configuration file.
    #[arg(id = "setting", long = "setting", value_name = "NAME=VALUE", value_parser = setting)]
    #[serde(deserialize_with = "settings")]
    settings: Vec<(String, String)>,
    /// An argument for initdb, such as --initdb-arg=--data-checksums.
    #[arg(id = "initdb_arg", long = "initdb-arg", value_name = "ARGUMENT", allow_hyphen_values = true)]
    initdb_args: Vec<String>,
    /// The longest time that the server may take until it is ready [default: 30s].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "time")]
    start_timeout: Option<Duration>,
    /// The longest time that each step may take [default: 30m].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "time")]
    build_timeout: Option<Duration>,
    /// The amount of data that the server may write to its data directory [default: 1GiB].
    #[arg(long, value_name = "SIZE")]
    disk: Option<ByteSize>,
    /// The memory of the server's processes [default: 4GiB].
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// The number of processes and threads of the server [default: 512, or more if max_connections
    /// needs it].
    #[arg(long, value_name = "COUNT")]
    pids: Option<u32>,
    /// Encrypt the connections by TCP, with a certificate for this server. Implies --tcp.
    #[arg(long)]
    pub(super) tls: bool,
}

fn setting(text: &str) -> std::result::Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, such as work_mem=64MB")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn settings<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<(String, String)>, D::Error> {
    let settings = BTreeMap::<String, Value>::deserialize(deserializer)?.into_iter();
    let pairs = settings.map(|(name, value)| match value {
        Value::String(value) => Ok((name, value)),
        Value::Bool(_) | Value::Number(_) => Ok((name, value.to_string())),
        _ => Err(format!("the setting `{name}` is no string, number or boolean")),
    });
    pairs.collect::<std::result::Result<_, _>>().map_err(de::Error::custom)
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let refused = |text| format!("`{text}` is not a time, expected a time such as \"30s\" or \"5m\"");
    let parse = |text: String| humantime::parse_duration(&text).map_err(|_| de::Error::custom(refused(text)));
    text.map(parse).transpose()
}

impl Description {
    /// Returns the engine, with the parts of the description that only it knows.
    pub(super) fn postgres(&self) -> Postgres {
        let engine = Postgres::new();
        let engine = self.database.iter().fold(engine, |engine, name| engine.database(name));
        self.initdb_args.iter().fold(engine, |engine, argument| engine.initdb_arg(argument))
    }

    /// Returns MySQL with those parts.
    pub(super) fn mysql(&self) -> MySql {
        self.database.iter().fold(MySql::new(), |engine, name| engine.database(name))
    }

    /// Returns MariaDB with those parts.
    pub(super) fn mariadb(&self) -> MariaDb {
        self.database.iter().fold(MariaDb::new(), |engine, name| engine.database(name))
    }

    /// Returns the snapshot of an engine that speaks SQL.
    pub(super) fn of_sql<E: Engine + Sql>(&self, engine: E, directory: PathBuf) -> Result<Snapshot<E>> {
        self.snapshot(
            engine,
            directory,
            Some(|snapshot, directory, tool| match tool {
                Some(tool) => snapshot.migrations_of(tool, directory),
                None => snapshot.migrations(directory),
            }),
        )
    }

    /// Returns the snapshot of an engine that runs files.
    pub(super) fn of_scripts<E: Engine + Scripts>(
        &self,
        engine: E,
        directory: PathBuf,
    ) -> Result<Snapshot<E>> {
        self.snapshot(engine, directory, None)
    }

    fn snapshot<E: Engine + Scripts>(
        &self,
        engine: E,
        directory: PathBuf,
        migrate: Option<Migrate<E>>,
    ) -> Result<Snapshot<E>> {
        let name = engine.name().to_owned();
        let parts = [
            ("database", self.database.is_some(), &["postgres", "mariadb", "mysql"][..]),
            ("initdb_arg", !self.initdb_args.is_empty(), &["postgres"]),
        ];
        let foreign = parts.into_iter().find(|(_, given, owners)| *given && !owners.contains(&&*name));
        if let Some((part, _, owners)) = foreign {
            return Err(Error::new(ErrorKind::InvalidConfig, format!("set `{part}` of `{name}`"))
                .caused_by(format!("it applies to {} only", owners.join(", ")))
                .with_hint(format!("leave out `{part}`")));
        }
        let snapshot = Snapshot::new(engine).relative_to(directory);
        let snapshot = snapshot.packages(&self.packages);
        let mut snapshot = self.steps.add(snapshot, &name, migrate)?.settings(self.settings.iter().cloned());
        if self.tls {
            snapshot = snapshot.tls();
        }
        if let Some(version) = &self.version {
            snapshot = snapshot.version(version);
        }
        if let Some(image) = &self.image {
            snapshot = snapshot.image(image);
        }
        if self.locked {
            snapshot = snapshot.locked();
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
