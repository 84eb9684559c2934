//! `sandboxed-db push` and `pull`: layers between the cache and a registry.

use std::error::Error;
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::Args;
use sandboxed_db::cache::{Layers, Transfer};

use super::{Format, print};

#[derive(Debug, Args)]
pub(super) struct TransferArguments {
    /// A repository of a registry, such as ghcr.io/team/test-layers; for one layer with the
    /// beginning of its digest, such as ghcr.io/team/test-layers:3fa94c.
    #[arg(value_name = "REF")]
    reference: String,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Direction {
    Push,
    Pull,
}

impl TransferArguments {
    /// Moves the layers. Returns 1 if one cannot be moved.
    pub(super) fn perform(&self, direction: Direction) -> Result<ExitCode, Box<dyn Error>> {
        let layers = Layers::open()?;
        let (done, verb) = match direction {
            Direction::Push => (layers.push(&self.reference)?, "pushed"),
            Direction::Pull => (layers.pull(&self.reference)?, "pulled"),
        };
        print(self.format, &done, || text(&done, verb))?;
        Ok(ExitCode::from(u8::from(done.iter().any(|transfer| transfer.problem.is_some()))))
    }
}

fn text(transfers: &[Transfer], verb: &str) -> String {
    if transfers.is_empty() {
        return "there are no layers\n".to_owned();
    }
    let line = |Transfer { digest, was_there, bytes, problem, .. }: &Transfer| {
        let digest = digest.get(..12).unwrap_or(digest);
        match problem {
            Some(problem) => format!("{digest} is not {verb}: {problem}\n"),
            None if *was_there => format!("{digest} was there\n"),
            None => format!("{digest} {verb}, {}\n", ByteSize(*bytes)),
        }
    };
    transfers.iter().map(line).collect()
}
