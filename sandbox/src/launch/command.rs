//! Commands in a sandbox.

use std::path::PathBuf;
use std::process::{Command as Process, Stdio};

use serde::{Deserialize, Serialize};

use super::path::SandboxPath;

/// A program to execute in a sandbox, with its arguments, its whole environment, and its working
/// directory.
///
/// Arguments and variables are either text or paths inside the sandbox. In process mode there is no
/// separate root, and the paths, but no text, are replaced by those of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub(super) program: PathBuf,
    args: Vec<Word>,
    env: Vec<(String, Word)>,
    current_dir: PathBuf,
}

/// An argument or the value of a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Word {
    Text(String),
    /// A path after a prefix, which is often empty.
    Path(String, SandboxPath),
}

impl Word {
    fn resolve(&self, host_path: impl Fn(&SandboxPath) -> PathBuf) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Path(prefix, path) => format!("{prefix}{}", host_path(path).display()),
        }
    }
}

impl Command {
    /// Returns a command that runs `program`, with an empty environment, in `/`.
    ///
    /// `program` is a path of the host that the sandbox shows at the same place, as it shows `/usr`
    /// and an [`Installation`](crate::engine::Installation)'s programs.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new(), current_dir: PathBuf::from("/") }
    }

    /// Adds an argument. A path inside the sandbox is added by [`path_arg`](Self::path_arg).
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(Word::Text(arg.into()));
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<String>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Adds an argument that is a path inside the sandbox.
    #[must_use]
    pub fn path_arg(self, path: impl Into<SandboxPath>) -> Self {
        self.prefixed_path_arg("", path)
    }

    /// Adds an argument that is a path inside the sandbox after a prefix, such as `config_file=`.
    #[must_use]
    pub fn prefixed_path_arg(mut self, prefix: impl Into<String>, path: impl Into<SandboxPath>) -> Self {
        self.args.push(Word::Path(prefix.into(), path.into()));
        self
    }

    /// Sets a variable of the environment. The program gets no other variables.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), Word::Text(value.into())));
        self
    }

    /// Sets a variable of the environment to a path inside the sandbox.
    #[must_use]
    pub fn path_env(mut self, name: impl Into<String>, path: impl Into<SandboxPath>) -> Self {
        self.env.push((name.into(), Word::Path(String::new(), path.into())));
        self
    }

    /// Sets the working directory: one of the host that the sandbox shows at the same place.
    #[must_use]
    pub fn current_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.current_dir = path.into();
        self
    }

    /// Returns the program's file name, for messages.
    pub(crate) fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns the arguments, then names and values of the environment, as a program in a container
    /// sees them.
    pub(crate) fn words(&self) -> Vec<String> {
        let ResolvedCommand { args, env, .. } = self.in_container();
        args.into_iter().chain(env.into_iter().flat_map(|(name, value)| [name, value])).collect()
    }

    /// Returns the command with its paths as `host_path` replaces them.
    pub(super) fn resolve(&self, host_path: impl Fn(&SandboxPath) -> PathBuf) -> ResolvedCommand {
        ResolvedCommand {
            program: self.program.clone(),
            args: self.args.iter().map(|word| word.resolve(&host_path)).collect(),
            env: self.env.iter().map(|(name, word)| (name.clone(), word.resolve(&host_path))).collect(),
            current_dir: self.current_dir.clone(),
        }
    }

    /// Returns the command as it runs in a container, where the sandbox's paths are those of the
    /// file system.
    pub(super) fn in_container(&self) -> ResolvedCommand {
        self.resolve(|path| path.as_path().to_owned())
    }
}

/// A command whose paths are those of the process that executes it.
#[derive(Debug, Clone)]
pub(super) struct ResolvedCommand {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) current_dir: PathBuf,
}

impl ResolvedCommand {
    /// Adds variables of an image. Those of the command win, except for `PATH`, which names the
    /// image's directories.
    pub(super) fn with_image_env(mut self, env: &[(String, String)]) -> Self {
        for (name, value) in env {
            let own = self.env.iter_mut().find(|(own, _)| own == name);
            match own {
                Some((_, own)) if name == "PATH" => value.clone_into(own),
                Some(_) => {}
                None => self.env.push((name.clone(), value.clone())),
            }
        }
        self
    }

    /// Returns the same command for the standard library, with this standard input, output and
    /// error.
    pub(super) fn process(&self, [stdin, stdout, stderr]: [Stdio; 3]) -> Process {
        let mut process = Process::new(&self.program);
        process
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.current_dir)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        process
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn paths_are_replaced_and_texts_are_not() {
        let command = Command::new("/usr/bin/x")
            .args(["-D", "/var/lib/x", "a=/var/lib/x"])
            .path_arg("/var/lib/x")
            .prefixed_path_arg("file=", "/etc/x.conf")
            .env("TEXT", "/run")
            .path_env("HOME", "/tmp");
        let there = command.resolve(|path| path.below(Path::new("/p/1")));
        let expected = ["-D", "/var/lib/x", "a=/var/lib/x", "/p/1/var/lib/x", "file=/p/1/etc/x.conf"];
        assert_eq!(there.args, expected);
        let env = [("TEXT", "/run"), ("HOME", "/p/1/tmp")];
        assert_eq!(there.env, env.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(command.in_container().args[3..], ["/var/lib/x", "file=/etc/x.conf"]);
        let image = [("PATH", "/opt"), ("TEXT", "y"), ("MORE", "z")];
        let image = image.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let inside =
            Command::new("x").env("PATH", "/bin").env("TEXT", "x").in_container().with_image_env(&image);
        let env = [("PATH", "/opt"), ("TEXT", "x"), ("MORE", "z")];
        assert_eq!(inside.env, env.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
