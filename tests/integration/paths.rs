//! Relative paths start in the package whose source names them.

use std::path::Path;

use sandboxed_db::{Sandbox, sandboxed_db};
use sandboxed_db_tests_support as support;

use sandboxed_db_tests::value_at;

fn owner(db: &Sandbox) -> String {
    value_at(db.url(), "select owner from accounts where id = 1")
}

#[sandboxed_db(snapshot = support::accounts)]
fn a_support_crates_paths_start_in_its_package(db: Sandbox) {
    assert_eq!(owner(&db), "Ada");
}

/// The attribute's own paths start in the package of the test, beside a description from elsewhere.
#[sandboxed_db(snapshot = support::accounts, seed = "data/accounts.sql")]
fn the_attributes_paths_start_in_the_tests_package(db: Sandbox) {
    assert_eq!(owner(&db), "Grace");
}

#[test]
fn a_support_crates_programs_run_in_its_package() {
    assert_eq!(owner(&support::checked_accounts().start().unwrap()), "Ada");
}

#[test]
fn relative_to_sets_the_directory() {
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("support");
    let db = support::accounts().relative_to(support).seed("../data/accounts.sql").start().unwrap();
    assert_eq!(owner(&db), "Grace");
}

#[test]
fn a_missing_file_names_the_directory_that_was_used() {
    let error = support::missing_migrations().start().unwrap_err();
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("support");
    let expected = format!(
        "`no/such/directory` is relative to `{}`, the package of `tests/support/lib.rs`, which names it; there is no `no`",
        package.display()
    );
    assert_eq!(error.hint(), Some(&*expected), "{error:?}");
}
