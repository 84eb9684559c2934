//! From a recipe to a layer: the longest prefix that is in the store, and a build for each step beyond it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::digest::{self, Digest};
use super::manifest::Manifest;
use super::published::Layer;
use super::store::{Store, data_directory, make_data_directory};
use super::upkeep;
use super::{history, lookup};
use crate::cache;
use crate::cache::copy_tree;
use crate::engine::{Engine, Installation};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Limits;
use crate::launch::plan::Data;
use crate::progress::Progress;
use crate::sandbox::{LOG_TAIL, Sandbox, StartOptions};
use crate::step::{self, Input, Link, SourceFile, Step, load, run_script};

/// What a layer is made from.
#[derive(Debug)]
pub(crate) struct Recipe<'a, E: Engine> {
    pub(crate) engine: &'a E,
    pub(crate) installation: &'a Installation,
    pub(crate) settings: &'a [(String, String)],
    pub(crate) steps: &'a [Step<E>],
    pub(crate) start_timeout: Duration,
    pub(crate) limits: Limits,
    /// For one wait: for another builder, for the files of a step.
    pub(crate) build_timeout: Duration,
}

/// A part of the chain that is built and published at once.
struct Stage<'a, E: Engine> {
    digest: Digest,
    label: String,
    links: &'a [Link<E>],
}

impl<'a, E: Engine> Stage<'a, E> {
    /// A part of a step, by the numbers of its links.
    fn of(input: &'a Input<E>, digests: &[Digest], part: Range<usize>) -> Self {
        let links = &input.links[part.clone()];
        let first = links.first().filter(|_| part.start > 0);
        let from = first.map(|link| format!(", from `{}` on", link.name())).unwrap_or_default();
        Self { digest: digests[part.end - 1], label: input.label.clone() + &from, links }
    }

    /// All files that are read, those that others include among them.
    fn files(&self) -> impl Iterator<Item = &SourceFile> {
        self.links.iter().flat_map(Link::files)
    }

    /// What is done, as the manifest tells it.
    fn steps(&self) -> Vec<String> {
        let step = |link: &Link<E>| match link {
            Link::File(run) => run.source.path.display().to_string(),
            link => link.name(),
        };
        self.links.iter().map(step).collect()
    }
}

/// Layers that this process uses. One lock a layer and process is enough; it lasts to the process's end.
static IN_USE: Mutex<Option<HashMap<Digest, Arc<Layer>>>> = Mutex::new(None);

/// Builds that failed in this process because of what they were told to build. Two hundred tests that share a migration
/// with a mistake need not run into it one after the other.
static REFUSED: Mutex<Option<HashMap<Digest, Error>>> = Mutex::new(None);

/// The layer of the recipe, and whether anything had to be built for it.
pub(crate) fn obtain<E: Engine>(recipe: &Recipe<'_, E>) -> Result<(Arc<Layer>, bool)> {
    let base = digest::base(recipe.engine, recipe.installation)?;
    let store = Store::open()?;
    let description = digest::description(base, recipe.settings, recipe.steps);
    if let Some(wanted) = lookup::recall(store.root(), description)
        && let Some(layer) = in_use(&store, wanted)?
    {
        return Ok((layer, false));
    }
    let began = SystemTime::now();
    let inputs = step::read(recipe.steps, recipe.engine)?;
    let chain = digest::chain(base, recipe.settings, &inputs);
    let wanted = chain.last().and_then(|digests| digests.last()).copied().unwrap_or(base);
    let watched = inputs.iter().flat_map(|input| input.watched.iter().cloned()).collect();
    lookup::note(store.root(), description, wanted, watched, began);
    if let Some(layer) = in_use(&store, wanted)? {
        return Ok((layer, false));
    }
    let (done, mut layer) = longest_prefix(&store, base, &chain)?;
    let mut built = false;
    if layer.is_none() {
        let stage = Stage { digest: base, label: "a fresh server".to_owned(), links: &[] };
        let (made, here) = ensure(&store, recipe, &stage, None)?;
        layer = Some(made);
        built |= here;
    }
    let links: Vec<_> = chain.iter().flatten().copied().collect();
    let edited = history::edited_after(store.root(), description, &links);
    let mut end = 0;
    for (input, digests) in inputs.iter().zip(&chain) {
        let begin = end;
        end += digests.len();
        // Where somebody is editing, a layer ends before it.
        let ends = [edited.filter(|edited| (begin + 1..end).contains(edited)), Some(end)];
        let mut from = done.max(begin);
        for to in ends.into_iter().flatten().filter(|to| *to > done) {
            let stage = Stage::of(input, digests, from - begin..to - begin);
            let (made, here) = ensure(&store, recipe, &stage, layer.as_deref())?;
            layer = Some(made);
            built |= here;
            from = to;
        }
    }
    history::note(store.root(), description, &links);
    let layer = layer.ok_or_else(|| Error::new(ErrorKind::Layer, "obtain a layer"))?;
    Ok((register(layer), built))
}

