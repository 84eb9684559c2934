//! A step that is the user's Rust code: a migrator, or anything else that prepares a database.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::sandbox::Sandbox;

/// Runs on its own thread: the caller's may belong to a runtime, which must not block, and nothing
/// stops code that blocks.
type Work<E> = dyn Fn(&Sandbox<E>, Duration) -> Result<(), Failure> + Send + Sync;

/// The time that code may take to stop after its deadline.
const GRACE: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(crate) struct CodeStep<E: Engine> {
    pub(crate) key: String,
    work: Arc<Work<E>>,
}

#[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "made by `CodeStep::new`"))]
enum Failure {
    Error(Box<dyn StdError + Send + Sync>),
    Timeout,
}

impl<E: Engine> CodeStep<E> {
    #[cfg(feature = "tokio")]
    pub(crate) fn new<F, X>(key: String, code: F) -> Self
    where
        F: AsyncFn(&Sandbox<E>) -> Result<(), X> + Send + Sync + 'static,
        X: Into<Box<dyn StdError + Send + Sync>>,
    {
        let work = move |sandbox: &Sandbox<E>, limit: Duration| {
            // Code that blocks needs a runtime with several threads.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.map_err(|error| Failure::Error(error.into()))?;
            let outcome = runtime.block_on(async { tokio::time::timeout(limit, code(sandbox)).await });
            // Tasks that the code leaves behind may never end.
            runtime.shutdown_background();
            match outcome {
                Ok(outcome) => outcome.map_err(|error| Failure::Error(error.into())),
                Err(_) => Err(Failure::Timeout),
            }
        };
        Self { key, work: Arc::new(work) }
    }

    pub(super) fn run(&self, sandbox: &Arc<Sandbox<E>>, deadline: Instant) -> Result<()> {
        let failed = || Error::new(ErrorKind::InvalidConfig, format!("run {self}"));
        let limit = deadline.saturating_duration_since(Instant::now());
        let (sender, receiver) = mpsc::channel();
        let (work, held) = (self.work.clone(), sandbox.clone());
        std::thread::Builder::new()
            .name("sandboxed-db".to_owned())
            .spawn(move || {
                let outcome = panic::catch_unwind(AssertUnwindSafe(|| work(&held, limit)));
                drop(held);
                // The receiver is gone if the code took too long.
                let _ = sender.send(outcome);
            })
            .map_err(|error| failed().caused_by(error))?;
        match receiver.recv_timeout(limit + GRACE) {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(Failure::Error(error)))) => Err(failed().caused_by(error)),
            Ok(Err(panic)) => Err(failed()
                .caused_by(format!("it panicked: {}", message(&*panic)))
                .with_hint("the message of the panic, printed above, names its place")),
            Ok(Ok(Err(Failure::Timeout))) | Err(_) => {
                // Ends the server, and so any code that blocks on it.
                sandbox.container().kill()?;
                let step = format!("run {self} within the time that a step may take");
                Err(Error::new(ErrorKind::Timeout, step).with_hint("raise `build_timeout`"))
            }
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("with no message")
}

impl<E: Engine> fmt::Display for CodeStep<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the code of the key `{}`", self.key)
    }
}

impl<E: Engine> fmt::Debug for CodeStep<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CodeStep").field(&self.key).finish()
    }
}
