//! Packages on top of a server: extensions, further languages and libraries.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::apt::Archive;
use super::claims::{architecture, claims_of, claims_of_image, lists, owner, without_version};
use super::client::run;
use super::{Selection, Tree, obtain, of_image};
use crate::engine::image::Image;
use crate::engine::version::Version;
use crate::error::{Error, ErrorKind, Result};

/// A server on top of which packages are unpacked.
#[derive(Debug)]
pub(crate) struct Below<'a> {
    /// The path of its program in a sandbox.
    pub(crate) server: &'a Path,
    /// The version, as the program prints it.
    pub(crate) version: &'a str,
    /// The package by which the distribution has the server, such as `postgresql`.
    pub(crate) package: Option<&'a str>,
    /// The environment variable that chooses the server.
    pub(crate) variable: Option<&'a str>,
    /// The packages that it is from, if those are unpacked.
    pub(crate) tree: Option<&'a Tree>,
    /// The image that has it, with packages of another system than this machine's.
    pub(crate) image: Option<&'a Image>,
}

/// Unpacks packages that fit over the server, once; later calls and runs find them in the cache.
///
/// # Errors
/// As [`obtain`], and [`ErrorKind::InvalidConfig`] for packages that are made for another version
/// of the server, or for a server that is not the distribution's.
pub(crate) fn on_top(names: &[String], below: &Below<'_>) -> Result<Tree> {
    names.iter().try_for_each(|name| below.check_version(name))?;
    obtain(&Selection { names, what: &listed(names), otherwise: None, below: Some(below) })
}

/// The error for packages on an image that has none, such as one of musl or without a distribution.
pub(super) fn without_packages(selection: &Selection<'_>, image: &Image) -> Error {
    let object = format!("add {} to the image {}", selection.what, image.id());
    Error::new(ErrorKind::InvalidConfig, object)
        .caused_by("it has no packages of Debian or Ubuntu: /var/lib/dpkg/status has no installed `libc6`")
        .with_hint(
            "use an image that is made from Debian's or Ubuntu's, or one that has them, and leave out `package`",
        )
}

fn listed(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

impl Below<'_> {
    /// Names the server in the name of a tree.
    pub(super) fn key(&self) -> Vec<u8> {
        let tree = self.tree.and_then(|tree| tree.root().file_name()).unwrap_or_default();
        let image = self.image.map_or("", Image::id);
        [self.server.as_os_str().as_encoded_bytes(), b"\0", tree.as_encoded_bytes(), image.as_bytes()]
            .concat()
    }

    /// Returns the server's packages as apt-get shall know them, so that it fetches none of them.
    pub(super) fn status(
        &self,
        selection: &Selection<'_>,
        system: &str,
        temp: &Path,
        deadline: Instant,
    ) -> Result<String> {
        if let Some(tree) = self.tree {
            return Ok(tree.contents.status.clone());
        }
        // A package may name the file by its path in a system that is not merged.
        let unmerged = self.server.strip_prefix("/usr").map(|path| Path::new("/").join(path));
        let files: Vec<PathBuf> = [self.server.to_owned()].into_iter().chain(unmerged).collect();
        if let Some(image) = self.image {
            architecture(system).ok_or_else(|| without_packages(selection, image))?;
            let owner = of_image::owner(image, &files).ok_or_else(|| self.is_foreign(selection))?;
            return Ok(claims_of_image(system, selection.names, &owner));
        }
        let mut search = Command::new("dpkg-query");
        search.arg("--search").args(&files);
        let (_, output) = run(&mut search, &temp.join("owner"), deadline, &|| {})
            .map_err(|error| selection.failed(error))?;
        let owner = files.iter().find_map(|file| owner(&output, file));
        let owner = owner.ok_or_else(|| self.is_foreign(selection))?;
        Ok(claims_of(system, &[&[owner], self.package.as_slice()].concat()))
    }

    /// The error for a server that was built elsewhere.
    fn is_foreign(&self, selection: &Selection<'_>) -> Error {
        self.refused(selection.what)
            .caused_by(format!(
                "`{}` is of no package, and packages are made for the distribution's server",
                self.server.display()
            ))
            .with_hint(match self.image {
                Some(_) => "use an image that has the server from a package, and its list of files in /var/lib/dpkg/info"
                    .to_owned(),
                None => self.packages_instead().unwrap_or_else(|| "install the distribution's server".to_owned()),
            })
    }

    fn refused(&self, what: &str) -> Error {
        Error::new(ErrorKind::InvalidConfig, format!("use {what} with {}", self.version))
    }

    fn packages_instead(&self) -> Option<String> {
        let variable = self.variable.filter(|_| self.image.is_none())?;
        Some(format!("set {variable}=packages, for the distribution's server without an installation"))
    }

    /// Refuses a package whose name has another version of the server in it.
    fn check_version(&self, name: &str) -> Result<()> {
        let (Some(package), Some(own)) = (self.package, Version(self.version).major()) else {
            return Ok(());
        };
        let name = without_version(name);
        let Some(made_for) = version_in(package, name).filter(|version| *version != own) else {
            return Ok(());
        };
        let fitting = name.replacen(&format!("-{made_for}"), &format!("-{own}"), 1);
        Err(self
            .refused(&format!("`{name}`"))
            .caused_by(format!("it is made for version {made_for} of the server"))
            .with_hint(format!("name `{fitting}`, or choose the server's version {made_for}")))
    }

    /// Returns the error for packages that bring a server of another version.
    pub(super) fn misfit(&self, selection: &Selection<'_>, archives: &[Archive]) -> Option<Error> {
        let (package, own) = (self.package?, Version(self.version).major()?);
        let version = |archive: &Archive| -> Option<u32> {
            archive.package().strip_prefix(package)?.strip_prefix('-')?.parse().ok()
        };
        let other = archives.iter().find(|archive| version(archive).is_some_and(|version| version != own))?;
        Some(
            self.refused(selection.what)
                .caused_by(format!("they need the server `{}`", other.package()))
                .with_hint("name packages for this version, or choose the server's version"),
        )
    }

    /// Returns the error for packages that need another build of the server, as a dependency in the
    /// output of apt-get that is not met shows.
    pub(super) fn unmet(&self, selection: &Selection<'_>, output: &str, below: &str) -> Option<Error> {
        let dependencies = output.lines().filter_map(|line| line.split_once(" : Depends: "));
        let mut unmet = dependencies
            .filter(|(_, needed)| needed.split_once(" (").is_some_and(|(package, _)| lists(below, package)));
        let (dependent, needed) = unmet.next()?;
        let package = needed.split(' ').next().unwrap_or_default();
        let hint = match self.tree {
            _ if self.image.is_some() => {
                "use an image with that version of it, or fix the package's version, as `name=version`"
                    .to_owned()
            }
            Some(tree) => {
                format!("remove the directory `{}`, and the newest server is fetched", tree.root().display())
            }
            None => {
                let update =
                    format!("bring the server to that version, as by `sudo apt-get install {package}`");
                self.packages_instead().map_or(update.clone(), |packages| format!("{update}; or {packages}"))
            }
        };
        let cause = format!("`{}` needs {needed}", dependent.trim());
        Some(self.refused(selection.what).caused_by(cause).with_hint(hint))
    }
}

