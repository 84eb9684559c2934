//! A server that reaches a limit affects no other, and the report of its test names the limit.

use sandboxed_db::{MariaDb, MySql, Postgres, Redis, Sandbox, Snapshot, sandboxed_db};
use sandboxed_db_tests::{TestedEngine, alone, assert_says, failed, is_alone, seeded, skip_as_root};

use super::{name, start};

for_every_server!([
    a_full_disk_fails_one_server_only,
    a_server_without_memory_names_the_limit,
    a_server_without_processes_names_the_limit,
]);

/// Names the limit that the test in a separate process is to reach.
const LIMIT: &str = "SANDBOXED_DB_TESTS_LIMIT";

/// The bytes of memory of a server that is to need more.
const MEMORY: u64 = 512 << 20;
/// The processes of a server that is to need more, the fewest that are accepted.
const PIDS: u32 = 16;

fn a_full_disk_fails_one_server_only<E: TestedEngine>() {
    let (_directory, snapshot) = seeded::<E>();
    let small = snapshot.clone().disk(48 << 20);
    let (full, neighbour) = (start(&small), start(&small));
    let refused = (0..8).find_map(|_| E::write_to_disk(&full, 32 << 20).err());
    assert!(refused.is_some(), "the limit does not hold");
    E::set(&neighbour, "mine", "well").unwrap();
    E::write_to_disk(&neighbour, 1 << 20).unwrap();
    assert_eq!(E::get(&neighbour, "mine"), Ok(Some("well".to_owned())));
}

fn small<E: TestedEngine>() -> Snapshot<E> {
    let snapshot = Snapshot::new(E::engine());
    match std::env::var(LIMIT).as_deref() {
        Ok("memory") => snapshot.memory(MEMORY),
        Ok("pids") => E::THREADS
            .into_iter()
            .fold(snapshot.pids(PIDS), |snapshot, (name, value)| snapshot.setting(name, value)),
        _ => snapshot,
    }
}

fn reach<E: TestedEngine>(db: &Sandbox<E>) {
    if is_alone() {
        match std::env::var(LIMIT).as_deref() {
            Ok("memory") => E::take_memory(db),
            _ => E::take_processes(db),
        }
        panic!("as the test expects");
    }
}

/// Tests that fail, each in a separate process.
mod reaching {
    use super::*;

    #[sandboxed_db(snapshot = small)]
    #[ignore = "run by the tests of limits"]
    fn postgres(db: Sandbox<Postgres>) {
        reach(&db);
    }

    #[sandboxed_db(snapshot = small)]
    #[ignore = "run by the tests of limits"]
    fn redis(db: Sandbox<Redis>) {
        reach(&db);
    }

    #[sandboxed_db(snapshot = small)]
    #[ignore = "run by the tests of limits"]
    fn mariadb(db: Sandbox<MariaDb>) {
        reach(&db);
    }

    #[sandboxed_db(snapshot = small)]
    #[ignore = "run by the tests of limits"]
    fn mysql(db: Sandbox<MySql>) {
        reach(&db);
    }
}

#[track_caller]
fn names<E: TestedEngine>(limit: &str, sentence: &str) {
    let mut test = alone(&format!("every_engine::limits::reaching::{}", name::<E>()));
    assert_says(&failed(test.env(LIMIT, limit)), &[sentence]);
}

fn a_server_without_memory_names_the_limit<E: TestedEngine>() {
    names::<E>("memory", "may take 512 MB of memory and wanted more: raise `memory`");
}

fn a_server_without_processes_names_the_limit<E: TestedEngine>() {
    if rustix::process::geteuid().is_root() {
        return skip_as_root("the kernel lets root have 300 processes more");
    }
    names::<E>("pids", "the sandbox has as many processes as it may, 16: raise `pids`");
}
