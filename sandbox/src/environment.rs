//! The environment variables that this library reads.
//!
//! | variable | meaning | values | default |
//! |---|---|---|---|
//! | `SANDBOXED_DB_CACHE` | the directory of layers, images and unpacked packages | a directory, which need not exist | `$XDG_CACHE_HOME/sandboxed-db`, or else `~/.cache/sandboxed-db` |
//! | `SANDBOXED_DB_ISOLATION` | whether servers run in containers, or as processes of the host with far less isolation | `container` or `process` | `container` |
//! | `SANDBOXED_DB_KEEP` | when the data of a test is kept for `sandboxed-db open` | `never`, `on_failure` or `always` | [`Snapshot::keep`](crate::Snapshot::keep) |
//! | `SANDBOXED_DB_LOCKED` | whether only images are used whose names `sandboxed-db.lock` [records](crate::guide::images#pinned-names) | `0` or `1` | `0` |
//! | `SANDBOXED_DB_MARIADB` | the MariaDB to use | `packages`, an image such as `docker://mariadb:11`, or directories that hold `mariadbd`, `mariadb-install-db` and `mariadb`, separated by `:` | the first in `PATH` or the usual directories, or else the distribution's packages |
//! | `SANDBOXED_DB_MAX` | how many sandboxes may live at once, over all processes with the same cache | a whole number from 1 on | as many idle servers as four fifths of the memory hold, at most 2048 a processor |
//! | `SANDBOXED_DB_MISSING` | whether a test whose server is not installed fails or is skipped | `fail` or `skip` | `fail` |
//! | `SANDBOXED_DB_MYSQL` | the MySQL to use | an image such as `docker://mysql:8.4`, or directories that hold `mysqld` and `mysql`, separated by `:` | the first in `PATH` or the usual directories |
//! | `SANDBOXED_DB_ONLY` | the part of each test that is run: with `layers`, a test of the attribute passes once its [layers are prepared](crate::guide::layers_in_a_registry#a-job-that-prepares-layers), and one that calls `start` itself runs as always | `layers` | all |
//! | `SANDBOXED_DB_POOL` | how many prewarmed sandboxes a process may have | a whole number from 0 on | one a processor |
//! | `SANDBOXED_DB_POSTGRES` | the PostgreSQL to use | `packages`, an image such as `docker://postgres:17`, or directories that hold `postgres`, `initdb` and `psql`, separated by `:` | the first in `PATH`, or else the newest installed, or else the distribution's packages |
//! | `SANDBOXED_DB_PUSH` | whether layers that are built are pushed to `SANDBOXED_DB_REGISTRY` | `0` or `1` | `0` |
//! | `SANDBOXED_DB_REBUILD` | whether all layers are rebuilt once in this run | `0` or `1` | `0` |
//! | `SANDBOXED_DB_REDIS` | the Redis or Valkey to use | `packages`, an image such as `docker://valkey/valkey:8`, or directories that hold `redis-server` or `valkey-server`, and a client, separated by `:` | the first in `PATH` or the usual directories, or else the distribution's packages |
//! | `SANDBOXED_DB_REGISTRY` | the registry in which [layers are looked for](crate::guide::layers_in_a_registry) before they are built | a repository, such as `ghcr.io/team/test-layers` | no registry |
//! | `SANDBOXED_DB_REGISTRY_KEY` | the key with which layers of a registry must be [signed](crate::guide::layers_in_a_registry#signatures) | a file with a public key, such as `cosign.pub` | layers need no signature |
//! | `SANDBOXED_DB_REPORT` | the file to which the [report](crate::report) of a run is appended | a file, which need not exist | no report |
//! | `SANDBOXED_DB_START` | how servers are started: from a checkpoint of a ready one, from the image of a linked one, or by execution; where one is not possible, by the next | `checkpoint`, `linked` or `exec` | `checkpoint`, made by the 24th start of a description instead of the second |
//!
//! An empty variable counts as unset. A value that cannot be used, or a name with a wrong letter,
//! is an error of the kind [`InvalidConfig`](crate::ErrorKind::InvalidConfig) at the next start of
//! a sandbox, and is never ignored.
//!
//! `SANDBOXED_DB_LAUNCHER` is set by this library, for the processes that it starts.

use std::env;
use std::ffi::{OsStr, OsString};

use crate::error::{Error, ErrorKind, Result};

pub(crate) const CACHE: Variable =
    Variable { name: "SANDBOXED_DB_CACHE", values: Values::Path("a directory, which need not exist") };
pub(crate) const ISOLATION: Variable =
    Variable { name: "SANDBOXED_DB_ISOLATION", values: Values::Words(&["container", "process"]) };
pub(crate) const KEEP: Variable =
    Variable { name: "SANDBOXED_DB_KEEP", values: Values::Words(&["never", "on_failure", "always"]) };
pub(crate) const LOCKED: Variable =
    Variable { name: "SANDBOXED_DB_LOCKED", values: Values::Words(&["0", "1"]) };
