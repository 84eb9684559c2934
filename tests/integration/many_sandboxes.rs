//! The cost of many sandboxes that live at once, and of many that have ended.

use std::fs;

use rstest::rstest;
use rustix::process::{Resource, getrlimit};
use sandboxed_db_tests::{TestProcess, is_exhaustive, skip};

use crate::lifecycle::SUBJECT;
use crate::requests::dirs_with_base;

/// A line of /proc/meminfo, in bytes.
fn memory(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.expect("every kernel has it") << 10
}

/// Says `false`, and why, if this machine has too little for 500 servers.
fn can_have_five_hundred() -> bool {
    let (available, descriptors) =
        (memory("MemAvailable"), getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    // Each holds 6.5 MB, and other tests need memory too.
    let can = available >= 6 << 30 && descriptors >= 2500;
    if !can {
        skip(&format!(
            "500 servers need 6 GB of memory and 2,500 descriptors; {} MB and {descriptors} are available",
            available >> 20
        ));
    }
    can
}

#[rstest]
#[case(10)]
#[case(500)]
fn a_sandbox_costs_four_descriptors_and_no_thread(#[case] alive: u32) {
    if alive > 10 && !(is_exhaustive("starts 500 servers") && can_have_five_hundred()) {
        return;
    }
    let dirs = dirs_with_base();
    let count = alive.to_string();
    let mut command = dirs.command(SUBJECT);
    // The pool's threads come and go, and prewarmed sandboxes would be counted too.
    command.env("SANDBOXED_DB_MAX", &count).env("SANDBOXED_DB_POOL", "0");
    // A process holds two descriptors more for each checkpoint in use.
    command.env("SANDBOXED_DB_START", "linked");
    let mut process = TestProcess::start(command.args(["keep", "--sandboxes", &count, "descriptors"]));
    // The deadline is that of each line.
    (0..5).for_each(|_| drop(process.wait_for("refused true")));
    (0..alive).for_each(|_| drop(process.wait_for("started ")));
    process.wait_for("count gone");
    let (ended, lines) = process.gone();
    assert_eq!(ended, "code 0", "{lines:?}");
    let count = |when: &str| -> [u32; 3] {
        let line = lines.iter().find_map(|line| line.strip_prefix(&format!("count {when} ")));
        let numbers = line.expect("it is counted").split(' ').map(|number| number.parse().unwrap());
        numbers.collect::<Vec<_>>().try_into().unwrap()
    };
    let [_, first, threads] = count("first");
    assert_eq!(count("many"), [0, first, threads], "dropped sandboxes leave descriptors or threads");
    assert_eq!(count("refused"), [0, first, threads], "failed starts leave descriptors or threads");
    let [reached, descriptors, alive_threads] = count("alive");
    assert_eq!((reached, alive_threads), (alive, threads));
    assert!(descriptors <= first + 4 * alive, "{descriptors} descriptors, {first} without sandboxes");
    assert_eq!(count("gone"), [0, first, threads]);
    dirs.assert_nothing_left();
}
