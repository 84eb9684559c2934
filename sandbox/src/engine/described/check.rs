//! The rules of a description that concern several of its parts.

use super::description::{Description, Password, SettingForm, Shares};
use super::server::{Cause, Inside, command_env};
use super::sign::Look;
use crate::engine::{Command, Mode};

/// A mistake, and a text by which its line is found.
pub(super) struct Mistake {
    #[cfg_attr(not(feature = "toml"), expect(dead_code, reason = "only a file has lines"))]
    pub(super) near: String,
    pub(super) cause: Cause,
}

impl Mistake {
    fn new(near: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self { near: near.into(), cause: cause.into() }
    }
}

impl Description {
    /// Returns the programs besides the server without which it does not start.
    pub(super) fn programs_of_server(&self) -> impl Iterator<Item = &str> {
        let initialise = self.initialise.as_ref().map(|line| &line.program);
        let ready = match &self.ready.look {
            Look::Command(line) => Some(&line.program),
            _ => None,
        };
        initialise.into_iter().chain(ready).map(String::as_str)
    }

    /// Returns all programs besides the server.
    pub(super) fn programs(&self) -> impl Iterator<Item = &str> {
        let seed = self.seed.as_ref().map(|seed| &seed.command.program);
        let password = self.tcp.as_ref().and_then(|tcp| match &tcp.password {
            Password::SetBy(line) => Some(&line.program),
            Password::Never(_) => None,
        });
        let first = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.client.as_ref());
        let first = first.map(|line| &line.program);
        self.programs_of_server().chain(seed.into_iter().chain(password).chain(first).map(String::as_str))
    }

    /// Checks that a server can be made of the description.
    pub(super) fn check(&self) -> Result<(), Mistake> {
        if let Some(mistake) = &self.mistake {
            return Err(Mistake::new("", mistake));
        }
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if self.name.is_empty() || !self.name.chars().all(is_plain) {
            return Err(Mistake::new(
                &self.name,
                format!("`name = \"{}\"` has other characters than a to z, 0 to 9, `-` and `_`", self.name),
            ));
        }
        if self.program.0.is_empty() {
            return Err(Mistake::new("program", "`program` names no program"));
        }
        if let Some(name) =
            ["postgres", "redis", "sqlite", "mariadb"].into_iter().find(|name| *name == self.name)
        {
            return Err(Mistake::new(
                name,
                format!("the name `{name}` belongs to an engine of this library"),
            ));
        }
        if self.url.is_none() && self.tcp.is_none() {
            return Err(Mistake::new(
                "",
                "clients find no server: write `url` for its Unix socket, or `[tcp]`",
            ));
        }
        if self
            .settings
            .as_ref()
            .is_some_and(|settings| matches!(&settings.way, SettingForm::Args(args) if args.is_empty()))
        {
            return Err(Mistake::new("", "settings have neither arguments nor a line of a file"));
        }
        if self.tcp.is_some() && self.port.is_none() {
            return Err(Mistake::new("[tcp]", "`tcp` needs the server's `port`"));
        }
        if let Some(name) = self.programs().find(|name| name.contains('/') && !name.starts_with('/')) {
            return Err(Mistake::new(name, format!("`{name}` is neither a name nor an absolute path")));
        }
        if let Some(Password::SetBy(line)) = self.tcp.as_ref().map(|tcp| &tcp.password)
            && !line.args.iter().any(|arg| arg.has("password"))
        {
            return Err(Mistake::new("password", "the command that sets the password has no `{password}`"));
        }
        if let Some(checkpoint) = &self.checkpoint {
            if checkpoint.shares == Shares::Values(String::new()) {
                let cause = "`shares` is empty: write `false`, or what resumed servers share";
                return Err(Mistake::new("shares", cause));
            }
            if checkpoint.client.is_none() && self.ready.is_only_reported() {
                let cause = "a server that only notifies needs a `client` before its checkpoint is taken";
                return Err(Mistake::new("checkpoint", cause));
            }
        }
        self.check_templates()
    }

    /// Checks that each placeholder has a value.
    fn check_templates(&self) -> Result<(), Mistake> {
        let values = Inside { file: Some(String::new()), password: Some(String::new()), ..Inside::of(self) };
        let nothing = || Command::new("/");
        let at = |near: &str, made: Result<Command, Cause>| {
            made.map(drop).map_err(|cause| Mistake::new(near, cause))
        };
        for word in self.args.iter().chain(self.env.values()) {
            at(word.text(), values.words(nothing(), std::slice::from_ref(word)))?;
        }
        if let Some(line) = &self.initialise {
            at("initialise", values.words(nothing(), &line.args))?;
        }
        if let Some(line) = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.client.as_ref()) {
            at("client", values.words(nothing(), &line.args))?;
        }
        if let Some(seed) = &self.seed {
            let by_name = seed.command.args.iter().any(|arg| arg.has("file"));
            if by_name && !(seed.before.is_empty() && seed.after.is_empty()) {
                let cause = "`before` and `after` stand around a standard input, which `{file}` replaces";
                return Err(Mistake::new("{file}", cause));
            }
            let command = values.words(nothing(), &seed.command.args);
            let command = command.and_then(|command| command_env(command, &seed.env, &values));
            at("[seed]", command)?;
            if seed
                .line
                .as_ref()
                .is_some_and(|line| line.matches("{line}").count() != 1 || line.starts_with('{'))
            {
                return Err(Mistake::new(
                    "line =",
                    "`line` is a text before `{line}`, and perhaps one after it",
                ));
            }
        }
        if let Some(tcp) = &self.tcp
            && let Password::SetBy(line) = &tcp.password
        {
            at("password", values.words(nothing(), &line.args))?;
        }
        for template in self.url.iter().chain(self.client_env.values()) {
            let filled = template.fill(&values, "/".as_ref());
            filled.map_err(|name| {
                Mistake::new(template.text(), format!("`{{{name}}}` in `{}` has no value", template.text()))
            })?;
        }
        let ready = self.server(nothing(), &[], Mode::Container, |_| Ok(nothing()));
        ready.map(drop).map_err(|cause| Mistake::new("ready", cause))
    }
}
