//! The contestants, and the workloads in which each takes part.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::directories::RunDirectories;
#[cfg(feature = "embedded")]
use super::embedded;
use super::server::Settings;
use super::workload::Workload;
use super::{bubblewrap, initdb, pgtemp, sandboxed, sqlx_test, template};
use crate::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contestant {
    /// This library without prewarmed sandboxes.
    Sandboxed,
    /// This library with its pool of prewarmed sandboxes, the default.
    SandboxedPooled,
    /// `CREATE DATABASE … TEMPLATE … STRATEGY FILE_COPY`, an option of pgtestdb and integresql.
    TemplateFileCopy,
    /// The same with `WAL_LOG`, the default since PostgreSQL 15.
    TemplateWalLog,
    /// `FILE_COPY` with `file_copy_method = clone` of PostgreSQL 18: files share blocks.
    TemplateClone,
    /// The code behind `#[sqlx::test]`.
    SqlxTest,
    PgTemp,
    Embedded,
    /// initdb and a server, as a shell script would do.
    InitDb,
    Bubblewrap,
}

/// The resources that the tests of a contestant share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Sandboxes,
    /// One server that was started before. Each test has a database.
    Databases,
    /// Nothing. Each test initialises a server.
    Servers,
    /// Nothing. A test has no server.
    Containers,
}

/// The assignment of a test process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) contestant: Contestant,
    pub(crate) workload: Workload,
    /// The directory of the workload's files.
    pub(crate) files: PathBuf,
    /// The directory for the contestant's data.
    pub(crate) place: PathBuf,
    pub(crate) settings: Settings,
    /// The directory of PostgreSQL's programs.
    pub(crate) programs: PathBuf,
    /// The URL of the shared server.
    pub(crate) server: Option<String>,
}

/// Called by a test when its query is answered, while its connection is open.
pub(crate) type Answered = Arc<dyn Fn() + Send + Sync>;

/// A contestant that is ready to run tests.
pub(crate) trait Tests: Send + Sync {
    /// Runs a test on any thread: creates a database, sends `query`, calls `answered`, and removes
    /// everything.
    fn test(&self, query: &'static str, answered: &Answered) -> Result<()>;
}

impl Contestant {
    pub(crate) const ALL: [Self; 10] = [
        Self::Sandboxed,
        Self::SandboxedPooled,
        Self::TemplateFileCopy,
        Self::TemplateWalLog,
        Self::TemplateClone,
        Self::SqlxTest,
        Self::PgTemp,
        Self::Embedded,
        Self::InitDb,
        Self::Bubblewrap,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sandboxed => "sandboxed-db, on demand",
            Self::SandboxedPooled => "sandboxed-db, with its pool",
            Self::TemplateFileCopy => "TEMPLATE, FILE_COPY",
            Self::TemplateWalLog => "TEMPLATE, WAL_LOG",
            Self::TemplateClone => "TEMPLATE, clone",
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
            Self::TemplateFileCopy | Self::TemplateWalLog | Self::TemplateClone | Self::SqlxTest => {
                Family::Databases
            }
            Self::PgTemp | Self::Embedded | Self::InitDb => Family::Servers,
            Self::Bubblewrap => Family::Containers,
        }
    }

    /// Returns the value of `SANDBOXED_DB_POOL`.
    pub(crate) fn pool(self) -> Option<&'static str> {
        (self != Self::SandboxedPooled).then_some("0")
    }

    /// Reports whether each test loads the workload's files.
    pub(crate) fn replays(self) -> bool {
        self.family() == Family::Servers || self == Self::SqlxTest
    }

    /// Returns what its server needs beside the settings of all.
    pub(crate) fn configuration(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::TemplateClone => &[("file_copy_method", "clone")],
            _ => &[],
        }
    }

    /// Checks whether it takes part in a workload. The inner `None` is a reason that the report
    /// omits.
    pub(crate) fn joins(self, workload: Workload, place: &RunDirectories) -> Result<(), Option<String>> {
        let major = place.postgres.major();
        let container = workload == Workload::Container;
        match self {
            Self::Sandboxed | Self::SandboxedPooled => Ok(()),
            Self::Bubblewrap if container => {
                let version = Command::new("bwrap").arg("--version").stdout(Stdio::null()).status();
                if version.is_ok_and(|status| status.success()) {
                    Ok(())
                } else {
                    Err(Some("not installed".into()))
                }
            }
            Self::Bubblewrap => Err(None),
            _ if container => Err(None),
            Self::Embedded if !cfg!(feature = "embedded") => Err(Some("needs `--features embedded`".into())),
            Self::TemplateFileCopy | Self::TemplateWalLog if major < 15 => {
                Err(Some(format!("PostgreSQL {major} has no option STRATEGY")))
            }
            Self::TemplateClone if major < 18 => {
                Err(Some(format!("PostgreSQL {major} has no file_copy_method")))
            }
            Self::TemplateClone if !place.has_reflinks() => {
                Err(Some("needs `--reflinks DIRECTORY` on XFS or Btrfs".into()))
            }
            _ if workload == Workload::Huge && self.replays() => {
                Err(Some("the tool loads the whole data set for each test".into()))
            }
            _ => Ok(()),
        }
    }

    /// Estimates the memory of one test whose data is in memory, in bytes.
    pub(crate) fn memory(self, workload: Workload, reads_large: bool) -> u64 {
        const SEGMENTS: u64 = 32 << 20;
        let copy = workload.bytes();
        match self.family() {
            Family::Containers => 1 << 20,
            // The overlay copies a file whole when it is written.
            Family::Sandboxes => (8 << 20) + if reads_large { copy } else { 0 },
            Family::Databases => copy,
            // The cluster, its write-ahead log, and the data in both.
            Family::Servers => (40 << 20) + SEGMENTS + 2 * copy,
        }
    }
}

impl Assignment {
    /// Prepares the resources that all tests share: layers, a template.
    pub(crate) fn open(&self) -> Result<Box<dyn Tests>> {
        Ok(match self.contestant {
            Contestant::Sandboxed | Contestant::SandboxedPooled if self.workload == Workload::Container => {
                Box::new(sandboxed::Containers::new()?)
            }
            Contestant::Sandboxed | Contestant::SandboxedPooled => Box::new(sandboxed::Sandboxes::new(self)?),
            Contestant::TemplateFileCopy | Contestant::TemplateClone => {
                Box::new(template::Clones::new(self, "file_copy")?)
            }
            Contestant::TemplateWalLog => Box::new(template::Clones::new(self, "wal_log")?),
            Contestant::SqlxTest => Box::new(sqlx_test::SqlxTests::new(self)?),
            Contestant::PgTemp => Box::new(pgtemp::PgTemp(self.clone())),
            #[cfg(feature = "embedded")]
            Contestant::Embedded => Box::new(embedded::Embedded(self.clone())),
            #[cfg(not(feature = "embedded"))]
            Contestant::Embedded => return Err("postgresql_embedded needs `--features embedded`".into()),
            Contestant::InitDb => Box::new(initdb::InitDb(self.clone())),
            Contestant::Bubblewrap => Box::new(bubblewrap::Bubblewrap),
        })
    }

    /// Returns the URL of the shared server.
    pub(crate) fn server(&self) -> Result<&str> {
        Ok(self.server.as_deref().ok_or("this contestant needs a shared server")?)
    }
}
