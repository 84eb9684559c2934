//! Servers of images: whose files run, what is unpacked, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sandboxed_db::cache::{Kept, Layers, Limit};
use sandboxed_db::{Engine, ErrorKind, Keep, Postgres, Redis, Sandbox, Snapshot, sandboxed_db};
use sandboxed_db_tests::{
    OciLayout, alone, assert_says, connect, continues_in_cache, installed_postgres, is_alone, passed,
    refused, sha256, skip, value_at,
};
use tempfile::TempDir;

/// An image of the installed PostgreSQL without a shell, for all tests of this process; `None`
/// without an installed one.
fn image() -> Option<&'static OciLayout> {
    static IMAGE: OnceLock<Option<(TempDir, OciLayout)>> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let env = ["PATH=/nowhere:/usr/bin", "FROM_IMAGE=1", "PGUSER=nobody", "LC_ALL=xx_XX"];
        let layout = OciLayout::write(directory.path(), &installed_postgres(&[])?, &env);
        Some((directory, layout))
    });
    if image.is_none() {
        skip("no PostgreSQL of Debian's layout is installed, from which an image could be made");
    }
    image.as_ref().map(|(_, layout)| layout)
}

/// Fails to start, because the image lacks what is asked for; returns the report.
fn lacking<E: Engine>(snapshot: &Snapshot<E>) -> String {
    let error = snapshot.start().expect_err("it was not refused");
    assert_eq!(error.kind(), ErrorKind::NotInstalled, "{error:?}");
    format!("{error:?}")
}

fn start(snapshot: &Snapshot) -> Sandbox {
    snapshot.start().unwrap_or_else(|error| panic!("{error:?}"))
}

