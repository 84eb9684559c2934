//! Runs the tasks of an engine.

use std::time::Duration;

use crate::diagnosis::explain;
use crate::engine::Task;
use crate::error::Result;
use crate::launch::{Container, Stdin};

/// Runs a task to its end. Returns the message of its failure.
pub(crate) fn run_task(container: &Container, task: &Task, timeout: Duration) -> Result<Option<String>> {
    let run = container.run(task.command.clone(), Stdin::Text(&task.input), timeout).map_err(explain)?;
    Ok((!run.exit.success()).then(|| match run.stderr.trim() {
        "" => format!("`{}` ended with {}", task.command.name(), run.exit),
        message => message.to_owned(),
    }))
}
