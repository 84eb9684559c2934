//! Parameters without the feature of a driver: the server, its address, types of the suite; one or
//! several, from one server or several. With drivers: `connections.rs`.

use std::process::{ExitCode, Termination};
use std::thread;
use std::time::Duration;

use sandboxed_db::{ConnectInfo, FromSandbox, Postgres, Sandbox, Snapshot, Tcp, sandboxed_db};
use sandboxed_db_tests::{alone, assert_says, connect, connect_async, failed, value_at};

use crate::attribute::{DATABASE, answer_async};

pub(crate) fn shop() -> Snapshot {
    Snapshot::new(Postgres::new().database("shop"))
}

// One by one.

#[sandboxed_db(snapshot = shop)]
fn connect_info_has_the_parts_of_the_url(info: ConnectInfo, url: String) {
    assert_eq!(info.url, url);
    assert_eq!((&*info.user, info.port, &*info.password, &*info.database), ("postgres", 5432, "", "shop"));
    let options =
        format!("host={} port={} user={} dbname={}", info.host, info.port, info.user, info.database);
    assert_eq!(value_at::<String>(&options, DATABASE), "shop");
}

#[sandboxed_db(snapshot = shop)]
fn tcp_is_a_parameter(tcp: Tcp) {
    assert_eq!(value_at::<String>(tcp.url(), DATABASE), "shop");
}

/// A type of the suite.
struct Url(String);

impl FromSandbox for Url {
    type Error = sandboxed_db::Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error> {
        Ok(Self(sandbox.url().to_owned()))
    }
}

#[sandboxed_db(snapshot = shop)]
async fn a_type_of_the_suite_is_a_parameter(url: Url) {
    assert_eq!(answer_async(&url.0, DATABASE).await.unwrap(), "shop");
}

// Several from one server.

#[sandboxed_db]
fn parameters_are_taken_in_every_way(db: &Sandbox, one: &Url, other: &Sandbox, url: String) {
    assert_eq!((db.url(), db.pid()), (url.as_str(), other.pid()));
    assert_eq!(one.0, url);
}

type Alias = Sandbox;

#[sandboxed_db]
fn a_sandbox_has_another_name(url: String, db: Alias) {
    assert_eq!(db.url(), url);
    db.stop().unwrap();
}

// Several databases.

#[sandboxed_db(settings(work_mem = "7MB"), other())]
fn a_parameter_has_its_own_database(db: Sandbox, url: String, other: Sandbox) {
    assert_eq!(value_at::<String>(&url, "show work_mem"), "7MB");
    assert_ne!(db.pid(), other.pid());
    other.stop().unwrap();
    assert_eq!(value_at::<String>(db.url(), "show work_mem"), "7MB");
}

#[sandboxed_db(notes(migrations = "data/notes/migrations"), audit(snapshot = shop))]
async fn two_parameters_have_two_databases(notes: Url, audit: String) {
    assert_eq!(answer_async(&notes.0, "select count(*)::text from notes").await.unwrap(), "0");
    assert_eq!(answer_async(&audit, DATABASE).await.unwrap(), "shop");
}

// Runtimes and returns.

#[sandboxed_db(flavor = "multi_thread")]
async fn multi_thread_has_a_thread_per_processor(db: &Sandbox) {
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    assert_eq!(workers, thread::available_parallelism().unwrap().get(), "{db:?}");
}

#[sandboxed_db(flavor = "current_thread")]
async fn current_thread_has_one_thread(_db: &Sandbox) -> ExitCode {
    assert_eq!(tokio::runtime::Handle::current().metrics().num_workers(), 1);
    ExitCode::SUCCESS
}

#[sandboxed_db]
fn a_test_returns_an_exit_code(_db: Sandbox) -> impl Termination {
    Ok::<_, std::fmt::Error>(ExitCode::SUCCESS)
}

// Ends. A test that waited for its remaining tasks would take ten minutes.

const LONG: Duration = Duration::from_secs(600);

#[sandboxed_db]
async fn remaining_tasks_do_not_delay_the_end(url: String) {
    outlived(url).await;
}

#[sandboxed_db(flavor = "multi_thread", worker_threads = 1)]
async fn remaining_tasks_on_threads_do_not_delay_the_end(url: String) {
    outlived(url).await;
}

/// Leaves tasks that wait for a timer, for the server, and on a thread. All have begun.
async fn outlived(url: String) {
    let client = connect_async(&url).await.unwrap();
    let (sleeping, sleeps) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let _ = sleeping.send(());
        tokio::time::sleep(LONG).await;
    });
    let (querying, queries) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let _ = querying.send(());
        client.batch_execute("select pg_sleep(600)").await
    });
    let (blocking, blocks) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let _ = blocking.send(());
        thread::sleep(LONG);
    });
    tokio::try_join!(sleeps, queries, blocks).unwrap();
}

// rstest.

mod with_rstest {
    use rstest::{fixture, rstest};

    use super::*;

    #[fixture]
    async fn later() -> i32 {
        tokio::task::yield_now().await;
        7
    }

    #[sandboxed_db]
    #[rstest]
    async fn a_fixture_is_a_future(url: String, #[future] later: i32) {
        assert!(url.starts_with("postgresql://"));
        assert_eq!(later.await, 7);
    }
}

// Failures: a test below runs each of these and reads its output.

struct Refuses;

impl FromSandbox for Refuses {
    type Error = Box<dyn std::error::Error + Send + Sync>;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error> {
        connect(sandbox.url()).batch_execute("select 'made' from nowhere").unwrap_err();
        Err(std::io::Error::other("it does not want to").into())
    }
}

#[sandboxed_db]
#[ignore = "fails, run by `a_failing_parameter_fails_the_test`"]
fn refuses(_: Refuses) {}

#[sandboxed_db]
#[ignore = "fails, run by `a_failing_parameter_fails_the_test`"]
#[should_panic]
fn refuses_to_panic(_: Refuses) {}

#[sandboxed_db]
#[ignore = "fails, run by `a_sandbox_has_one_owner`"]
fn owned_twice(_: Alias, _: &Alias) {}

#[sandboxed_db]
#[ignore = "fails, run by `an_exit_code_fails_a_test`"]
fn exits(_: Sandbox) -> ExitCode {
    ExitCode::from(u8::from(sandboxed_db_tests::is_alone()))
}

#[test]
fn a_failing_parameter_fails_the_test() {
    for test in ["parameters::refuses", "parameters::refuses_to_panic"] {
        let error = "could not make the parameter of type `integration::parameters::Refuses` from the sandbox: it does \
                     not want to";
        assert_says(&failed(&mut alone(test)), &[error, "select 'made' from nowhere"]);
    }
}

#[test]
fn a_sandbox_has_one_owner() {
    assert_says(&failed(&mut alone("parameters::owned_twice")), &["take `&Sandbox` in both"]);
}

#[test]
fn an_exit_code_fails_a_test() {
    let text = failed(&mut alone("parameters::exits"));
    assert_says(&text, &["the sandbox of `integration::parameters::exits` had the pid"]);
}
