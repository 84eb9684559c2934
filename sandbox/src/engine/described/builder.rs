//! Descriptions in Rust.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::description::{
    CheckpointPart, Description, Never, Password, Seed, SettingForm, Settings, Shares, TcpPart,
};
use super::forms::{CommandLine, SignalName, Texts, VersionArg};
use super::sign::{Look, Sign};
use super::template::{Absolute, Inside, Scope, Template};
use crate::launch::Signal;

impl Description {
    /// Describes the server `program` as the engine `name`.
    pub fn new(name: impl Into<String>, program: impl Into<String>) -> Self {
        let program = Texts(vec![program.into()]);
        Self {
            mistake: None,
            name: name.into(),
            program,
            program_directories: Vec::new(),
            variable: None,
            version: VersionArg::default(),
            package: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            data: super::description::data(),
            account: super::description::account(),
            socket: None,
            port: None,
            ready: Sign::default(),
            stop_signal: SignalName::default(),
            clean_statuses: Vec::new(),
            clean_signals: Vec::new(),
            initialise: None,
            directories: Vec::new(),
            files: BTreeMap::new(),
            settings: None,
            seed: None,
            url: None,
            url_variable: super::description::url_variable(),
            client_env: BTreeMap::new(),
            client_variables: Vec::new(),
            tcp: None,
            checkpoint: None,
            idle_memory: None,
            processes: None,
        }
    }

