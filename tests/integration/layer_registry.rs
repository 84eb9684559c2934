//! Layers that machines share by a registry: machines with separate caches, and Debian's
//! docker-registry between them.

mod machines;
mod partitions;
mod proxy;
mod signatures;
mod trouble;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sandboxed_db::cache::Layers;
use sandboxed_db::{MariaDb, Postgres, Redis, Snapshot, Sqlite};
use sandboxed_db_tests::{
    TestedEngine, alone, assert_says, is_alone, is_exhaustive, is_installed, is_missing, passed, skip,
};

use crate::lifecycle::SUBJECT;
use machines::{MORE, Machines, PLACE, SHARED, registry};

macro_rules! machines {
    ($($engine:ident $name:ident),+) => {
        mod machine {
            $(
                #[test]
                #[ignore = "runs as a machine of a test, with its own cache"]
                fn $name() {
                    super::machine::<super::$engine>();
                }
            )+
        }
    };
}

machines!(Postgres postgres, Redis redis, MariaDb mariadb, Sqlite sqlite);

/// Starts a server on a layer of two steps, and looks at its data.
fn machine<E: TestedEngine>() {
    if !is_alone() {
        return;
    }
    let shared = PathBuf::from(std::env::var(SHARED).unwrap());
    let step = |name: &str| ["-c".to_owned(), format!("echo {name} >> {}/built", shared.display())];
    let snapshot = Snapshot::new(E::engine()).seed(shared.join(E::SEED_NAME)).run("sh", step("first"));
    let snapshot = match std::env::var(MORE) {
        Ok(more) => snapshot.run("sh", step(&more)),
        Err(_) => snapshot,
    };
    let db = snapshot.start().unwrap();
    assert_eq!(E::get(&db, "seed"), Ok(Some("seeded".to_owned())));
    E::set(&db, "other", "value").unwrap();
    assert!(Layers::open().unwrap().verify().unwrap().is_empty());
}

/// The commands of a person on a machine.
mod by_hand {
    use sandboxed_db::cache::{Layers, Transfer};
    use sandboxed_db_tests::is_alone;

    /// Counts layers that were moved, and those that were there.
    fn counted(transfers: Result<Vec<Transfer>, sandboxed_db::Error>) -> (usize, usize) {
        let transfers = transfers.unwrap();
        assert!(transfers.iter().all(|transfer| transfer.problem.is_none()), "{transfers:?}");
        let were_there = transfers.iter().filter(|transfer| transfer.was_there).count();
        (transfers.len() - were_there, were_there)
    }

    #[test]
    #[ignore = "runs on a machine of a test, with its own cache"]
    fn push() {
        let Ok(place) = std::env::var(super::PLACE) else { return };
        if is_alone() {
            let layers = Layers::open().unwrap();
            assert_eq!(counted(layers.push(&place)), (3, 0));
            assert_eq!(counted(layers.push(&place)), (0, 3));
        }
    }

    #[test]
    #[ignore = "runs on a machine of a test, with its own cache"]
    fn pull() {
        let Ok(place) = std::env::var(super::PLACE) else { return };
        if !is_alone() {
            return;
        }
        let layers = Layers::open().unwrap();
        // A layer brings those that led to it.
        let (pulled, were_there) = counted(layers.pull(&place));
        assert!(pulled > 0 && pulled + were_there == 3, "{pulled} {were_there}");
        assert_eq!(counted(layers.pull(&place)), (0, 3));
        let list = layers.list().unwrap();
        let is_origin =
            |origin: &String| origin.starts_with(&format!("{place}:")) && origin.contains("@sha256:");
        assert!(list.iter().all(|layer| layer.origin.as_ref().is_some_and(is_origin)), "{list:?}");
        let one = format!("{place}:{}", &list[0].digest[..12]);
        assert_eq!(counted(layers.pull(&one)), (0, 1));
        assert!(layers.pull(&format!("{place}:zz")).is_err());
    }
}

#[test]
fn layers_are_pushed_and_pulled_by_hand() {
    let (Some(registry), false) = (registry(), is_missing::<Redis>()) else { return };
    let machines = Machines::of::<Redis>("redis");
    passed(machines.command("one", "").env_remove("SANDBOXED_DB_REGISTRY"));
    for (machine, hand) in [("one", "push"), ("two", "pull")] {
        let command = alone(&format!("layer_registry::by_hand::{hand}"));
        passed(machines.on_machine(command, machine).env(PLACE, registry.layers()));
    }
    machines.run("two", &registry.layers());
    assert_eq!(machines.built(), ["first"]);
}

