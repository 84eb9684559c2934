//! The contract of engines, by servers that are shell scripts.

use std::path::Path;
use std::time::Instant;

use sandboxed_db::engine::{
    Command, Endpoint, Installation, Mode, Programs, Ready, Server, Signal, TcpAccess, TcpRequest,
};
use sandboxed_db::{Engine, ErrorKind, Result, Sandbox, Snapshot};
use sandboxed_db_tests::assert_says;

/// A server that is a script, ready once it has made the file `/run/ready`.
#[derive(Debug, Clone)]
struct Script {
    text: &'static str,
    env: String,
    clean_status: Option<i32>,
    ready: Ready,
    url: Option<&'static str>,
}

/// Ends cleanly at SIGTERM.
const OBEDIENT: &str = "trap 'exit 0' TERM; : > /run/ready; while :; do sleep 0.01; done";

impl Script {
    fn new(text: &'static str) -> Self {
        let ready = Ready::Command(Command::new("/usr/bin/test").args(["-e", "/run/ready"]));
        Self { text, env: String::new(), clean_status: None, ready, url: Some("script://") }
    }
}

impl Engine for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn locate(&self) -> Result<Installation> {
        Programs::new("sh").version_arg(None).find(None)
    }

    fn server(&self, installation: &Installation, _: &[(String, String)], _: Mode) -> Result<Server> {
        let command =
            Command::new(installation.program("sh")).env("PATH", "/usr/bin:/bin").env("X", &self.env);
        let server = Server::new(command.args(["-c", self.text]), Signal::Terminate, self.ready.clone());
        let server = server.file("/etc/bytes", [0xFF, 0x00, 0xFE]);
        Ok(self.clean_status.into_iter().fold(server, Server::clean_status))
    }

    fn url(&self, _root: &Path) -> Option<String> {
        self.url.map(str::to_owned)
    }

    fn url_variable(&self) -> &'static str {
        "SCRIPT_URL"
    }

    fn tcp(&self, request: &TcpRequest<'_>) -> Option<TcpAccess> {
        Some(TcpAccess::new(7007, format!("script://{}", request.address)))
    }
}

/// Returns a text that no earlier run had, so that no layer of an earlier run is found.
fn unique() -> String {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_string()
}

fn start(engine: Script) -> Sandbox<Script> {
    Snapshot::new(engine).start().unwrap_or_else(|error| panic!("{error:?}"))
}

#[test]
fn servers_with_other_arguments_get_other_layers() {
    let now = unique();
    let built =
        |text, env: &str| start(Script { env: now.clone() + env, ..Script::new(text) }).timings().layer_built;
    let other_text = "trap 'exit 0' TERM; : > /run/ready; while sleep 0.01; do :; done";
    assert!(built(OBEDIENT, ""));
    assert!(!built(OBEDIENT, ""));
    assert!(built(other_text, ""));
    assert!(built(OBEDIENT, "other"));
}

#[test]
fn the_engine_says_which_end_is_clean() {
    let text = "trap 'exit 7' TERM; : > /run/ready; while :; do sleep 0.01; done";
    let engine = Script { env: unique(), ..Script::new(text) };
    let error = Snapshot::new(engine.clone()).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exited);
    assert_says(&format!("{error:?}"), &["exit status 7", "`Server::clean_status`"]);
    start(Script { clean_status: Some(7), ..engine });
}

#[test]
fn a_lost_stop_signal_is_sent_again() {
    let text = "n=0; trap 'n=$((n + 1)); [ $n -lt 2 ] || exit 0' TERM; : > /run/ready; \
                while :; do sleep 0.01; done";
    let db = start(Script { env: unique(), ..Script::new(text) });
    assert!(db.timings().layer_built);
}

#[test]
fn a_server_that_knows_only_ports_is_reached_by_tcp() {
    let text = "trap 'kill $!; exit 0' TERM; : > /run/ready; sleep infinity & wait";
    let error = Snapshot::new(Script { url: None, ..Script::new(text) }).start().unwrap_err();
    assert!(format!("{error:?}").contains("nothing listens on port 7007"), "{error:?}");
    let perl = "use IO::Socket::INET; my $s = IO::Socket::INET->new(Listen => 9, LocalAddr => \"127.0.0.1\", \
                LocalPort => 7007); $SIG{TERM} = sub { exit 0 }; while (1) { my $c = $s->accept or next; \
                print $c \"hello\"; close $c }";
    let text: &'static str = format!("exec perl -e '{perl}'").leak();
    let ready = Ready::answer(Endpoint::Tcp(7007), "", "hello");
    let db = start(Script { url: None, ready, ..Script::new(text) });
    let tcp = db.tcp().unwrap();
    assert_eq!(db.url(), format!("script://{}", tcp.address()));
    assert!(db.env().contains(&("SCRIPT_URL".to_owned(), db.url().to_owned())));
    let mut stream = std::net::TcpStream::connect(tcp.address()).unwrap();
    assert_eq!(std::io::read_to_string(&mut stream).unwrap(), "hello");
}

#[test]
fn a_file_of_a_server_holds_any_bytes() {
    let db = start(Script::new(OBEDIENT));
    assert_eq!(std::fs::read(db.root().join("etc/bytes")).unwrap(), [0xFF, 0x00, 0xFE]);
    assert_eq!(db.engine().text, OBEDIENT);
}

#[test]
fn a_server_without_its_sign_is_not_ready() {
    let engine = Script { ready: Ready::Connect(Endpoint::Tcp(7)), ..Script::new(OBEDIENT) };
    let limit = std::time::Duration::from_millis(300);
    let begin = Instant::now();
    let error = Snapshot::new(engine).start_timeout(limit).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(begin.elapsed() >= limit);
}
