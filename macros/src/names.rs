//! The names of arguments, and an example of each.

use syn::Ident;

/// Declares the arguments: variant, name, and an example for messages.
macro_rules! arguments {
    ($($variant:ident = $name:literal, $example:literal;)*) => {
        /// The names of arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Name {
            $($variant),*
        }

        impl Name {
            pub(crate) const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),*
                }
            }

            /// Returns an example of the argument, for messages.
            pub(crate) const fn example(self) -> &'static str {
                match self {
                    $(Self::$variant => $example),*
                }
            }
        }
    };
}

arguments! {
    Snapshot = "snapshot", "`snapshot = crate::testing::shop`";
    Engine = "engine", "`engine = Postgres`, `engine = Postgres::new().locale(\"de_DE.UTF-8\")` or `engine = \"memcached.toml\"`";
    Version = "version", r#"`version = "17"` or `version = ["15", "17"]`"#;
    Packages = "packages", r#"`packages = ["postgresql-15-postgis-3"]`"#;
    Image = "image", r#"`image = "oci:images/postgres:17"`"#;
    Migrations = "migrations", r#"`migrations = "migrations"` or `migrations = none`"#;
    MigrationsOf = "migrations_of", r#"`migrations_of(Sqlx, "migrations")`"#;
    Seed = "seed", r#"`seed = "users.sql"` or `seed = ["a.sql", "b.sql"]`"#;
    DependsOn = "depends_on", r#"`depends_on = "migrations"` or `depends_on = ["migrations", "alembic.ini"]`"#;
    Run = "run", r#"`run("alembic", "upgrade", "head")`"#;
    RunTcp = "run_tcp", r#"`run_tcp("flyway", "migrate")`"#;
    Prepare = "prepare", r#"`prepare("schema-1", crate::migrate)`"#;
    Settings = "settings", "`settings(max_connections = 50)`";
    Tls = "tls", "`#[sandboxed_db(tls)]`";
    StartTimeout = "start_timeout", r#"`start_timeout = "30s"`"#;
    MaxAge = "max_age", r#"`max_age = "1d"`"#;
    Keep = "keep", r#"`keep = "on_failure"`, `keep = "always"` or `keep = "never"`"#;
    Flavor = "flavor", r#"`flavor = "multi_thread"` or `flavor = "current_thread"`"#;
    WorkerThreads = "worker_threads", r#"`flavor = "multi_thread", worker_threads = 4`"#;
    Crate = "crate", r#"`crate = "renamed"`"#;
}

impl Name {
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

    /// Returns `true` if the argument is a step that may be repeated.
    pub(crate) const fn may_come_again(self) -> bool {
        matches!(self, Self::MigrationsOf | Self::DependsOn | Self::Run | Self::RunTcp | Self::Prepare)
    }

    /// Returns `true` if the argument is about the test, and not about a database.
    pub(crate) const fn is_of_the_test(self) -> bool {
        matches!(self, Self::Flavor | Self::WorkerThreads | Self::Crate)
    }

    /// Returns the name as written; `package` is that of one package, as of the builder's method.
    pub(crate) fn find(written: &Ident) -> Option<Self> {
        let is = |name: &Self| written == name.as_str() || *name == Self::Packages && written == "package";
        Self::ALL.into_iter().find(is)
    }
}
