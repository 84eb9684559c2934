//! From a description to the commands of a server.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use super::description::{Description, SettingForm, Settings};
use super::forms::CommandLine;
use super::sign::{Look, Sign};
use super::template::{self, Scope, Setting, Template, Values, Word};
use crate::engine::{Command, Endpoint, Mode, Ready, SandboxPath, Server};

/// The reason why a description cannot be carried out.
pub(super) type Cause = String;

/// Variables of each program in the sandbox, unless the description sets them.
const ENV: [(&str, &str); 3] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"),
    ("TZ", "UTC"),
    ("LC_ALL", "C"),
];
const HOME: &str = "HOME";

/// Values of placeholders in the sandbox.
pub(super) struct Inside<'a> {
    pub(super) description: &'a Description,
    pub(super) listen: Option<Ipv4Addr>,
    pub(super) file: Option<String>,
    pub(super) password: Option<String>,
}

impl<'a> Inside<'a> {
    pub(super) fn of(description: &'a Description) -> Self {
        Self { description, listen: Some(Ipv4Addr::LOCALHOST), file: None, password: None }
    }

    /// Adds arguments to a command.
    pub(super) fn words<P: Scope>(&self, command: Command, args: &[Template<P>]) -> Result<Command, Cause> {
        args.iter().try_fold(command, |command, arg| {
            Ok(match arg.word(self)? {
                Word::Text(text) => command.arg(text),
                Word::Path(prefix, path) => command.prefixed_path_arg(prefix, path),
            })
        })
    }
}

impl Values for Inside<'_> {
    fn text(&self, name: &str) -> Option<String> {
        match name {
            "port" => self.description.port.map(|port| port.to_string()),
            "listen" => self.listen.map(|address| address.to_string()),
            // A file is shown at its own path, which is that of the host.
            "file" => self.file.clone(),
            "password" => self.password.clone(),
            _ => None,
        }
    }

    fn path(&self, name: &str) -> Option<SandboxPath> {
        match name {
            "data" => Some((&self.description.data.0).into()),
            "socket" => self.description.socket.as_ref().map(|path| (&path.0).into()),
            _ => None,
        }
    }
}

/// Values of placeholders for clients of a port.
pub(super) struct OfPort<'a>(pub(super) SocketAddr, pub(super) &'a str);

impl Values for OfPort<'_> {
    fn text(&self, name: &str) -> Option<String> {
        match name {
            "address" => Some(self.0.to_string()),
            "host" => Some(self.0.ip().to_string()),
            "port" => Some(self.0.port().to_string()),
            "password" => Some(self.1.to_owned()),
            _ => None,
        }
    }

    fn path(&self, _: &str) -> Option<SandboxPath> {
        None
    }
}

/// Sets the environment of a program: what is described, and the usual variables.
pub(super) fn command_env(
    command: Command,
    env: &BTreeMap<String, Template<template::Inside>>,
    values: &Inside<'_>,
) -> Result<Command, Cause> {
    let usual = ENV.into_iter().filter(|(name, _)| !env.contains_key(*name));
    let mut command = usual.fold(command, |command, (name, value)| command.env(name, value));
    if !env.contains_key(HOME) {
        command = command.path_env(HOME, "/tmp");
    }
    env.iter().try_fold(command, |command, (name, value)| {
        Ok(match value.word(values)? {
            Word::Text(text) => command.env(name, text),
            Word::Path(prefix, path) if prefix.is_empty() => command.path_env(name, path),
            Word::Path(..) => return Err(format!("in `{}` a text stands before a path", value.text())),
        })
    })
}

impl Description {
    /// Describes the server that `command` begins.
    pub(super) fn server(
        &self,
        command: Command,
        settings: &[(String, String)],
        mode: Mode,
        ready_program: impl Fn(&str) -> Result<Command, Cause>,
    ) -> Result<Server, Cause> {
        let mut values = Inside::of(self);
        if let Mode::Process { address } = mode {
            self.fits_process_mode(address)?;
            values.listen = address;
        }
        let mut files = self.files.clone();
        let mut command = command_env(values.words(command, &self.args)?, &self.env, &values)?;
        match &self.settings {
            None if settings.is_empty() => {}
            None => return Err("its description has no `[settings]`".to_owned()),
            Some(described) => {
                for (name, value) in described.with_defaults(settings)? {
                    let setting = Setting { name: &name, value: &value };
                    let filled = |template: &Template<_>| template.fill(&setting, "/".as_ref());
                    match &described.way {
                        SettingForm::Args(args) => {
                            command = command.args(args.iter().map(filled).collect::<Result<Vec<_>, _>>()?);
                        }
                        SettingForm::Line(file, line) => {
                            let text = files.entry(file.clone()).or_default();
                            if !text.is_empty() && !text.ends_with('\n') {
                                text.push('\n');
                            }
                            text.push_str(&(filled(line)? + "\n"));
                        }
                    }
                }
            }
        }
        let ready = self.ready.ready(self, &values, ready_program)?;
        let mut server = Server::new(command, self.stop_signal.0, ready).account(&self.account);
        if let Some(bytes) = self.idle_memory {
            server = server.idle_memory(bytes);
        }
        if let Some(count) = self.processes {
            server = server.processes(count);
        }
        server = self.directories.iter().fold(server, |server, path| server.directory(&path.0, 0o700));
        server = files.into_iter().fold(server, |server, (path, text)| server.file(path.0, text));
        server = self.clean_statuses.iter().fold(server, |server, status| server.clean_status(*status));
        Ok(self.clean_signals.iter().fold(server, |server, signal| server.clean_signal(signal.0)))
    }

