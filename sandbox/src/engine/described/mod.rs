//! Any server, described by a builder or by a file of TOML.

mod builder;
mod check;
mod description;
mod forms;
mod seed;
mod server;
mod sign;
mod template;
#[cfg(feature = "toml")]
mod toml;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::description::Description;
use self::description::{Password, Shares};
use self::server::{Inside, OfPort, command_env};
use crate::engine::{
    Command, Engine, Installation, Mode, Programs, SandboxPath, Server, Task, TcpAccess, TcpRequest, WarmUp,
};
use crate::error::{Error, ErrorKind, Result};

/// Any server that a file of TOML or a [`Description`] describes, without an [`Engine`] in Rust.
///
/// Files need the feature `toml`. The attribute accepts a file as well: `#[sandboxed_db(engine =
/// "memcached.toml")] fn t(url: String)`. So do the command line, `--engine memcached.toml`, and
/// the packages for Python and Node.
///
/// # Example
/// A file for memcached:
/// ```toml
/// name = "memcached"
/// program = "memcached"
/// package = "memcached"
/// args = ["--unix-socket={socket}", "--threads=2"]
/// socket = "/run/memcached.sock"
/// ready = { send = "version\r\n", expect = "VERSION" }
/// url = "memcache://{socket}"
/// url_variable = "MEMCACHE_URL"
/// idle_memory = 4_000_000
///
/// [settings]
/// args = ["--{name}={value}"]
/// fixed = ["unix-socket", "port", "listen"]
/// ```
/// ```no_run
/// # #[cfg(feature = "toml")]
/// # fn main() -> sandboxed_db::Result<()> {
/// use sandboxed_db::Snapshot;
/// use sandboxed_db::engine::Described;
/// let cache = Snapshot::new(Described::from_toml("memcached.toml")?).start()?;
/// println!("{}", cache.url());
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "toml"))]
/// # fn main() {}
/// ```
///
/// # Keys
/// Only `name`, `program`, and one of `url` and `tcp` are required.
///
/// | key | meaning | default |
/// |---|---|---|
/// | `name` | the engine's name: lower-case letters, digits, `-` and `_` | |
/// | `program` | the server's program, or a list of its names | |
/// | `program_directories` | directories to look in besides those of `PATH` and the usual ones | none |
/// | `variable` | an environment variable whose directories replace all others | none |
/// | `version` | the argument for which the server prints its version; `false` without one | `"--version"` |
/// | `package` | the distribution's package, for the error of a missing server | none |
/// | `args`, `env` | arguments and environment of the server, which runs in the foreground | `[]`, `{}` |
/// | `data` | where the data directory is mounted | `"/data"` |
/// | `socket`, `port` | the server's Unix socket; its port at 127.0.0.1 | none |
/// | `ready` | the sign of a ready server, see [below](#readiness) | a connection at `socket`, else at `port` |
/// | `stop_signal` | `HUP`, `INT`, `QUIT`, `KILL`, `USR1`, `USR2` or `TERM` | `"TERM"` |
/// | `clean_statuses`, `clean_signals` | further exit statuses and signals of a clean end | `[]` |
/// | `initialise` | the program, with its arguments, that fills an empty data directory | none |
/// | `directories` | directories to make in the sandbox, for sockets and the like | `[]` |
/// | `files` | files to make in the sandbox: path and contents | `{}` |
/// | `settings` | what becomes of a setting, see [below](#how-settings-are-passed) | settings are refused |
/// | `seed` | the client that runs files, see [below](#seeds) | seeds are refused |
/// | `url` | the URL for clients outside, by the Unix socket | that of `tcp` |
/// | `url_variable` | the variable by which applications expect the URL | `"DATABASE_URL"` |
/// | `client_env` | further variables by which clients find the server | `{}` |
/// | `client_variables` | beginnings of variables that would lead clients elsewhere, such as `"REDIS"` | `[]` |
/// | `tcp` | the port for clients outside, see [below](#ports) | none |
/// | `checkpoint` | whether servers are resumed from a ready one, see [below](#checkpoints) | never |
/// | `idle_memory` | bytes of memory that an idle server holds, see [`Server::idle_memory`] | 8 MB |
/// | `processes` | processes and threads of the server, see [`Server::processes`] | 0 |
/// | `account` | the name of the sandbox's only user | `"server"` |
///
/// Arguments and variables have placeholders in braces: `{data}`, `{socket}`, `{port}`, `{listen}`
/// (the address to listen at), and each path of the sandbox as `{/run/x.conf}`. A path is the last
/// part of its word. Addresses for clients, `url` and `client_env`, have the same paths as seen
/// from outside. A brace that is meant is written twice. Files are taken as they are.
///
/// Programs run with `PATH`, `HOME` (`/tmp`), `TZ` (`UTC`) and `LC_ALL` (`C`), unless `env` says
/// otherwise.
///
/// # Readiness
/// A table with one of these, at the server's own `socket` or `port`, or at another `socket` or
/// `port` of the table:
/// - nothing: a connection is accepted;
/// - `expect`, perhaps `send` and `end`: see [`Ready::Answer`](super::Ready::Answer);
/// - `http` (a path) and `status` (default 200): see [`Ready::Http`](super::Ready::Http);
/// - `command`: a program, with its arguments, that succeeds.
///
/// With `notify = true` the server reports it by sd_notify(3): alone, or with another sign as in
/// [`Ready::NotifyOr`](super::Ready::NotifyOr).
///
/// # How settings are passed
/// Either `args`, a list such as `["--{name}={value}"]`, or a `line` such as `"{name} {value}"` at
/// the end of a `file`. `defaults` may be replaced, and names in `fixed` are refused.
///
/// # Seeds
/// `command` is a client and its arguments, in which `{file}` is the file; without it the file is
/// the client's standard input, between the texts `before` and `after`. It has failed if its exit
/// status is not 0, if a line of its standard output begins with a text of `failure` (one, or a
/// list), or if the last line does not begin with `expect`, the answer to `after`. `line` is the
/// way in which messages name a line, such as `"(line {line},"`. The client runs with `env`.
///
/// # Ports
/// `url` and `env` are as above, with `{address}`, `{host}`, `{port}` and `{password}`. Every user
/// of the machine can reach the port. `password` is the command that sets a password, with
/// `{password}` among its arguments, or `false` for a server that asks for none.
///
/// # Checkpoints
/// With `checkpoint = { shares = false }` the 24th start of a layer keeps the memory of a ready
/// server, and further ones are resumed from it, where the server's processes have nothing that a
/// checkpoint cannot hold: locks by flock(2), instructions made at run time, statically linked
/// programs and more exclude it. `sandboxed-db doctor --engine FILE` shows the reason. `client` is
/// a program, with its arguments, that does the work of a first client beforehand and must succeed
/// on a resumed server; without it the sign of readiness is looked for once more.
///
/// Servers that are resumed from one checkpoint share everything that the server drew before:
/// random state, seeds of hash tables, identifiers, its start time. `shares` names those values;
/// servers are then resumed with `SANDBOXED_DB_START=checkpoint` only. Write `false` for a server
/// whose clients cannot observe any, and leave `checkpoint` out for a server that draws secrets by
/// other generators than OpenSSL's.
///
/// # Layers
/// The name of a layer covers the whole description, so each change of it builds new layers.
#[derive(Debug, Clone)]
pub struct Described {
    description: Arc<Description>,
    version: Option<String>,
    /// The reason why there is no description, which a start reports.
    mistake: Option<Error>,
}

