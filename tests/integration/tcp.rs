//! A TCP port on request, for clients that have the password.

use std::io::{ErrorKind as Io, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command as Process, Output};
use std::thread;

use postgres::error::SqlState;
use postgres::{Client, NoTls};
use sandboxed_db::{Engine, ErrorKind, Postgres, Sandbox, Snapshot, Tcp};
use sandboxed_db_fixtures::shop_snapshot;
use sandboxed_db_tests::{
    CLEANUP_DEADLINE, DEADLINE, alone, assert_says, connect, connect_async, eventually, fresh, is_alone,
    passed, processes_beside, program, rounds, skip, start, status, value, wait_until,
};
use sqlx::Connection;

pub(crate) fn tcp<E: Engine>(db: &Sandbox<E>) -> Tcp {
    db.tcp().unwrap_or_else(|error| panic!("{error:?}"))
}

/// psql without what the user may have configured, and without a terminal to ask for a password at.
fn query(psql: &Path, url: &str) -> Process {
    let mut command = Process::new(psql);
    command.args(["-X", "-A", "-t", "-w", "-c", "select 'reached'", url]).env_remove("PGPASSWORD");
    command
}

fn reached(output: &Output) -> bool {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.success(), text.trim() == "reached", "{output:?}");
    output.status.success()
}

/// The URL with another password, or with none.
fn with_password(tcp: &Tcp, password: &str) -> String {
    tcp.url().replace(&format!(":{}@", tcp.password()), &format!("{password}@"))
}

pub(crate) fn is_refused(port: u16) {
    for address in
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))]
    {
        let error = TcpStream::connect(address).expect_err("the port is closed");
        let kinds = [Io::ConnectionRefused, Io::AddrNotAvailable];
        // Without IPv6 there is no such kind of address at all.
        assert!(kinds.contains(&error.kind()) || address.is_ipv6(), "{address}: {error:?}");
    }
}

// Clients.

#[test]
fn postgres_works() {
    let db = shop_snapshot().start().unwrap();
    let tcp = tcp(&db);
    assert_eq!(tcp.url(), format!("postgresql://postgres:{}@{}/shop", tcp.password(), tcp.address()));
    let mut client = connect(tcp.url());
    let reviews: i64 = value(&mut client, "select count(*) from reviews");
    assert_eq!(reviews, 1368);
    let from: bool =
        value(&mut client, "select inet_client_addr() is not null and inet_server_port() = 5432");
    assert!(from, "the server knows it as a client by TCP");
}

#[tokio::test]
async fn tokio_postgres_and_sqlx_work() {
    let db = shop_snapshot().start_async().await.unwrap();
    let tcp = tcp(&db);
    let client = connect_async(tcp.url()).await.unwrap();
    let customers: i64 = client.query_one("select count(*) from customers", &[]).await.unwrap().get(0);
    let mut other = sqlx::PgConnection::connect(tcp.url()).await.unwrap();
    let same: i64 = sqlx::query_scalar("select count(*) from customers").fetch_one(&mut other).await.unwrap();
    assert_eq!((customers, same), (2500, 2500));
}

#[test]
fn psql_works_with_and_without_the_wish_for_encryption() {
    let db = start();
    let Some(psql) = program(&db, "psql") else { return };
    let tcp = tcp(&db);
    for mode in ["disable", "allow", "prefer"] {
        assert!(reached(&query(&psql, tcp.url()).env("PGSSLMODE", mode).output().unwrap()), "{mode}");
    }
    assert!(!reached(&query(&psql, tcp.url()).env("PGSSLMODE", "require").output().unwrap()));
}

#[test]
fn the_environment_leads_to_the_port() {
    let db = Snapshot::new(Postgres::new().database("a b=c'd")).start().unwrap();
    let Some(psql) = program(&db, "psql") else { return };
    let tcp = tcp(&db);
    let env = tcp.env();
    assert!(env.contains(&("DATABASE_URL".to_owned(), tcp.url().to_owned())));
    // Clients that are not libpq encrypt by default.
    assert!(env.contains(&("PGSSLMODE".to_owned(), "disable".to_owned())));
    let (address, password) = (tcp.address(), tcp.password());
    let jdbc = format!("jdbc:postgresql://{address}/a%20b%3Dc%27d?user=postgres&password={password}");
    assert_eq!(tcp.jdbc_url(), Some(jdbc.as_str()));
    let by_tcp = "select (inet_client_addr() is not null)::text || current_database()";
    for args in [&["-c", by_tcp][..], &["-c", by_tcp, tcp.url()]] {
        let output = Process::new(&psql).args(["-X", "-A", "-t", "-w"]).args(args).envs(env.clone()).output();
        assert_eq!(String::from_utf8_lossy(&output.unwrap().stdout).trim(), "truea b=c'd");
    }
}

