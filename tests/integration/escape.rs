//! A superuser's SQL reaches no file, process or socket of the host or of another sandbox.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Command, Stdio};

use postgres::error::SqlState;
use sandboxed_db::Sandbox;
use sandboxed_db_tests::{DEADLINE, bin, connect, start, wait_until};

use crate::hardening::has_perl;
use crate::isolation::{fails, has_its_own_proc, run, shell};

// Files.

/// Statements that read a file, with the path as $1.
const READING: [&str; 6] = [
    "select pg_read_file($1)",
    "select pg_read_binary_file($1)",
    "select lo_import($1)",
    "select 1 from pg_stat_file($1)",
    "select pg_ls_dir($1)",
    "select pg_file_read from (select pg_read_file($1, 0, 1)) as x (pg_file_read)",
];

#[test]
fn no_function_of_the_server_reads_a_file_of_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    fs::write(&mark, "of the host").unwrap();
    let db = start();
    let mut client = connect(db.url());
    let own = std::env::current_exe().unwrap();
    let hidden = [mark.as_path(), directory.path(), own.as_path(), "/etc/shadow".as_ref(), "/root".as_ref()];
    // Also through links to the directories of other processes.
    let roots = ["", "/proc/1/root", "/proc/self/root", "/proc/self/cwd/../../../.."];
    for path in roots.iter().flat_map(|root| hidden.map(|path| format!("{root}{}", path.display()))) {
        for statement in READING {
            let error = client.query(statement, &[&path]).expect_err(&path);
            assert_eq!(error.code(), Some(&SqlState::UNDEFINED_FILE), "{statement}, {path}: {error:?}");
        }
        let copied =
            client.batch_execute(&format!("create temporary table c (x text); copy c from '{path}'"));
        assert_eq!(copied.unwrap_err().code(), Some(&SqlState::UNDEFINED_FILE), "copy from {path}");
    }
    // The same statements read existing files.
    for (statement, path) in
        READING.iter().zip(["PG_VERSION", "PG_VERSION", "PG_VERSION", ".", ".", "PG_VERSION"])
    {
        client.query(*statement, &[&path]).unwrap_or_else(|error| panic!("{statement}, {path}: {error:?}"));
    }
}

#[test]
fn no_function_of_the_server_writes_a_file_of_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let precious = directory.path().join("precious");
    fs::write(&precious, "as it was").unwrap();
    let program = "/usr/bin/env";
    let before = fs::read(program).unwrap();
    let db = start();
    let mut client = connect(db.url());
    client.batch_execute("select lo_from_bytea(4711, 'written')").unwrap();
    let adminpack = "select 1 from pg_available_extensions where name = 'adminpack'";
    if client.query_opt(adminpack, &[]).unwrap().is_some() {
        client.batch_execute("create extension adminpack").unwrap();
    }
    let new = directory.path().join("new");
    for path in
        [precious.to_str().unwrap(), new.to_str().unwrap(), program, "/etc/passwd", "/usr/lib/new", "/new"]
    {
        for statement in [
            format!("select lo_export(4711, '{path}')"),
            format!("copy (select 'written') to '{path}'"),
            // Of the extension adminpack, where it is installed.
            format!("select pg_file_write('{path}', 'written', true)"),
            format!("copy (select 'written') to program 'cat > {path}'"),
        ] {
            assert!(client.batch_execute(&statement).is_err(), "{statement}");
        }
    }
    for path in [directory.path().to_str().unwrap(), "/var/tmp", "/home"] {
        let error =
            client.batch_execute(&format!("create tablespace loot location '{path}'")).expect_err(path);
        assert_eq!(error.code(), Some(&SqlState::UNDEFINED_FILE), "{path}: {error:?}");
    }
    // They write to writable directories.
    client.batch_execute("select lo_export(4711, '/tmp/new'); copy (select 1) to '/run/new'").unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "as it was");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert!(fs::read(program).unwrap() == before, "{program} is another");
    for path in ["/new", "/usr/lib/new"] {
        assert!(!std::path::Path::new(path).exists(), "{path}");
    }
}

/// Untrusted languages, each with the body of a function that returns a file's text or fails.
const LANGUAGES: [(&str, &str); 3] = [
    ("plpython3u", "return open(path).read()"),
    ("plperlu", "open(my $f, '<', $_[0]) or die \"$!\"; return <$f>"),
    ("pltclu", "return [read [open $1]]"),
];