    /// Notes the first mistake, which [`Described::new`](super::Described::new) reports.
    fn note<T, E: ToString>(&mut self, read: Result<T, E>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(mistake) => {
                self.mistake.get_or_insert(mistake.to_string());
                None
            }
        }
    }

    fn template<P: Scope>(&mut self, text: impl Into<String>) -> Option<Template<P>> {
        self.note(Template::try_from(text.into()))
    }

    fn absolute(&mut self, path: impl Into<PathBuf>) -> Option<Absolute> {
        self.note(Absolute::try_from(path.into()))
    }

    fn line<P: Scope, W: Into<String>>(
        &mut self,
        words: impl IntoIterator<Item = W>,
    ) -> Option<CommandLine<P>> {
        self.note(CommandLine::try_from(words.into_iter().map(Into::into).collect::<Vec<String>>()))
    }

    /// Adds another name of the server's program.
    #[must_use]
    pub fn or(mut self, program: impl Into<String>) -> Self {
        self.program.0.push(program.into());
        self
    }

    /// Adds a directory to look for programs in.
    #[must_use]
    pub fn program_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        let directory = self.absolute(directory);
        self.program_directories.extend(directory);
        self
    }

    /// Names an environment variable whose directories replace all others.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>) -> Self {
        self.variable = Some(name.into());
        self
    }

    /// Sets the argument for which the server prints its version; `None` if there is none.
    #[must_use]
    pub fn version(mut self, arg: Option<&str>) -> Self {
        self.version = VersionArg(arg.map(str::to_owned));
        self
    }

    /// Names the distribution's package.
    #[must_use]
    pub fn package(mut self, name: impl Into<String>) -> Self {
        self.package = Some(name.into());
        self
    }

    /// Adds arguments of the server.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        for arg in args {
            let arg = self.template(arg);
            self.args.extend(arg);
        }
        self
    }

    /// Sets a variable of the server's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Some(value) = self.template::<Inside>(value) {
            self.env.insert(name.into(), value);
        }
        self
    }

    /// Sets where the data directory is mounted.
    #[must_use]
    pub fn data(mut self, path: impl Into<PathBuf>) -> Self {
        if let Some(path) = self.absolute(path) {
            self.data = path;
        }
        self
    }

    /// Names the sandbox's only user.
    #[must_use]
    pub fn account(mut self, name: impl Into<String>) -> Self {
        self.account = name.into();
        self
    }

    /// Sets the server's Unix socket.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = self.absolute(path);
        self
    }

    /// Sets the server's port at 127.0.0.1.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Counts the server as ready when it says so by sd_notify(3).
    #[must_use]
    pub fn notifies(mut self) -> Self {
        self.ready.notify = true;
        self
    }

    /// Counts the server as ready when it answers `send` with bytes that contain `expect`.
    #[must_use]
    pub fn answers(mut self, send: impl Into<String>, expect: impl Into<String>) -> Self {
        self.ready.look = Look::Answer { send: send.into(), expect: expect.into(), end: String::new() };
        self
    }

    /// Counts the server as ready when it answers `GET` of a path with that status.
    #[must_use]
    pub fn answers_http(mut self, path: impl Into<String>, status: u16) -> Self {
        self.ready.look = Look::Http { path: path.into(), status };
        self
    }

    /// Counts the server as ready when a program, with its arguments, succeeds.
    #[must_use]
    pub fn ready_command<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        if let Some(line) = self.line(words) {
            self.ready.look = Look::Command(line);
        }
        self
    }

    /// Sets the signal at which the server shuts down cleanly.
    #[must_use]
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.stop_signal = SignalName(signal);
        self
    }

    /// Adds an exit status of a clean end.
    #[must_use]
    pub fn clean_status(mut self, status: i32) -> Self {
        self.clean_statuses.push(status);
        self
    }

    /// Adds a signal of a clean end.
    #[must_use]
    pub fn clean_signal(mut self, signal: Signal) -> Self {
        self.clean_signals.push(SignalName(signal));
        self
    }

    /// Sets the program, with its arguments, that fills an empty data directory.
    #[must_use]
    pub fn initialise<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.initialise = self.line(words);
        self
    }

    /// Makes a directory in the sandbox.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        let path = self.absolute(path);
        self.directories.extend(path);
        self
    }

    /// Makes a file in the sandbox.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>, contents: impl Into<String>) -> Self {
        if let Some(path) = self.absolute(path) {
            self.files.insert(path, contents.into());
        }
        self
    }

    /// Makes arguments of each setting, by `{name}` and `{value}`.
    #[must_use]
    pub fn setting_args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        let args: Vec<_> = args.into_iter().filter_map(|arg| self.template(arg)).collect();
        self.settings.get_or_insert_with(Settings::none).way = SettingForm::Args(args);
        self
    }

    /// Makes a line at the end of a file of each setting, by `{name}` and `{value}`.
    #[must_use]
    pub fn setting_line(mut self, file: impl Into<PathBuf>, line: impl Into<String>) -> Self {
        if let (Some(file), Some(line)) = (self.absolute(file), self.template(line)) {
            self.settings.get_or_insert_with(Settings::none).way = SettingForm::Line(file, line);
        }
        self
    }

    /// Sets a setting that users may replace.
    #[must_use]
    pub fn default_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.get_or_insert_with(Settings::none).defaults.insert(name.into(), value.into());
        self
    }

    /// Refuses a setting.
    #[must_use]
    pub fn fixed_setting(mut self, name: impl Into<String>) -> Self {
        self.settings.get_or_insert_with(Settings::none).fixed.push(name.into());
        self
    }

    /// Sets the client, with its arguments, that runs files: by `{file}`, else by its standard
    /// input.
    #[must_use]
    pub fn seed<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.seed = self.line(words).map(|command| Seed {
            command,
            env: BTreeMap::new(),
            before: String::new(),
            after: String::new(),
            expect: String::new(),
            failure: Texts::default(),
            line: None,
        });
        self
    }

    /// Sets a text that the client gets after each file, and what the last line of its output then
    /// begins with. For a client set [before](Self::seed).
    #[must_use]
    pub fn seed_end(mut self, after: impl Into<String>, expect: impl Into<String>) -> Self {
        if let Some(seed) = &mut self.seed {
            (seed.after, seed.expect) = (after.into(), expect.into());
        }
        self
    }

    /// Adds a text with which a line of the client's output begins where it has failed. For a
    /// client set [before](Self::seed).
    #[must_use]
    pub fn seed_failure(mut self, beginning: impl Into<String>) -> Self {
        if let Some(seed) = &mut self.seed {
            seed.failure.0.push(beginning.into());
        }
        self
    }

    /// Sets how messages name a line, such as `at line {line}`. For a client set
    /// [before](Self::seed).
    #[must_use]
    pub fn seed_line(mut self, line: impl Into<String>) -> Self {
        if let Some(seed) = &mut self.seed {
            seed.line = Some(line.into());
        }
        self
    }

    /// Sets the URL for clients outside, by the Unix socket.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = self.template(url);
        self
    }

    /// Names the variable by which applications expect the URL.
    #[must_use]
    pub fn url_variable(mut self, name: impl Into<String>) -> Self {
        self.url_variable = name.into();
        self
    }

    /// Sets a further variable by which clients find the server.
    #[must_use]
    pub fn client_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Some(value) = self.template(value) {
            self.client_env.insert(name.into(), value);
        }
        self
    }

    /// Names the beginning of variables that would lead clients elsewhere.
    #[must_use]
    pub fn client_variable(mut self, beginning: impl Into<String>) -> Self {
        self.client_variables.push(beginning.into());
        self
    }

    /// Lets clients outside reach the port by a URL. The server asks for no password, and every
    /// user of the machine can reach the port; see [`tcp_password`](Self::tcp_password).
    #[must_use]
    pub fn tcp(mut self, url: impl Into<String>) -> Self {
        let url = self.template(url);
        self.tcp = url.map(|url| TcpPart { url, password: Password::Never(Never), env: BTreeMap::new() });
        self
    }

    /// Sets the program, with `{password}` among its arguments, that gives the server a password.
    /// For a port set [before](Self::tcp).
    #[must_use]
    pub fn tcp_password<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        if let (Some(line), Some(tcp)) = (self.line(words), &mut self.tcp) {
            tcp.password = Password::SetBy(line);
        }
        self
    }

    /// Lets servers be resumed from the [checkpoint](super::Described#checkpoints) of a ready one.
    /// `shares` names the values that they then share and that differ between started ones; `None`
    /// if there are none.
    #[must_use]
    pub fn checkpoint(mut self, shares: Option<&str>) -> Self {
        let shares = shares.map_or(Shares::Nothing(Never), |values| Shares::Values(values.to_owned()));
        let client = self.checkpoint.take().and_then(|checkpoint| checkpoint.client);
        self.checkpoint = Some(CheckpointPart { shares, client });
        self
    }

    /// Sets the program, with its arguments, that is the first client of a server before its
    /// checkpoint is taken, instead of the look for the sign of readiness. For checkpoints allowed
    /// [before](Self::checkpoint).
    #[must_use]
    pub fn checkpoint_client<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        let line = self.line(words);
        match &mut self.checkpoint {
            Some(checkpoint) => checkpoint.client = line,
            None => {
                self.note::<(), _>(Err("`checkpoint_client` needs `checkpoint` before it"));
            }
        }
        self
    }

    /// Sets how many bytes of memory an idle server holds.
    #[must_use]
    pub fn idle_memory(mut self, bytes: u64) -> Self {
        self.idle_memory = Some(bytes);
        self
    }

    /// Sets how many processes and threads the server has.
    #[must_use]
    pub fn processes(mut self, processes: u32) -> Self {
        self.processes = Some(processes);
        self
    }
}

impl Settings {
    /// Neither arguments nor lines.
    fn none() -> Self {
        Self { way: SettingForm::Args(Vec::new()), defaults: BTreeMap::new(), fixed: Vec::new() }
    }
}