/// The name in an [identity](Engine::identity).
const IDENTITY: &str = "description";

impl Described {
    /// Starts servers as described.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a description with a mistake.
    pub fn new(description: Description) -> Result<Self> {
        match description.check() {
            Ok(()) => Ok(Self::of(description)),
            Err(mistake) => {
                Err(Self::of(description).refused("describe the engine").caused_by(mistake.cause))
            }
        }
    }

    /// Reads a description from a file of TOML. A relative path starts at the working directory.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a file that cannot be read, and for a mistake in it, with
    /// its [line](Error::line).
    #[cfg(feature = "toml")]
    pub fn from_toml(path: impl AsRef<Path>) -> Result<Self> {
        toml::read(path.as_ref()).map(Self::of)
    }

    /// Reads a description; a mistake is the error of each start.
    #[cfg(feature = "toml")]
    pub(crate) fn or_mistake(path: &Path) -> Self {
        Self::from_toml(path).unwrap_or_else(|error| Self {
            mistake: Some(error),
            ..Self::of(Description::new("described", "described"))
        })
    }

    /// Returns the engine of a [kept state](crate::cache::KeptState), by its identity.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for the identity of another engine.
    pub fn from_identity(identity: &[(String, String)]) -> Result<Self> {
        let json = identity.iter().find(|(name, _)| name == IDENTITY).map(|(_, json)| json);
        let refused = || Error::new(ErrorKind::InvalidConfig, "read the description of an engine");
        let json = json.ok_or_else(|| refused().caused_by("the identity has none"))?;
        serde_json::from_str(json).map(Self::of).map_err(|error| refused().caused_by(error))
    }

    fn of(description: Description) -> Self {
        Self { description: Arc::new(description), version: None, mistake: None }
    }

    fn refused(&self, step: &str) -> Error {
        Error::new(ErrorKind::InvalidConfig, format!("{step} `{}`", self.description.name))
    }

    /// Returns a program of the installation or of the system, as the sandbox shows it.
    fn program(&self, installation: &Installation, name: &str) -> Result<PathBuf> {
        if name.contains('/') {
            return Ok(PathBuf::from(name));
        }
        if installation.has(name) {
            return Ok(installation.program(name));
        }
        Err(self
            .refused("find a program of")
            .caused_by(format!("`{name}` is neither beside the server nor in PATH")))
        .map_err(|error| error.with_hint("install it, or name its directory in `program_directories`"))
    }
}

impl Engine for Described {
    fn name(&self) -> &str {
        &self.description.name
    }

