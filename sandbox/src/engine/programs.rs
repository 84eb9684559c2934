//! The search for a server's programs on this machine.

use std::env;
use std::path::PathBuf;

use super::Installation;
use super::image::{Image, missing, other_version};
use super::installation::in_path;
use super::packages::{self, Selection};
use super::version::Version;
use crate::environment::ISOLATION;
use crate::error::{Error, ErrorKind, Result};

/// Where distributions put servers and their clients.
const USUAL: [&str; 5] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/libexec"];

/// The value of a server's variable that chooses the distribution's packages.
pub(crate) const PACKAGES: &str = "packages";

/// A search for a server's programs: in the directories that a variable of the environment names,
/// else in those of `PATH` and in the usual ones, such as `/usr/sbin`, else in the distribution's
/// [package](Self::package).
///
/// # Example
/// ```no_run
/// use sandboxed_db::engine::Programs;
/// # fn main() -> sandboxed_db::Result<()> {
/// let redis = Programs::new("redis-server").client("redis-cli").find(None)?;
/// assert!(redis.has("redis-cli"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Programs {
    servers: Vec<String>,
    clients: Vec<String>,
    variable: Option<String>,
    directories: Vec<PathBuf>,
    extensions: Vec<PathBuf>,
    version_arg: Option<String>,
    package: Option<String>,
    /// A word in the version of a server that is passed over.
    other_than: Option<&'static str>,
    unpacks: bool,
}

