//! Checks of any engine.

use std::thread;

use super::directory::{Directory, contents, traces};
use super::{Checked, Conformance, Violation, Work};
use crate::engine::{Engine, Mode};
use crate::layer;
use crate::sandbox::Sandbox;
use crate::snapshot::Snapshot;

/// The number of sandboxes at once.
const CROWD: usize = 20;

/// A check in progress: its name and its rule.
pub(super) struct Check<'a> {
    engine: &'a str,
    name: &'static str,
    rule: &'static str,
}

impl Check<'_> {
    pub(super) fn broken(&self, found: impl ToString) -> Violation {
        Violation::new(self.engine, self.name, self.rule, found)
    }

    /// The error of an operation, with its causes, as a violation.
    pub(super) fn of<T>(&self, result: crate::Result<T>) -> Result<T, Violation> {
        result.map_err(|error| self.broken(format!("{error:?}")))
    }
}

impl<E: Engine> Conformance<E> {
    pub(super) fn check(&self, name: &'static str, rule: &'static str) -> Check<'_> {
        Check { engine: self.engine.name(), name, rule }
    }

    pub(super) fn snapshot(&self) -> Snapshot<E> {
        Snapshot::new(self.engine.clone())
    }

    fn work<'a, T>(
        check: &Check<'_>,
        work: &'a Option<Work<E, T>>,
        method: &str,
    ) -> Result<&'a Work<E, T>, Violation> {
        work.as_ref().ok_or_else(|| check.broken(format!("the check needs `Conformance::{method}`")))
    }

    pub(super) fn read(&self, check: &Check<'_>, sandbox: &Sandbox<E>) -> Result<String, Violation> {
        let read = Self::work(check, &self.reads, "reads")?;
        read(sandbox).map_err(|error| check.broken(format!("reading failed: {error}")))
    }

    fn write(&self, check: &Check<'_>, sandbox: &Sandbox<E>) -> Result<(), Violation> {
        let write = Self::work(check, &self.writes, "writes")?;
        write(sandbox).map_err(|error| check.broken(format!("writing failed: {error}")))
    }

    /// Writes, and returns the data after it.
    fn change(&self, check: &Check<'_>, sandbox: &Sandbox<E>, before: &str) -> Result<String, Violation> {
        self.write(check, sandbox)?;
        let after = self.read(check, sandbox)?;
        if after == before {
            return Err(check.broken(format!(
                "`Conformance::writes` changes nothing: `reads` returns `{after}` after it"
            )));
        }
        Ok(after)
    }

    /// Starts servers at once.
    fn crowd(&self, check: &Check<'_>) -> Result<Vec<Sandbox<E>>, Violation> {
        let snapshot = self.snapshot();
        let starts = thread::scope(|scope| {
            let starts: Vec<_> = (0..CROWD).map(|_| scope.spawn(|| snapshot.start())).collect();
            starts.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        let started = starts.into_iter().map(|started| match started {
            Ok(started) => check.of(started),
            Err(_) => Err(check.broken("a start panicked")),
        });
        started.collect()
    }

    /// Checks that a server answers as soon as it counts as ready: 20 times, all at once.
    ///
    /// # Errors
    /// The violation.
    pub fn is_ready_when_it_says_so(&self) -> Checked {
        let check = self.check(
            "is_ready_when_it_says_so",
            "a server answers clients from the moment on at which its sign of readiness (`Server::new`) shows",
        );
        let crowd = self.crowd(&check)?;
        crowd.iter().try_for_each(|sandbox| self.read(&check, sandbox).map(drop))
    }

    /// Checks that 20 simultaneous sandboxes share no data: a write reaches its own sandbox only.
    ///
    /// # Errors
    /// The violation.
    pub fn shares_nothing(&self) -> Checked {
        let check = self.check("shares_nothing", "a server keeps all of its state in its sandbox");
        let crowd = self.crowd(&check)?;
        let pristine = self.read(&check, &crowd[0])?;
        let (writers, others) = crowd.split_at(CROWD / 2);
        for writer in writers {
            self.change(&check, writer, &pristine)?;
        }
        for other in others {
            let found = self.read(&check, other)?;
            if found != pristine {
                return Err(check.broken(format!("another sandbox reads `{found}` instead of `{pristine}`")));
            }
        }
        Ok(())
    }

    /// A copy of a fresh layer, and a server on it.
    fn copied(&self, check: &Check<'_>) -> Result<Directory<E>, Violation> {
        let (engine, installation) = check.of(self.snapshot().located())?;
        let snapshot = self.snapshot();
        let (layer, _) = check.of(layer::obtain(&snapshot.recipe(&engine, &installation)))?;
        check.of(Directory::copy(engine, installation, &layer.data()))
    }

    /// Checks that a stop right after the start, and a stop after a write, are clean.
    ///
    /// # Errors
    /// The violation.
    pub fn stops_cleanly(&self) -> Checked {
        let check = self.check(
            "stops_cleanly",
            "at its stop signal a server ends by itself with a clean status (`Server::clean_status`, \
             `Server::clean_signal`)",
        );
        let directory = self.copied(&check)?;
        for writes in [false, true] {
            let sandbox = check.of(directory.start())?;
            if writes {
                self.write(&check, &sandbox)?;
            }
            if let Some(exit) = check.of(directory.stop(&sandbox))? {
                let log = sandbox.log().unwrap_or_default();
                return Err(check.broken(format!("it ended with {exit}\n{}", log.trim_end())));
            }
        }
        Ok(())
    }

    /// Checks that data survives a clean stop in the same directory.
    ///
    /// # Errors
    /// The violation.
    pub fn keeps_its_data(&self) -> Checked {
        let check = self.check(
            "keeps_its_data",
            "at its stop signal a server writes everything into the data directory (`Engine::data_dir`)",
        );
        let directory = self.copied(&check)?;
        self.read_again(&check, &directory, &directory)
    }

    /// Checks that a copy of the data directory works as the original does, after a clean stop and
    /// [`tidy`](Engine::tidy).
    ///
    /// # Errors
    /// The violation.
    pub fn survives_a_copy(&self) -> Checked {
        let check = self.check(
            "survives_a_copy",
            "a data directory that was copied after a clean stop is as good as the original",
        );
        let directory = self.copied(&check)?;
        let sandbox = check.of(directory.start())?;
        let before = self.read(&check, &sandbox)?;
        let after = self.change(&check, &sandbox, &before)?;
        check.of(directory.end(sandbox))?;
        let copy = check.of(directory.copy_again())?;
        let sandbox = check.of(copy.start())?;
        self.expect(&check, &sandbox, if self.volatile { &before } else { &after })
    }

    fn read_again(&self, check: &Check<'_>, directory: &Directory<E>, again: &Directory<E>) -> Checked {
        let sandbox = check.of(directory.start())?;
        let before = self.read(check, &sandbox)?;
        let after = self.change(check, &sandbox, &before)?;
        check.of(directory.end(sandbox))?;
        let sandbox = check.of(again.start())?;
        self.expect(check, &sandbox, if self.volatile { &before } else { &after })
    }

    fn expect(&self, check: &Check<'_>, sandbox: &Sandbox<E>, expected: &str) -> Checked {
        let found = self.read(check, sandbox)?;
        match found == expected {
            true => Ok(()),
            false => Err(check.broken(format!("the next server reads `{found}` instead of `{expected}`"))),
        }
    }

    /// Checks that a stopped and [tidied](Engine::tidy) data directory has no socket, no pipe, and
    /// no file that names a process.
    ///
    /// # Errors
    /// The violation.
    pub fn leaves_nothing(&self) -> Checked {
        let check = self.check(
            "leaves_nothing",
            "files that name a process, a socket or a host are removed by `Engine::tidy`",
        );
        let directory = self.copied(&check)?;
        let sandbox = check.of(directory.start())?;
        self.write(&check, &sandbox)?;
        check.of(directory.end(sandbox))?;
        match traces(directory.data()).as_slice() {
            [] => Ok(()),
            traces => Err(check.broken(format!("the data directory still has {}", traces.join(", ")))),
        }
    }

    /// Checks that servers and the engine itself leave the files of a layer as they are.
    ///
    /// # Errors
    /// The violation.
    pub fn leaves_layers_alone(&self) -> Checked {
        let check = self.check("leaves_layers_alone", "a layer is never written after its publication");
        let snapshot = self.snapshot();
        let (engine, installation) = check.of(snapshot.located())?;
        let (layer, _) = check.of(layer::obtain(&snapshot.recipe(&engine, &installation)))?;
        let before = contents(&layer.data());
        for _ in 0..2 {
            let sandbox = check.of(snapshot.start())?;
            self.write(&check, &sandbox)?;
            check.of(sandbox.stop())?;
        }
        let after = contents(&layer.data());
        match before
            .iter()
            .chain(&after)
            .find(|(path, file)| before.get(*path) != Some(*file) || !after.contains_key(*path))
        {
            None => Ok(()),
            Some((path, _)) => Err(check.broken(format!("`{}` of the layer has changed", path.display()))),
        }
    }

    /// Checks that the name of a layer stays the same for one engine, and differs for each
    /// [other](Self::other).
    ///
    /// # Errors
    /// The violation.
    pub fn names_layers_apart(&self) -> Checked {
        let check = self.check(
            "names_layers_apart",
            "everything on which a layer depends, and nothing else, is in the server's version, commands, environment, \
             files and tasks, or in `Engine::identity`",
        );
        let name = |engine: &E| {
            let snapshot = Snapshot::new(engine.clone());
            let (engine, installation) = check.of(snapshot.located())?;
            check.of(layer::name(&snapshot.recipe(&engine, &installation)))
        };
        let own = name(&self.engine)?;
        if name(&self.engine)? != own {
            return Err(check
                .broken("the same engine gets another name each time: it depends on a moment or on chance"));
        }
        for other in &self.others {
            if name(other)? == own {
                return Err(
                    check.broken(format!("the same layer belongs to {:?} and to {other:?}", self.engine))
                );
            }
        }
        Ok(())
    }

    /// Checks that a [setting](Self::setting) reaches the server, and that a setting that cannot be
    /// set is refused.
    ///
    /// # Errors
    /// The violation.
    pub fn passes_settings_on(&self) -> Checked {
        let check = self
            .check("passes_settings_on", "`Engine::server` gives each setting to the server, or refuses it");
        let (engine, installation) = check.of(self.snapshot().located())?;
        let described = |settings: &[(String, String)]| {
            engine
                .server(&installation, settings, Mode::Container)
                .map(|server| format!("{:?}", (server.command, server.files)))
        };
        let unset = check.of(described(&[]))?;
        let (name, value) =
            self.setting.clone().unwrap_or_else(|| ("no-such-setting".to_owned(), "1".to_owned()));
        match described(&[(name.clone(), value.clone())]) {
            Ok(set) if set == unset => {
                Err(check.broken(format!("with `{name}` = `{value}` the server is described as without")))
            }
            Err(error) if self.setting.is_some() => Err(check.broken(format!("{error:?}"))),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
