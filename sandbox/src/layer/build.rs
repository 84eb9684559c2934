//! From a recipe to a layer: the longest prefix of its chain that is published, and a build for
//! each stage beyond it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::digest::{self, Digest};
use super::manifest::{self, Manifest};
use super::published::Layer;
use super::store::{Store, create_data_directory, data_directory};
use super::{history, lookup, registry, run, upkeep};
use crate::cache::{self, LockFile, copy_tree};
use crate::diagnosis::check_file_size;
use crate::engine::{Engine, Installation};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Limits;
use crate::progress::Progress;
use crate::sandbox::{DataSource, LOG_TAIL, Sandbox, StartOptions, run_task};
use crate::step::{self, Input, Link, SourceFile, Step, load};

/// The description of a layer.
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
    /// Layers with older steps are rebuilt.
    pub(crate) max_age: Option<Duration>,
}

/// A part of the chain that is built and published at once.
enum Stage<'a, E: Engine> {
    /// A freshly initialised server, the same for all settings and steps.
    Base,
    /// Links that run on a copy of the parent's data.
    Links { label: String, links: &'a [Link<E>], parent: Arc<Layer> },
}

impl<'a, E: Engine> Stage<'a, E> {
    /// A part of a step, by the indices of its links.
    fn of(input: &'a Input<E>, part: Range<usize>, parent: Arc<Layer>) -> Self {
        let links = &input.links[part.clone()];
        let first = links.first().filter(|_| part.start > 0);
        let from = first.map(|link| format!(", from `{}` on", link.name())).unwrap_or_default();
        Self::Links { label: input.label.clone() + &from, links, parent }
    }

    fn label(&self) -> &str {
        match self {
            Self::Base => "a fresh server",
            Self::Links { label, .. } => label,
        }
    }

    fn links(&self) -> &'a [Link<E>] {
        match self {
            Self::Base => &[],
            Self::Links { links, .. } => links,
        }
    }

    fn parent(&self) -> Option<&Arc<Layer>> {
        match self {
            Self::Base => None,
            Self::Links { parent, .. } => Some(parent),
        }
    }

    /// All files that are read, included ones among them.
    fn files(&self) -> impl Iterator<Item = &SourceFile> {
        self.links().iter().flat_map(Link::files)
    }

    /// The names of its links, for the manifest.
    fn steps(&self) -> Vec<String> {
        let step = |link: &Link<E>| match link {
            Link::File(run, _) => run.source.path.display().to_string(),
            link => link.name(),
        };
        self.links().iter().map(step).collect()
    }
}

/// The layers that this process uses, each locked once, until the process ends.
static IN_USE: Mutex<Option<HashMap<Digest, Arc<Layer>>>> = Mutex::new(None);

/// Builds that failed in this process because of their description. Two hundred tests that share a
/// migration with a mistake need not run it one after the other.
static REFUSED: Mutex<Option<HashMap<Digest, Error>>> = Mutex::new(None);

/// Returns the layer of the recipe, and whether a build was needed for it.
pub(crate) fn obtain<E: Engine>(recipe: &Recipe<'_, E>) -> Result<(Arc<Layer>, bool)> {
    let base = digest::base(recipe.engine, recipe.installation)?;
    let store = Store::open(recipe.max_age)?;
    let description = digest::description(base, recipe.settings, recipe.steps);
    if let Some(wanted) = lookup::recall(store.cache(), description)
        && let Some(layer) = in_use(&store, wanted)?
    {
        return Ok((layer, false));
    }
    let began = SystemTime::now();
    let inputs = step::read(recipe.steps, recipe.engine)?;
    let chain = digest::chain(base, recipe.settings, &inputs);
    let wanted = chain.last().and_then(|digests| digests.last()).copied().unwrap_or(base);
    let watched = inputs.iter().flat_map(|input| input.watched.iter().cloned()).collect();
    lookup::note(store.cache(), description, wanted, watched, began);
    if let Some(layer) = in_use(&store, wanted)? {
        return Ok((layer, false));
    }
    let links: Vec<_> = chain.iter().flatten().copied().collect();
    let (done, found) = match longest_prefix(&store, base, &chain)? {
        published if registry::is_used() => pulled_prefix(&store, recipe, &chain, published)?,
        published => published,
    };
    let (mut layer, mut built) = match found {
        Some(layer) => (layer, false),
        None => ensure(&store, recipe, base, &Stage::Base)?,
    };
    let edited = history::edited_after(store.cache(), description, &links);
    let mut end = 0;
    for (input, digests) in inputs.iter().zip(&chain) {
        let begin = end;
        end += digests.len();
        // A layer ends before the link that is being edited.
        let ends = [edited.filter(|edited| (begin + 1..end).contains(edited)), Some(end)];
        let mut from = done.max(begin);
        for to in ends.into_iter().flatten().filter(|to| *to > done) {
            let stage = Stage::of(input, from - begin..to - begin, layer);
            let (made, here) = ensure(&store, recipe, links[to - 1], &stage)?;
            layer = made;
            built |= here;
            from = to;
        }
    }
    history::note(store.cache(), description, &links);
    Ok((register(layer), built))
}

