//! The steps from a fresh server to a prepared database: one file per kind, each read into links of
//! a chain.

mod base;
mod code;
mod compressed;
mod language;
mod load;
mod migrations;
mod program;
mod seed;
mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::{Dialect, Engine, Format, Sql};
use crate::error::{Error, ErrorKind, Result};
use crate::migration::{MigrationTool, Request};

pub(crate) use base::{Base, StepPath};
pub(crate) use code::CodeStep;
pub(crate) use language::Language;
pub(crate) use load::load;
pub(crate) use migrations::holds_scripts;
pub(crate) use program::{Address, ProgramStep};
pub(crate) use source::SourceFile;

/// A step as described, before its files are read.
#[derive(Debug, Clone)]
pub(crate) enum Step<E: Engine> {
    /// A directory of files of SQL, and their tool if the user names it.
    Migrations(StepPath, Option<MigrationTool>, Language<E>),
    /// A file of SQL or of a table's rows, or an archive.
    Seed(StepPath, Language<E>),
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
    /// Every path whose metadata changes when reading the step again could have another outcome.
    pub(crate) watched: Vec<PathBuf>,
}

/// The files of a step as read.
struct ReadFiles {
    label: String,
    files: Vec<FileStep>,
    watched: Vec<PathBuf>,
}

impl ReadFiles {
    fn input<E: Engine>(self, language: Language<E>) -> Input<E> {
        let Self { label, files, watched } = self;
        let links = files.into_iter().map(|file| Link::File(file, language)).collect();
        Input { label, links, watched }
    }
}

/// A link of the digest chain: one action, or files on which the next links depend.
#[derive(Debug)]
pub(crate) enum Link<E: Engine> {
    File(FileStep, Language<E>),
    /// With the paths by which they are declared.
    Inputs(Vec<(PathBuf, Arc<SourceFile>)>),
    Program(ProgramStep),
    Code(CodeStep<E>),
}

/// A file, and how it runs.
#[derive(Debug)]
pub(crate) struct FileStep {
    /// Its name in the digest and in messages.
    pub(crate) name: String,
    pub(crate) source: Arc<SourceFile>,
    pub(crate) format: Format,
    /// `true` if the client gets the file's contents, and not its path.
    pub(crate) streamed: bool,
    /// The texts that are sent to the server as they are, instead of the whole file.
    pub(crate) requests: Option<Vec<Request>>,
    /// `true` if all of it is one transaction.
    pub(crate) transaction: bool,
    /// SQL to run first, in the same session and transaction.
    pub(crate) before: Option<String>,
    /// SQL to run last, in the same session and transaction.
    pub(crate) after: Option<String>,
}

/// Reads steps. Declared files become links of the next step that acts.
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
            Self::Migrations(directory, tool, language) => {
                let scripts = language.scripts(engine);
                let dialect = language.sql(engine).map_or(Dialect::Postgres, Sql::dialect);
                let read = migrations::read(&directory.path(), directory.base(), *tool, scripts, dialect);
                read.map(|read| read.input(*language)).map_err(|error| directory.explain(error))
            }
            Self::Seed(file, language) => {
                let read = seed::read(&file.path(), language.scripts(engine));
                read.map(|read| read.input(*language)).map_err(|error| file.explain(error))
            }
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

impl<E: Engine> Step<E> {
    /// Returns a directory whose migrations fill no bookkeeping table, as the user wrote it.
    pub(crate) fn unrecorded_migrations(&self, engine: &E) -> Option<&Path> {
        let Self::Migrations(directory, ..) = self else { return None };
        let links = self.read(engine).ok()?.links;
        let recorded = |link: &Link<E>| matches!(link, Link::File(FileStep { before: Some(_), .. }, _));
        (!links.iter().any(recorded)).then_some(&directory.written)
    }
}

impl<E: Engine> Link<E> {
    /// The name in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(file, _) => file.name.clone(),
            Self::Inputs(files) => {
                let paths: Vec<_> = files.iter().map(|(path, _)| path.display().to_string()).collect();
                paths.join(", ")
            }
            Self::Program(program) => program.to_string(),
            Self::Code(code) => code.to_string(),
        }
    }

    /// All files that are read, with those that they include.
    pub(crate) fn files(&self) -> Vec<&SourceFile> {
        match self {
            Self::File(file, _) => file.source.all(),
            Self::Inputs(files) => files.iter().flat_map(|(_, file)| file.all()).collect(),
            Self::Program(_) | Self::Code(_) => Vec::new(),
        }
    }

    /// The files that the sandbox must show.
    pub(crate) fn visible(&self) -> Vec<&SourceFile> {
        match self {
            Self::File(..) => self.files(),
            Self::Inputs(_) | Self::Program(_) | Self::Code(_) => Vec::new(),
        }
    }
}

impl FileStep {
    /// The whole file, as the client runs it. The client's arguments are UTF-8.
    fn whole(source: Arc<SourceFile>) -> Result<Self> {
        if source.path.to_str().is_none() {
            let step = format!("run `{}`", source.path.display());
            return Err(Error::new(ErrorKind::InvalidConfig, step)
                .caused_by("its name is not UTF-8")
                .with_hint("rename it, as by `convmv -f latin1 -t utf8 --notest`"));
        }
        let name = source.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            name,
            streamed: compressed::is_compressed(&source.path),
            source,
            format: Format::Sql,
            requests: None,
            transaction: false,
            before: None,
            after: None,
        })
    }
}
