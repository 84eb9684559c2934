//! The digest chain: what a layer's name depends on. Pure.

use crate::engine::{Engine, Installation};
use crate::error::Result;
use crate::step::{Input, Run};

/// Changes when layers of an older form must not be used any more.
pub(super) const FORMAT: u32 = 1;

/// The name of a layer: the hash of everything that led to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest(blake3::Hash);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.to_hex().as_str())
    }
}

/// A hash over fields that cannot run into each other.
struct Hasher(blake3::Hasher);

impl Hasher {
    fn new(kind: &str) -> Self {
        Self(blake3::Hasher::new()).field("sandboxed-db").field(kind)
    }

    fn field(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.0.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        self
    }

    fn finish(self) -> Digest {
        Digest(self.0.finalize())
    }
}

/// The digest of a freshly initialised server: over its build, and over all that this library has it do.
pub(super) fn base(engine: &impl Engine, installation: &Installation) -> Result<Digest> {
    let mut hasher = Hasher::new("base")
        .field(FORMAT.to_le_bytes())
        .field(engine.name())
        .field(installation.version())
        .field(installation.build());
    for (name, value) in engine.identity() {
        hasher = hasher.field(name).field(value);
    }
    let initialise = engine.initialise(installation);
    for text in initialise.args.iter().chain(initialise.env.iter().flat_map(|(name, value)| [name, value])) {
        hasher = hasher.field(text);
    }
    for (_, contents) in engine.server(installation, &[])?.files {
        hasher = hasher.field(contents);
    }
    for script in [engine.set_up(), engine.settle()] {
        hasher = hasher.field(script.unwrap_or_default());
    }
    Ok(hasher.finish())
}

/// The digests after each file of each step, in order, as one list a step.
///
/// The server's settings come before the first step, since what a statement does may depend on them.
pub(super) fn chain(base: Digest, settings: &[(String, String)], inputs: &[Input]) -> Vec<Vec<Digest>> {
    let hasher = Hasher::new("settings").field(base.0.as_bytes());
    let mut last =
        settings.iter().fold(hasher, |hasher, (name, value)| hasher.field(name).field(value)).finish();
    let mut link = |run: &Run| {
        let hasher = Hasher::new("file").field(last.0.as_bytes()).field(&run.name);
        let files = run.source.all().into_iter();
        let hasher = files.fold(hasher, |hasher, file| hasher.field(file.hash.as_bytes()));
        last = manner(hasher, run).finish();
        last
    };
    inputs.iter().map(|input| input.runs.iter().map(&mut link).collect()).collect()
}

/// How a file is run. What is usual adds nothing; no name of a field is as long as a hash.
fn manner(hasher: Hasher, run: &Run) -> Hasher {
    let Run { name: _, source: _, part, transaction, before, after } = run;
    let hasher = if *transaction { hasher.field("transaction") } else { hasher };
    [("part", part), ("before", before), ("after", after)].into_iter().fold(hasher, |hasher, (name, text)| {
        match text {
            Some(text) => hasher.field(name).field(blake3::hash(text.as_bytes()).as_bytes()),
            None => hasher,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let digest = |fields: &[&str]| {
            fields.iter().fold(Hasher::new("t"), |hasher, field| hasher.field(field)).finish()
        };
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_ne!(digest(&["ab"]), digest(&["ab", ""]));
        assert_eq!(digest(&["ab", "c"]), digest(&["ab", "c"]));
    }
}
