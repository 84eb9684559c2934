//! Programs of an image that run once, to be asked for their version.

use std::time::Duration;

use crate::cache::Cache;
use crate::diagnosis::explain;
use crate::engine::Image;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::plan::{self, Data};
use crate::launch::{Command, Container, Stdin};

/// How long a program may take to print its version.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs a program of an image in a separate container, and returns its standard output.
pub(super) fn run_in_image(image: &Image, command: Command) -> Result<String> {
    let data = Cache::open()?.stage("inspection")?;
    let source = data.path().to_owned();
    let mut plan = plan::image_root(
        image.root(),
        image.env().to_vec(),
        Data::Writable { source },
        "/data".into(),
        "server",
    );
    plan.limits = plan.limits.settled(0);
    let container = Container::launch(&plan).map_err(explain)?;
    let name = command.name();
    let run = container.run(command, Stdin::Text(""), LIMIT).map_err(explain)?;
    if run.exit.success() {
        return Ok(run.stdout);
    }
    Err(Error::new(ErrorKind::InvalidConfig, format!("run `{name}` of the image: {}", run.exit))
        .caused_by(run.stderr.trim().to_owned()))
}
