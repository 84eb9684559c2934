//! Who takes part, what each needs, and what each can be asked to do.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[cfg(feature = "embedded")]
use super::embedded;
use super::server::Settings;
use super::workload::Workload;
use super::{bubblewrap, initdb, pgtemp, sandboxed, sqlx_test, template};
use crate::Outcome;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contestant {
    /// This library, each sandbox started when it is asked for.
    Sandboxed,
    /// The same as it is by default: further ones are started ahead.
    SandboxedPooled,
    /// `CREATE DATABASE … TEMPLATE … STRATEGY FILE_COPY`; pgtestdb and integresql clone so if told to.
    TemplateFileCopy,
    /// The same by `WAL_LOG`, PostgreSQL's default since 15.
    TemplateWalLog,
    /// The code behind `#[sqlx::test]`.
    SqlxTest,
    PgTemp,
    Embedded,
    /// What a shell script would do: initdb, and a server on it.
    InitDb,
    Bubblewrap,
}

/// What its tests share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Sandboxes,
    /// Databases of one server, which somebody started before.
    Databases,
    /// Nothing: each test has a server made from nothing.
    Servers,
    /// Nothing, and there is no server either.
    Containers,
}

/// What a test process is told of the part it plays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) contestant: Contestant,
    pub(crate) workload: Workload,
    /// The workload's files.
    pub(crate) files: PathBuf,
    /// A directory of its own, for data.
    pub(crate) place: PathBuf,
    pub(crate) settings: Settings,
    /// The directory of PostgreSQL's programs.
    pub(crate) programs: PathBuf,
    /// The shared server's URL, if there is one.
    pub(crate) server: Option<String>,
}

/// Called by a test when it has its answer, while its connection is open.
pub(crate) type Answered = Arc<dyn Fn() + Send + Sync>;

/// A contestant at work. Whatever is done once for all tests is done before.
pub(crate) trait Tests: Send + Sync {
    /// One test, in any number of threads: makes a database, asks `query`, calls `answered`, and takes all down.
    fn test(&self, query: &'static str, answered: &Answered) -> Outcome<()>;
}

impl Contestant {
    pub(crate) const ALL: [Self; 9] = [
        Self::Sandboxed,
        Self::SandboxedPooled,
        Self::TemplateFileCopy,
        Self::TemplateWalLog,
        Self::SqlxTest,
        Self::PgTemp,
        Self::Embedded,
        Self::InitDb,
        Self::Bubblewrap,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sandboxed => "sandboxed-db, cold",
            Self::SandboxedPooled => "sandboxed-db, warm pool",
            Self::TemplateFileCopy => "TEMPLATE, FILE_COPY",
            Self::TemplateWalLog => "TEMPLATE, WAL_LOG",
            Self::SqlxTest => "#[sqlx::test]",
            Self::PgTemp => "pgtemp",
            Self::Embedded => "postgresql_embedded",
            Self::InitDb => "initdb + postgres",
            Self::Bubblewrap => "bubblewrap",
        }
    }

    pub(crate) fn family(self) -> Family {
        match self {
            Self::Sandboxed | Self::SandboxedPooled => Family::Sandboxes,
            Self::TemplateFileCopy | Self::TemplateWalLog | Self::SqlxTest => Family::Databases,
            Self::PgTemp | Self::Embedded | Self::InitDb => Family::Servers,
            Self::Bubblewrap => Family::Containers,
        }
    }

    /// The variable that tells this library how many sandboxes to start ahead.
    pub(crate) fn pool(self) -> Option<&'static str> {
        (self != Self::SandboxedPooled).then_some("0")
    }

    /// Whether each test runs the workload's files again.
    pub(crate) fn replays(self) -> bool {
        self.family() == Family::Servers || self == Self::SqlxTest
    }

    /// Whether it takes part, or why not; the inner `None` is for what goes without saying.
    pub(crate) fn joins(self, workload: Workload, major: u32) -> Result<(), Option<String>> {
        let container = workload == Workload::Container;
        match self {
            Self::Sandboxed | Self::SandboxedPooled => Ok(()),
            Self::Bubblewrap if container => {
                let version = Command::new("bwrap").arg("--version").stdout(Stdio::null()).status();
                if version.is_ok_and(|status| status.success()) {
                    Ok(())
                } else {
                    Err(Some("is not installed".into()))
                }
            }
            Self::Bubblewrap => Err(None),
            _ if container => Err(None),
            Self::Embedded if !cfg!(feature = "embedded") => {
                Err(Some("is compiled by `--features embedded` only".into()))
            }
            Self::TemplateFileCopy | Self::TemplateWalLog if major < 15 => {
                Err(Some(format!("PostgreSQL {major} has no choice of strategies")))
            }
            _ if workload == Workload::Huge && self.replays() => {
                Err(Some("would load all of it for each test".into()))
            }
            _ => Ok(()),
        }
    }

    /// Memory that the data of one test may take where it is kept in memory, in bytes.
    pub(crate) fn room(self, workload: Workload, reads_large: bool) -> u64 {
        const SEGMENTS: u64 = 32 << 20;
        let copy = workload.bytes();
        match self.family() {
            Family::Containers => 1 << 20,
            // A file that is opened is copied as a whole.
            Family::Sandboxes => (8 << 20) + if reads_large { copy } else { 0 },
            Family::Databases => copy,
            // The cluster, its log, and what loading writes to both.
            Family::Servers => (40 << 20) + SEGMENTS + 2 * copy,
        }
    }
}

impl Part {
    /// Prepares whatever all tests share: layers, a template.
    pub(crate) fn open(&self) -> Outcome<Box<dyn Tests>> {
        Ok(match self.contestant {
            Contestant::Sandboxed | Contestant::SandboxedPooled if self.workload == Workload::Container => {
                Box::new(sandboxed::Containers::new()?)
            }
            Contestant::Sandboxed | Contestant::SandboxedPooled => Box::new(sandboxed::Sandboxes::new(self)?),
            Contestant::TemplateFileCopy => Box::new(template::Clones::new(self, "file_copy")?),
            Contestant::TemplateWalLog => Box::new(template::Clones::new(self, "wal_log")?),
            Contestant::SqlxTest => Box::new(sqlx_test::SqlxTests::new(self)?),
            Contestant::PgTemp => Box::new(pgtemp::PgTemp::new(self)),
            #[cfg(feature = "embedded")]
            Contestant::Embedded => Box::new(embedded::Embedded::new(self)),
            #[cfg(not(feature = "embedded"))]
            Contestant::Embedded => return Err("it is not compiled".into()),
            Contestant::InitDb => Box::new(initdb::InitDb::new(self)),
            Contestant::Bubblewrap => Box::new(bubblewrap::Bubblewrap),
        })
    }

    /// The URL of the server that tests share.
    pub(crate) fn server(&self) -> Outcome<&str> {
        Ok(self.server.as_deref().ok_or("this contestant needs a server")?)
    }
}
