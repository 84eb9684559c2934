//! Compares the attribute's messages about mistakes to the letter. `ui/` has a file for each
//! situation.

use sandboxed_db_tests::is_exhaustive;

#[test]
#[cfg_attr(
    feature = "drivers",
    ignore = "the compiler lists the types that do, and these depend on features"
)]
fn mistakes_are_explained_where_they_are_made() {
    if is_exhaustive("compiles the library again") {
        trybuild::TestCases::new().compile_fail("ui/*.rs");
    }
}