impl Programs {
    /// Looks for the program `server`, which prints its version for `--version`.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            servers: vec![server.into()],
            clients: Vec::new(),
            variable: None,
            directories: USUAL.map(PathBuf::from).to_vec(),
            extensions: Vec::new(),
            version_arg: Some("--version".to_owned()),
            package: None,
            other_than: None,
            unpacks: true,
        }
    }

    /// Adds another name of the server's program, which is searched after the earlier ones.
    #[must_use]
    pub fn or(mut self, server: impl Into<String>) -> Self {
        self.servers.push(server.into());
        self
    }

    /// Adds a program that belongs to the installation, in the server's directory or in another of
    /// the search. A missing one causes no error here: see [`Installation::has`].
    #[must_use]
    pub fn client(mut self, name: impl Into<String>) -> Self {
        self.clients.push(name.into());
        self
    }

    /// Names an environment variable whose directories, separated as in `PATH`, replace all others.
    /// The value `packages` chooses the distribution's [package](Self::package), whatever is
    /// installed.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>) -> Self {
        self.variable = Some(name.into());
        self
    }

    /// Adds directories that are searched before the usual ones.
    #[must_use]
    pub fn directories<P: Into<PathBuf>>(mut self, directories: impl IntoIterator<Item = P>) -> Self {
        self.directories.splice(..0, directories.into_iter().map(Into::into));
        self
    }

    /// Adds a directory, which need not exist, whose files belong to the build by name and size.
    #[must_use]
    pub fn extensions(mut self, directory: impl Into<PathBuf>) -> Self {
        self.extensions.push(directory.into());
        self
    }

    /// Sets the argument for which the server prints its version and ends with exit status 0;
    /// `None` if there is none. Default `--version`.
    #[must_use]
    pub fn version_arg(mut self, arg: Option<&str>) -> Self {
        self.version_arg = arg.map(str::to_owned);
        self
    }

    /// Names the package by which Debian and Ubuntu have the server. Where no server is found, the
    /// package is fetched once, with its dependencies, and unpacked into the cache without root. By
    /// default a missing server is an error.
    #[must_use]
    pub fn package(mut self, name: impl Into<String>) -> Self {
        self.package = Some(name.into());
        self
    }

    /// Passes over servers that have this word in their version.
    #[must_use]
    pub(crate) fn other_than(mut self, word: &'static str) -> Self {
        self.other_than = Some(word);
        self
    }

    /// Makes the package a part of the advice only, for programs that run outside a container.
    pub(super) fn installed_only(mut self) -> Self {
        self.unpacks = false;
        self
    }

    /// Returns the first installation, or the first of that version, such as `7` or `7.0`.
    ///
    /// # Errors
    /// [`ErrorKind::NotInstalled`] if none is found, or if its package cannot be fetched, and
    /// [`ErrorKind::InvalidConfig`] for a server that does not run.
    pub fn find(&self, version: Option<&str>) -> Result<Installation> {
        let mut others = Vec::new();
        let candidates = self.candidates();
        let unpacked = match &self.package {
            Some(package) if candidates.is_empty() && self.may_unpack() => {
                Some(self.unpacked(package)).transpose()?
            }
            _ => None,
        };
        let found = candidates.into_iter().map(|(server, directory)| self.inspect(&server, directory));
        for found in unpacked.map(Ok).into_iter().chain(found) {
            let found = found?.supplied(self.package.as_deref(), self.variable.as_deref());
            let is_other = self.other_than.is_some_and(|word| found.version().contains(word));
            if !is_other && version.is_none_or(|wanted| Version(found.version()).is(wanted)) {
                return Ok(found);
            }
            others.push(format!("`{}` in {}", found.version(), found.bin().display()));
        }
        Err(self.missing(version, &others))
    }

    /// Returns the first installation in an image, or the first of that version: in the directories
    /// of the image's `PATH`, then in the usual ones.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_in(&self, image: &Image, version: Option<&str>) -> Result<Installation> {
        let directories: Vec<_> =
            image.search_path().into_iter().chain(self.directories.iter().cloned()).collect();
        let with = |program: &str| {
            let with_it = directories.iter().filter(|directory| image.is_file(&directory.join(program)));
            with_it.cloned().collect::<Vec<_>>()
        };
        let mut others = Vec::new();
        for (server, directory) in self
            .servers
            .iter()
            .flat_map(|server| with(server).into_iter().map(move |directory| (server, directory)))
        {
            let found = Installation::inspect_in(image, &directory, server, self.version_arg.as_deref())?;
            let is_other = self.other_than.is_some_and(|word| found.version().contains(word));
            if is_other || version.is_some_and(|wanted| !Version(found.version()).is(wanted)) {
                others.push(found.version().to_owned());
                continue;
            }
            let found = found.supplied(self.package.as_deref(), None);
            return Ok(self.clients.iter().fold(found, |found, client| {
                match with(client).into_iter().next().filter(|_| !found.has(client)) {
                    Some(directory) => found.with_programs_in_image(directory),
                    None => found,
                }
            }));
        }
        let missing = missing(image, &self.servers.join("` or `"));
        Err(if others.is_empty() { missing } else { other_version(image, version, &others) })
    }

    /// Returns `true` if the user chose packages, or nothing and packages can be unpacked and used.
    fn may_unpack(&self) -> bool {
        let is_possible =
            || self.unpacks && packages::possible() && !matches!(ISOLATION.word(), Ok(Some("process")));
        self.packages_are_wanted() || self.named().is_none() && is_possible()
    }

    fn packages_are_wanted(&self) -> bool {
        self.unpacks && self.variable.as_ref().and_then(env::var_os).is_some_and(|value| value == PACKAGES)
    }

    /// The server in the distribution's package, unpacked into the cache.
    fn unpacked(&self, package: &str) -> Result<Installation> {
        let tree = packages::obtain(&Selection {
            names: &[package.to_owned()],
            what: &format!("`{}`", self.servers.join("` or `")),
            otherwise: Some(&self.install()),
            below: None,
        })?;
        let directory = |program: &str| {
            let directories = self.directories.iter().filter(|directory| directory.starts_with("/usr"));
            let mut with_it = directories.filter(|directory| tree.on_host(directory).join(program).is_file());
            with_it.next()
        };
        let server = self.servers.iter().find_map(|server| Some((server, directory(server)?)));
        let (server, bin) = server.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("find `{}` in the package `{package}`", self.servers.join("` or `")),
            )
            .caused_by(format!(
                "neither it nor a package on which it depends has it in {}",
                shown(&self.directories)
            ))
            .with_hint(self.install())
        })?;
        let found = Installation::inspect_unpacked(&tree, bin, server, self.version_arg.as_deref())?;
        let of_the_machine = |client: &String| {
            self.directories
                .iter()
                .find(|directory| directory.starts_with("/usr") && directory.join(client).is_file())
        };
        Ok(self.clients.iter().fold(found, |found, client| match directory(client) {
            _ if found.has(client) => found,
            Some(directory) => found.with_unpacked_programs(&tree, directory),
            None => match of_the_machine(client) {
                Some(directory) => found.with_programs(directory),
                None => found,
            },
        }))
    }

    /// The server's program in each directory that has it.
    fn candidates(&self) -> Vec<(String, PathBuf)> {
        let mut candidates = Vec::new();
        for server in &self.servers {
            let all = match self.named() {
                _ if self.packages_are_wanted() => Vec::new(),
                Some(named) => named,
                None => in_path(server).into_iter().chain(self.directories.iter().cloned()).collect(),
            };
            for directory in all.into_iter().filter(|directory| directory.join(server).is_file()) {
                let canonical = directory.canonicalize().unwrap_or(directory);
                if !candidates.iter().any(|(_, other)| *other == canonical) {
                    candidates.push((server.clone(), canonical));
                }
            }
        }
        candidates
    }

    /// The directories that the variable names.
    fn named(&self) -> Option<Vec<PathBuf>> {
        let value = env::var_os(self.variable.as_ref()?).filter(|value| !value.is_empty())?;
        Some(env::split_paths(&value).collect())
    }

    fn inspect(&self, server: &str, directory: PathBuf) -> Result<Installation> {
        let arg = self.version_arg.as_deref();
        let mut found = Installation::inspect_by(&directory, server, &self.extensions, arg)?;
        for client in &self.clients {
            if found.has(client) {
                continue;
            }
            let elsewhere = self.named().unwrap_or_default().into_iter();
            let elsewhere = elsewhere.chain(in_path(client)).chain(self.directories.iter().cloned());
            if let Some(directory) = elsewhere.into_iter().find(|directory| directory.join(client).is_file())
            {
                found = found.with_programs(directory);
            }
        }
        Ok(found)
    }

    fn missing(&self, version: Option<&str>, others: &[String]) -> Error {
        let server = self.servers.join("` or `");
        let wanted = version.map(|version| format!(" of version {version}")).unwrap_or_default();
        let error = Error::new(ErrorKind::NotInstalled, format!("find `{server}`{wanted}"));
        let error = match (others, self.named()) {
            ([], Some(named)) => {
                let variable = self.variable.as_deref().unwrap_or_default();
                error.caused_by(format!("{variable} names {}, which lacks it", shown(&named)))
            }
            ([], None) => error.caused_by("it is neither in PATH nor in the usual directories"),
            (others, _) => error.caused_by(format!("there is only {}", others.join(", "))),
        };
        error.with_hint(self.install())
    }

    /// The advice to install the server, or to name another.
    fn install(&self) -> String {
        let install = match &self.package {
            Some(package) => format!("install the package `{package}` of the distribution"),
            None => "install it".to_owned(),
        };
        match &self.variable {
            Some(variable) => format!("{install}, or set {variable} to the directory of its programs"),
            None => install,
        }
    }
}

