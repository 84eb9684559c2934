//! `#[sandboxed_db]` in every shape of a test, and beside other attributes.
//!
//! The expansion of the attribute must cause no warning of any lint below: CI runs clippy on this
//! file.

#![deny(
    clippy::pedantic,
    clippy::nursery,
    clippy::absolute_paths,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::std_instead_of_core,
    clippy::str_to_string,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    unused
)]

use core::error::Error;
use core::time::Duration;

use postgres::NoTls;
use rstest::{fixture, rstest};
use sandboxed_db::{Postgres, Sandbox, sandboxed_db};
use sandboxed_db_tests::{alone, assert_says, connect, failed, value_at};
use tokio::task::yield_now;

use crate::attribute::{DATABASE, answer_async};

#[sandboxed_db]
fn a_test_takes_a_sandbox(db: Sandbox) {
    assert_eq!(value_at::<String>(db.url(), DATABASE), "postgres");
    db.stop().unwrap();
}

#[sandboxed_db]
fn a_test_takes_a_reference_to_a_sandbox(db: &Sandbox) {
    assert_eq!(value_at::<String>(db.url(), DATABASE), "postgres");
}

#[sandboxed_db]
fn a_test_takes_a_url(url: String) {
    assert_eq!(value_at::<String>(&url, DATABASE), "postgres");
}

#[sandboxed_db]
fn a_test_returns_a_result(db: Sandbox) -> Result<(), postgres::Error> {
    let mut client = postgres::Client::connect(db.url(), NoTls)?;
    assert_eq!(client.query_one(DATABASE, &[])?.get::<_, &str>(0), "postgres");
    Ok(())
}

#[sandboxed_db]
fn a_test_returns_a_boxed_error_and_takes_a_url(url: String) -> Result<(), Box<dyn Error>> {
    assert_eq!(connect(&url).query_one(DATABASE, &[])?.get::<_, &str>(0), "postgres");
    Ok(())
}

#[sandboxed_db]
async fn an_async_test_takes_a_sandbox(db: Sandbox) {
    assert_eq!(answer_async(db.url(), DATABASE).await.unwrap(), "postgres");
    db.stop().unwrap();
}

#[sandboxed_db]
async fn an_async_test_takes_a_reference_to_a_sandbox(db: &Sandbox) {
    assert_eq!(answer_async(db.url(), DATABASE).await.unwrap(), "postgres");
}

#[sandboxed_db]
async fn an_async_test_returns_a_result(db: Sandbox) -> Result<(), tokio_postgres::Error> {
    assert_eq!(answer_async(db.url(), DATABASE).await?, "postgres");
    Ok(())
}

#[sandboxed_db]
async fn an_async_test_returns_a_result_and_takes_a_reference(db: &Sandbox) -> Result<(), Box<dyn Error>> {
    assert_eq!(answer_async(db.url(), DATABASE).await?, "postgres");
    Ok(())
}

#[sandboxed_db]
fn a_parameter_can_be_mutable(mut url: String) {
    url.push_str("&application_name=changed");
    assert_eq!(value_at::<String>(&url, "select current_setting('application_name')"), "changed");
}

// Beside other attributes.

/// A documented test.
#[sandboxed_db]
/// With a second comment below the attribute.
fn doc_comments_stand_on_both_sides(db: Sandbox) {
    assert_eq!(value_at::<String>(db.url(), DATABASE), "postgres");
}

#[sandboxed_db]
#[cfg(any())]
fn a_disabled_test_is_not_compiled(db: NoSuchType) {
    no_such_function(db);
}

#[cfg(any())]
#[sandboxed_db]
fn a_disabled_test_is_not_compiled(db: NoSuchType) {
    no_such_function(db);
}

#[sandboxed_db]
#[should_panic(expected = "relation \\\"nowhere\\\" does not exist")]
fn a_server_message_satisfies_should_panic(db: &Sandbox) {
    connect(db.url()).batch_execute("select * from nowhere").unwrap();
}

#[sandboxed_db]
#[should_panic(expected = "relation \\\"nowhere\\\" does not exist")]
async fn an_async_test_may_be_expected_to_panic(url: String) {
    answer_async(&url, "select * from nowhere").await.unwrap();
}

#[sandboxed_db]
#[expect(unused_variables, reason = "to see that lint levels reach the function, and are met once")]
fn lint_levels_reach_the_function(db: Sandbox) {
    let url = db.url();
}

mod named_like_the_librarys_own {
    use sandboxed_db::sandboxed_db;

    use sandboxed_db_tests::value_at;

    use crate::attribute::DATABASE;

    /// The names of the expansion's variables.
    #[sandboxed_db]
    fn a_parameter_may_have_any_name(test: sandboxed_db::Sandbox) {
        let (snapshot, lease) = (test.url(), "select 'lease'");
        assert_eq!(value_at::<String>(snapshot, lease), "lease");
    }

    #[sandboxed_db(crate = "sandboxed_db")]
    fn the_crate_may_be_named(db: sandboxed_db::Sandbox) {
        assert_eq!(value_at::<String>(db.url(), DATABASE), "postgres");
    }
}

#[sandboxed_db]
#[should_panic = "as it must"]
fn an_own_message_satisfies_should_panic(db: Sandbox) {
    assert!(db.url().is_empty(), "as it must");
}

#[sandboxed_db]
fn a_parameter_may_be_unused(_db: Sandbox, _: String) {}

#[sandboxed_db]
async fn an_async_parameter_may_be_unused(_: &Sandbox, _url: String) {}

#[sandboxed_db(engine = Postgres::new().database("shop"))]
fn an_engine_is_an_expression(url: String) {
    assert_eq!(value_at::<String>(&url, DATABASE), "shop");
}

// Attributes that make a test themselves.

#[sandboxed_db]
#[test_log::test]
fn test_log_works_below(url: String) {
    assert_eq!(value_at::<String>(&url, DATABASE), "postgres");
}

#[test_log::test]
#[sandboxed_db]
async fn test_log_works_above(db: &Sandbox) -> Result<(), tokio_postgres::Error> {
    assert_eq!(answer_async(db.url(), DATABASE).await?, "postgres");
    Ok(())
}

mod with_rstest {
    use super::*;

    #[fixture]
    async fn later() -> i32 {
        yield_now().await;
        7
    }

    #[sandboxed_db]
    #[rstest]
    async fn a_fixture_is_awaited_before_the_test(url: String, #[future(awt)] later: i32) {
        assert_eq!(answer_async(&url, &format!("select '{later}'")).await.as_deref().ok(), Some("7"));
    }

    #[sandboxed_db]
    #[rstest]
    #[awt]
    async fn all_fixtures_are_awaited_before_the_test(
        _url: &String,
        #[future] later: i32,
        #[from(later)]
        #[future]
        other: i32,
    ) {
        assert_eq!(later, other);
    }

    #[sandboxed_db]
    #[rstest]
    #[case(1)]
    #[timeout(Duration::from_mins(10))]
    async fn a_test_ends_before_its_timeout(url: String, #[case] n: usize) {
        assert_eq!(answer_async(&url, DATABASE).await.ok().map(|name| name.len()), Some(7 + n));
    }

    #[sandboxed_db]
    #[rstest]
    #[timeout(Duration::from_millis(1))]
    #[ignore = "fails, run by `a_test_fails_at_its_timeout`"]
    fn exceeds_its_timeout(_db: Sandbox) {}
}

#[test]
fn a_test_fails_at_its_timeout() {
    assert_says(&failed(&mut alone("shapes::with_rstest::exceeds_its_timeout")), &["Timeout 1ms expired"]);
}
