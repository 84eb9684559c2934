use sandboxed_db::{Sandbox, sandboxed_db};
use serial_test::serial;
use test_case::test_case;

#[serial]
#[sandboxed_db]
fn serial_above(_: Sandbox) {}

#[sandboxed_db]
#[test_case(1 => 2)]
fn a_result_to_compare(n: i32, _: Sandbox) -> i32 {
    n + 1
}

#[sandboxed_db]
#[test_case(())]
fn a_case_without_a_name((): (), _: Sandbox) {}

fn main() {}