/// Returns the name of the recipe's layer, which need not exist.
pub(crate) fn name<E: Engine>(recipe: &Recipe<'_, E>) -> Result<String> {
    let base = digest::base(recipe.engine, recipe.installation)?;
    let inputs = step::read(recipe.steps, recipe.engine)?;
    let chain = digest::chain(base, recipe.settings, &inputs);
    Ok(chain.last().and_then(|digests| digests.last()).unwrap_or(&base).to_string())
}

/// The number of links in the longest published prefix of the chain, and its layer.
fn longest_prefix(store: &Store, base: Digest, chain: &[Vec<Digest>]) -> Result<(usize, Option<Arc<Layer>>)> {
    let digests: Vec<_> = std::iter::once(base).chain(chain.iter().flatten().copied()).collect();
    for (count, digest) in digests.into_iter().enumerate().rev() {
        if let Some(layer) = in_use(store, digest)? {
            return Ok((count, Some(layer)));
        }
    }
    Ok((0, None))
}

/// How many links at the end of a chain are looked for in a registry, beside the ends of its steps:
/// a branch appends a few migrations to those whose layer is there.
const NEAREST: usize = 8;

/// Pulls the layer of a prefix that is longer than the published one, if the registry has one.
fn pulled_prefix<E: Engine>(
    store: &Store,
    recipe: &Recipe<'_, E>,
    chain: &[Vec<Digest>],
    published: (usize, Option<Arc<Layer>>),
) -> Result<(usize, Option<Arc<Layer>>)> {
    let links: Vec<_> = chain.iter().flatten().collect();
    let ends = chain.iter().scan(0, |end, step| {
        *end += step.len();
        Some(*end)
    });
    let ends: Vec<_> = ends.collect();
    let is_likely = |count: &usize| ends.contains(count) || count + NEAREST > links.len();
    for count in (published.0 + 1..=links.len()).rev().filter(is_likely) {
        let digest = *links[count - 1];
        let Some(found) = registry::look(store, digest) else { continue };
        let (_lock, layer) = lock_build(store, recipe, digest, "prepare the layer")?;
        let layer = match layer {
            Some(layer) => Some(layer),
            None => found.pull(store).map(|layer| register(Arc::new(layer))),
        };
        if layer.is_some() {
            return Ok((count, layer));
        }
    }
    Ok(published)
}

/// Waits until no other process builds a layer, which may then be there.
fn lock_build<E: Engine>(
    store: &Store,
    recipe: &Recipe<'_, E>,
    digest: Digest,
    work: &str,
) -> Result<(LockFile, Option<Arc<Layer>>)> {
    let deadline = Instant::now() + recipe.build_timeout;
    let mut waiting = None;
    let lock = store.lock_build(digest, deadline, &mut |holder| {
        waiting.get_or_insert_with(|| Progress::start(&format!("waiting for {holder} to {work}")));
    })?;
    drop(waiting);
    Ok((lock, in_use(store, digest)?))
}

fn in_use(store: &Store, digest: Digest) -> Result<Option<Arc<Layer>>> {
    let known = registered(|layers| layers.get(&digest).cloned());
    if let Some(layer) = known.filter(|layer| layer.exists() && store.accepts(layer)) {
        return Ok(Some(layer));
    }
    Ok(store.find(digest)?.map(|layer| register(Arc::new(layer))))
}

