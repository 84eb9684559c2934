//! Examples of `sandboxed-db`, which README.md in this folder lists, and the examples of the
//! documentation as tests: this package has the drivers and the files that they use.

/// Tests the examples of the README and of the guide.
#[cfg(doctest)]
mod documentation {
    /// Makes a module of a file, so that its examples are tests of this package.
    macro_rules! chapters {
        ($($(#[$condition:meta])* $name:ident = $file:literal,)*) => {
            $($(#[$condition])* #[doc = include_str!($file)] mod $name {})*
        };
    }

    chapters! {
        #[cfg(feature = "sqlx")]
        readme = "../README.md",
        getting_started = "../sandbox/src/guide/getting_started.md",
        #[cfg(feature = "sqlx")]
        from_sqlx_test = "../sandbox/src/guide/from_sqlx_test.md",
        #[cfg(feature = "sqlx")]
        from_testcontainers = "../sandbox/src/guide/from_testcontainers.md",
        from_pgtestdb = "../sandbox/src/guide/from_pgtestdb.md",
        migrations_and_seeds = "../sandbox/src/guide/migrations_and_seeds.md",
        parameters = "../sandbox/src/guide/parameters.md",
        rstest = "../sandbox/src/guide/rstest.md",
        matrix = "../sandbox/src/guide/matrix.md",
        mariadb = "../sandbox/src/guide/mariadb.md",
        redis = "../sandbox/src/guide/redis.md",
        sqlite = "../sandbox/src/guide/sqlite.md",
        packages = "../sandbox/src/guide/packages.md",
        images = "../sandbox/src/guide/images.md",
        layers_in_a_registry = "../sandbox/src/guide/layers_in_a_registry.md",
        many_machines = "../sandbox/src/guide/many_machines.md",
        other_engines = "../sandbox/src/guide/other_engines.md",
        writing_an_engine = "../sandbox/src/guide/writing_an_engine.md",
        failures = "../sandbox/src/guide/failures.md",
        reports = "../sandbox/src/guide/reports.md",
        ci = "../sandbox/src/guide/ci.md",
        other_languages = "../sandbox/src/guide/other_languages.md",
        serve = "../sandbox/src/guide/serve.md",
        command_line = "../sandbox/src/guide/command_line.md",
        limits = "../sandbox/src/guide/limits.md",
        troubleshooting = "../sandbox/src/guide/troubleshooting.md",
        process_mode = "../sandbox/src/guide/process_mode.md",
        how_it_works = "../sandbox/src/guide/how_it_works.md",
    }
}