    /// Checks that nothing depends on a root and a network that process mode lacks.
    fn fits_process_mode(&self, address: Option<Ipv4Addr>) -> Result<(), Cause> {
        let listens = self.args.iter().chain(self.env.values()).any(|word| word.has("listen"));
        if self.port.is_some() && !listens {
            return Err(
                "without a container it shares the host's ports: write its address as `{listen}`".to_owned()
            );
        }
        if listens && address.is_none() {
            return Err("without a container it shares the host's ports, and none is free for it".to_owned());
        }
        let paths =
            [&self.data].into_iter().chain(&self.socket).chain(&self.directories).chain(self.files.keys());
        let paths: Vec<_> = paths.map(|path| path.0.to_string_lossy()).collect();
        let named = self.files.values().find_map(|text| paths.iter().find(|path| text.contains(&***path)));
        match named {
            Some(path) => Err(format!(
                "without a container `{path}` lies elsewhere, and a file names it: pass it by an argument, as `{{{path}}}`"
            )),
            None => Ok(()),
        }
    }

    /// The place of the server for clients in the sandbox.
    fn endpoint(&self, sign: &Sign) -> Option<Endpoint> {
        let unix = |path: &template::Absolute| Endpoint::Unix((&path.0).into());
        let own = sign.socket.as_ref().map(unix).or(sign.port.map(Endpoint::Tcp));
        own.or_else(|| self.socket.as_ref().map(unix)).or(self.port.map(Endpoint::Tcp))
    }
}

impl Sign {
    /// Returns `true` if only the server's own report shows that it is ready.
    pub(super) fn is_only_reported(&self) -> bool {
        self.notify && self.look == Look::Connect && self.socket.is_none() && self.port.is_none()
    }

    fn ready(
        &self,
        description: &Description,
        values: &Inside<'_>,
        program: impl Fn(&str) -> Result<Command, Cause>,
    ) -> Result<Ready, Cause> {
        let at = || {
            description.endpoint(self).ok_or_else(|| {
                "nothing says where the server is ready: write `socket`, `port` or `ready`".to_owned()
            })
        };
        let looked_for = match &self.look {
            _ if self.is_only_reported() => return Ok(Ready::Notify),
            Look::Connect => Ready::Connect(at()?),
            Look::Answer { send, expect, end } => Ready::Answer {
                at: at()?,
                send: send.clone().into(),
                expect: expect.clone().into(),
                end: end.clone().into(),
            },
            Look::Http { path, status } => Ready::Http { at: at()?, path: path.clone(), status: *status },
            Look::Command(CommandLine { program: name, args, .. }) => {
                let command = values.words(program(name)?, args)?;
                Ready::Command(command_env(command, &description.env, values)?)
            }
        };
        Ok(if self.notify { Ready::NotifyOr(Box::new(looked_for)) } else { looked_for })
    }
}

impl Settings {
    /// Returns the defaults that are not set, then the settings.
    fn with_defaults(&self, settings: &[(String, String)]) -> Result<Vec<(String, String)>, Cause> {
        let is_set = |name: &str| settings.iter().any(|(other, _)| other == name);
        let defaults = self.defaults.iter().filter(|(name, _)| !is_set(name));
        let mut all: Vec<_> = defaults.map(|(name, value)| (name.clone(), value.clone())).collect();
        for (name, value) in settings {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
            if self.fixed.contains(name) {
                return Err(format!("`{name}` is `fixed`: the sandbox depends on its value"));
            }
            if name.is_empty() || !name.chars().all(is_name) || value.contains(['\n', '\r', '\0']) {
                return Err(format!("`{name}` is no name of a setting, or its value has several lines"));
            }
            all.push((name.clone(), value.clone()));
        }
        Ok(all)
    }
}