fn register(layer: Arc<Layer>) -> Arc<Layer> {
    registered(|layers| layers.insert(layer.digest(), layer.clone()));
    layer
}

fn registered<T>(work: impl FnOnce(&mut HashMap<Digest, Arc<Layer>>) -> T) -> T {
    work(IN_USE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// Builds a stage, unless another process or thread does or did; `true` if it was built here.
fn ensure<E: Engine>(
    store: &Store,
    recipe: &Recipe<'_, E>,
    digest: Digest,
    stage: &Stage<'_, E>,
) -> Result<(Arc<Layer>, bool)> {
    let label = stage.label();
    let (lock, layer) = lock_build(store, recipe, digest, &format!("build {label}"))?;
    if let Some(layer) = layer {
        return Ok((layer, false));
    }
    let refused = || REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = refused().as_ref().and_then(|errors| errors.get(&digest)) {
        return Err(error.clone());
    }
    if let Some(layer) = registry::look(store, digest).and_then(|found| found.pull(store)) {
        return Ok((register(Arc::new(layer)), false));
    }
    check_file_size(&format!("build {label}"))?;
    let staged = store.stage(digest)?;
    let progress = Progress::start(&format!("building {label}"));
    let begin = Instant::now();
    let manifest = fill(recipe, digest, stage, staged.path(), &progress).map_err(|error| {
        let error = with_cause_in_cache(error, staged.path());
        // A digest covers the content that failed, so a corrected file is tried again.
        if error.kind() == ErrorKind::InvalidConfig && !stage.links().is_empty() {
            refused().get_or_insert_default().insert(digest, error.clone());
        }
        error
    })?;
    progress.step("storing");
    let layer = register(Arc::new(store.publish(staged, digest, &manifest)?));
    tracing::info!(%digest, took = ?begin.elapsed(), "built {label}");
    drop((progress, lock));
    registry::push(store, &layer);
    // The layer is locked by now, and so is its parent.
    upkeep::prune_if_due(store.cache());
    Ok((layer, true))
}

/// Runs a stage's links on a copy of the parent's data, or initialises a fresh server.
fn fill<E: Engine>(
    recipe: &Recipe<'_, E>,
    digest: Digest,
    stage: &Stage<'_, E>,
    staging: &Path,
    progress: &Progress,
) -> Result<Manifest> {
    let Recipe { engine, installation, .. } = *recipe;
    let began = SystemTime::now();
    let data = data_directory(staging);
    let (settings, source) = match stage {
        Stage::Base => {
            progress.step("initialising");
            create_data_directory(&data)?;
            ([].as_slice(), DataSource::Empty { data: data.clone() })
        }
        Stage::Links { parent, links, .. } => {
            progress.step("copying");
            copy_tree(&parent.data(), &data, &mut || Ok(()))
                .map_err(|error| cache::failed("copy the layer to", &data, error))?;
            let visible = links.iter().flat_map(Link::visible).map(|file| file.path.clone()).collect();
            (recipe.settings, DataSource::Copy { data: data.clone(), visible })
        }
    };
    let sandbox = Arc::new(Sandbox::for_build(StartOptions {
        engine,
        installation,
        settings,
        start_timeout: recipe.start_timeout,
        limits: recipe.limits.for_builds(),
        tls: false,
        source,
    })?);
    run_stage(&sandbox, recipe, stage, progress).map_err(|error| with_log(error, &sandbox))?;
    stop(&sandbox)?;

    if let Some(changed) = stage.files().find(|file| !file.is_unchanged()) {
        return Err(Error::new(ErrorKind::Layer, format!("build {}", stage.label()))
            .caused_by(format!("`{}` changed while it was being run", changed.path.display()))
            .with_hint("run the tests again"));
    }
    let failed = |error| cache::failed("finish the layer in", &data, error);
    engine.tidy(&data).map_err(|error| {
        failed(error).with_log(sandbox.container().log().tail(LOG_TAIL).unwrap_or_default())
    })?;
    let parent = stage.parent();
    let manifest = Manifest {
        digest: digest.to_string(),
        engine: engine.name().to_owned(),
        version: installation.version().to_owned(),
        parent: parent.map(|parent| parent.digest().to_string()),
        steps: stage.steps(),
        oldest_step: parent.map(|parent| parent.oldest_step().unwrap_or(began)),
        run: run::id().to_owned(),
        pipeline: run::pipeline().map(str::to_owned),
        origin: None,
        entries: manifest::entries(&data).map_err(failed)?,
    };
    if let Some(parent) = parent {
        let listed = parent.manifest()?;
        let shared = parent.keeping_seal(|| manifest.share_with(&data, &listed, &parent.data()));
        let shared = shared.map_err(failed)?;
        tracing::debug!(shared, "bytes shared with the parent layer");
    }
    Ok(manifest)
}

fn run_stage<E: Engine>(
    sandbox: &Arc<Sandbox<E>>,
    recipe: &Recipe<'_, E>,
    stage: &Stage<'_, E>,
    progress: &Progress,
) -> Result<()> {
    match stage {
        Stage::Base => {
            if let Some(task) = recipe.engine.set_up(recipe.installation)?
                && let Some(message) = run_task(sandbox.container(), &task, recipe.build_timeout)?
            {
                return Err(Error::new(ErrorKind::Layer, "set up a fresh server").caused_by(message));
            }
        }
        Stage::Links { links, .. } => {
            progress.files(links.len());
            load(sandbox, links, recipe.build_timeout, &mut |index| {
                progress.file(index, &links[index].name());
            })?;
        }
    }
    if let Some(task) = recipe.engine.settle(recipe.installation)? {
        progress.step("settling");
        // The layer is valid without, and the user's steps have succeeded.
        match run_task(sandbox.container(), &task, recipe.build_timeout) {
            Ok(None) => {}
            Ok(Some(message)) => tracing::warn!(message, "work at the end of a layer is left to its servers"),
            Err(error) => tracing::warn!(?error, "work at the end of a layer is left to its servers"),
        }
    }
    Ok(())
}

/// Stops the server cleanly, so that all its data is in its files.
fn stop<E: Engine>(sandbox: &Sandbox<E>) -> Result<()> {
    let exit = sandbox.stop_server()?;
    if sandbox.prepared().stop().is_clean(exit) {
        return sandbox.container().kill();
    }
    let error = Error::new(ErrorKind::Exited, format!("shut the server down cleanly: it ended with {exit}"))
        .caused_by("that is no clean end of this engine (`Server::clean_status`, `Server::clean_signal`)");
    Err(error.with_log(sandbox.container().log().tail(LOG_TAIL).unwrap_or_default()))
}

/// Adds the log of a server that died. A failing statement explains itself.
fn with_log<E: Engine>(error: Error, sandbox: &Sandbox<E>) -> Error {
    let report = format!("{error:?}");
    // A server with a dead child ends all sessions and starts again; only its log has the cause.
    let lost = report.contains("connection to server was lost") && !report.contains("administrator command");
    if lost || sandbox.container().server_exit(Duration::ZERO).is_some() {
        return error.with_log(sandbox.container().log().tail(LOG_TAIL).unwrap_or_default());
    }
    error
}

/// Adds the fix where the cache was removed or is full, which programs report in a dozen forms. The
/// file system is asked too, which helps unless a failed program has removed its files.
fn with_cause_in_cache(error: Error, staging: &Path) -> Error {
    if !staging.exists() {
        return error.with_fix(cache::removed());
    }
    let full = rustix::fs::statvfs(staging).is_ok_and(|disk| {
        let no_bytes = disk.f_bavail * disk.f_frsize < 1 << 20;
        // Some file systems have no limit and report zero.
        let no_inodes = disk.f_files > 0 && disk.f_favail < 16;
        no_bytes || no_inodes
    });
    let report = format!("{error:?}");
    // The second is PostgreSQL's, for a page that was written in part.
    let said = ["No space left on device", "Check free disk space"].iter().any(|text| report.contains(text));
    if (full || said) && error.hint().is_none() { error.with_fix(cache::full()) } else { error }
}
