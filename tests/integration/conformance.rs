//! The checks of engines: the library's own pass, and each defect is found by its check.

use std::fs;
use std::io::{BufRead, BufReader, Error, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sandboxed_db::engine::ClientExit;
use sandboxed_db::engine::conformance::{Checked, Conformance};
use sandboxed_db::engine::{
    Command, Endpoint, FileRun, Installation, Mode, Programs, Ready, SandboxPath, ScriptError, Scripts,
    Server, Signal,
};
use sandboxed_db::{Engine, MariaDb, Postgres, Redis, Result, Sandbox, Sqlite};
use sandboxed_db_tests::{assert_says, mariadb, skip_without, sqlite};

#[test]
fn postgres_keeps_the_contract() {
    let query = |db: &Sandbox, sql: &str| {
        let mut client = postgres::Client::connect(db.url(), postgres::NoTls)?;
        client.simple_query(sql).map(|answer| format!("{answer:?}"))
    };
    Conformance::new(Postgres::new())
        .reads(move |db| query(db, "select relname from pg_class where relname ~ '^t_' order by 1"))
        .writes(move |db| query(db, "create table t_written ()").map(drop))
        .setting("work_mem", "5MB")
        .other(Postgres::new().database("shop"))
        .other(Postgres::new().initdb_arg("--data-checksums"))
        .script("create table t_seeded ();\n")
        .broken_script("create table t_1 ();\ncreate tabel t_2 ();\ncreate table t_3 ();\n", 2)
        .open_transaction("begin;\ncreate table t_lost ();\n")
        .check_all()
        .unwrap();
}

#[test]
fn redis_keeps_the_contract() {
    skip_without!(Redis);
    let ask = |db: &Sandbox<Redis>, command: &str| {
        let mut stream = UnixStream::connect(Redis::socket().below(&db.root()))?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        std::io::read_to_string(stream)
    };
    Conformance::new(Redis::new())
        .reads(move |db| ask(db, "GET key"))
        .writes(move |db| ask(db, "SET key written").map(drop))
        .setting("maxmemory", "10mb")
        .script("SET key seeded\n")
        .broken_script("SET key seeded\nNONSENSE\nSET key later\n", 2)
        .open_transaction("MULTI\nSET key lost\n")
        .check_all()
        .unwrap();
}

#[test]
fn sqlite_keeps_the_contract() {
    skip_without!(Sqlite);
    let query = |db: &Sandbox<Sqlite>, sql: &str| sqlite(db, sql).map_err(Error::other);
    Conformance::new(Sqlite::new())
        .reads(move |db| query(db, "select name from sqlite_master order by name"))
        .writes(move |db| query(db, "create table written (id)").map(drop))
        .script("create table seeded (id);\n")
        .broken_script("create table a (id);\ncreate tabel b (id);\ncreate table c (id);\n", 2)
        .open_transaction("begin;\ncreate table lost (id);\n")
        .check_all()
        .unwrap();
}

#[test]
fn mariadb_keeps_the_contract() {
    skip_without!(MariaDb);
    let query = |db: &Sandbox<MariaDb>, sql: &str| mariadb(&db.env(), sql).map_err(Error::other);
    Conformance::new(MariaDb::new())
        .reads(move |db| query(db, "show tables"))
        .writes(move |db| query(db, "create table written (id int)").map(drop))
        .setting("max_connections", "50")
        .other(MariaDb::new().database("shop"))
        .script("create table seeded (id int);\n")
        .broken_script("create table a (id int);\ncreate tabel b (id int);\ncreate table c (id int);\n", 2)
        .open_transaction("create table a (id int);\nbegin;\ninsert into a values (1);\n")
        .check_all()
        .unwrap();
}

/// The defects of an engine, each against one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    ReadyWhileItLoads,
    AddressOutside,
    FailsAfterAWrite,
    ForgetsAtStop,
    KnowsItsFile,
    LeavesItsPid,
    WritesToLayers,
    NameByChance,
    HiddenDifference,
    IgnoresSettings,
    IgnoresScripts,
    IgnoresErrors,
    NextLine,
    IgnoresTheEnd,
}

