//! Servers from checkpoints: when one is made, how it is tried, and when it is given up.

use std::time::Duration;

use super::start::Prepared;
use crate::diagnosis::explain;
use crate::engine::{Engine, Task, WarmUp};
use crate::environment::START;
use crate::error::Result;
use crate::launch::plan::Plan;
use crate::launch::{Container, Draft, Holds, NoImage, Stdin, checkpoint_of, give_up_checkpoint};

/// How long the work of the first client may take.
const WARM_UP: Duration = Duration::from_secs(10);

impl<E: Engine> Prepared<E> {
    /// Resumes a ready server from the checkpoint of a plan, which one of the plan's first starts
    /// makes.
    ///
    /// # Errors
    /// The inner error is the reason to start the server in another way.
    pub(super) fn resume(&self, plan: &Plan) -> Result<Result<Container, NoImage>> {
        if self.tls() {
            // Its key would be shared.
            return Ok(Err(NoImage::new("it has a certificate", Holds::Process)));
        }
        if let Some(shared) = self.engine().shared_by_resumed()
            && START.word()? != Some("checkpoint")
        {
            let why = format!("resumed servers share {shared}, and {}=checkpoint is not set", START.name);
            return Ok(Err(NoImage::new(why, Holds::Process)));
        }
        let work = match self.engine().warm_up(self.installation()) {
            Ok(Some(work)) => work,
            Ok(None) => {
                return Ok(Err(NoImage::new("its engine has no checkpoints", Holds::Process)));
            }
            Err(error) => return Ok(Err(NoImage::new(format!("{error:?}"), Holds::Process))),
        };
        let checkpoint = match checkpoint_of(plan, |draft| self.draft(plan, draft, &work)) {
            Ok(checkpoint) => checkpoint,
            Err(why) => return Ok(Err(why)),
        };
        let why = match Container::resume(plan, &checkpoint).map_err(explain)? {
            Ok(container) if container.serves() => return Ok(Ok(container)),
            Ok(_) => NoImage::new("a server that was resumed ended at once", Holds::Boot),
            Err(why) => why,
        };
        give_up_checkpoint(plan, &checkpoint, &why);
        Ok(Err(why))
    }

    /// Takes the checkpoint of a server in a separate container, once it has done its first work,
    /// and resumes a server from it, which must do the same work.
    fn draft(&self, plan: &Plan, draft: &Draft, work: &WarmUp) -> Result<(), NoImage> {
        let once = |error: crate::error::Error| NoImage::new(format!("{error:?}"), Holds::Once);
        let container = Container::launch(plan).map_err(|error| once(explain(error)))?;
        self.wait_ready(&container).map_err(once)?;
        warm_up(&container, work)?;
        let data = self.data_dir(&container);
        container.take_checkpoint(plan, draft, &data).map_err(|error| once(explain(error)))??;
        drop(container);
        let resumed = Container::try_draft(plan, draft).map_err(|error| once(explain(error)))??;
        warm_up(&resumed, work)
    }
}

fn warm_up(container: &Container, work: &WarmUp) -> Result<(), NoImage> {
    let failed = |error| NoImage::new(format!("its first client failed: {:?}", explain(error)), Holds::Pause);
    match work {
        WarmUp::Sign => container.wait_for_sign(WARM_UP).map_err(failed),
        WarmUp::Task(Task { command, input }) => {
            let run = container.run(command.clone(), Stdin::Text(input), WARM_UP).map_err(failed)?;
            if run.exit.success() {
                return Ok(());
            }
            let why = format!("its first client ended with {}: {}", run.exit, run.stderr.trim());
            Err(NoImage::new(why, Holds::Boot))
        }
    }
}