/// How many files of the chain the longest published prefix holds, and its layer.
fn longest_prefix(store: &Store, base: Digest, chain: &[Vec<Digest>]) -> Result<(usize, Option<Arc<Layer>>)> {
    let digests: Vec<_> = std::iter::once(base).chain(chain.iter().flatten().copied()).collect();
    for (count, digest) in digests.into_iter().enumerate().rev() {
        if let Some(layer) = in_use(store, digest)? {
            return Ok((count, Some(layer)));
        }
    }
    Ok((0, None))
}

fn in_use(store: &Store, digest: Digest) -> Result<Option<Arc<Layer>>> {
    let known = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(layer) = known.as_ref().and_then(|layers| layers.get(&digest)).filter(|layer| layer.exists())
    {
        return Ok(Some(layer.clone()));
    }
    drop(known);
    Ok(store.find(digest)?.map(|layer| register(Arc::new(layer))))
}

fn register(layer: Arc<Layer>) -> Arc<Layer> {
    let mut known = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_default().insert(layer.digest, layer.clone());
    layer
}

/// Builds a stage on its parent, unless somebody else does or did; `true` if it was built here.
fn ensure<E: Engine>(
    store: &Store,
    recipe: &Recipe<'_, E>,
    stage: &Stage<'_, E>,
    parent: Option<&Layer>,
) -> Result<(Arc<Layer>, bool)> {
    let deadline = Instant::now() + recipe.build_timeout;
    let mut waiting = None;
    let lock = store.lock(stage.digest, deadline, &mut |holder| {
        let text = || format!("waiting for {holder} to build {}", stage.label);
        waiting.get_or_insert_with(|| Progress::start(&text()));
    })?;
    drop(waiting);
    if let Some(layer) = in_use(store, stage.digest)? {
        return Ok((layer, false));
    }
    let refused = || REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = refused().as_ref().and_then(|errors| errors.get(&stage.digest)) {
        return Err(error.clone());
    }
    let staging = store.staging(stage.digest, &lock)?;
    let progress = Progress::start(&format!("building {}", stage.label));
    let begin = Instant::now();
    let manifest = fill(recipe, stage, parent, staging.path(), &progress).map_err(|error| {
        let error = full_store(error, staging.path());
        // Files name the content they failed with, so a corrected one is tried anew.
        if error.kind() == ErrorKind::InvalidConfig && !stage.links.is_empty() {
            refused().get_or_insert_default().insert(stage.digest, error.clone());
        }
        error
    })?;
    progress.step("storing");
    store.publish(staging, stage.digest, &manifest, &lock)?;
    tracing::info!(digest = %stage.digest, took = ?begin.elapsed(), "built {}", stage.label);
    let layer = store.find(stage.digest)?;
    // It is locked by now, and so is its parent.
    upkeep::prune_if_due(store);
    layer.map(|layer| (register(Arc::new(layer)), true)).ok_or_else(|| {
        Error::new(ErrorKind::Layer, format!("find the layer {} just built", stage.digest))
            .with_hint("something removes files from the cache directory while it is in use")
    })
}