/// One machine builds and pushes, and the other ones pull and add a step.
fn second_machine_builds_nothing<E: TestedEngine>(engine: &'static str) {
    if is_missing::<E>() {
        return;
    }
    let Some(registry) = registry() else { return };
    let machines = Machines::of::<E>(engine);
    let said = machines.run_and_push("one", &registry.layers());
    assert_eq!(Machines::notices(&said), [""; 0]);
    assert_eq!(machines.built(), ["first"]);
    let said = machines.run("two", &registry.layers());
    assert_eq!(Machines::notices(&said), [""; 0]);
    assert_eq!(machines.built(), ["first"]);
    assert!(machines.all_pulled("two"), "{:?}", machines.layers("two"));
    assert_eq!(machines.layers("one").len(), machines.layers("two").len());
    // A step more is built on the pulled layers, here by two machines that push it at once.
    let push = |machine: &str| {
        let mut command = machines.command(machine, &registry.layers());
        command.env(MORE, "second").env("SANDBOXED_DB_PUSH", "1");
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    for machine in [push("three"), push("four")] {
        let output = machine.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    passed(machines.command("five", &registry.layers()).env(MORE, "second"));
    assert!((2..=3).contains(&machines.built().len()), "{:?}", machines.built());
    assert!(machines.all_pulled("five"), "{:?}", machines.layers("five"));
}

#[test]
fn a_layer_is_built_by_one_machine_and_pulled_by_others() {
    second_machine_builds_nothing::<Redis>("redis");
}

#[test]
fn a_migration_more_is_run_on_those_that_are_pulled() {
    let (Some(registry), false) = (registry(), is_missing::<Postgres>()) else { return };
    let machines = Machines::of::<Postgres>("postgres");
    let migrations = machines.place.path().join("migrations");
    fs::create_dir(&migrations).unwrap();
    let add = |number: u8| {
        fs::write(migrations.join(format!("{number}_t.sql")), format!("create table t{number} ();")).unwrap();
    };
    let start = |machine: &str, push: &str| {
        let mut command = machines.on_machine(Command::new(SUBJECT), machine);
        command.arg("--migrations").arg(&migrations).arg("return");
        command.env("SANDBOXED_DB_REGISTRY", registry.layers()).env("SANDBOXED_DB_PUSH", push);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    (1..=3).for_each(add);
    start("one", "1");
    add(4);
    start("two", "0");
    let built: Vec<_> = machines.layers("two").into_iter().filter(|(_, is_pulled)| !is_pulled).collect();
    assert_eq!((machines.layers("two").len(), built.len()), (3, 1));
}

#[test]
fn layers_of_every_engine_are_shared() {
    if is_exhaustive("starts servers of every engine on four machines") {
        second_machine_builds_nothing::<Postgres>("postgres");
        second_machine_builds_nothing::<MariaDb>("mariadb");
        second_machine_builds_nothing::<Sqlite>("sqlite");
    }
}

/// Every path of a directory with its mode, its size and its contents.
fn tree(directory: &Path) -> BTreeSet<String> {
    let output = Command::new("sh")
        .args(["-c", "find . -mindepth 1 -printf '%P %y %m\\n' && find . -type f -exec sha256sum {} +"])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn other_programs_copy_and_unpack_a_pushed_layer() {
    let Some(registry) = registry() else { return };
    if is_missing::<Postgres>() {
        return;
    }
    if !is_installed("skopeo") || !is_installed("umoci") {
        return skip("skopeo or umoci is not installed");
    }
    let machines = Machines::of::<Postgres>("postgres");
    machines.run_and_push("one", &registry.layers());
    let place = machines.place.path();
    let tool = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(place).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // The layer that no other one was built on has the archives of all.
    let manifest = |name: &str| machines.cache("one").join("layers").join(name).join("manifest.json");
    let layers = machines.layers("one");
    let manifests: Vec<_> =
        layers.iter().map(|(name, _)| fs::read_to_string(manifest(name)).unwrap()).collect();
    let is_parent = |name: &str| manifests.iter().any(|it| it.contains(&format!("\"parent\":\"{name}\"")));
    for (digest, _) in layers.iter().filter(|(name, _)| !is_parent(name)) {
        let there = format!("docker://{}:{digest}", registry.layers());
        let inspected = tool("skopeo", &["inspect", "--tls-verify=false", &there]);
        assert_says(
            &inspected,
            &["\"dev.sandboxed-db.engine\": \"postgres\"", "org.opencontainers.image.title"],
        );
        let here = format!("oci:layout:{digest}");
        let copy = ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", &there, &here];
        tool("skopeo", &copy);
        tool("umoci", &["unpack", "--rootless", "--image", &format!("layout:{digest}"), digest]);
        let data = manifest(digest).with_file_name("data");
        assert_eq!(tree(&place.join(digest).join("rootfs")), tree(&data));
        // The copy elsewhere can be pulled, too.
        let elsewhere = format!("docker://127.0.0.1:{}/mirror/layers:{digest}", registry.port);
        let copy = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &here, &elsewhere];
        tool("skopeo", &copy);
    }
    machines.run("two", &format!("127.0.0.1:{}/mirror/layers", registry.port));
    assert!(machines.all_pulled("two"), "{:?}", machines.layers("two"));
}

#[test]
fn a_difference_is_laid_on_the_base_that_it_was_made_from() {
    let Some(registry) = registry() else { return };
    if is_missing::<Postgres>() {
        return;
    }
    let machines = Machines::of::<Postgres>("postgres");
    machines.run_and_push("one", &registry.layers());
    // The other machine builds the base by itself, with other bytes, before it asks the registry.
    let base = machines.layers("one").into_iter().find(|(name, _)| {
        let manifest = machines.cache("one").join("layers").join(name).join("manifest.json");
        fs::read_to_string(manifest).unwrap().contains("\"parent\":null")
    });
    let (base, _) = base.unwrap();
    passed(machines.command("two", &registry.layers()).env_remove("SANDBOXED_DB_REGISTRY"));
    let layers = machines.cache("two").join("layers");
    for (name, _) in machines.layers("two").into_iter().filter(|(name, _)| *name != base) {
        fs::remove_dir_all(layers.join(name)).unwrap();
    }
    let control = |machine: &str| {
        fs::read(machines.cache(machine).join("layers").join(&base).join("data/global/pg_control"))
    };
    assert_ne!(control("one").unwrap(), control("two").unwrap());
    machines.run("two", &registry.layers());
    let (own, pulled): (Vec<_>, Vec<_>) =
        machines.layers("two").into_iter().partition(|(name, _)| *name == base);
    assert_eq!(own, [(base, false)]);
    assert!(pulled.len() == 2 && pulled.iter().all(|(_, is_pulled)| *is_pulled), "{pulled:?}");
    assert_eq!(machines.built(), ["first", "first"]);
}
