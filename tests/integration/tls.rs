//! TLS on request: each sandbox has a certificate that real clients verify, and no other.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use postgres::error::SqlState;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use sandboxed_db::{ErrorKind, Postgres, Sandbox, Snapshot, Tcp, sandboxed_db};
use sandboxed_db_tests::{DEADLINE, ScratchDirs, connect, eventually, program};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::errors::{real, with_server};

mod other_engines;

const ENCRYPTED: &str = "select ssl::text || version from pg_stat_ssl where pid = pg_backend_pid()";

fn start() -> Sandbox {
    Snapshot::new(Postgres::new()).tls().start().unwrap_or_else(|error| panic!("{error:?}"))
}

fn ask(psql: &Path, url: &str) -> Output {
    let mut command = Command::new(psql);
    command.args(["-X", "-A", "-t", "-w", "-c", ENCRYPTED, url]).env_remove("PGPASSWORD").output().unwrap()
}

#[track_caller]
fn assert_encrypted(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.starts_with("trueTLSv1."), "{output:?}");
}

#[track_caller]
fn assert_refused(output: &Output, reason: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains(reason), "{output:?}");
}

fn root(tcp: &Tcp) -> String {
    tcp.root_certificate().unwrap().display().to_string()
}

#[test]
fn psql_verifies_the_certificate() {
    let db = start();
    let Some(psql) = program(&db, "psql") else { return };
    let tcp = db.tcp().unwrap();
    assert!(
        tcp.url().ends_with(&format!("?sslmode=verify-full&sslrootcert={}", root(&tcp))),
        "{}",
        tcp.url()
    );
    assert_encrypted(&ask(&psql, tcp.url()));
    assert_encrypted(&ask(&psql, &tcp.url().replace("127.0.0.1", "localhost")));
    let by_environment =
        Command::new(&psql).args(["-X", "-A", "-t", "-w", "-c", ENCRYPTED]).envs(tcp.env()).output().unwrap();
    assert_encrypted(&by_environment);
}

#[test]
fn a_client_with_another_root_refuses_the_server() {
    let (one, other) = (start(), start());
    let Some(psql) = program(&one, "psql") else { return };
    let (one, other) = (one.tcp().unwrap(), other.tcp().unwrap());
    let crossed = one.url().replace(&root(&one), &root(&other));
    assert_refused(&ask(&psql, &crossed), "certificate verify failed");
}

#[test]
fn a_client_that_does_not_encrypt_is_refused() {
    let db = start();
    let Some(psql) = program(&db, "psql") else { return };
    let tcp = db.tcp().unwrap();
    assert_refused(&ask(&psql, &tcp.url().replace("verify-full", "disable")), "no encryption");
    // A client that neither encrypts nor verifies learns that before it sends a password.
    let plain = tcp.url().split('?').next().unwrap();
    let error = postgres::Client::connect(plain, postgres::NoTls).err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION), "{error:?}");
}

fn connector(tcp: &Tcp) -> MakeRustlsConnect {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(tcp.root_certificate().unwrap()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth())
}

fn config(tcp: &Tcp, host: &str) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host(host).port(tcp.port()).user("postgres").password(tcp.password()).dbname("postgres");
    config.ssl_mode(SslMode::Require);
    config
}

#[sandboxed_db(tls)]
async fn tokio_postgres_with_rustls_verifies_the_certificate(tcp: Tcp, db: &Sandbox) {
    for host in ["127.0.0.1", "localhost"] {
        let config = config(&tcp, host);
        assert!(matches!(&config.get_hosts()[0], Host::Tcp(name) if name == host));
        let (client, connection) = config.connect(connector(&tcp)).await.unwrap();
        tokio::spawn(connection);
        let version: String = client.query_one(ENCRYPTED, &[]).await.unwrap().get(0);
        assert_eq!(version, "trueTLSv1.3");
    }
    let other = Snapshot::new(Postgres::new()).tls().start_async().await.unwrap();
    let other = other.tcp().unwrap();
    assert!(config(&tcp, "127.0.0.1").connect(connector(&other)).await.is_err());
    assert_eq!(db.tcp().unwrap().url(), tcp.url());
}

