//! The names of arguments, and an example of each.

use syn::Ident;

/// The names of arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Snapshot,
    Engine,
    Version,
    Migrations,
    MigrationsOf,
    Seed,
    DependsOn,
    Run,
    RunTcp,
    Prepare,
    Settings,
    Tls,
    StartTimeout,
    MaxAge,
    Keep,
    Flavor,
    WorkerThreads,
    Crate,
}

impl Name {
    pub(crate) const ALL: [Self; 18] = [
        Self::Snapshot,
        Self::Engine,
        Self::Version,
        Self::Migrations,
        Self::MigrationsOf,
        Self::Seed,
        Self::DependsOn,
        Self::Run,
        Self::RunTcp,
        Self::Prepare,
        Self::Settings,
        Self::Tls,
        Self::StartTimeout,
        Self::MaxAge,
        Self::Keep,
        Self::Flavor,
        Self::WorkerThreads,
        Self::Crate,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Engine => "engine",
            Self::Version => "version",
            Self::Migrations => "migrations",
            Self::MigrationsOf => "migrations_of",
            Self::Seed => "seed",
            Self::DependsOn => "depends_on",
            Self::Run => "run",
            Self::RunTcp => "run_tcp",
            Self::Prepare => "prepare",
            Self::Settings => "settings",
            Self::Tls => "tls",
            Self::StartTimeout => "start_timeout",
            Self::MaxAge => "max_age",
            Self::Keep => "keep",
            Self::Flavor => "flavor",
            Self::WorkerThreads => "worker_threads",
            Self::Crate => "crate",
        }
    }

    /// Returns an example of the argument, for messages.
    pub(crate) const fn example(self) -> &'static str {
        match self {
            Self::Snapshot => "`snapshot = crate::testing::shop`",
            Self::Engine => "`engine = Postgres` or `engine = Postgres::new().locale(\"de_DE.UTF-8\")`",
            Self::Version => r#"`version = "17"` or `version = ["15", "17"]`"#,
            Self::Migrations => r#"`migrations = "migrations"` or `migrations = none`"#,
            Self::MigrationsOf => r#"`migrations_of(Sqlx, "migrations")`"#,
            Self::Seed => r#"`seed = "users.sql"` or `seed = ["a.sql", "b.sql"]`"#,
            Self::DependsOn => {
                r#"`depends_on = "migrations"` or `depends_on = ["migrations", "alembic.ini"]`"#
            }
            Self::Run => r#"`run("alembic", "upgrade", "head")`"#,
            Self::RunTcp => r#"`run_tcp("flyway", "migrate")`"#,
            Self::Prepare => r#"`prepare("schema-1", crate::migrate)`"#,
            Self::Settings => "`settings(max_connections = 50)`",
            Self::Tls => "`#[sandboxed_db(tls)]`",
            Self::StartTimeout => r#"`start_timeout = "30s"`"#,
            Self::MaxAge => r#"`max_age = "1d"`"#,
            Self::Keep => r#"`keep = "on_failure"`, `keep = "always"` or `keep = "never"`"#,
            Self::Flavor => r#"`flavor = "multi_thread"` or `flavor = "current_thread"`"#,
            Self::WorkerThreads => r#"`flavor = "multi_thread", worker_threads = 4`"#,
            Self::Crate => r#"`crate = "renamed"`"#,
        }
    }

    /// Returns the way to write several values, if there is one.
    pub(crate) const fn instead_of_twice(self) -> Option<&'static str> {
        match self {
            Self::Version => Some(r#"several are written as `version = ["15", "17"]`"#),
            Self::Engine => Some("several are written as `engine = [Postgres, MariaDb]`"),
            Self::Seed => Some(r#"several files are written as `seed = ["a.sql", "b.sql"]`"#),
            Self::Settings => Some("write all settings in one list"),
            _ => None,
        }
    }

    /// Returns whether the argument is a step that may be repeated.
    pub(crate) const fn may_come_again(self) -> bool {
        matches!(self, Self::MigrationsOf | Self::DependsOn | Self::Run | Self::RunTcp | Self::Prepare)
    }

    /// Returns whether the argument is about the test, and not about a database.
    pub(crate) const fn is_of_the_test(self) -> bool {
        matches!(self, Self::Flavor | Self::WorkerThreads | Self::Crate)
    }

    pub(crate) fn find(written: &Ident) -> Option<Self> {
        Self::ALL.into_iter().find(|name| written == name.as_str())
    }
}
