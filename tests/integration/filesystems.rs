//! The cache works on every usual file system, and in the image of a container.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use sandboxed_db_tests::{
    MountUser, in_mount_namespace, is_alone, is_exhaustive, is_installed, mount_task,
    on_different_file_systems, run_checked, skip, skip_without_root,
};

use crate::layers::{ALL_RUNS, note, runs};
use crate::maintenance;
use crate::requests::{Response, TestCache, copy_base, files};

#[rstest]
#[case::tmpfs("tmpfs")]
#[case::overlay("overlay")]
fn the_cache_works_on(#[case] kind: &str) {
    in_mount_namespace(MountUser::best(), "filesystems::store_on", kind);
}

#[rstest]
#[case::tmpfs("tmpfs")]
#[case::overlay("overlay")]
fn without_root_the_cache_works_on(#[case] kind: &str) {
    if MountUser::best() == MountUser::Root && is_exhaustive("root can do more") {
        in_mount_namespace(MountUser::User, "filesystems::store_on", kind);
    }
}

#[rstest]
#[case::xfs("xfs")]
#[case::btrfs("btrfs")]
#[case::ext4("ext4")]
fn the_cache_works_on_a_disk_with(#[case] kind: &str) {
    if MountUser::best() != MountUser::Root {
        return skip_without_root("mounts a disk");
    }
    if !is_installed(&format!("mkfs.{kind}")) || !Path::new("/dev/loop-control").exists() {
        return skip(&format!("no mkfs.{kind} or no loop devices here"));
    }
    in_mount_namespace(MountUser::Root, "filesystems::store_on", kind);
}

#[test]
#[ignore = "run by the tests of this file, in separate namespaces"]
fn store_on() {
    if !is_alone() {
        return;
    }
    let (directory, kind) = mount_task().unwrap();
    let mut cache = TestCache::empty();
    cache.cache = mounted(&directory, &kind).join("cache");
    cache.write("migrations/1.sql", &note("first"));
    let first = cache.ask(&ALL_RUNS);
    assert!(first.built);
    assert!(on_different_file_systems(&cache.cache, Path::new(&cache.path("migrations"))));

    cache.write("migrations/2.sql", &note("second"));
    let (made, two) = cache.made_by(|| cache.ask(&ALL_RUNS));
    assert!(two.built);
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(runs(&two).len(), 2, "{two:?}");
    assert_eq!(runs(&two)[0], runs(&first)[0], "the first was run again");
    cache.assert_no_build_is_left();
    if ["xfs", "btrfs"].contains(&kind.as_str()) {
        assert_extents_are_shared(&made[0]);
    }

    assert_eq!(cache.ask(&ALL_RUNS), Response { built: false, answers: two.answers.clone() });
    assert_eq!(maintenance::run(&cache, "verify"), [""; 0]);
    // A damaged layer is set aside and built again on its parent.
    fs::write(made[0].join("PG_VERSION"), "16\n").unwrap();
    let again = cache.ask(&ALL_RUNS);
    assert!(again.built);
    assert_eq!(runs(&again).len(), 2, "{again:?}");
    maintenance::run(&cache, "prune 0");
    assert!(cache.layers().is_empty());
    cache.assert_no_build_is_left();
}

/// Mounts a new file system of that kind, and returns its directory.
fn mounted(directory: &Path, kind: &str) -> PathBuf {
    let at = |name: &str| directory.join(name);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let target = at("mounted");
    fs::create_dir(&target).unwrap();
    match kind {
        "tmpfs" => run_checked("mount", &["-t", "tmpfs", "-o", "size=1g", "tmpfs", &text(&target)]),
        "overlay" => {
            fs::create_dir(at("lower")).unwrap();
            fs::write(at("lower/file"), "of the image").unwrap();
            overlay(directory, "container");
        }
        _ => {
            let image = at("image");
            fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
            run_checked(&format!("mkfs.{kind}"), &["-q", &text(&image)]);
            // The kernel detaches the loop device after the last mount.
            run_checked("mount", &["-t", kind, "-o", "loop", &text(&image), &text(&target)]);
        }
    }
    assert!(on_different_file_systems(&target, directory));
    let types = Command::new("stat").args(["-f", "-c", "%T"]).arg(&target).output().unwrap();
    let name = String::from_utf8(types.stdout).unwrap();
    assert!(name.starts_with(kind.trim_end_matches('4')) || name.starts_with("overlay"), "{name}");
    target
}

