//! Checks of an engine, which are public as `engine::conformance`.

mod checks;
mod directory;
mod scripts;
mod violation;

use std::error::Error as StdError;
use std::fmt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use crate::engine::{Engine, Scripts};
use crate::sandbox::Sandbox;
use crate::snapshot::Snapshot;

pub use violation::Violation;

type Work<E, T> = Arc<dyn Fn(&Sandbox<E>) -> Result<T, Box<dyn StdError + Send + Sync>> + Send + Sync>;

/// The outcome of a check.
pub type Checked = Result<(), Violation>;

/// The checks of an engine, with their inputs for its database.
///
/// Each check is a separate method; [`check_all`](Self::check_all) runs those that apply. The
/// checks start servers as tests do, in the same cache.
#[derive(Clone)]
pub struct Conformance<E: Engine> {
    engine: E,
    reads: Option<Work<E, String>>,
    writes: Option<Work<E, ()>>,
    volatile: bool,
    setting: Option<(String, String)>,
    others: Vec<E>,
    scripts: Option<Texts<E>>,
}

/// The scripts to run.
#[derive(Clone)]
struct Texts<E: Engine> {
    seed: fn(Snapshot<E>, PathBuf) -> Snapshot<E>,
    good: Option<String>,
    /// The second is the line at fault; `None` if the client does not report it.
    broken: Option<(String, Option<u64>)>,
    open: Open,
}

/// A script that leaves a transaction open.
#[derive(Clone)]
enum Open {
    Unsaid,
    Script(String),
    /// The database has no transactions over several statements.
    Impossible,
}

impl<E: Engine> Conformance<E> {
    /// Describes checks of the engine.
    pub fn new(engine: E) -> Self {
        Self {
            engine,
            reads: None,
            writes: None,
            volatile: false,
            setting: None,
            others: Vec::new(),
            scripts: None,
        }
    }

    /// Sets the function by which a client reads the data that [`writes`](Self::writes) and the
    /// scripts change. Equal data must give equal text. Required.
    #[must_use]
    pub fn reads<X: Into<Box<dyn StdError + Send + Sync>>>(
        mut self,
        read: impl Fn(&Sandbox<E>) -> Result<String, X> + Send + Sync + 'static,
    ) -> Self {
        self.reads = Some(Arc::new(move |sandbox| read(sandbox).map_err(Into::into)));
        self
    }

    /// Sets the function by which a client changes data; [`reads`](Self::reads) must show the
    /// change. Required.
    #[must_use]
    pub fn writes<X: Into<Box<dyn StdError + Send + Sync>>>(
        mut self,
        write: impl Fn(&Sandbox<E>) -> Result<(), X> + Send + Sync + 'static,
    ) -> Self {
        self.writes = Some(Arc::new(move |sandbox| write(sandbox).map_err(Into::into)));
        self
    }

    /// Declares that the server holds its data in memory only, as memcached does, and loses it at a
    /// stop.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Adds a setting of the server with a valid value other than the default. Without one the
    /// engine must refuse all settings.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.setting = Some((name.into(), value.into()));
        self
    }

    /// Adds an engine that makes different data from the same steps, such as one with another
    /// collation.
    #[must_use]
    pub fn other(mut self, engine: E) -> Self {
        self.others.push(engine);
        self
    }

    fn texts(&mut self) -> &mut Texts<E>
    where
        E: Scripts,
    {
        let seed = |snapshot: Snapshot<E>, file| snapshot.seed(file);
        self.scripts.get_or_insert(Texts { seed, good: None, broken: None, open: Open::Unsaid })
    }

    /// Adds a script, a text in the language of the engine's [client](Scripts), that changes data
    /// as [`reads`](Self::reads) shows. [`check_all`](Self::check_all) then requires the scripts
    /// below as well.
    #[must_use]
    pub fn script(mut self, text: impl Into<String>) -> Self
    where
        E: Scripts,
    {
        self.texts().good = Some(text.into());
        self
    }

    /// Adds a script that the server refuses because of this line, counted from one. The line must
    /// be in the middle of the script, and the lines before it must succeed.
    #[must_use]
    pub fn broken_script(mut self, text: impl Into<String>, line: u64) -> Self
    where
        E: Scripts,
    {
        self.texts().broken = Some((text.into(), Some(line)));
        self
    }

    /// Adds a script that the server refuses, in place of
    /// [`broken_script`](Self::broken_script) for a client that reports no lines.
    #[must_use]
    pub fn broken_script_without_line(mut self, text: impl Into<String>) -> Self
    where
        E: Scripts,
    {
        self.texts().broken = Some((text.into(), None));
        self
    }

    /// Adds a script that ends inside a transaction or a statement.
    #[must_use]
    pub fn open_transaction(mut self, text: impl Into<String>) -> Self
    where
        E: Scripts,
    {
        self.texts().open = Open::Script(text.into());
        self
    }

    /// Declares that the database has no transactions that a script could leave open, in place of
    /// [`open_transaction`](Self::open_transaction).
    #[must_use]
    pub fn without_transactions(mut self) -> Self
    where
        E: Scripts,
    {
        self.texts().open = Open::Impossible;
        self
    }

    /// Runs all checks, those of scripts only where a script is given. They run at once, since most
    /// wait for a server to start or to stop.
    ///
    /// # Errors
    /// All violations.
    pub fn check_all(&self) -> Checked {
        let mut checks: Vec<fn(&Self) -> Checked> = vec![
            Self::stops_cleanly,
            Self::keeps_its_data,
            Self::survives_a_copy,
            Self::leaves_nothing,
            Self::leaves_layers_alone,
            Self::names_layers_apart,
            Self::passes_settings_on,
        ];
        if let Some(scripts) = &self.scripts {
            checks.extend([Self::runs_scripts as fn(&Self) -> Checked, Self::refuses_broken_scripts]);
            if !matches!(scripts.broken, Some((_, None))) {
                checks.push(Self::names_the_line);
            }
            if !matches!(scripts.open, Open::Impossible) {
                checks.push(Self::refuses_open_transactions);
            }
        }
        // Two crowds at once could each hold slots for which the other waits.
        let crowds: [fn(&Self) -> Checked; 2] = [Self::is_ready_when_it_says_so, Self::shares_nothing];
        let outcomes = thread::scope(|scope| {
            let others: Vec<_> = checks.iter().map(|check| scope.spawn(|| check(self))).collect();
            let mut outcomes: Vec<Checked> = crowds.iter().map(|check| check(self)).collect();
            for other in others {
                outcomes.push(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            outcomes
        });
        match Violation::all(outcomes.into_iter().filter_map(Checked::err)) {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }
}

impl<E: Engine> fmt::Debug for Conformance<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conformance").field("engine", &self.engine).finish_non_exhaustive()
    }
}