    fn of_version(mut self, version: &str) -> Result<Self> {
        if self.description.version.0.is_none() {
            return Err(self
                .refused("choose a version of")
                .with_hint("its description has `version = false`"));
        }
        self.version = Some(version.to_owned());
        Ok(self)
    }

    fn locate(&self) -> Result<Installation> {
        if let Some(mistake) = &self.mistake {
            return Err(mistake.clone());
        }
        let description = &*self.description;
        let mut names = description.program.0.iter();
        let mut programs = Programs::new(names.next().map_or("", String::as_str))
            .directories(description.program_directories.iter().map(|directory| &directory.0))
            .version_arg(description.version.0.as_deref());
        programs = names.fold(programs, Programs::or);
        let clients: Vec<_> = description.programs().filter(|name| !name.contains('/')).collect();
        programs = clients.iter().fold(programs, |programs, name| programs.client(*name));
        if let Some(variable) = &description.variable {
            programs = programs.variable(variable);
        }
        if let Some(package) = &description.package {
            programs = programs.package(package);
        }
        let installation = programs.find(self.version.as_deref())?;
        // Seeds need their client only when there are some.
        for name in description.programs_of_server() {
            self.program(&installation, name)?;
        }
        Ok(installation)
    }

    fn identity(&self, _: &Installation) -> Vec<(String, String)> {
        // Maps are in order, so that equal descriptions have the same text.
        vec![(IDENTITY.to_owned(), serde_json::to_string(&*self.description).unwrap_or_default())]
    }

    fn data_dir(&self) -> SandboxPath {
        (&self.description.data.0).into()
    }

    fn shared_by_resumed(&self) -> Option<&str> {
        match &self.description.checkpoint.as_ref()?.shares {
            Shares::Nothing(_) => None,
            Shares::Values(values) => Some(values),
        }
    }

    fn warm_up(&self, installation: &Installation) -> Result<Option<WarmUp>> {
        let Some(checkpoint) = &self.description.checkpoint else { return Ok(None) };
        let Some(line) = &checkpoint.client else { return Ok(Some(WarmUp::Sign)) };
        let values = Inside::of(&self.description);
        let command = values.words(Command::new(self.program(installation, &line.program)?), &line.args);
        command
            .and_then(|command| command_env(command, &self.description.env, &values))
            .map(|command| Some(WarmUp::Task(Task::new(command, ""))))
            .map_err(|cause| self.refused("describe the first client of").caused_by(cause))
    }

    fn initialise(&self, installation: &Installation) -> Option<Command> {
        let line = self.description.initialise.as_ref()?;
        let values = Inside::of(&self.description);
        let program = self.program(installation, &line.program).ok()?;
        let command = values.words(Command::new(program), &line.args);
        command.and_then(|command| command_env(command, &self.description.env, &values)).ok()
    }

    fn server(
        &self,
        installation: &Installation,
        settings: &[(String, String)],
        mode: Mode,
    ) -> Result<Server> {
        let command = Command::new(installation.server());
        let program = |name: &str| match self.program(installation, name) {
            Ok(program) => Ok(Command::new(program)),
            Err(error) => Err(error.to_string()),
        };
        let server = self.description.server(command, settings, mode, program);
        server.map_err(|cause| self.refused("describe the server of").caused_by(cause))
    }

    fn url(&self, root: &Path) -> Option<String> {
        self.description.url.as_ref()?.fill(&Inside::of(&self.description), root).ok()
    }

    fn url_variable(&self) -> &str {
        &self.description.url_variable
    }

    fn env(&self, root: &Path) -> Vec<(String, String)> {
        let values = Inside::of(&self.description);
        let env = self.description.client_env.iter();
        env.filter_map(|(name, value)| Some((name.clone(), value.fill(&values, root).ok()?))).collect()
    }

    fn tcp(&self, request: &TcpRequest<'_>) -> Option<TcpAccess> {
        let TcpRequest { installation, address, password, .. } = *request;
        let (tcp, port) = (self.description.tcp.as_ref()?, self.description.port?);
        let fill =
            |template: &template::Template<_>| template.fill(&OfPort(address, password), "/".as_ref()).ok();
        let mut access = TcpAccess::new(port, fill(&tcp.url)?);
        for (name, value) in &tcp.env {
            access = access.env(name, fill(value)?);
        }
        let Password::SetBy(line) = &tcp.password else { return Some(access) };
        let values = Inside { password: Some(password.to_owned()), ..Inside::of(&self.description) };
        let program = self.program(installation, &line.program).ok()?;
        let command = values.words(Command::new(program), &line.args).ok()?;
        Some(access.task(Task::new(command_env(command, &self.description.env, &values).ok()?, "")))
    }

    fn is_client_variable(&self, name: &str) -> bool {
        let Description { url_variable, client_env, client_variables, .. } = &*self.description;
        name == url_variable
            || client_env.contains_key(name)
            || client_variables.iter().any(|beginning| name.starts_with(beginning))
    }
}
