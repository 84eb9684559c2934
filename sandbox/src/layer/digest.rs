//! The digest chain, which names layers. Pure.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::{Command, Engine, Format, Installation, Mode};
use crate::error::Result;
use crate::step::{FileStep, Input, Link, Step};

/// Changes when layers of an older form must not be used any more.
const FORMAT: u32 = 5;

/// The name of a layer: the hash of everything that led to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Digest(blake3::Hash);

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = blake3::HexError;

    fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.to_hex().as_str())
    }
}

impl std::str::FromStr for Digest {
    type Err = blake3::HexError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        blake3::Hash::from_hex(text).map(Self)
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

    fn path(self, path: &Path) -> Self {
        self.field(path.as_os_str().as_encoded_bytes())
    }

    fn finish(self) -> Digest {
        Digest(self.0.finalize())
    }
}

/// The digest of a freshly initialised server: over its build, and over everything that this
/// library runs on it.
pub(super) fn base(engine: &impl Engine, installation: &Installation) -> Result<Digest> {
    let mut hasher = Hasher::new("base")
        .field(FORMAT.to_le_bytes())
        .field(engine.name())
        .field(installation.version())
        .field(installation.build());
    for (name, value) in engine.identity(installation) {
        hasher = hasher.field(name).field(value);
    }
    let server = engine.server(installation, &[], Mode::Container)?;
    let tasks = [engine.set_up(installation)?, engine.settle(installation)?];
    let commands = [engine.initialise(installation), Some(server.command)].into_iter();
    let commands = commands.chain(tasks.iter().map(|task| task.as_ref().map(|task| task.command.clone())));
    for command in commands {
        hasher = command_line(hasher.field("command"), command.as_ref());
    }
    for (path, contents) in server.files {
        hasher = hasher.path(path.as_path()).field(contents);
    }
    for task in tasks {
        hasher = hasher.field(task.map(|task| task.input).unwrap_or_default());
    }
    Ok(hasher.finish())
}

/// Adds a command: its words, and the name of its program, which may lie elsewhere on another
/// machine.
fn command_line(hasher: Hasher, command: Option<&Command>) -> Hasher {
    let Some(command) = command else { return hasher };
    command.words().iter().fold(hasher.field(command.name()), Hasher::field)
}

/// The digests after each link of each step, in order, as one list a step.
///
/// The server's settings come before the first step, since the effect of a statement may depend on
/// them.
pub(super) fn chain<E: Engine>(
    base: Digest,
    settings: &[(String, String)],
    inputs: &[Input<E>],
) -> Vec<Vec<Digest>> {
    let hasher = Hasher::new("settings").field(base.0.as_bytes());
    let mut last =
        settings.iter().fold(hasher, |hasher, (name, value)| hasher.field(name).field(value)).finish();
    let mut next = |link: &Link<E>| {
        last = after(last, link);
        last
    };
    inputs.iter().map(|input| input.links.iter().map(&mut next).collect()).collect()
}

fn after<E: Engine>(last: Digest, link: &Link<E>) -> Digest {
    let hasher = |kind| Hasher::new(kind).field(last.0.as_bytes());
    let hasher = match link {
        Link::File(run, _) => {
            let files = run.source.all().into_iter();
            let hasher = hasher("file").field(&run.name);
            execution(
                files.fold(hasher, |hasher, file| hasher.field(&file.called).field(file.hash.as_bytes())),
                run,
            )
        }
        Link::Inputs(files) => {
            let hasher = hasher("inputs");
            files.iter().fold(hasher, |hasher, (path, file)| hasher.path(path).field(file.hash.as_bytes()))
        }
        Link::Program(command) => {
            [&command.program].into_iter().chain(&command.args).fold(hasher(command.kind()), Hasher::field)
        }
        Link::Code(code) => hasher("code").field(&code.key),
    };
    hasher.finish()
}

/// Adds how a file runs. The defaults add nothing; no name of a field is as long as a hash.
fn execution(hasher: Hasher, file: &FileStep) -> Hasher {
    let FileStep { name: _, source: _, format, streamed: _, requests, transaction, before, after } = file;
    let hasher = match format {
        Format::Sql => hasher,
        Format::Archive => hasher.field("archive"),
        // The columns are in the file, and the table is in the file's name.
        Format::Csv { .. } => hasher.field("csv"),
    };
    let hasher = if *transaction { hasher.field("transaction") } else { hasher };
    let requests = requests.iter().flatten().map(|request| ("request", &request.text));
    let sql = [("before", before), ("after", after)];
    let sql = sql.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?)));
    requests.chain(sql).fold(hasher, |hasher, (name, text)| {
        hasher.field(name).field(blake3::hash(text.as_bytes()).as_bytes())
    })
}

/// Names a description, whatever its files hold: the paths that are read, and the version of this
/// library.
pub(super) fn description<E: Engine>(
    base: Digest,
    settings: &[(String, String)],
    steps: &[Step<E>],
) -> Digest {
    let hasher = Hasher::new("description").field(base.0.as_bytes()).field(env!("CARGO_PKG_VERSION"));
    let hasher = settings.iter().fold(hasher, |hasher, (name, value)| hasher.field(name).field(value));
    let hasher = steps.iter().fold(hasher, |hasher, step| match step {
        Step::Migrations(directory, tool, _) => {
            hasher.field("migrations").path(&directory.path()).field(format!("{tool:?}"))
        }
        Step::Seed(file, _) => hasher.field("seed").path(&file.path()),
        Step::Inputs(paths) => {
            paths.iter().fold(hasher.field("inputs"), |hasher, path| hasher.path(&path.path()))
        }
        Step::Program(command) => {
            command.args.iter().fold(hasher.field(command.kind()).field(&command.program), Hasher::field)
        }
        Step::Code(code) => hasher.field("code").field(&code.key),
    });
    hasher.finish()
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
