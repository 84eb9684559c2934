//! The steps that lead from a fresh server to a prepared database: one file per kind, each read into links of a chain.

mod base;
mod code;
mod compressed;
mod load;
mod migrations;
mod program;
mod seed;
mod source;

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::{Engine, Format};
use crate::error::Result;
use crate::migration::MigrationTool;

pub(crate) use base::{Base, StepPath};
pub(crate) use code::CodeStep;
pub(crate) use load::{load, run_script};
pub(crate) use program::ProgramStep;
pub(crate) use source::SourceFile;

/// A step as described; nothing of it has been read.
#[derive(Debug, Clone)]
pub(crate) enum Step<E: Engine> {
    /// A directory of files of SQL, and the tool they are written for if the user names it.
    Migrations(StepPath, Option<MigrationTool>),
    /// A file of SQL or of a table's rows, or an archive.
    Seed(StepPath),
    /// Files and directories on which the steps after it depend.
    Inputs(Vec<StepPath>),
    Program(ProgramStep),
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "made by `Snapshot::prepare`"))]
    Code(CodeStep<E>),
}

/// A step as read.
#[derive(Debug)]
pub(crate) struct Input<E: Engine> {
    pub(crate) label: String,
    pub(crate) links: Vec<Link<E>>,
    /// Every path whose metadata tells whether reading the step anew would come to the same.
    pub(crate) watched: Vec<PathBuf>,
}

/// A link of the digest chain: what is done at once, or what the next depend on.
#[derive(Debug)]
pub(crate) enum Link<E: Engine> {
    File(FileStep),
    /// With the paths by which they are declared.
    Inputs(Vec<(PathBuf, Arc<SourceFile>)>),
    Program(ProgramStep),
    Code(CodeStep<E>),
}

/// A file, and how it is run.
#[derive(Debug)]
pub(crate) struct FileStep {
    /// As it enters the digest and is told to the user.
    pub(crate) name: String,
    pub(crate) source: Arc<SourceFile>,
    pub(crate) format: Format,
    /// Whether the client is given what the file holds, and not its path.
    pub(crate) streamed: bool,
    /// What is run instead of the whole file, at the lines it has there.
    pub(crate) part: Option<String>,
    /// Whether all of it is one transaction.
    pub(crate) transaction: bool,
    /// SQL to run first, in the same session and transaction.
    pub(crate) before: Option<String>,
    /// SQL to run last, in the same session and transaction.
    pub(crate) after: Option<String>,
}

/// Reads steps. Declared inputs join the next step that does something.
pub(crate) fn read<E: Engine>(steps: &[Step<E>], engine: &E) -> Result<Vec<Input<E>>> {
    let mut inputs: Vec<Input<E>> = Vec::new();
    let mut waiting: Option<Input<E>> = None;
    for step in steps {
        let mut input = step.read(engine)?;
        if let Some(Input { links, watched, .. }) = waiting.take() {
            input.links.splice(..0, links);
            input.watched.extend(watched);
        }
        match step {
            Step::Inputs(_) => waiting = Some(input),
            _ => inputs.push(input),
        }
    }
    Ok(inputs)
}

impl<E: Engine> Step<E> {
    fn read(&self, engine: &E) -> Result<Input<E>> {
        let done = |label: String, link| Input { label, links: vec![link], watched: Vec::new() };
        match self {
            Self::Migrations(directory, tool) => {
                migrations::read(&directory.path(), *tool, engine).map_err(|error| directory.explain(error))
            }
            Self::Seed(file) => seed::read(&file.path(), engine).map_err(|error| file.explain(error)),
            Self::Inputs(paths) => {
                let files = paths.iter().map(|path| {
                    let tree = SourceFile::tree(&path.path()).map_err(|error| path.explain(error))?;
                    Ok((path.written.clone(), tree))
                });
                let files = files.collect::<Result<Vec<_>>>()?;
                let watched = files.iter().flat_map(|(_, file)| file.watched()).collect();
                Ok(Input { label: String::new(), links: vec![Link::Inputs(files)], watched })
            }
            Self::Program(program) => Ok(done(program.to_string(), Link::Program(program.clone()))),
            Self::Code(code) => Ok(done(code.to_string(), Link::Code(code.clone()))),
        }
    }
}

impl<E: Engine> Link<E> {
    /// As it is told to the user.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(file) => file.name.clone(),
            Self::Inputs(files) => {
                let paths: Vec<_> = files.iter().map(|(path, _)| path.display().to_string()).collect();
                paths.join(", ")
            }
            Self::Program(program) => program.to_string(),
            Self::Code(code) => code.to_string(),
        }
    }

    /// All files that are read, those that others include among them.
    pub(crate) fn files(&self) -> Vec<&SourceFile> {
        match self {
            Self::File(file) => file.source.all(),
            Self::Inputs(files) => files.iter().flat_map(|(_, file)| file.all()).collect(),
            Self::Program(_) | Self::Code(_) => Vec::new(),
        }
    }

    /// The files that the sandbox must show.
    pub(crate) fn visible(&self) -> Vec<&SourceFile> {
        match self {
            Self::File(_) => self.files(),
            Self::Inputs(_) | Self::Program(_) | Self::Code(_) => Vec::new(),
        }
    }
}

impl FileStep {
    /// The whole file, as the client runs it.
    fn plain(source: Arc<SourceFile>) -> Self {
        let name = source.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let streamed = compressed::is_compressed(&source.path);
        let format = Format::Sql;
        Self { name, source, format, streamed, part: None, transaction: false, before: None, after: None }
    }
}