fn unpacked() -> Vec<PathBuf> {
    let images = Layers::open().unwrap().directory().join("images");
    fs::read_dir(images).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[test]
fn the_root_is_the_images_and_read_only() {
    let Some(image) = image() else { return };
    let db = start(&Snapshot::new(Postgres::new()).image(image.reference()));
    let root = db.root();
    assert!(root.join("usr/bin").symlink_metadata().is_err(), "the host's programs show");
    for name in ["usr", "lib", "etc", "var"] {
        let written = fs::write(root.join(name).join("new"), "x");
        assert!(written.is_err(), "/{name} can be written");
    }
    let sql =
        "select count(*) from pg_ls_dir('/') name where name in ('usr', 'proc', 'dev', 'tmp', 'run', 'etc')";
    assert_eq!(value_at::<i64>(db.url(), sql), 6);
    let environ = fs::read(format!("/proc/{}/root/proc/2/environ", db.pid())).unwrap_or_default();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    let has = |variable: &str| environ.split('\0').any(|it| it == variable);
    assert!(has("FROM_IMAGE=1") && has("PATH=/nowhere:/usr/bin"), "{environ}");
    assert!(!has("PGUSER=nobody") && !has("LC_ALL=xx_XX"), "{environ}");
}

#[test]
fn steps_run_in_an_image_and_copies_are_pristine() {
    let Some(image) = image() else { return };
    let place = tempfile::tempdir().unwrap();
    let seed = place.path().join("seed.sql");
    fs::write(&seed, "create table t (x int); insert into t values (1);").unwrap();
    let snapshot = Snapshot::new(Postgres::new().database("shop")).image(image.reference()).seed(seed);
    let (one, other) = (start(&snapshot), start(&snapshot));
    connect(one.url()).batch_execute("insert into t values (2)").unwrap();
    assert_eq!(value_at::<i64>(one.url(), "select count(*) from t"), 2);
    assert_eq!(value_at::<i64>(other.url(), "select count(*) from t"), 1);
    // Layers of the host's server and of the image's are apart.
    let host = start(&Snapshot::new(Postgres::new().database("shop")));
    assert_eq!(value_at::<Option<String>>(host.url(), "select to_regclass('t')::text"), None);
}

#[test]
fn an_archive_of_an_image_is_the_same_image() {
    let Some(image) = image() else { return };
    if Command::new("skopeo").arg("--version").output().is_err() {
        return skip("skopeo is not installed");
    }
    let place = tempfile::tempdir().unwrap();
    let copy = |to: &str, options: &[&str]| {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet"]).args(options).args([&image.reference(), to]);
        let output = skopeo.current_dir(place.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    drop(start(&Snapshot::new(Postgres::new()).image(image.reference())));
    copy("oci-archive:image.tar:one", &[]);
    copy("docker-archive:docker.tar:postgres:17", &[]);
    copy("oci:zstd:one", &["--dest-compress-format", "zstd"]);
    for reference in [
        "oci-archive:image.tar:one",
        "oci-archive:image.tar",
        "docker-archive:docker.tar:postgres:17",
        "docker-archive:docker.tar",
        "oci:zstd:one",
    ] {
        let snapshot = Snapshot::new(Postgres::new()).relative_to(place.path()).image(reference);
        let db = start(&snapshot);
        assert!(!db.timings().layer_built, "{reference} is another image");
        assert_eq!(value_at::<i32>(db.url(), "select 1"), 1);
    }
    let other = Snapshot::new(Postgres::new()).relative_to(place.path());
    assert_says(
        &refused(&other.clone().image("oci-archive:image.tar:two")),
        &["no image with the tag `two`"],
    );
    let report = refused(&other.image("docker-archive:docker.tar:postgres:16"));
    assert_says(&report, &["no image `postgres:16`", "postgres:17`"]);
}

#[test]
fn the_images_server_is_known_by_image() {
    let Some(image) = image() else { return };
    let report = lacking(&Snapshot::new(Postgres::new().version("9")).image(image.reference()));
    assert_says(
        &report,
        &["could not find version 9 in the image sha256:", "it holds postgres (PostgreSQL)"],
    );
    let report = lacking(&Snapshot::new(Redis::new()).image(image.reference()));
    assert_says(&report, &["find `redis-server` or `valkey-server` in the image sha256:"]);
    let report = refused(&Snapshot::new(Postgres::new()).image(image.reference()).package("hello"));
    assert_says(
        &report,
        &["could not add `hello` to the image sha256:", "hint: use an image that is made from"],
    );
}

#[test]
fn images_that_cannot_be_used_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let report =
        |reference: &str| refused(&Snapshot::new(Postgres::new()).relative_to(place.path()).image(reference));
    assert_says(
        &report("oci:missing"),
        &["could not use the image `oci:", "missing/index.json`", "skopeo copy"],
    );
    assert_says(&report("podman:x y"), &["accepted are `oci:DIRECTORY[:TAG]`"]);
    let other = OciLayout::write_for(&place.path().join("m68k"), "m68k", &[0; 1024], &[]);
    assert_says(&report("oci:m68k"), &["it is for linux/m68k, and this machine is linux/"]);
    fs::write(other.directory.join("index.json"), "{").unwrap();
    assert_says(&report("oci:m68k"), &["its index.json is broken"]);
    fs::write(place.path().join("gz.tar"), [0x1f, 0x8b, 8, 0]).unwrap();
    assert_says(&report("docker-archive:gz.tar"), &["compressed as a whole: uncompress it"]);
    let empty = OciLayout::write(&place.path().join("empty"), &[0; 1024], &[]);
    assert_says(
        &lacking(&Snapshot::new(Postgres::new()).image(empty.reference())),
        &["could not find `postgres` in the image sha256:"],
    );
}

#[test]
fn a_damaged_image_is_refused_and_leaves_nothing() {
    if !continues_in_cache(a_damaged_image_is_refused_and_leaves_nothing) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let layer = [b'x'; 2048];
    let layout = OciLayout::write(place.path(), &layer, &[]);
    let blob = layout.path_of(&sha256(&layer));
    let report = || refused(&Snapshot::new(Postgres::new()).image(layout.reference()));
    // Not an archive, though its digest is right.
    assert_says(&report(), &["could not use the image `oci:"]);
    let mut damaged = [0; 2048];
    fs::write(&blob, damaged).unwrap();
    assert_says(&report(), &["a layer is damaged: its digest is sha256:", "was expected"]);
    damaged[0] = 1;
    fs::write(&blob, &damaged[..100]).unwrap();
    assert_says(&report(), &["has 100 bytes instead of 2048"]);
    fs::remove_file(&blob).unwrap();
    assert_says(&report(), &["could not use the image", "No such file"]);
    assert_eq!(unpacked(), Vec::<PathBuf>::new());
    let staging = Layers::open().unwrap().directory().join("staging");
    assert_eq!(fs::read_dir(staging).unwrap().count(), 0, "something half-unpacked is left");
}

#[test]
fn a_changed_image_is_unpacked_again() {
    if !continues_in_cache(a_changed_image_is_unpacked_again) {
        return;
    }
    let Some(image) = image() else { return };
    let snapshot = || Snapshot::new(Postgres::new()).image(image.reference());
    drop(start(&snapshot()));
    let [directory] = &unpacked()[..] else { panic!("one image is unpacked") };
    let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
    let layers = Layers::open().unwrap();
    assert_eq!(layers.verify().unwrap(), Vec::new());
    let listed = layers.list().unwrap().into_iter().find(|it| it.digest == name).unwrap();
    assert_eq!((listed.engine.as_str(), listed.version), ("image", image.reference()));
    assert!(listed.in_use && listed.size > 1 << 20);
    // In use it stays, whatever the limit.
    layers.prune(Limit { size: 0, age: None }).unwrap();
    assert!(directory.exists());
    let psql =
        fs::read_dir(directory.join("root/usr/lib/postgresql")).unwrap().next().unwrap().unwrap().path();
    fs::write(psql.join("bin/psql"), "changed").unwrap();
    fs::write(directory.join("root/new"), "").unwrap();
    passed(alone("images::unpacks_again_alone").env("SANDBOXED_DB_TEST_LAYOUT", image.reference()));
    fs::write(directory.join("root/new"), "").unwrap();
    let [damage] = &layers.verify().unwrap()[..] else { panic!("one image is damaged") };
    assert_eq!(
        (damage.digest.clone(), damage.differences.clone()),
        (name, vec!["`new` was added".to_owned()])
    );
    assert!(!directory.exists());
}

/// Starts from an image that was changed in the cache, in a process that does not use it yet.
#[test]
#[ignore = "runs alone, with the cache of another test"]
fn unpacks_again_alone() {
    let Some(reference) = std::env::var_os("SANDBOXED_DB_TEST_LAYOUT") else { return };
    let db = start(&Snapshot::new(Postgres::new()).image(reference.into_string().unwrap()));
    assert_eq!(value_at::<i32>(db.url(), "select 1"), 1);
}

#[test]
fn kept_data_opens_in_its_image() {
    let Some(image) = image() else { return };
    let name = "images::kept_data_opens_in_its_image";
    let snapshot = Snapshot::new(Postgres::new()).image(image.reference()).keep(Keep::Always).keep_as(name);
    let db = start(&snapshot);
    connect(db.url()).batch_execute("create table mark as select 1 as x").unwrap();
    drop(db);
    let kept = Kept::open().unwrap();
    let state = kept.list().unwrap().into_iter().find(|state| state.name == name).unwrap();
    assert_eq!(state.image, Some(image.reference()));
    let db = state.start().unwrap();
    assert_eq!(value_at::<i32>(db.url(), "select x from mark"), 1);
    assert!(db.root().join("usr/bin").symlink_metadata().is_err(), "it is the host's server");
    drop(db);
    kept.remove(&state).unwrap();
}

#[test]
#[ignore = "runs alone, with an image in the environment"]
fn of_the_variable_alone() {
    if !is_alone() {
        return;
    }
    let db = start(&Snapshot::new(Postgres::new()));
    assert!(db.root().join("usr/bin").symlink_metadata().is_err(), "it is the host's server");
    let missing = Snapshot::new(Postgres::new()).image("oci:none");
    assert_says(&refused(&missing), &["could not use the image `oci:"]);
    let report = sandboxed_db::doctor();
    assert!(report.works && report.to_string().contains("the image oci:"), "{report}");
}

#[test]
fn the_variable_of_an_engine_names_an_image() {
    let Some(image) = image() else { return };
    passed(alone("images::of_the_variable_alone").env("SANDBOXED_DB_POSTGRES", image.reference()));
}

#[sandboxed_db(image = "oci:no/such/image", migrations = none)]
#[ignore = "runs alone, and fails"]
fn of_the_attribute_alone(_db: Sandbox) {}

#[test]
fn the_attribute_takes_an_image() {
    let (_, text) = sandboxed_db_tests::outcome(&mut alone("images::of_the_attribute_alone"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("no/such/image");
    assert_says(&text, &[&format!("could not use the image `oci:{}`", path.display())]);
}
