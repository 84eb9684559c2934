//! TLS of MariaDB and Redis, which their own clients verify.

use std::process::{Command, Output};

use rstest::rstest;
use sandboxed_db::{ErrorKind, MariaDb, Redis, Sandbox, Snapshot, Sqlite, Tcp};
use sandboxed_db_tests::{TestedEngine, is_missing, printed, skip_without};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

use super::root;

fn start<E: TestedEngine>() -> Sandbox<E> {
    Snapshot::new(E::engine()).tls().start().unwrap_or_else(|error| panic!("{error:?}"))
}

/// A client that verifies the certificate by a root, or does not encrypt without one.
type Ask = fn(&Tcp, Option<&str>) -> Output;

fn mariadb(tcp: &Tcp, root: Option<&str>) -> Output {
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "--protocol=tcp", "--batch", "--execute=show status like 'Ssl_version'"]);
    match root {
        Some(root) => client.arg(format!("--ssl-ca={root}")).arg("--ssl-verify-server-cert"),
        None => client.arg("--skip-ssl"),
    };
    client.envs(tcp.env()).args(["--host=127.0.0.1", "--user=root"]).output().unwrap()
}

fn redis_cli(tcp: &Tcp, root: Option<&str>) -> Output {
    let mut client = Command::new("redis-cli");
    client.args(["-h", "127.0.0.1", "-p"]).arg(tcp.port().to_string());
    client.args(root.map(|root| ["--tls", "--cacert", root]).into_iter().flatten());
    client.envs(tcp.env()).arg("PING").output().unwrap()
}

#[track_caller]
fn assert_verified<E: TestedEngine>(ask: Ask, answer: &str, distrust: &str) {
    skip_without!(E);
    let (one, other) = (start::<E>(), start::<E>());
    // The socket stays without TLS.
    assert!(E::answers(&one));
    let (tcp, other) = (one.tcp().unwrap(), other.tcp().unwrap());
    let output = ask(&tcp, Some(&root(&tcp)));
    assert!(output.status.success() && printed(&output).contains(answer), "{output:?}");
    let output = ask(&tcp, Some(&root(&other)));
    assert!(!output.status.success() && printed(&output).contains(distrust), "{output:?}");
    let output = ask(&tcp, None);
    assert!(!output.status.success() && !printed(&output).contains(answer), "{output:?}");
}

#[test]
fn clients_of_mariadb_verify_the_certificate() {
    assert_verified::<MariaDb>(mariadb, "TLSv1.", "TLS/SSL error");
}

#[test]
fn clients_of_redis_verify_the_certificate() {
    assert_verified::<Redis>(redis_cli, "PONG", "certificate verify failed");
}

#[test]
fn urls_say_that_clients_encrypt() {
    if !is_missing::<MariaDb>() {
        let db = start::<MariaDb>();
        let tcp = db.tcp().unwrap();
        let options: MySqlConnectOptions = tcp.url().parse().unwrap();
        assert!(matches!(options.get_ssl_mode(), MySqlSslMode::VerifyIdentity), "{}", tcp.url());
        assert!(tcp.url().ends_with(&format!("&ssl-ca={}", root(&tcp))), "{}", tcp.url());
        assert!(tcp.env().contains(&("MYSQL_SSL_CA".to_owned(), root(&tcp))));
        assert!(tcp.jdbc_url().unwrap().contains("?sslMode=verify-full&serverSslCert="));
    }
    if !is_missing::<Redis>() {
        let db = start::<Redis>();
        let tcp = db.tcp().unwrap();
        assert!(tcp.url().starts_with("rediss://default:"), "{}", tcp.url());
        assert!(tcp.env().contains(&("REDIS_CACERT".to_owned(), root(&tcp))));
    }
}

fn refusal<E: TestedEngine>(snapshot: Snapshot<E>) -> String {
    let error = snapshot.tls().start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    format!("{error:?}")
}

#[rstest]
#[case("require-secure-transport")]
#[case("SSL_cert")]
fn settings_of_mariadb_that_contradict_tls_are_refused(#[case] name: &str) {
    skip_without!(MariaDb);
    let report = refusal(Snapshot::new(MariaDb::new()).setting(name, "0"));
    assert!(report.contains("leave out the setting, or `tls`"), "{report}");
}

#[test]
fn settings_of_redis_that_contradict_tls_are_refused() {
    skip_without!(Redis);
    let report = refusal(Snapshot::new(Redis::new()).setting("tls-port", 1));
    assert!(report.contains("leave out the setting, or `tls`"), "{report}");
}

#[test]
fn a_database_without_a_server_has_no_tls() {
    skip_without!(Sqlite);
    let report = refusal(Snapshot::new(Sqlite::new()));
    assert!(report.contains("turn on TLS for `sqlite`"), "{report}");
}
