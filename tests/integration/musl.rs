//! A server of another C library than this machine's: Redis of musl, in an image of Alpine's layout
//! without a shell, which `.ci/musl` makes.

use std::fs;

use sandboxed_db::{Redis, Sandbox, ServerStart, Snapshot};
use sandboxed_db_tests::{alone, is_alone, passed, skip};

use crate::redis::ask;

/// Names the image.
const IMAGE: &str = "SANDBOXED_DB_TEST_MUSL";

fn snapshot() -> Option<Snapshot<Redis>> {
    let image = std::env::var(IMAGE).ok();
    if image.is_none() {
        skip(&format!("{IMAGE} names no image of musl: `.ci/musl` makes one"));
    }
    Some(Snapshot::new(Redis::new()).image(image?))
}

fn start(snapshot: &Snapshot<Redis>) -> Sandbox<Redis> {
    snapshot.start().unwrap_or_else(|error| panic!("{error:?}"))
}

#[test]
fn a_server_of_musl_runs_with_its_own_libraries() {
    let Some(snapshot) = snapshot() else { return };
    let (one, other) = (start(&snapshot), start(&snapshot));
    assert_eq!(ask(&one, "SET a 1\r\nDBSIZE"), "+OK\r\n:1\r\n");
    assert_eq!(ask(&other, "DBSIZE"), ":0\r\n");
    let maps = fs::read_to_string(format!("/proc/{}/root/proc/2/maps", one.pid())).unwrap();
    assert!(maps.contains("/lib/ld-musl-") && !maps.contains("libc.so.6"), "{maps}");
}

#[test]
#[ignore = "runs alone, with a way to start servers"]
fn starts_alone() {
    let (true, Some(snapshot)) = (is_alone(), snapshot()) else { return };
    // The second start would make the image, and the third use it.
    for _ in 0..4 {
        let db = start(&snapshot);
        assert_eq!(ask(&db, "SET a 1\r\nDBSIZE"), "+OK\r\n:1\r\n");
        assert_eq!(db.timings().start, ServerStart::Executed);
    }
}

#[test]
fn a_server_of_musl_is_executed_whatever_is_asked_for() {
    if snapshot().is_none() {
        return;
    }
    for way in ["linked", "checkpoint"] {
        let mut starts = alone("musl::starts_alone");
        passed(starts.env("SANDBOXED_DB_START", way).env("SANDBOXED_DB_POOL", "0"));
    }
}