#[test]
fn the_socket_stays_without_tls() {
    let db = start();
    assert!(!db.url().contains("ssl"), "{}", db.url());
    assert!(db.env().contains(&("PGSSLMODE".to_owned(), "disable".to_owned())));
    let encrypted: Option<bool> = connect(db.url())
        .query_one("select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    assert_eq!(encrypted, Some(false));
}

/// The key of a server, as its superuser reads it.
fn key(db: &Sandbox) -> String {
    let key = connect(db.url()).query_one("select pg_read_file('/etc/tls/server.key')", &[]).unwrap().get(0);
    let path = format!("/proc/{}/root/etc/tls/server.key", db.pid());
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    key
}

#[test]
fn each_sandbox_has_a_key_that_ends_with_it() {
    let (one, other) = (start(), start());
    assert_ne!(key(&one), key(&other));
    let path = one.tcp().unwrap().root_certificate().unwrap().to_owned();
    assert!(path.exists());
    drop(one);
    assert!(!path.exists());
}

#[test]
fn prewarmed_sandboxes_have_certificates_of_their_own() {
    let first = start();
    let Some(psql) = program(&first, "psql") else { return };
    let db = eventually(DEADLINE, "a sandbox is prewarmed", || {
        let db = start();
        std::thread::sleep(Duration::from_millis(50));
        db.timings().pooled.is_some().then_some(db)
    });
    assert_ne!(key(&first), key(&db));
    assert_encrypted(&ask(&psql, db.tcp().unwrap().url()));
}

#[test]
fn tls_makes_no_further_layer() {
    drop(Snapshot::new(Postgres::new()).start().unwrap());
    assert!(!start().timings().layer_built);
}

#[test]
fn settings_that_contradict_tls_are_refused() {
    for name in ["ssl", "SSL_cert_file", "ssl_key_file"] {
        let error = Snapshot::new(Postgres::new()).tls().setting(name, "off").start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        assert_eq!(error.hint(), Some("leave out the setting, or `tls`"), "{error:?}");
    }
    // Other settings of TLS are the user's.
    let db = Snapshot::new(Postgres::new()).tls().setting("ssl_min_protocol_version", "TLSv1.3").start();
    let version: String =
        connect(db.unwrap().url()).query_one("show ssl_min_protocol_version", &[]).unwrap().get(0);
    assert_eq!(version, "TLSv1.3");
}

#[test]
fn a_server_without_openssl_is_reported() {
    let dirs = ScratchDirs::new();
    let server = real().program("postgres");
    // The message of PostgreSQL's check of the setting `ssl`.
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *ssl=on*) echo 'FATAL:  SSL is not supported by this build' >&2; exit 1;; esac\n\
         exec {} \"$@\"\n",
        server.display()
    );
    let bin = with_server(&dirs, &script);
    let output = dirs
        .command(crate::lifecycle::SUBJECT)
        .args(["--tls", "return"])
        .env("SANDBOXED_DB_POSTGRES", &bin)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(report.contains("the server is built without OpenSSL"), "{report}");
    assert!(report.contains("leave out `tls`"), "{report}");
}

#[test]
fn an_engine_without_tls_is_refused() {
    let error = Snapshot::new(crate::forwarding::Echo { by_tcp: true }).tls().start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(format!("{error:?}").contains("turn on TLS for `echo`"), "{error:?}");
}

#[test]
fn no_key_is_in_the_data_directory() {
    let db = start();
    let data: String = connect(db.url()).query_one("show data_directory", &[]).unwrap().get(0);
    let data = format!("/proc/{}/root{data}", db.pid());
    let found = Command::new("grep").args(["-rl", "PRIVATE KEY", &data]).output().unwrap();
    // No file matches.
    assert_eq!(found.status.code(), Some(1), "{found:?}");
}
