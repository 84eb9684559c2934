//! Attributes of other crates beside `#[sandboxed_db]`: `#[test_case]` makes a test of each case,
//! and `#[serial]` runs tests one after the other.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;

use sandboxed_db::{Postgres, Sandbox, sandboxed_db};
use sandboxed_db_tests::connect;
use serial_test::{parallel, serial};
use test_case::{test_case, test_matrix};

fn sum(db: &Sandbox, a: i32, b: i32) -> i32 {
    // On a thread without a runtime, since the client blocks.
    let query = || connect(db.url()).query_one("select $1::int + $2::int", &[&a, &b]).unwrap().get(0);
    thread::scope(|scope| scope.spawn(query).join().unwrap())
}

#[sandboxed_db]
#[test_case(1, 2, 3 ; "small")]
#[test_case(-1, 1, 0)]
fn cases_fill_the_first_parameters(a: i32, b: i32, expected: i32, db: Sandbox) {
    assert_eq!(sum(&db, a, b), expected);
}

#[sandboxed_db]
#[test_matrix([1, 2], [3, 4])]
async fn a_matrix_of_cases_returns_results(a: i32, mut b: i32, db: &Sandbox) -> Result<(), String> {
    b += 1;
    (sum(db, a, b) == a + b).then_some(()).ok_or_else(|| "wrong".to_owned())
}

#[sandboxed_db]
#[test_case("'" => ignore)]
#[test_case("no" ; "not a number")]
#[should_panic(expected = "not a number")]
fn cases_may_be_expected_to_panic(text: &str, _: Sandbox) {
    let _: i32 = text.parse().expect("not a number");
}

fn checksums() -> Postgres {
    Postgres::new().initdb_arg("--data-checksums")
}

#[sandboxed_db(engine = [Postgres, checksums()])]
#[test_case(1)]
#[test_case(2)]
fn each_engine_has_all_cases(number: i32, db: Sandbox) {
    assert_eq!(sum(&db, number, 0), number);
}

/// Tests of this key that run at this moment.
static RUNNING: AtomicU32 = AtomicU32::new(0);

fn alone<T>(work: impl FnOnce() -> T) -> T {
    assert_eq!(RUNNING.fetch_add(1, SeqCst), 0);
    let done = work();
    RUNNING.fetch_sub(1, SeqCst);
    done
}

#[sandboxed_db]
#[serial(front)]
fn serial_holds_for_a_plain_test(db: Sandbox) {
    alone(|| assert_eq!(sum(&db, 1, 1), 2));
}

#[sandboxed_db]
#[serial(front)]
async fn serial_holds_for_a_result(db: Sandbox) -> Result<(), String> {
    alone(|| (sum(&db, 1, 1) == 2).then_some(()).ok_or_else(|| "wrong".to_owned()))
}

#[sandboxed_db]
#[test_case(1)]
#[test_case(2)]
#[serial(front)]
fn serial_holds_for_cases(number: i32, db: Sandbox) {
    alone(|| assert_eq!(sum(&db, number, 0), number));
}

#[sandboxed_db]
#[parallel]
fn parallel_may_stand_below_too(db: Sandbox) {
    assert_eq!(sum(&db, 1, 1), 2);
}
