//! A user's files may be in directories of programs, behind links and in memory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use sandboxed_db_tests::{MountUser, in_mount_namespace, is_alone, mount_task, run_checked};

use crate::requests::TestCache;

fn tmpfs(directory: &str) {
    run_checked("mount", &["-t", "tmpfs", "tmpfs", directory]);
}

/// Runs a migration in that directory, which later servers must not see.
fn runs_from(cache: &TestCache, directory: &str) {
    fs::create_dir_all(directory).unwrap();
    fs::write(Path::new(directory).join("1.sql"), format!("create table t as select '{directory}' as x;\n"))
        .unwrap();
    let seen = format!("select coalesce((pg_stat_file('{directory}/1.sql', true)).size::text, 'nothing')");
    let request = [("migrations", directory), ("sql", "select x from t"), ("sql", &seen)];
    cache.assert_response(&request, true, &[directory, "nothing"]);
}

#[test]
fn migrations_run_from_hidden_and_covered_directories() {
    in_mount_namespace(MountUser::best(), "hidden_paths::among_the_programs_and_in_memory", "");
}

#[test]
#[ignore = "run by the test above, in separate namespaces"]
fn among_the_programs_and_in_memory() {
    if !is_alone() {
        return;
    }
    mount_task().unwrap();
    let mut cache = TestCache::new();
    // Servers do not see this directory.
    tmpfs("/usr/src");
    runs_from(&cache, "/usr/src/app/migrations");
    // The new root is mounted on it first.
    tmpfs("/dev/shm");
    runs_from(&cache, "/dev/shm/migrations");
    // A hidden directory may be a link.
    tmpfs("/usr/games");
    fs::create_dir_all("/usr/games/real/registry").unwrap();
    symlink("real", "/usr/games/cargo").unwrap();
    cache.environment = vec![("CARGO_HOME", "/usr/games/cargo")];
    let hidden = "select count(*)::text from pg_ls_dir('/usr/games/real')";
    assert_eq!(cache.ask(&[("sql", hidden)]).answers, ["0"]);
    runs_from(&cache, "/usr/games/cargo/app");
}