#[test]
fn replication_connections_work_by_socket_and_tcp() {
    let db = fresh().setting("wal_level", "logical").start().unwrap();
    let Some(psql) = program(&db, "psql") else { return };
    let tcp = tcp(&db);
    let ask = |url: &str, replication: &str, command: &str| {
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{separator}replication={replication}");
        let output =
            Process::new(&psql).args(["-X", "-A", "-t", "-w", "-c", command, &url]).output().unwrap();
        assert!(output.status.success(), "{url}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, url) in [("socket", db.url()), ("tcp", tcp.url())] {
        let slot = ask(url, "database", &format!("CREATE_REPLICATION_SLOT by_{name} LOGICAL pgoutput"));
        assert!(slot.contains(&format!("by_{name}|")) && slot.contains("pgoutput"), "{slot}");
        assert!(ask(url, "database", "IDENTIFY_SYSTEM").contains("|postgres"));
        // Physical replication, as pg_basebackup uses it.
        assert!(ask(url, "true", "IDENTIFY_SYSTEM").contains('/'));
    }
    let slots = "select count(*) from pg_replication_slots where plugin = 'pgoutput'";
    assert_eq!(connect(db.url()).query_one(slots, &[]).unwrap().get::<_, i64>(0), 2);
}

#[test]
fn the_socket_goes_on_without_a_password() {
    let db = start();
    let before = (db.url().to_owned(), db.env());
    drop(connect(db.url()));
    tcp(&db);
    assert_eq!((db.url().to_owned(), db.env()), before);
    connect(db.url()).batch_execute("select 1").unwrap();
}

#[test]
fn ipv6_works_where_it_is() {
    let db = start();
    let tcp = tcp(&db);
    let url = tcp.url().replace("127.0.0.1", "[::1]");
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        // No fault of the machine: 127.0.0.1 is enough.
        assert!(Client::connect(&url, NoTls).is_err());
        return;
    }
    connect(&url).batch_execute("select 1").unwrap();
}

// Passwords.

#[test]
fn a_client_without_the_password_is_refused() {
    let db = start();
    let tcp = tcp(&db);
    let code = |url: &str| match Client::connect(url, NoTls) {
        Ok(_) => panic!("{url} got in"),
        Err(error) => error.code().cloned(),
    };
    assert_eq!(tcp.password().len(), 40);
    for wrong in [":wrong", ":", &format!(":{}0", tcp.password()), &format!(":{}", &tcp.password()[1..])] {
        let code = code(&with_password(&tcp, wrong));
        assert!(code.is_none() || code == Some(SqlState::INVALID_PASSWORD), "{wrong}: {code:?}");
    }
    assert_eq!(code(&with_password(&tcp, "")), None, "the client has none to give");

    // A role without a password cannot come this way at all, one with its own can.
    let mut client = connect(db.url());
    client.batch_execute("create role bare login; create role app login password 'its own'").unwrap();
    let address = tcp.address();
    assert!(Client::connect(&format!("postgresql://bare@{address}/postgres"), NoTls).is_err());
    assert!(Client::connect(&format!("postgresql://bare:x@{address}/postgres"), NoTls).is_err());
    assert!(
        Client::connect(&format!("postgresql://app:{}@{address}/postgres", tcp.password()), NoTls).is_err()
    );
    drop(connect(&format!("postgresql://app:its%20own@{address}/postgres")));
}

#[test]
fn another_user_needs_the_password() {
    if !rustix::process::geteuid().is_root() {
        // Not this machine's fault: the run as root does it.
        return;
    }
    let db = start();
    let Some(psql) = program(&db, "psql") else { return };
    let as_nobody = |url: &str| {
        let command = query(&psql, url);
        let args = [psql.as_os_str()].into_iter().chain(command.get_args());
        Process::new("runuser").args(["-u", "nobody", "--"]).args(args).output().unwrap()
    };
    let probe = Process::new("runuser").args(["-u", "nobody", "--"]).arg(&psql).arg("--version").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return skip("`runuser -u nobody -- psql` does not run");
    }
    let tcp = tcp(&db);
    for without in ["", ":wrong"] {
        let output = as_nobody(&with_password(&tcp, without));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(!reached(&output) && complaint.contains("password"), "{complaint}");
    }
    assert!(reached(&as_nobody(tcp.url())), "it is the password that keeps others out");
}

