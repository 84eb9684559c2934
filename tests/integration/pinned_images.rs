//! Names of images in registries, which a lock file records.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use sandboxed_db::harness::update_images;
use sandboxed_db::{Postgres, Snapshot};
use sandboxed_db_tests::{OciLayout, alone, assert_says, is_alone, passed, skip, skip_as_root};
use tempfile::TempDir;

use crate::registries::DockerRegistry;

/// A registry, and a repository whose tests use its images.
struct Repository {
    registry: DockerRegistry,
    directory: PathBuf,
    caches: TempDir,
}

impl Repository {
    /// Returns `None` without a registry.
    fn new() -> Option<Self> {
        let Some(registry) = DockerRegistry::start() else {
            skip("docker-registry is not installed");
            return None;
        };
        let directory = registry.place.path().join("repository");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("Cargo.lock"), "").unwrap();
        Some(Self { registry, directory, caches: tempfile::tempdir().unwrap() })
    }

    fn name(&self, tag: &str) -> String {
        format!("127.0.0.1:{}/team/db:{tag}", self.registry.port)
    }

    /// Pushes an image without a server. Returns the digest of its configuration, by which errors
    /// name it.
    fn push(&self, tag: &str, mark: &str) -> String {
        let layout = self.registry.place.path().join(mark);
        let layout = OciLayout::write(&layout, &[0; 1024], &[&format!("MARK={mark}")]);
        self.registry.copy(&layout.reference(), &format!("team/db:{tag}"));
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        let digest = |text: &str| text.split("sha256:").nth(1).unwrap()[..64].to_owned();
        let manifest = layout.path_of(&digest(&read(layout.directory.join("index.json"))));
        digest(&read(manifest))
    }

    /// A process that uses an image, as on a separate machine.
    fn user(&self, tag: &str, cache: &str) -> Command {
        let mut test = alone("pinned_images::use_alone");
        test.arg("--nocapture")
            .env("SANDBOXED_DB_CACHE", self.caches.path().join(cache))
            .env("SANDBOXED_DB_TEST_REPOSITORY", &self.directory)
            .env("SANDBOXED_DB_TEST_IMAGE", self.name(tag));
        test
    }

    fn lock_file(&self) -> PathBuf {
        self.directory.join("sandboxed-db.lock")
    }

    fn recorded(&self) -> String {
        fs::read_to_string(self.lock_file()).unwrap()
    }
}

/// Uses an image, and prints the error, since it holds no server.
#[test]
#[ignore = "runs alone, with the repository of another test"]
#[expect(clippy::print_stdout, reason = "the test that runs this one reads it")]
fn use_alone() {
    let Some(repository) = std::env::var_os("SANDBOXED_DB_TEST_REPOSITORY").filter(|_| is_alone()) else {
        return;
    };
    let image = std::env::var("SANDBOXED_DB_TEST_IMAGE").unwrap();
    let snapshot = Snapshot::new(Postgres::new()).relative_to(PathBuf::from(repository)).image(image);
    println!("{:?}", snapshot.start().unwrap_err());
}

#[test]
fn a_recorded_tag_stands_for_one_image_until_an_update() {
    let Some(repository) = Repository::new() else { return };
    let one = repository.push("17", "1");
    assert_says(
        &passed(&mut repository.user("17", "a")),
        &[&format!("in the image sha256:{one}"), "commit it"],
    );
    let recorded = repository.recorded();
    assert_says(&recorded, &[&format!("\n\"{}\" = \"sha256:", repository.name("17")), "version = 1"]);
    let mode = repository.lock_file().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o600, 0o600);
    let two = repository.push("17", "2");
    for (cache, locked) in [("a", "0"), ("b", "0"), ("c", "1")] {
        let text = passed(repository.user("17", cache).env("SANDBOXED_DB_LOCKED", locked));
        assert_says(&text, &[&format!("in the image sha256:{one}")]);
    }
    assert_eq!(repository.recorded(), recorded);
    passed(alone("pinned_images::update_alone").envs(variables(&repository.user("17", "d"))));
    assert_says(&passed(&mut repository.user("17", "a")), &[&format!("in the image sha256:{two}")]);
}

