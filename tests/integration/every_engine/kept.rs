//! The data that a test leaves is kept on request, is listed, and is opened again.

use std::thread;

use sandboxed_db::Keep;
use sandboxed_db::cache::Kept;
use sandboxed_db_tests::{DEADLINE, TestedEngine, seeded, wait_until};

use super::{name, start};

for_every_engine!([the_data_of_a_failed_test_is_kept]);

fn the_data_of_a_failed_test_is_kept<E: TestedEngine>() {
    let (_directory, snapshot) = seeded::<E>();
    let test = format!("every_engine::kept::{}", name::<E>());
    let snapshot = snapshot.keep(Keep::OnFailure).keep_as(&test);
    drop(start(&snapshot));
    let kept = Kept::open().unwrap();
    kept.find(&test).unwrap_err();
    let failing = thread::spawn(move || {
        let db = start(&snapshot);
        E::set(&db, "mine", "left").unwrap();
        panic!("as the test expects");
    });
    failing.join().unwrap_err();

    let state = kept.find(&test).unwrap_or_else(|error| panic!("{error:?}"));
    assert!(state.failed && state.clean && state.engine == name::<E>(), "{state:?}");
    assert!(kept.list().unwrap().contains(&state));
    let (one, other) = (state.start_as(E::engine()).unwrap(), state.start_as(E::engine()).unwrap());
    let before = state.start_before_as(E::engine()).unwrap();
    assert_eq!(E::check_files(&one, &state.data()), Ok(()));
    E::set(&one, "mine", "overwritten").unwrap();
    assert_eq!(E::get(&other, "mine"), Ok(Some("left".to_owned())));
    assert_eq!(E::get(&other, "seed"), Ok(Some("seeded".to_owned())));
    assert_eq!(E::get(&before, "mine"), Ok(None));
    assert!(!kept.remove(&state).unwrap(), "it is in use");
    drop((one, other, before));
    // A child that another test forks inherits the lock until its execve(2).
    wait_until(DEADLINE, "no process uses it", || kept.remove(&state).unwrap());
    kept.find(&test).unwrap_err();
}