#[test]
fn sandboxes_differ_in_port_and_password() {
    let (one, other) = (start(), start());
    let (one_tcp, other_tcp) = (tcp(&one), tcp(&other));
    assert_ne!(one_tcp.port(), other_tcp.port());
    assert_ne!(one_tcp.password(), other_tcp.password());
    let crossed = one_tcp.url().replace(one_tcp.password(), other_tcp.password());
    assert!(Client::connect(&crossed, NoTls).is_err());
}

#[test]
fn the_password_is_kept_from_logs() {
    let settings = [
        ("log_statement", "all"),
        ("log_min_duration_statement", "0"),
        ("log_duration", "on"),
        ("log_connections", "on"),
        ("log_min_error_statement", "debug5"),
        ("log_transaction_sample_rate", "1"),
        ("default_transaction_read_only", "on"),
        ("password_encryption", "md5"),
    ];
    let db = fresh().settings(settings).start().unwrap();
    let tcp = tcp(&db);
    connect(tcp.url()).batch_execute("select 'by tcp'").unwrap();
    let log = eventually(DEADLINE, "the statement is in the log", || {
        db.log().ok().filter(|log| log.contains("by tcp"))
    });
    assert!(!log.contains(tcp.password()), "{log}");
    let debug = format!("{tcp:?} {db:?}");
    assert!(debug.contains("127.0.0.1") && !debug.contains(tcp.password()), "{debug}");
}

// The handle.

#[test]
fn further_calls_return_the_same() {
    let db = start();
    let all: Vec<Tcp> = thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| tcp(&db))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(all.iter().all(|other| other.url() == all[0].url() && other.port() == tcp(&db).port()));
    forwarder(&db);
    assert_eq!(forwarders(&db).len(), 1);
}

#[test]
fn the_port_is_closed_when_the_sandbox_ends() {
    let (dropped, stopped) = (start(), start());
    let ports = [tcp(&dropped).port(), tcp(&stopped).port()];
    let mut client = connect(tcp(&stopped).url());
    drop(dropped);
    stopped.stop().unwrap();
    ports.into_iter().for_each(is_refused);
    assert!(client.batch_execute("select 1").is_err());
}

#[test]
fn without_a_call_nothing_listens_outside() {
    let db = start();
    assert_eq!(forwarders(&db), [0; 0]);
    // Inside, the server waits; it lets nobody in before there is a password.
    let mut client = connect(db.url());
    let password: Option<String> =
        value(&mut client, "select rolpassword from pg_authid where rolname = 'postgres'");
    assert_eq!(password, None);
}

fn forwarders<E: Engine>(db: &Sandbox<E>) -> Vec<u32> {
    let mut found = processes_beside(db.pid());
    found.retain(|&pid| status(pid, "Name").is_some_and(|name| name == "tcp forwarder"));
    found
}

pub(crate) fn forwarder<E: Engine>(db: &Sandbox<E>) -> u32 {
    eventually(DEADLINE, "the forwarder runs", || forwarders(db).first().copied())
}

#[test]
fn the_forwarder_can_do_no_more_than_the_server() {
    let db = start();
    tcp(&db);
    let forwarder = forwarder(&db);
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(forwarder, name).as_deref(), Some("0000000000000000"), "{name}");
    }
    assert_eq!(status(forwarder, "NoNewPrivs").as_deref(), Some("1"));
    // Its listening sockets, epoll, and nothing of init's or of this process's.
    let open = eventually(DEADLINE, "it has set itself up", || {
        let entries = std::fs::read_dir(format!("/proc/{forwarder}/fd")).unwrap().flatten();
        let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let open: Vec<_> = links.map(|link| link.to_string_lossy().into_owned()).collect();
        open.iter().any(|link| link.contains("eventpoll")).then_some(open)
    });
    let known =
        |link: &String| link.ends_with("/null") || link.contains("eventpoll") || link.starts_with("socket:");
    assert!(open.iter().all(known), "{open:?}");
    assert!(open.iter().filter(|link| link.starts_with("socket:")).count() <= 2, "{open:?}");
}

// Errors.