/// Mounts `lower` and the changes of a container on `mounted`, as container engines mount images.
fn overlay(directory: &Path, name: &str) {
    let at = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (upper, work) = (at(&format!("{name}/upper")), at(&format!("{name}/work")));
    fs::create_dir_all(&upper).unwrap();
    fs::create_dir_all(&work).unwrap();
    let mut options = format!("lowerdir={},upperdir={upper},workdir={work}", at("lower"));
    // The usual attributes are for the host's root.
    if fs::read_to_string("/proc/self/uid_map").unwrap().split_ascii_whitespace().nth(2) == Some("1") {
        options.push_str(",userxattr");
    }
    run_checked("mount", &["-t", "overlay", "-o", &options, "overlay", &at("mounted")]);
}

/// Files that differ from the parent's were copied by reflink, so they share extents.
fn assert_extents_are_shared(data: &Path) {
    let own: Vec<_> =
        files(data).into_iter().filter(|file| fs::metadata(file).unwrap().nlink() == 1).collect();
    let extents = Command::new("/usr/sbin/filefrag").args(["-s", "-v"]).args(&own).output().unwrap();
    let extents = String::from_utf8_lossy(&extents.stdout).into_owned();
    assert!(extents.lines().any(|line| line.contains("shared")), "{extents}");
}

// In an image.

/// overlayfs cannot rename a directory of the image. Layers must be replaced and removed all the
/// same.
#[test]
fn a_cache_in_an_image_is_used_extended_repaired_and_pruned() {
    in_mount_namespace(MountUser::best(), "filesystems::store_in_an_image", "image");
}

#[test]
#[ignore = "run by a test of this file, in separate namespaces"]
fn store_in_an_image() {
    if !is_alone() {
        return;
    }
    let (directory, _) = mount_task().unwrap();
    run_checked("mount", &["-t", "tmpfs", "tmpfs", directory.to_str().unwrap()]);
    let mut cache = TestCache::empty();
    cache.cache = directory.join("lower/cache");
    copy_base(&cache.cache);
    cache.write("migrations/1.sql", &note("first"));
    let first = cache.ask(&ALL_RUNS);
    assert!(first.built);
    fs::create_dir(directory.join("mounted")).unwrap();
    // Each container starts with the layers of the image.
    type Action = fn(&mut TestCache, &Response);
    let containers: [(&str, Action); 4] =
        [("added", added_to), ("rebuilt", rebuilt), ("damaged", damaged), ("pruned", pruned)];
    for (name, action) in containers {
        overlay(&directory, name);
        cache.cache = directory.join("mounted/cache");
        assert_eq!(cache.ask(&ALL_RUNS), Response { built: false, answers: first.answers.clone() }, "{name}");
        action(&mut cache, &first);
        cache.assert_no_build_is_left();
        assert_eq!(maintenance::run(&cache, "verify"), [""; 0], "{name}");
        run_checked("umount", &[directory.join("mounted").to_str().unwrap()]);
    }
}

fn added_to(cache: &mut TestCache, first: &Response) {
    let second = cache.write("migrations/2.sql", &note("second"));
    let two = cache.ask(&ALL_RUNS);
    assert!(two.built);
    assert_eq!(runs(&two)[0], runs(first)[0], "the first was run again");
    assert_eq!(cache.ask(&ALL_RUNS), Response { built: false, answers: two.answers });
    assert_eq!(cache.layers().len(), 3);
    fs::remove_file(second).unwrap();
}

fn rebuilt(cache: &mut TestCache, first: &Response) {
    cache.environment = vec![("SANDBOXED_DB_REBUILD", "1")];
    let again = cache.ask(&ALL_RUNS);
    cache.environment.clear();
    assert!(again.built && again.answers != first.answers);
    assert_eq!(cache.ask(&ALL_RUNS), Response { built: false, answers: again.answers });
    // The next build removes the replaced layers.
    let another = cache.write("another.sql", &note("another"));
    cache.ask(&[("seed", &another)]);
    assert_eq!(cache.layers().len(), 3);
}

fn damaged(cache: &mut TestCache, first: &Response) {
    let change = |data: &PathBuf| fs::write(data.join("PG_VERSION"), "16\n").unwrap();
    cache.layers().values().for_each(change);
    let again = cache.ask(&ALL_RUNS);
    assert!(again.built && again.answers != first.answers);
    assert_eq!(cache.ask(&ALL_RUNS), Response { built: false, answers: again.answers });
    cache.layers().values().for_each(change);
    assert_eq!(maintenance::run(cache, "verify").len(), 2);
    assert!(cache.layers().is_empty());
    assert!(cache.ask(&ALL_RUNS).built);
}

fn pruned(cache: &mut TestCache, _first: &Response) {
    assert_eq!(maintenance::run(cache, "prune 0").len(), 2);
    assert!(cache.layers().is_empty());
    assert!(cache.ask(&ALL_RUNS).built);
}