#[test]
fn untrusted_languages_read_no_file_of_the_host() {
    let mark = tempfile::NamedTempFile::new().unwrap();
    fs::write(&mark, "of the host").unwrap();
    let db = start();
    let mut client = connect(db.url());
    let installed = "select 1 from pg_available_extensions where name = $1";
    for (language, body) in LANGUAGES {
        // Few machines have these languages.
        if client.query_opt(installed, &[&language]).unwrap().is_none() {
            continue;
        }
        client
            .batch_execute(&format!(
                "create extension {language}; \
                 create function look(path text) returns text language {language} as $body$ {body} $body$"
            ))
            .unwrap();
        assert!(client.query_one("select look('PG_VERSION')", &[]).is_ok(), "{language}");
        let error = client.query_one("select look($1)", &[&mark.path().to_str().unwrap()]).unwrap_err();
        assert!(format!("{error:?}").to_lowercase().contains("no such file"), "{language}: {error:?}");
        client.batch_execute("drop function look").unwrap();
    }
}

// Processes.

#[test]
fn a_signal_to_all_processes_reaches_none_outside() {
    let (db, neighbour) = (start(), start());
    let mut other = connect(neighbour.url());
    let mut host = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    for target in [host.id(), std::process::id(), neighbour.pid()] {
        // A process of the sandbox may have the same number.
        let (output, _) = run(&db, &format!("cat /proc/{target}/comm"));
        assert!(!output.contains("sleep") && !output.contains("integration"), "{target}: {output}");
    }
    // The signal ends the session too.
    assert!(connect(db.url()).batch_execute("copy (select where false) to program 'kill -KILL -1'").is_err());
    wait_until(DEADLINE, "the server is gone", || {
        postgres::Client::connect(db.url(), postgres::NoTls).is_err()
    });
    assert!(host.try_wait().unwrap().is_none(), "a process of the host was ended");
    assert!(other.batch_execute("select 1").is_ok(), "the neighbour was reached");
    host.kill().unwrap();
    host.wait().unwrap();
}

// Sockets.

/// This machine's addresses on interfaces other than lo.
fn outer_addresses() -> Vec<IpAddr> {
    // Connecting a datagram socket sends nothing, and selects the local address.
    let ways = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    let address = |(from, to)| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    ways.into_iter().filter_map(address).collect()
}

/// A command that connects inside the sandbox.
fn psql_inside(db: &Sandbox) -> String {
    format!("{}/psql -X -U postgres -c 'select 1'", bin(db).display())
}

#[test]
fn no_listener_of_the_host_is_reached() {
    let db = start();
    let psql = psql_inside(&db);
    let on = |address: IpAddr| TcpListener::bind((address, 0)).ok();
    let local = ["127.0.0.1", "::1"].map(|address| address.parse().unwrap());
    let listeners: Vec<_> = local.into_iter().chain(outer_addresses()).filter_map(on).collect();
    assert!(!listeners.is_empty(), "a machine has a lo");
    for listener in &listeners {
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (host, port) = (address.ip(), address.port());
        let why = if host.is_loopback() { "refused" } else { "unreachable" };
        // The sandbox has no route to addresses of other interfaces, and IPv6 may be off.
        let (output, exit) = run(&db, &format!("{psql} -h {host} -p {port}"));
        let known = output.contains(why) || (host.is_ipv6() && output.contains("Cannot assign"));
        assert!(exit == 2 && known, "{address}: {exit}, {output}");
        let none = listener.accept().expect_err("no client connects");
        assert_eq!(none.kind(), std::io::ErrorKind::WouldBlock);
        // The listener works.
        std::net::TcpStream::connect(address).unwrap();
    }
}

#[test]
fn no_packet_leaves() {
    let db = start();
    let psql = psql_inside(&db);
    // Documentation, private networks, metadata of clouds, multicast, and link-local neighbours.
    for address in
        ["192.0.2.1", "10.0.0.1", "172.17.0.1", "169.254.169.254", "224.0.0.1", "2001:db8::1", "ff02::1"]
    {
        let (output, exit) = run(&db, &format!("{psql} -h {address} -p 80"));
        let known = ["unreachable", "Cannot assign", "Invalid argument"];
        assert!(exit == 2 && known.iter().any(|known| output.contains(known)), "{address}: {exit}, {output}");
    }
    if shell(&db, "command -v bash || echo none") != "none" {
        for address in ["192.0.2.1", "255.255.255.255"] {
            let (output, exit) = run(&db, &format!("bash -c 'echo > /dev/udp/{address}/53'"));
            let known = ["unreachable", "Permission denied"];
            assert!(exit != 0 && known.iter().any(|known| output.contains(known)), "{address}: {output}");
        }
    }
    // No name server is asked.
    let (output, exit) = run(&db, &format!("{psql} -h example.com"));
    assert!(exit == 2 && output.contains("could not translate host name"), "{output}");
}