fn shown(directories: &[PathBuf]) -> String {
    directories.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn programs_may_lie_in_several_directories() {
        let place = tempfile::tempdir().unwrap();
        let directory = |name: &str, program: &str, text: &str| {
            let directory = place.path().join(name);
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join(program), text).unwrap();
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(directory.join(program), executable).unwrap();
            directory.canonicalize().unwrap()
        };
        let old = directory("old", "strange-server", "#!/bin/sh\necho strange 6.1\n");
        let new = directory("sbin", "strange-server", "#!/bin/sh\necho strange 7.0\n");
        let bin = directory("bin", "strange-cli", "");
        let programs = Programs::new("strange-server").client("strange-cli").directories([&old, &new, &bin]);
        let found = programs.find(Some("7")).unwrap();
        assert_eq!(found.program("strange-server"), new.join("strange-server"));
        assert_eq!(found.program("strange-cli"), bin.join("strange-cli"));
        assert_eq!(programs.find(None).unwrap().bin(), old);
        let error = programs.find(Some("8")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotInstalled);
        assert!(format!("{error:?}").contains("strange 6.1"), "{error:?}");
        let silent = Programs::new("strange-cli").directories([&bin]).version_arg(None);
        assert_eq!(silent.find(None).unwrap().version(), "");
    }

    #[test]
    fn a_missing_server_names_package_and_variable() {
        let search = Programs::new("none-server").package("none").variable("SANDBOXED_DB_NONE");
        let hint = "install the package `none` of the distribution, or set SANDBOXED_DB_NONE to the directory of \
                    its programs";
        assert_eq!(search.missing(None, &[]).hint().unwrap(), hint);
    }
}
