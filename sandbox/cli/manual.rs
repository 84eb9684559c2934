//! Completion scripts and manual pages, made from the options.

use std::fs;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

use super::failure::Failure;

/// Returns the completion script of a shell.
pub(super) fn completions(shell: Shell, command: &mut Command) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "sandboxed-db", &mut script);
    script
}

/// Returns the manual page of the program, in roff.
pub(super) fn page(command: Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| Failure::new("write the manual page").because(error))?;
    Ok(page)
}

/// Writes the manual pages of the program and of its commands: `sandboxed-db.1`,
/// `sandboxed-db-run.1` and so on.
pub(super) fn pages(command: Command, directory: &Path) -> Result<(), Failure> {
    let written = fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory));
    written.map_err(|error| {
        Failure::new(format!("write manual pages to `{}`", directory.display())).because(error)
    })
}