#[test]
fn no_socket_without_a_file_of_the_host_is_reached() {
    let db = start();
    let name = format!("sandboxed-db-tests-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(format!("{name}/.s.PGSQL.5432")).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    fails(&db, &format!("{} -h @{name}", psql_inside(&db)), "Connection refused");
    assert!(listener.accept().is_err(), "a client connects");
    UnixStream::connect_addr(&address).unwrap();
}

// Two sandboxes.

/// Runs a Perl program, which every Debian has.
fn perl(db: &Sandbox, program: &str) -> (String, i32) {
    assert!(!program.contains('"'));
    run(db, &format!("perl -l -MSocket -e \"{}\"", program.replace('$', "\\$")))
}

#[test]
fn sockets_without_a_file_do_not_cross() {
    let (one, other) = (start(), start());
    if !has_perl(&one) {
        return;
    }
    let name = format!("sandboxed-db-tests-{}-inside", std::process::id());
    let socket =
        format!("socket(S, AF_UNIX, SOCK_STREAM, 0) or die; my $a = pack_sockaddr_un(chr(0) . '{name}');");
    shell(
        &one,
        &format!(
            "setsid perl -MSocket -e \"{}\" < /dev/null > /dev/null 2>&1 &",
            format!("{socket} bind(S, $a) or die; listen(S, 9) or die; sleep 1000").replace('$', "\\$")
        ),
    );
    let visit = format!("{socket} connect(S, $a) or do {{ print $!; exit 3 }}; print 'connected'");
    wait_until(DEADLINE, "it listens", || perl(&one, &visit) == ("connected".to_owned(), 0));
    assert_eq!(perl(&other, &visit), ("Connection refused".to_owned(), 3));
    let outside = UnixStream::connect_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap_err();
    assert_eq!(outside.kind(), std::io::ErrorKind::ConnectionRefused);
    let seen = fs::read_to_string("/proc/net/unix").unwrap();
    assert!(!seen.contains(&name), "the host lists it");
}

#[test]
fn shared_memory_semaphores_and_queues_do_not_cross() {
    let (one, other) = (start(), start());
    if !has_perl(&one) {
        return;
    }
    // IPC_CREAT | IPC_EXCL and all permissions.
    let (make, find) = ("07000 | 0777", "0");
    let find_or_make = |flags: &str| {
        format!(
            "my $k = 4711; print join(' ', map {{ defined $_ ? 'there' : 'not' }} \
             shmget($k, {}, {flags}), semget($k, {}, {flags}), msgget($k, {flags}))",
            if flags == find { 0 } else { 4096 },
            if flags == find { 0 } else { 1 },
        )
    };
    let all = |word: &str| (format!("{word} {word} {word}"), 0);
    let make = make.replacen("07000", "03000", 1);
    assert_eq!(perl(&one, &find_or_make(&make)), all("there"));
    assert_eq!(perl(&one, &find_or_make(find)), all("there"));
    assert_eq!(perl(&other, &find_or_make(find)), all("not"));
    // The key is free in the other sandbox.
    assert_eq!(perl(&other, &find_or_make(&make)), all("there"));
    for kind in ["shm", "sem", "msg"] {
        let host = fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap();
        assert!(!host.lines().any(|line| line.split_whitespace().next() == Some("4711")), "{host}");
    }
}

#[test]
fn mounts_are_not_shared() {
    let (one, other) = (start(), start());
    if !has_its_own_proc(&one) {
        return;
    }
    // Each mount of the kernel has a separate number.
    let ids = |text: String| -> BTreeSet<u32> {
        text.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
    };
    let inside = |db: &Sandbox| ids(shell(db, "cat /proc/self/mountinfo"));
    let all = [inside(&one), inside(&other), ids(fs::read_to_string("/proc/self/mountinfo").unwrap())];
    let together: BTreeSet<_> = all.iter().flatten().collect();
    assert_eq!(together.len(), all.iter().map(BTreeSet::len).sum::<usize>(), "{all:?}");
    // No later mount propagates.
    let shared = shell(&one, "grep -c -e ' shared:' -e ' master:' /proc/self/mountinfo || true");
    assert_eq!(shared, "0");
}

#[test]
fn the_control_group_of_the_host_is_not_named() {
    let db = start();
    if has_its_own_proc(&db) {
        for line in shell(&db, "cat /proc/self/cgroup").lines() {
            assert!(line.ends_with(":/"), "{line}");
        }
    }
}