/// A server for one value, in Perl.
const SERVER: &str = r#"
use strict; use IO::Socket::UNIX;
my ($defect, $file, $value) = ($ENV{DEFECT}, "/data/value", "");
if (open my $in, "<", $file) {
    $value = <$in>;
    $value = "" if $defect eq "KnowsItsFile" and ($value =~ s/^(\d+) // ? $1 : 0) != (stat $file)[1];
}
$SIG{PIPE} = "IGNORE";
$SIG{TERM} = sub {
    open my $out, ">", $file;
    print $out ($defect eq "KnowsItsFile" ? (stat $file)[1] . " " : ""), $defect eq "ForgetsAtStop" ? "" : $value;
    close $out;
    exit($defect eq "FailsAfterAWrite" && $value ? 3 : 0);
};
if ($defect eq "LeavesItsPid") { open my $out, ">", "/data/server.pid"; print $out $$; close $out }
my $socket = IO::Socket::UNIX->new(Listen => 99, Local => "/run/one.sock") or die "$!";
my $loads_until = time + ($defect eq "ReadyWhileItLoads" ? 2 : 0);
while (1) {
    my $client = $socket->accept or next;
    my $line = <$client>;
    if (time < $loads_until) { print $client "loading\n" }
    else { $value = $1 if $line =~ /^set (.*)/; print $client "=$value\n" }
}
"#;

/// Runs a file of `set`, `begin` and `commit`.
const CLIENT: &str = r#"
use strict; use IO::Socket::UNIX;
my ($defect, $open) = ($ENV{DEFECT}, 0);
exit if $defect eq "IgnoresScripts";
while (<>) {
    if (/^(begin|commit)/) { $open = $1 eq "begin" }
    elsif (/^set /) {
        my $server = IO::Socket::UNIX->new(Peer => "/run/one.sock") or die "$!";
        print $server $_; <$server>;
    }
    elsif ($defect ne "IgnoresErrors") { print STDERR $defect eq "NextLine" ? $. + 1 : $.; exit 1 }
}
if ($open and $defect ne "IgnoresTheEnd") { print STDERR "open"; exit 1 }
"#;

#[derive(Debug, Clone)]
struct One {
    defect: Defect,
    /// Written to the data directory by `tidy`.
    note: &'static str,
    /// The host's file of [`Defect::AddressOutside`].
    outside: PathBuf,
}

impl One {
    fn with(defect: Defect) -> Self {
        Self { defect, note: "", outside: PathBuf::new() }
    }

    fn perl(&self, installation: &Installation, script: &str) -> Command {
        let command = Command::new(installation.program("perl")).env("DEFECT", format!("{:?}", self.defect));
        command.args(["-e", script])
    }
}

impl Engine for One {
    fn name(&self) -> &'static str {
        "one"
    }

    fn locate(&self) -> Result<Installation> {
        Programs::new("perl").version_arg(None).find(None)
    }

    fn identity(&self, _: &Installation) -> Vec<(String, String)> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = match self.defect {
            Defect::NameByChance => NUMBER.fetch_add(1, Ordering::Relaxed).to_string(),
            Defect::HiddenDifference => String::new(),
            // A damaged layer is of use to no later run.
            Defect::WritesToLayers => std::process::id().to_string(),
            _ => self.note.to_owned(),
        };
        vec![("note".to_owned(), name)]
    }

    fn server(&self, installation: &Installation, settings: &[(String, String)], _: Mode) -> Result<Server> {
        let socket = || Endpoint::Unix("/run/one.sock".into());
        let ready = match self.defect {
            Defect::ReadyWhileItLoads => Ready::Connect(socket()),
            _ => Ready::answer(socket(), "get\n", "="),
        };
        let settings = settings.iter().filter(|_| self.defect != Defect::IgnoresSettings);
        let settings = settings.map(|(name, value)| format!("{name}={value}"));
        Ok(Server::new(self.perl(installation, SERVER).args(settings), Signal::Terminate, ready))
    }

    fn tidy(&self, data: &Path) -> std::io::Result<()> {
        fs::write(data.join("note"), self.note)
    }

    fn links_when_ready(&self, data: &Path, _: &[(String, String)]) -> Vec<(PathBuf, PathBuf)> {
        if self.defect == Defect::WritesToLayers {
            fs::write(data.join("value"), "x").unwrap();
        }
        Vec::new()
    }

    fn url(&self, root: &Path) -> Option<String> {
        Some(match self.defect {
            Defect::AddressOutside => self.outside.display().to_string(),
            _ => SandboxPath::new("/run/one.sock").below(root).display().to_string(),
        })
    }
}

impl Scripts for One {
    fn run_file(&self, installation: &Installation, run: &FileRun) -> Result<Command> {
        Ok(self.perl(installation, CLIENT).arg(run.path.display().to_string()))
    }

    fn failure(&self, exit: &ClientExit<'_>) -> Option<ScriptError> {
        let mut error = ScriptError::default();
        error.line = exit.stderr.parse().ok();
        error.message = exit.stderr.to_owned();
        (!exit.success).then_some(error)
    }
}

fn ask(db: &Sandbox<One>, command: &str) -> std::result::Result<String, Error> {
    let outside = &db.engine().outside;
    if Path::new(db.url()) == outside {
        if let Some(value) = command.strip_prefix("set ") {
            fs::write(outside, value)?;
        }
        return fs::read_to_string(outside);
    }
    let mut stream = UnixStream::connect(db.url())?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(&mut stream).take(99).read_line(&mut answer)?;
    match answer.trim_end().strip_prefix('=') {
        Some(value) => Ok(value.to_owned()),
        None => Err(Error::other(answer)),
    }
}