#[test]
fn a_server_that_is_kept_from_it_is_reported() {
    let db = fresh().setting("listen_addresses", "").start().unwrap();
    let error = db.tcp().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    let parts = ["could not reach `postgres` by TCP", "nothing listens on port 5432", "`listen_addresses`"];
    assert_says(&format!("{error:?}"), &parts);
    // It is not held against later calls, nor against the socket.
    assert_eq!(db.tcp().unwrap_err().kind(), ErrorKind::InvalidConfig);
    drop(connect(db.url()));
}

#[test]
fn a_password_that_cannot_be_set_is_reported() {
    let db = start();
    connect(db.url()).batch_execute("create role other superuser login").unwrap();
    let other = db.url().replace("user=postgres", "user=other");
    connect(&other).batch_execute("alter role postgres rename to former").unwrap();
    let error = db.tcp().unwrap_err();
    let report = format!("{error:?}");
    assert_eq!(error.kind(), ErrorKind::Control, "{report}");
    assert_says(&report, &["set the password for TCP by `psql`", "role \"postgres\" does not exist"]);
    assert_eq!(forwarders(&db), [0; 0]);
}

fn kill_server(db: &Sandbox) {
    // The session ends with it.
    let _ = connect(db.url())
        .batch_execute("copy (select where false) to program 'kill -9 $(head -1 postmaster.pid)'");
    eventually(CLEANUP_DEADLINE, "the server is gone", || Client::connect(db.url(), NoTls).err());
}

#[test]
fn a_server_that_died_is_found_out_at_once() {
    let (opened, unopened) = (start(), start());
    let tcp = tcp(&opened);
    drop(connect(tcp.url()));
    kill_server(&opened);
    assert!(Client::connect(tcp.url(), NoTls).is_err());
    let mut stream = TcpStream::connect(tcp.address()).unwrap();
    assert_eq!(rest(&mut stream), b"");

    kill_server(&unopened);
    wait_until(CLEANUP_DEADLINE, "its port is closed", || {
        unopened.tcp().is_err_and(|error| error.kind() == ErrorKind::InvalidConfig)
    });
}

// Loads.

/// All that still comes. A connection that is reset has nothing more to say.
pub(crate) fn rest(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() != Io::ConnectionReset => panic!("{error:?} after {} bytes", rest.len()),
        _ => rest,
    }
}

#[test]
fn many_clients_are_served_at_once() {
    passed(&mut alone("tcp::many_clients_ask"));
}

#[tokio::test]
#[ignore = "run by `many_clients_are_served_at_once`"]
async fn many_clients_ask() {
    if !is_alone() {
        return;
    }
    // Unoptimised clients take long to prove that they know the password, and are not hung up on
    // for that.
    let settings = [("max_connections", "400"), ("authentication_timeout", "10min")];
    let db = fresh().settings(settings).start().unwrap();
    let tcp = tcp(&db);
    let connecting: Vec<_> = (0..rounds(30, 300))
        .map(|_| {
            let url = tcp.url().to_owned();
            tokio::spawn(async move { connect_async(&url).await })
        })
        .collect();
    let mut clients = Vec::new();
    for connecting in connecting {
        clients.push(connecting.await.unwrap().unwrap());
    }
    // All of them are connected now.
    let query: Vec<_> = clients
        .into_iter()
        .zip(0..)
        .map(|(client, number): (_, i32)| {
            tokio::spawn(async move {
                let row = client.query_one("select $1 * 2", &[&number]).await.unwrap();
                assert_eq!(row.get::<_, i32>(0), number * 2);
            })
        })
        .collect();
    for query in query {
        query.await.unwrap();
    }
}

#[test]
fn large_transfers_are_the_same_at_both_ends() {
    let db = start();
    let tcp = tcp(&db);
    let mut client = connect(tcp.url());
    client
        .batch_execute(
            "create table a as select i, repeat(md5(i::text), 30) x from generate_series(1, 60000) i;
             create table b (like a)",
        )
        .unwrap();
    let mut out = Vec::new();
    client.copy_out("copy a to stdout").unwrap().read_to_end(&mut out).unwrap();
    assert!(out.len() > 50 << 20, "{} bytes", out.len());
    let mut into = client.copy_in("copy b from stdin").unwrap();
    into.write_all(&out).unwrap();
    assert_eq!(into.finish().unwrap(), 60000);
    let mut by_socket = Vec::new();
    let mut client = connect(db.url());
    client.copy_out("copy b to stdout").unwrap().read_to_end(&mut by_socket).unwrap();
    assert!(out == by_socket, "{} and {} bytes differ", out.len(), by_socket.len());
}
