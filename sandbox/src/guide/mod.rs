//! The guide, a chapter for each question. It holds no code; its examples are tested.
//!
//! | task | chapter |
//! |---|---|
//! | write a first test | [`getting_started`] |
//! | move a suite | [`from_sqlx_test`], [`from_testcontainers`], [`from_pgtestdb`] |
//! | prepare the database | [`migrations_and_seeds`] |
//! | receive a pool, a client, the state of an application | [`parameters`] |
//! | combine with rstest and test_case | [`rstest`] |
//! | test with several versions | [`matrix`] |
//! | test with MariaDB or MySQL | [`mariadb`] |
//! | test with Redis or Valkey | [`redis`] |
//! | use servers and extensions that are not installed | [`packages`] |
//! | test with SQLite | [`sqlite`] |
//! | run the server of a Docker image | [`images`] |
//! | test with any other server | [`other_engines`], [`writing_an_engine`] |
//! | see why a test failed, and its data | [`failures`] |
//! | see how long each part of a run took | [`reports`] |
//! | run in CI, in Docker, in Kubernetes | [`ci`] |
//! | prepare layers once for many machines | [`layers_in_a_registry`] |
//! | run a suite on many machines | [`many_machines`] |
//! | test in Python, Node, Go | [`other_languages`], [`serve`] |
//! | use the program `sandboxed-db` | [`command_line`] |
//! | set environment variables | [`environment`](crate::environment) |
//! | know what a test may use up | [`limits`] |
//! | understand a refusal | [`troubleshooting`], [`process_mode`] |
//! | know how it works and how fast it is | [`how_it_works`] |

// The package `sandboxed-db-examples` has the drivers and files of the examples, and tests them.

#[cfg_attr(not(doctest), doc = include_str!("getting_started.md"))]
pub mod getting_started {}

#[cfg_attr(not(doctest), doc = include_str!("from_sqlx_test.md"))]
pub mod from_sqlx_test {}

#[cfg_attr(not(doctest), doc = include_str!("from_testcontainers.md"))]
pub mod from_testcontainers {}

#[cfg_attr(not(doctest), doc = include_str!("from_pgtestdb.md"))]
pub mod from_pgtestdb {}

#[cfg_attr(not(doctest), doc = include_str!("migrations_and_seeds.md"))]
pub mod migrations_and_seeds {}

#[cfg_attr(not(doctest), doc = include_str!("parameters.md"))]
pub mod parameters {}

#[cfg_attr(not(doctest), doc = include_str!("rstest.md"))]
pub mod rstest {}

#[cfg_attr(not(doctest), doc = include_str!("matrix.md"))]
pub mod matrix {}

#[cfg_attr(not(doctest), doc = include_str!("mariadb.md"))]
pub mod mariadb {}

#[cfg_attr(not(doctest), doc = include_str!("redis.md"))]
pub mod redis {}

#[cfg_attr(not(doctest), doc = include_str!("sqlite.md"))]
pub mod sqlite {}

#[cfg_attr(not(doctest), doc = include_str!("packages.md"))]
pub mod packages {}
#[cfg_attr(not(doctest), doc = include_str!("images.md"))]
pub mod images {}

#[cfg_attr(not(doctest), doc = include_str!("other_engines.md"))]
pub mod other_engines {}

#[cfg_attr(not(doctest), doc = include_str!("writing_an_engine.md"))]
pub mod writing_an_engine {}

#[cfg_attr(not(doctest), doc = include_str!("failures.md"))]
pub mod failures {}

#[cfg_attr(not(doctest), doc = include_str!("reports.md"))]
pub mod reports {}

#[cfg_attr(not(doctest), doc = include_str!("ci.md"))]
pub mod ci {}

#[cfg_attr(not(doctest), doc = include_str!("layers_in_a_registry.md"))]
pub mod layers_in_a_registry {}

#[cfg_attr(not(doctest), doc = include_str!("many_machines.md"))]
pub mod many_machines {}

#[cfg_attr(not(doctest), doc = include_str!("other_languages.md"))]
pub mod other_languages {}

#[cfg_attr(not(doctest), doc = include_str!("serve.md"))]
pub mod serve {}

#[cfg_attr(not(doctest), doc = include_str!("command_line.md"))]
pub mod command_line {}

#[cfg_attr(not(doctest), doc = include_str!("limits.md"))]
pub mod limits {}

#[cfg_attr(not(doctest), doc = include_str!("troubleshooting.md"))]
pub mod troubleshooting {}

#[cfg_attr(not(doctest), doc = include_str!("process_mode.md"))]
pub mod process_mode {}

#[cfg_attr(not(doctest), doc = include_str!("how_it_works.md"))]
pub mod how_it_works {}