fn checks(engine: One) -> Conformance<One> {
    Conformance::new(engine)
        .reads(|db| ask(db, "get"))
        .writes(|db| ask(db, "set written").map(drop))
        .setting("name", "value")
        .script("set seeded\n")
        .broken_script("set a\nnonsense\nset b\n", 2)
        .open_transaction("begin\nset a\n")
}

#[test]
fn an_engine_without_a_defect_passes() {
    let other = One { note: "other", ..One::with(Defect::None) };
    checks(One::with(Defect::None)).other(other).check_all().unwrap();
}

/// Asserts that the check finds the defect, and that its report has all parts.
#[track_caller]
fn found(defect: Defect, check: fn(&Conformance<One>) -> Checked, parts: &[&str]) {
    let report = check(&checks(One::with(defect))).unwrap_err().to_string();
    assert_says(&report, &[&["the engine `one` breaks the rule: "], parts].concat());
}

#[test]
fn a_server_that_is_ready_too_early_is_found() {
    let parts = ["sign of readiness", "check: is_ready_when_it_says_so", "reading failed: loading"];
    found(Defect::ReadyWhileItLoads, Conformance::is_ready_when_it_says_so, &parts);
}

#[test]
fn an_address_outside_of_the_sandbox_is_found() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let engine = One { outside: file.path().to_owned(), ..One::with(Defect::AddressOutside) };
    let report = checks(engine).shares_nothing().unwrap_err().to_string();
    assert_says(&report, &["keeps all of its state in its sandbox", "written` "]);
}

#[test]
fn an_end_that_is_not_clean_is_found() {
    let parts = ["ends by itself with a clean status (`Server::clean_status`", "it ended with exit status 3"];
    found(Defect::FailsAfterAWrite, Conformance::stops_cleanly, &parts);
}

#[test]
fn data_that_is_lost_at_a_stop_is_found() {
    let parts =
        ["writes everything into the data directory", "the next server reads `` instead of `written`"];
    found(Defect::ForgetsAtStop, Conformance::keeps_its_data, &parts);
}

#[test]
fn data_that_cannot_be_copied_is_found() {
    checks(One::with(Defect::KnowsItsFile)).keeps_its_data().unwrap();
    let parts = ["copied after a clean stop is as good", "the next server reads `` instead of `written`"];
    found(Defect::KnowsItsFile, Conformance::survives_a_copy, &parts);
}

#[test]
fn a_file_that_names_a_process_is_found() {
    let parts = ["are removed by `Engine::tidy`", "the id of a process in `data/server.pid`"];
    found(Defect::LeavesItsPid, Conformance::leaves_nothing, &parts);
}

#[test]
fn an_engine_that_writes_to_a_layer_is_found() {
    let parts = ["never written after its publication", "`value` of the layer has changed"];
    found(Defect::WritesToLayers, Conformance::leaves_layers_alone, &parts);
}

#[test]
fn names_of_layers_that_are_wrong_are_found() {
    let parts = ["`Engine::identity`", "another name each time"];
    found(Defect::NameByChance, Conformance::names_layers_apart, &parts);
    let hidden = || One::with(Defect::HiddenDifference);
    let other = One { note: "other", ..hidden() };
    let report = checks(hidden()).other(other).names_layers_apart().unwrap_err().to_string();
    assert_says(&report, &["`Engine::identity`", "the same layer belongs to One", "note: \"other\""]);
}

#[test]
fn settings_that_are_ignored_are_found() {
    let parts = ["gives each setting to the server, or refuses it", "with `name` = `value`"];
    found(Defect::IgnoresSettings, Conformance::passes_settings_on, &parts);
    let unasked = Conformance::new(One::with(Defect::IgnoresSettings));
    assert_says(&unasked.passes_settings_on().unwrap_err().to_string(), &["with `no-such-setting` = `1`"]);
}

#[test]
fn clients_with_defects_are_found() {
    let accepted = "it was accepted, and a layer was stored";
    let parts = ["runs a file to its end", "without the script and with it"];
    found(Defect::IgnoresScripts, Conformance::runs_scripts, &parts);
    let parts = ["of each file that the server refuses", accepted];
    found(Defect::IgnoresErrors, Conformance::refuses_broken_scripts, &parts);
    let parts = ["`ScriptError::line`", "line 3 instead of line 2"];
    found(Defect::NextLine, Conformance::names_the_line, &parts);
    let parts = ["leaves a transaction open", accepted];
    found(Defect::IgnoresTheEnd, Conformance::refuses_open_transactions, &parts);
}

#[test]
fn a_check_that_lacks_its_input_fails() {
    let report = Conformance::new(One::with(Defect::None)).script("set a\n").check_all().unwrap_err();
    let missing = ["reads", "writes", "broken_script", "open_transaction"];
    let missing = missing.map(|method| format!("the check needs `Conformance::{method}`"));
    assert_says(&report.to_string(), &missing.each_ref().map(String::as_str));
    assert!(report.checks().any(|check| check == "names_the_line"));
}