pub(crate) const MARIADB: Variable = Variable {
    name: "SANDBOXED_DB_MARIADB",
    values: Values::Path(
        "`packages`, an image such as `docker://mariadb:11`, or directories that hold `mariadbd`, \
         `mariadb-install-db` and `mariadb`, separated by `:`",
    ),
};
pub(crate) const MAX: Variable = Variable { name: "SANDBOXED_DB_MAX", values: Values::Number { least: 1 } };
pub(crate) const MISSING: Variable =
    Variable { name: "SANDBOXED_DB_MISSING", values: Values::Words(&["fail", "skip"]) };
pub(crate) const MYSQL: Variable = Variable {
    name: "SANDBOXED_DB_MYSQL",
    values: Values::Path(
        "an image such as `docker://mysql:8.4`, or directories that hold `mysqld` and `mysql`, separated by `:`",
    ),
};
pub(crate) const ONLY: Variable = Variable { name: "SANDBOXED_DB_ONLY", values: Values::Words(&["layers"]) };
pub(crate) const POOL: Variable = Variable { name: "SANDBOXED_DB_POOL", values: Values::Number { least: 0 } };
pub(crate) const POSTGRES: Variable = Variable {
    name: "SANDBOXED_DB_POSTGRES",
    values: Values::Path(
        "`packages`, an image such as `docker://postgres:17`, or directories that hold `postgres`, `initdb` \
         and `psql`, separated by `:`",
    ),
};
pub(crate) const PUSH: Variable = Variable { name: "SANDBOXED_DB_PUSH", values: Values::Words(&["0", "1"]) };
pub(crate) const REBUILD: Variable =
    Variable { name: "SANDBOXED_DB_REBUILD", values: Values::Words(&["0", "1"]) };
pub(crate) const REDIS: Variable = Variable {
    name: "SANDBOXED_DB_REDIS",
    values: Values::Path(
        "`packages`, an image such as `docker://valkey/valkey:8`, or directories that hold `redis-server` or \
         `valkey-server`, and a client, separated by `:`",
    ),
};
pub(crate) const REGISTRY: Variable = Variable {
    name: "SANDBOXED_DB_REGISTRY",
    values: Values::Path("a repository, such as `ghcr.io/team/test-layers`"),
};
pub(crate) const REGISTRY_KEY: Variable = Variable {
    name: "SANDBOXED_DB_REGISTRY_KEY",
    values: Values::Path("a file with a public key, such as `cosign.pub`"),
};
pub(crate) const REPORT: Variable =
    Variable { name: "SANDBOXED_DB_REPORT", values: Values::Path("a file, which need not exist") };
pub(crate) const START: Variable =
    Variable { name: "SANDBOXED_DB_START", values: Values::Words(&["checkpoint", "linked", "exec"]) };

const ALL: [Variable; 18] = [
    CACHE, ISOLATION, KEEP, LOCKED, MARIADB, MAX, MISSING, MYSQL, ONLY, POOL, POSTGRES, PUSH, REBUILD, REDIS,
    REGISTRY, REGISTRY_KEY, REPORT, START,
];

/// A variable of the table above.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    values: Values,
}

/// The values that a variable can have.
#[derive(Debug, Clone, Copy)]
enum Values {
    Words(&'static [&'static str]),
    Number {
        least: u64,
    },
    /// Described in words: only its use shows whether a path is good.
    Path(&'static str),
}

/// Checks all variables whose values are known in advance, and refuses misspelt names. Other names
/// may belong to engines outside of this library.
pub(crate) fn check() -> Result<()> {
    for (name, value) in env::vars_os() {
        if let Some(meant) = name.to_str().and_then(misspelt) {
            let operation = format!("use {}={}", name.to_string_lossy(), value.to_string_lossy());
            return Err(Error::new(ErrorKind::InvalidConfig, operation)
                .with_hint(format!("the variable is called {}", meant.name)));
        }
    }
    ALL.iter().try_for_each(|variable| match variable.values {
        Values::Words(_) => variable.word().map(drop),
        Values::Number { .. } => variable.number().map(drop),
        Values::Path(_) => Ok(()),
    })
}

/// Returns the variable of whose name this is a misspelling.
fn misspelt(name: &str) -> Option<&'static Variable> {
    let is_ours = name.starts_with("SANDBOXED_DB_") && ALL.iter().all(|variable| variable.name != name);
    let mut all = if is_ours { ALL.iter() } else { [].iter() };
    all.find(|variable| is_one_edit(name.as_bytes(), variable.name.as_bytes()))
}

/// Returns `true` if a letter more, a letter less, another letter, or two swapped ones are all that
/// differs.
fn is_one_edit(one: &[u8], other: &[u8]) -> bool {
    let before = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let (one, other) = (&one[before..], &other[before..]);
    let after = one.iter().rev().zip(other.iter().rev()).take_while(|(one, other)| one == other).count();
    match (&one[..one.len() - after], &other[..other.len() - after]) {
        ([], [_]) | ([_], []) | ([_], [_]) => true,
        ([a, b], [c, d]) => (a, b) == (d, c),
        _ => false,
    }
}

