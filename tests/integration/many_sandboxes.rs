//! Five hundred sandboxes live at once, and leave nothing.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Resource, getrlimit};
use sandboxed_db_tests::{
    ScratchDirs, TestProcess, assert_no_kernel_objects_since, is_exhaustive, kernel_objects, skip,
};

use crate::lifecycle::SUBJECT;

/// A line of /proc/meminfo, in bytes.
fn memory(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.expect("every kernel tells it") << 10
}

#[test]
fn five_hundred_live_at_once_and_leave_nothing() {
    const ALIVE: u32 = 500;
    // Each holds 6.5 MB, and other tests need memory too.
    const NEEDED: u64 = 6 << 30;
    if !is_exhaustive("starts 500 servers") {
        return;
    }
    let available = memory("MemAvailable");
    if available < NEEDED {
        return skip(&format!("500 servers need 6 GB, and {} MB are to be had", available >> 20));
    }
    let descriptors = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if descriptors < u64::from(5 * ALIVE) {
        return skip(&format!("500 sandboxes need 2,100 descriptors, and {descriptors} are to be had"));
    }
    let place = ScratchDirs::new();
    let before = kernel_objects();
    let alive = ALIVE.to_string();
    let mut command = place.command(SUBJECT);
    // The pool's threads come and go.
    command.env("SANDBOXED_DB_MAX", &alive).env("SANDBOXED_DB_POOL", "0").args([
        "keep",
        "--sandboxes",
        &alive,
        "descriptors",
    ]);
    let mut process = TestProcess::start(&mut command);
    // The deadline is that of each line.
    let refused = "refused true";
    (0..5).for_each(|_| drop(process.wait_for(refused)));
    (0..ALIVE).for_each(|_| drop(process.wait_for("started ")));
    process.wait_for("count gone");
    let (ended, told) = process.gone();
    assert_eq!(ended, "code 0", "{told:?}");
    let count = |when: &str| -> [u32; 3] {
        let line = told.iter().find_map(|line| line.strip_prefix(&format!("count {when} ")));
        let numbers = line.expect("it is counted").split(' ').map(|number| number.parse().unwrap());
        numbers.collect::<Vec<_>>().try_into().unwrap()
    };
    let [_, first, threads] = count("first");
    let [reached, descriptors, alive_threads] = count("alive");
    assert_eq!(reached, ALIVE);
    assert!(descriptors <= first + 4 * ALIVE, "{descriptors} descriptors, {first} without sandboxes");
    assert_eq!(alive_threads, threads);
    assert_eq!(count("gone"), [0, first, threads]);
    assert_eq!(place.leftovers(), Vec::<PathBuf>::new());
    assert_no_kernel_objects_since(&before);
}
