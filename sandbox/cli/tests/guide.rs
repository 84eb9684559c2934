//! The chapter of the guide on the command line names all commands and options of the program, and
//! no others.

use std::collections::BTreeSet;

use super::{PROGRAM, text};

const CHAPTER: &str = include_str!("../../src/guide/command_line.md");

/// Options that every command has.
const COMMON: [&str; 2] = ["--json", "--help"];

fn help(args: &[&str]) -> String {
    let output = std::process::Command::new(PROGRAM).args(args).arg("--help").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout).to_owned()
}

/// The commands in the help of the program.
fn commands() -> BTreeSet<String> {
    let help = help(&[]);
    let list = help.split_once("Commands:\n").unwrap().1;
    let names = list.lines().take_while(|line| !line.is_empty());
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The long options at the begin of a line: of help, or of a row.
fn options(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| line.trim_start_matches(['|', '`', ' ']));
    let lines = lines.map(|line| match line.split_once(", ") {
        Some((short, long)) if short.len() == 2 && short.starts_with('-') => long,
        _ => line,
    });
    let options = lines.filter(|line| line.strip_prefix("--").is_some_and(|name| !name.starts_with('-')));
    let options = options.map(|line| line.split([' ', '`', '=']).next().unwrap_or_default().to_owned());
    options.filter(|option| !COMMON.contains(&option.as_str())).collect()
}

/// The part of the chapter below a heading.
fn section(heading: &str) -> &'static str {
    let Some((_, rest)) = CHAPTER.split_once(&format!("\n# {heading}\n")) else { return "" };
    rest.split("\n# ").next().unwrap_or_default()
}

#[test]
fn the_guide_names_all_commands() {
    let rows = CHAPTER.lines().filter_map(|line| line.strip_prefix("| `sandboxed-db "));
    let rows = rows.filter_map(|row| row.split([' ', '`']).next()).map(str::to_owned);
    assert_eq!(rows.collect::<BTreeSet<_>>(), commands());
}

#[test]
fn the_guide_names_all_options() {
    for command in commands() {
        assert_eq!(options(section(&command)), options(&help(&[&command])), "of {command}");
    }
}
