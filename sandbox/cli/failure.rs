//! The errors of the program, and how they are printed.

use std::error::Error;
use std::fmt;

use clap::Command;

/// An error of the program itself, printed as the library prints its errors.
#[derive(Debug)]
pub(super) struct Failure {
    /// The operation and its object.
    step: String,
    cause: Option<Box<dyn Error>>,
    hint: Option<String>,
}

impl Failure {
    pub(super) fn new(step: impl Into<String>) -> Self {
        Self { step: step.into(), cause: None, hint: None }
    }

    pub(super) fn because(self, cause: impl Into<Box<dyn Error>>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}", self.step)?;
        if let Some(cause) = &self.cause {
            write!(f, "\n  cause: {cause}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Renders an error with its causes and its hint. A hint of the library names methods, which become
/// the options of the subcommand.
pub(super) fn render(error: &(dyn Error + 'static), subcommand: &Command) -> String {
    let Some(error) = error.downcast_ref::<sandboxed_db::Error>() else { return error.to_string() };
    let mut text = format!("{error:?}");
    // A refused value is named by its method.
    if error.step().starts_with("set `") {
        text = text.replacen(error.step(), &with_options(error.step(), subcommand), 1);
    }
    let Some(hint) = error.hint() else { return text };
    let indented = |hint: &str| hint.replace('\n', "\n        ");
    text.replacen(&indented(hint), &indented(&with_options(hint, subcommand)), 1)
}

/// Replaces each method in backticks, with or without arguments, by the option of that name.
fn with_options(hint: &str, subcommand: &Command) -> String {
    // A path may have the name of a method.
    if hint.contains("` is relative to `") {
        return hint.to_owned();
    }
    replace_calls(hint, |code| option(&Call::parse(code), subcommand))
}

/// Replaces code in backticks where there is a replacement. An option in parentheses behind it is
/// dropped.
pub(super) fn replace_calls(hint: &str, replacement: impl Fn(&str) -> Option<String>) -> String {
    let parts = hint.split('`').enumerate();
    let parts = parts.map(|(number, part)| {
        let code = number % 2 == 1;
        code.then(|| replacement(part)).flatten().unwrap_or_else(|| part.to_owned())
    });
    let mut hint = parts.collect::<Vec<_>>().join("`");
    while let Some(begin) = hint.find("` (`--")
        && let Some(length) = hint[begin..].find("`)")
    {
        hint.replace_range(begin + 1..begin + length + 2, "");
    }
    hint
}

/// A method of the library as hints write it, and its arguments.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    pub(super) arguments: Vec<String>,
}

impl<'a> Call<'a> {
    pub(super) fn parse(code: &'a str) -> Self {
        let code =
            code.trim_start_matches("Snapshot::").trim_start_matches("Postgres::").trim_start_matches('.');
        match code.strip_suffix(')').and_then(|code| code.split_once('(')) {
            Some((method, arguments)) => Self { method, arguments: values(arguments) },
            None => Self { method: code, arguments: Vec::new() },
        }
    }
}

/// Returns `golang-migrate` for `GolangMigrate`.
pub(super) fn kebab(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('-');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

/// Returns the option for a method: `--prepare 'goose up'` for `run("goose", "up")`. `None` if the
/// subcommand lacks it.
fn option(Call { method, arguments }: &Call<'_>, subcommand: &Command) -> Option<String> {
    let quoted = |value: String| match value.contains([' ', '$', '"', '*', ';']) {
        true => format!("'{value}'"),
        false => value,
    };
    let long = |id: &str, value: String| {
        let name = subcommand.get_arguments().find(|argument| argument.get_id() == id)?.get_long()?;
        Some(if value.is_empty() { format!("--{name}") } else { format!("--{name} {}", quoted(value)) })
    };
    let tool = |name: &str| long("tool", kebab(name.trim_start_matches("MigrationTool::")));
    match (*method, &**arguments) {
        ("migrations_of", []) => tool(""),
        ("migrations_of", [name, rest @ ..]) => {
            Some(format!("{} {}", long("migrations", rest.join(" "))?, tool(name)?))
        }
        ("setting" | "settings", values) => long("setting", values.join("=").replace(" = ", "=")),
        (name, []) if name.starts_with("MigrationTool::") => tool(name),
        (method, values) => long(method, values.join(" ")),
    }
}

/// Splits the arguments of a call, and removes quotation marks and brackets.
fn values(arguments: &str) -> Vec<String> {
    let (mut values, mut is_quoted) = (vec![String::new()], false);
    for character in arguments.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => values.push(String::new()),
            '[' | ']' if !is_quoted => {}
            _ => values.last_mut().expect("there is a first value").push(character),
        }
    }
    values.into_iter().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use clap::{Args, CommandFactory};

    use super::*;
    use crate::Arguments;
    use crate::run::RunArguments;

    #[test]
    fn hints_name_options() {
        let run = RunArguments::augment_args(Command::new("run"));
        for (hint, expected) in [
            ("raise `build_timeout`", "raise `--build-timeout`"),
            (
                "use `run(\"goose\", \"up\")` or `.run(\"dbmate\", [\"up\"])`",
                "use `--prepare 'goose up'` or `--prepare 'dbmate up'`",
            ),
            (
                "name it: `Snapshot::migrations_of(MigrationTool::…, directory)`",
                "name it: `--migrations directory --tool …`",
            ),
            ("`migrations_of(GolangMigrate, \"db\")`", "`--migrations db --tool golang-migrate`"),
            (
                "`setting(\"work_mem\", \"5MB\")`, `settings(work_mem = 5)`",
                "`--setting work_mem=5MB`, `--setting work_mem=5`",
            ),
            ("`.depends_on([\"a\"])` and `Postgres::initdb_arg`", "`--depends-on a` and `--initdb-arg`"),
            ("`MigrationTool::GolangMigrate` (`--tool golang-migrate`)", "`--tool golang-migrate`"),
            (
                "by `.migrations(\"a b\")` (`--migrations 'a b'`), or `Snapshot::run` (`--prepare`)",
                "by `--migrations 'a b'`, or `--prepare`",
            ),
            ("`Snapshot::package(\"postgresql-15-cron\")`", "`--package postgresql-15-cron`"),
            ("build_timeout in `/tmp/seed`, `$x`", "build_timeout in `/tmp/seed`, `$x`"),
        ] {
            assert_eq!(with_options(hint, &run), expected);
        }
    }

    #[test]
    fn a_subcommand_without_the_option_keeps_the_hint() {
        let command = Arguments::command();
        let open = command.find_subcommand("open").unwrap();
        assert_eq!(with_options("raise `build_timeout`", open), "raise `build_timeout`");
    }

    #[test]
    fn a_failure_has_a_cause_and_a_hint() {
        let failure = Failure::new("run `x`").because("it is missing").hint("install it");
        assert_eq!(failure.to_string(), "could not run `x`\n  cause: it is missing\n  hint: install it");
    }
}