impl Variable {
    /// Returns the variable that names the server of an engine.
    pub(crate) fn of_server(engine: &str) -> Option<&'static Self> {
        let servers = [("mariadb", &MARIADB), ("mysql", &MYSQL), ("postgres", &POSTGRES), ("redis", &REDIS)];
        servers.into_iter().find_map(|(name, variable)| (name == engine).then_some(variable))
    }

    /// Returns the value; `None` if it is unset or empty.
    pub(crate) fn value(&self) -> Option<OsString> {
        env::var_os(self.name).filter(|value| !value.is_empty())
    }

    /// Returns the word of the table that is set.
    pub(crate) fn word(&self) -> Result<Option<&'static str>> {
        let Some(value) = self.value() else { return Ok(None) };
        self.parse_word(&value).map(Some).ok_or_else(|| self.refused(&value))
    }

    /// Returns the number that is set.
    pub(crate) fn number(&self) -> Result<Option<u64>> {
        let Some(value) = self.value() else { return Ok(None) };
        self.parse_number(&value).map(Some).ok_or_else(|| self.refused(&value))
    }

    fn parse_word(&self, value: &OsStr) -> Option<&'static str> {
        let Values::Words(words) = self.values else { return None };
        words.iter().find(|word| *word == &value).copied()
    }

    fn parse_number(&self, value: &OsStr) -> Option<u64> {
        let Values::Number { least } = self.values else { return None };
        value.to_str()?.trim().parse().ok().filter(|number| *number >= least)
    }

    /// Returns the error for a value that cannot be used.
    pub(crate) fn refused(&self, value: &OsStr) -> Error {
        Error::new(ErrorKind::InvalidConfig, format!("use {}={}", self.name, value.to_string_lossy()))
            .with_hint(format!("{} takes {}", self.name, self.accepted()))
    }

    pub(crate) fn accepted(&self) -> String {
        match self.values {
            Values::Words([words @ .., last]) => {
                let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                let or = if words.is_empty() { "" } else { " or " };
                format!("{}{or}`{last}`", words.join(", "))
            }
            Values::Words([]) => String::new(),
            Values::Number { least } => format!("a whole number from {least} on"),
            Values::Path(words) => words.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_the_documentation_has_all_variables() {
        let rows = include_str!("environment.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let rows: Vec<Vec<_>> = rows.map(|row| row.split(" | ").collect()).collect();
        let documented: Vec<_> =
            rows.iter().map(|row| (row[0].trim_end_matches('`'), row[2].to_owned())).collect();
        assert_eq!(documented, ALL.map(|variable| (variable.name, variable.accepted())));
        assert!(rows.iter().all(|row| row.len() == 4), "{rows:?}");
    }

    #[test]
    fn a_refused_value_is_named_with_the_accepted_ones() {
        let report = format!("{:?}", KEEP.refused(OsStr::new("yes")));
        let expected = "could not use SANDBOXED_DB_KEEP=yes\n  hint: SANDBOXED_DB_KEEP takes `never`, `on_failure` or \
                        `always`";
        assert_eq!(report, expected);
        assert!(MAX.refused(OsStr::new("0")).hint().unwrap().ends_with("a whole number from 1 on"));
    }

    #[test]
    fn only_the_words_of_the_table_are_accepted() {
        for variable in ALL {
            let Values::Words(words) = variable.values else { continue };
            for word in words {
                assert_eq!(variable.parse_word(OsStr::new(word)), Some(*word));
            }
            for other in ["", "yes", "TRUE", "2", "Skip", " 1"] {
                assert_eq!(variable.parse_word(OsStr::new(other)), None, "{}={other}", variable.name);
            }
        }
    }

    #[test]
    fn a_misspelt_name_is_answered_with_the_right_one() {
        let meant = |name: &str| misspelt(name).map(|variable| variable.name);
        for name in ["KEP", "KEEEP", "KEEO", "KEPE"] {
            assert_eq!(meant(&format!("SANDBOXED_DB_{name}")), Some(KEEP.name), "{name}");
        }
        assert_eq!(meant("SANDBOXED_DB_POOLS"), Some(POOL.name));
        for name in ["SANDBOXED_DB_KEEP", "SANDBOXED_DB_TESTS", "SANDBOXED_DB_MONGO", "SANDBOXED_DB_", "KEP"]
        {
            assert_eq!(meant(name), None, "{name}");
        }
        // Two names of the table are never taken for each other.
        assert!(ALL.iter().all(|variable| misspelt(variable.name).is_none()));
    }

    proptest! {
        #[test]
        fn numbers_are_accepted_from_the_least_on(number in any::<u64>()) {
            let text = format!(" {number} ");
            prop_assert_eq!(MAX.parse_number(OsStr::new(&text)), Some(number).filter(|number| *number > 0));
            prop_assert_eq!(POOL.parse_number(OsStr::new(&text)), Some(number));
        }

        #[test]
        fn other_text_is_no_number(text in "[^0-9]*|-[0-9]+|[0-9]+\\.[0-9]+") {
            prop_assert_eq!(POOL.parse_number(OsStr::new(&text)), None);
        }
    }
}