/// Runs a stage's files on a copy of the parent's data, or initialises a fresh one.
fn fill<E: Engine>(
    recipe: &Recipe<'_, E>,
    stage: &Stage<'_, E>,
    parent: Option<&Layer>,
    staging: &Path,
    progress: &Progress,
) -> Result<Manifest> {
    let Recipe { engine, installation, .. } = *recipe;
    let data = match parent {
        None => {
            progress.step("initialising");
            make_data_directory(staging)?
        }
        Some(parent) => {
            progress.step("copying");
            let data = data_directory(staging);
            copy_tree(&parent.data(), &data, &mut || Ok(()))
                .map_err(|error| cache::failed("copy the layer to", &data, error))?;
            data
        }
    };
    let visible = stage.links.iter().flat_map(Link::visible).map(|file| file.path.clone()).collect();
    let sandbox = Arc::new(Sandbox::for_build(StartOptions {
        engine,
        installation,
        // A fresh server is the same for all, whatever settings the first to ask for it has.
        settings: if parent.is_none() { &[] } else { recipe.settings },
        start_timeout: recipe.start_timeout,
        limits: recipe.limits.for_builds(),
        data: Data::Writable { source: data.clone() },
        links: Vec::new(),
        initialise: parent.is_none(),
        visible,
    })?);
    run(&sandbox, recipe, stage, parent.is_none(), progress).map_err(|error| with_log(error, &sandbox))?;
    stop(&sandbox)?;

    if let Some(changed) = stage.files().find(|file| !file.is_unchanged()) {
        return Err(Error::new(ErrorKind::Layer, format!("build {}", stage.label))
            .caused_by(format!("`{}` changed while it was being run", changed.path.display()))
            .with_hint("run the tests again"));
    }
    let failed = |error| cache::failed("finish the layer in", &data, error);
    engine.tidy(&data).map_err(failed)?;
    let parent_digest = parent.map(|parent| parent.digest.to_string());
    let manifest = Manifest::of(&data, engine.name(), installation.version(), parent_digest, stage.steps())
        .map_err(failed)?;
    if let Some(parent) = parent {
        let listed = parent.manifest()?;
        let shared = parent.keeping_seal(|| manifest.share_with(&data, &listed, &parent.data()));
        let shared = shared.map_err(failed)?;
        tracing::debug!(shared, "bytes shared with the parent layer");
    }
    Ok(manifest)
}

fn run<E: Engine>(
    sandbox: &Arc<Sandbox<E>>,
    recipe: &Recipe<'_, E>,
    stage: &Stage<'_, E>,
    fresh: bool,
    progress: &Progress,
) -> Result<()> {
    if fresh && let Some(script) = recipe.engine.set_up() {
        run_script(sandbox, &script, recipe.build_timeout)?;
    }
    if !stage.links.is_empty() {
        progress.files(stage.links.len());
        load(sandbox, stage.links, recipe.build_timeout, &mut |index| {
            progress.file(index, &stage.links[index].name());
        })?;
    }
    if let Some(script) = recipe.engine.settle() {
        progress.step("settling");
        // The layer is valid without, and the user's steps have succeeded.
        if let Err(error) = run_script(sandbox, &script, recipe.build_timeout) {
            tracing::warn!(?error, "statistics and vacuuming of a layer are left to its servers");
        }
    }
    Ok(())
}

/// Stops the server, and makes sure that it has put everything into its files.
fn stop<E: Engine>(sandbox: &Sandbox<E>) -> Result<()> {
    let exit = sandbox.stop_server()?;
    if exit.success() {
        return sandbox.container().kill();
    }
    let error = Error::new(ErrorKind::Exited, format!("shut the server down cleanly: it ended with {exit}"));
    Err(error.with_log(sandbox.container().log().tail(LOG_TAIL).unwrap_or_default()))
}

/// A failing statement says what is wrong by itself; a server that died says it in its log.
fn with_log<E: Engine>(error: Error, sandbox: &Sandbox<E>) -> Error {
    let report = format!("{error:?}");
    // A server whose helper died ends all sessions and starts again; only its log tells why.
    let lost = report.contains("connection to server was lost") && !report.contains("administrator command");
    if lost || sandbox.container().server_exit(Duration::ZERO).is_some() {
        return error.with_log(sandbox.container().log().tail(LOG_TAIL).unwrap_or_default());
    }
    error
}

/// A build that failed for want of room says so in a dozen ways. The file system says it plainly, if those who failed have
/// not made room again by cleaning up.
fn full_store(error: Error, staging: &Path) -> Error {
    let full = rustix::fs::statvfs(staging).is_ok_and(|disk| {
        let no_bytes = disk.f_bavail * disk.f_frsize < 1 << 20;
        // Some file systems have no limit, which they tell as zero.
        let no_inodes = disk.f_files > 0 && disk.f_favail < 16;
        no_bytes || no_inodes
    });
    let report = format!("{error:?}");
    // The second is PostgreSQL's, of a page of which a part found room.
    let said = ["No space left on device", "Check free disk space"].iter().any(|text| report.contains(text));
    error.or_hint(|| (full || said).then(cache::full_hint))
}