/// Returns the version of the server for which a package is made, by its name:
/// `postgresql-15-cron`, `postgresql-plperl-15`.
fn version_in(server: &str, name: &str) -> Option<u32> {
    let rest = name.strip_prefix(server)?.strip_prefix('-')?;
    let number = |part: &str| part.parse().ok();
    number(rest.split('-').next()?).or_else(|| number(rest.rsplit('-').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres() -> Below<'static> {
        Below {
            server: Path::new("/usr/lib/postgresql/15/bin/postgres"),
            version: "postgres (PostgreSQL) 15.18",
            package: Some("postgresql"),
            variable: Some("SANDBOXED_DB_POSTGRES"),
            tree: None,
            image: None,
        }
    }

    #[test]
    fn a_package_of_another_version_is_refused() {
        for name in ["postgresql-15-cron", "postgresql-plperl-15", "postgresql-postgis", "libpq5", "x=15-14"]
        {
            postgres().check_version(name).unwrap();
        }
        for (name, fitting) in [
            ("postgresql-14-cron", "postgresql-15-cron"),
            ("postgresql-17-slony1-2=2.2-1", "postgresql-15-slony1-2"),
            ("postgresql-plperl-16", "postgresql-plperl-15"),
        ] {
            let error = postgres().check_version(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.hint().unwrap().starts_with(&format!("name `{fitting}`, or ")), "{error:?}");
        }
    }

    #[test]
    fn packages_for_another_server_are_refused() {
        let archive = |name: &str| {
            let output = format!("'http://mirror.example/{name}' {name} 1 \n");
            super::super::apt::archives(&output).remove(0)
        };
        let (names, below) = (["postgresql-plpython3-15".to_owned()], postgres());
        let selection = Selection { names: &names, what: "it", otherwise: None, below: Some(&below) };
        let misfit = |file: &str| below.misfit(&selection, &[archive(file)]);
        assert!(misfit("postgresql-plpython3-15_15.18_amd64.deb").is_none());
        assert!(misfit("postgresql-15_15.18_amd64.deb").is_none());
        assert!(misfit("postgresql-16_16.1_amd64.deb").is_some());

        let unmet = |line: &str| below.unmet(&selection, line, "Package: postgresql-15\nVersion: 15.18\n\n");
        let needed = "postgresql-15 (= 15.20-0+deb12u1) but 15.18 is to be installed";
        let error = unmet(&format!(" postgresql-plpython3-15 : Depends: {needed}")).unwrap();
        let report = format!("{error:?}");
        assert!(report.contains(&format!("`postgresql-plpython3-15` needs {needed}")), "{report}");
        assert!(
            report.contains("`sudo apt-get install postgresql-15`; or set SANDBOXED_DB_POSTGRES"),
            "{report}"
        );
        assert!(unmet(" x : Depends: libx (= 2) but 1 is to be installed").is_none());
    }

    #[test]
    fn trees_on_different_servers_have_different_names() {
        let other = Below { server: Path::new("/usr/lib/postgresql/16/bin/postgres"), ..postgres() };
        assert_ne!(postgres().key(), other.key());
    }
}