fn variables(command: &Command) -> Vec<(String, String)> {
    let text = |text: &std::ffi::OsStr| text.to_str().unwrap().to_owned();
    command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?)))).collect()
}

#[test]
#[ignore = "runs alone, with the repository of another test"]
fn update_alone() {
    let Some(repository) = std::env::var_os("SANDBOXED_DB_TEST_REPOSITORY").filter(|_| is_alone()) else {
        return;
    };
    let repository = PathBuf::from(repository);
    let name = std::env::var("SANDBOXED_DB_TEST_IMAGE").unwrap();
    let (file, updates) = update_images(&repository, &[]).unwrap();
    assert_eq!(file, repository.join("sandboxed-db.lock"));
    let [update] = &updates[..] else { panic!("one name is recorded: {updates:?}") };
    assert_eq!(update.name, name);
    assert!(update.before.is_some() && update.before.as_ref() != Some(&update.after), "{update:?}");
    let (_, again) = update_images(&repository, std::slice::from_ref(&name)).unwrap();
    assert_eq!(again[0].before.as_ref(), Some(&update.after));
    let before = fs::read(&file).unwrap();
    let refused = |name: &str| format!("{:?}", update_images(&repository, &[name.to_owned()]).unwrap_err());
    assert_says(&refused(&name.replace(":17", ":none")), &["has no such image"]);
    assert_says(&refused("oci:x"), &["it is no name in a registry"]);
    assert_says(&refused(&format!("{name}@{}", update.after)), &["it names its digest"]);
    assert_eq!(fs::read(&file).unwrap(), before, "a failed update changed the file");
}

#[test]
fn a_locked_run_refuses_a_name_that_is_not_recorded() {
    let Some(repository) = Repository::new() else { return };
    let name = repository.name("17");
    let text = passed(repository.user("17", "a").env("SANDBOXED_DB_LOCKED", "1"));
    let file = repository.lock_file();
    assert_says(
        &text,
        &[
            &format!("could not use the image `{name}`"),
            &format!("there is no `{}`, and SANDBOXED_DB_LOCKED=1 or `--locked`", file.display()),
            &format!("`sandboxed-db update {name}`"),
        ],
    );
    fs::write(&file, "").unwrap();
    let text = passed(repository.user("17", "a").env("SANDBOXED_DB_LOCKED", "1"));
    assert_says(&text, &["sandboxed-db.lock` does not record it, and"]);
    assert_eq!(repository.recorded(), "");
    // A broken file is no empty one.
    fs::write(&file, "[images\n").unwrap();
    assert_says(
        &passed(&mut repository.user("17", "a")),
        &["could not read `", "sandboxed-db.lock`", "line 1"],
    );
}

#[test]
fn processes_record_names_side_by_side() {
    let Some(repository) = Repository::new() else { return };
    let tags: Vec<_> = (0..6).map(|tag| tag.to_string()).collect();
    for tag in &tags {
        repository.push(tag, tag);
    }
    // Two for each name.
    let users = tags.iter().chain(&tags).map(|tag| {
        repository.user(tag, "shared").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    });
    for mut user in users.collect::<Vec<_>>() {
        assert!(user.wait().unwrap().success());
    }
    let recorded = repository.recorded();
    for tag in &tags {
        assert_eq!(recorded.matches(&format!("{}\" = ", repository.name(tag))).count(), 1, "{recorded}");
    }
    let names: Vec<_> =
        fs::read_dir(&repository.directory).unwrap().flatten().map(|it| it.file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_source_tree_that_cannot_be_written_is_no_error() {
    let Some(repository) = Repository::new() else { return };
    if rustix::process::geteuid().is_root() {
        return skip_as_root("it may write everywhere");
    }
    let id = repository.push("17", "1");
    let mode = |mode| fs::set_permissions(&repository.directory, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    let text = passed(&mut repository.user("17", "a"));
    assert_says(
        &text,
        &[&format!("in the image sha256:{id}"), "cannot be written: it does not record that `"],
    );
    // Once asked, the name needs no registry on this machine.
    repository.push("17", "2");
    let text = passed(&mut repository.user("17", "a"));
    assert_says(&text, &[&format!("in the image sha256:{id}")]);
    mode(0o755);
    assert!(!repository.lock_file().exists());
}
