//! Seeds: a file of SQL with everything that the engine's client accepts.

use std::path::Path;

use super::{Input, Run, SourceFile};
use crate::engine::Engine;
use crate::error::Result;

pub(super) fn read(file: &Path, engine: &impl Engine) -> Result<Input> {
    let file = SourceFile::read(file, engine)?;
    Ok(Input { label: format!("seed `{}`", file.path.display()), runs: vec![Run::plain(file)] })
}
