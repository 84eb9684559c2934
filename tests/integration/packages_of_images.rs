//! Packages of an image's distribution on top of its server.

use std::process::Command;
use std::sync::OnceLock;

use sandboxed_db::{Keep, Postgres, Snapshot, cache::Kept};
use sandboxed_db_tests::{
    AptRepository, OciLayout, Package, assert_says, connect, installed_postgres, refused, skip, value_at,
};
use tempfile::TempDir;

use crate::errors::real;
use crate::packages::add_fable;

/// An image of the installed PostgreSQL with the status of its packages, and a repository that only
/// the image names.
struct Fable {
    repository: AptRepository,
    image: OciLayout,
    package: String,
    _directory: TempDir,
}

impl Fable {
    /// The one of this process. Skips the test without apt-get, or if the server is not the
    /// distribution's.
    fn get() -> Option<&'static Self> {
        static FABLE: OnceLock<Option<Fable>> = OnceLock::new();
        let fable = FABLE.get_or_init(Self::new).as_ref();
        if fable.is_none() {
            skip("there is no apt-get, or no PostgreSQL of the distribution");
        }
        fable
    }

    fn new() -> Option<Self> {
        let (repository, major) = (AptRepository::serve()?, real().major());
        let server = format!("postgresql-{major}");
        let status = Command::new("dpkg-query").args(["--status", "libc6", &server]).output().ok()?;
        let status = String::from_utf8(status.stdout).ok().filter(|_| status.status.success())?;
        let package = add_fable(&repository, major, "slow and steady");
        let strict = format!("{server} (= 99.9-1)");
        repository.add(&Package { name: "strict", depends: &strict, ..Package::default() });
        let program = real().server().display().to_string();
        let list = format!("var/lib/dpkg/info/{server}.list");
        let files = [
            ("etc/os-release", "ID=fabled\nVERSION_ID=1\n"),
            ("etc/apt/sources.list", &repository.source()),
            // Of this machine it would be used.
            ("etc/apt/apt.conf.d/hook", "Dir::Bin::dpkg \"/nowhere\";\nAPT::Architecture \"m68k\";\n"),
            ("var/lib/dpkg/status", &status),
            (&list, &format!("/.\n{program}\n")),
        ];
        let directory = tempfile::tempdir().unwrap();
        let image = OciLayout::write(directory.path(), &installed_postgres(&files)?, &["PATH=/usr/bin"]);
        Some(Self { repository, image, package, _directory: directory })
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::new(Postgres::new()).image(self.image.reference())
    }
}

#[test]
fn an_extension_from_a_package_works_in_an_image() {
    let Some(fable) = Fable::get() else { return };
    let with_package = fable.snapshot().package(&fable.package);
    let name = "packages_of_images::an_extension_from_a_package_works_in_an_image";
    let db = with_package.clone().keep(Keep::Always).keep_as(name).start().unwrap();
    connect(db.url()).batch_execute("create extension fable").unwrap();
    assert_eq!(value_at::<String>(db.url(), "select fable()"), "slow and steady");
    // Nothing else was fetched, and nothing of this machine shows.
    let asked = fable.repository.asked();
    assert_eq!(asked, ["fable-data_1.0_all.deb", &format!("{}_1.0_all.deb", fable.package)]);
    for hidden in ["usr/bin", "packages.json", "var/lib/apt"] {
        assert!(db.root().join(hidden).symlink_metadata().is_err(), "{hidden}");
    }
    assert!(std::fs::write(db.root().join("usr/lib/fable/text"), "x").is_err(), "a package can be written");
    drop(db);
    // Kept data opens with the image and its packages, and no repository is asked again.
    let kept = Kept::open().unwrap();
    let state = kept.list().unwrap().into_iter().find(|state| state.name == name).unwrap();
    let db = state.start().unwrap();
    assert_eq!(value_at::<String>(db.url(), "select fable()"), "slow and steady");
    drop(db);
    kept.remove(&state).unwrap();
    assert_eq!(fable.repository.asked(), asked);
    // The image without the package is another server.
    let db = fable.snapshot().start().unwrap();
    let error = connect(db.url()).batch_execute("create extension fable").unwrap_err();
    assert_says(&format!("{error:?}"), &["is not available"]);
}

#[test]
fn packages_that_an_image_cannot_have_are_refused() {
    let Some(fable) = Fable::get() else { return };
    let report = |package: &str| refused(&fable.snapshot().package(package));
    assert_says(
        &report("none"),
        &["could not get `none` from the packages of the image sha256:", "sources in /etc/apt of the image"],
    );
    assert_says(&report("strict"), &["`strict` needs postgresql-", "use an image with that version of it"]);
    let major = real().major();
    let other = report(&format!("postgresql-{}-cron", major + 1));
    assert_says(&other, &["made for version", &format!("name `postgresql-{major}-cron`")]);
}
