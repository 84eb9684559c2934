//! The first connection reads the relation cache files of the layer, and no connection reads
//! outdated ones.

use std::fs;
use std::path::PathBuf;

use postgres::{Client, NoTls};
use sandboxed_db::cache::Kept;
use sandboxed_db::{Keep, Sandbox};
use sandboxed_db_fixtures::shop_snapshot;
use sandboxed_db_tests::{
    DEADLINE, ScratchDirs, TestProcess, children, column, connect, eventually, fresh, rounds, value,
    wait_until,
};

use crate::errors::{real, with_server};
use crate::lifecycle::{SUBJECT, started};

const FILE: &str = "pg_internal.init";

/// Gives every catalogue but a few a new file, and a new entry in the relation cache.
const REWRITE: &str = "vacuum full";

fn data(init: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{init}/root/var/lib/postgresql/data"))
}

/// The directory of a database, below the data directory.
fn directory(client: &mut Client) -> String {
    let query = "select 'base/' || oid from pg_database where datname = current_database()";
    value(client, query)
}

/// The directories in which a link stands for the file.
fn linked(db: &Sandbox) -> Vec<String> {
    linked_in(db.pid())
}

fn linked_in(init: u32) -> Vec<String> {
    let data = data(init);
    let databases = fs::read_dir(data.join("base")).unwrap();
    let mut directories: Vec<_> =
        databases.map(|entry| format!("base/{}", entry.unwrap().file_name().display())).collect();
    directories.push("global".to_owned());
    directories.retain(|directory| data.join(directory).join(FILE).is_symlink());
    directories
}

/// Reads every row of every catalogue, by the files that the relation cache names, and finds some
/// by their indexes.
#[track_caller]
fn assert_sound(url: &str) {
    let mut client = connect(url);
    let query = "select oid::regclass::text from pg_class
        where relnamespace = 'pg_catalog'::regnamespace and relkind = 'r'";
    for table in column::<String>(&mut client, query) {
        client
            .batch_execute(&format!("select * from {table}"))
            .unwrap_or_else(|error| panic!("{table}: {error:?}"));
    }
    let missed = "set enable_seqscan = off;
        do $$ declare one record; begin
            for one in select oid from pg_class loop
                perform 1 from pg_class where oid = one.oid;
                assert found;
            end loop;
        end $$";
    client.batch_execute(missed).unwrap();
}

#[test]
fn the_first_connection_makes_no_file_and_writes_none() {
    for snapshot in [fresh(), shop_snapshot()] {
        let db = snapshot.start().unwrap();
        let before = linked(&db);
        assert!(before.contains(&"global".to_owned()), "{before:?}");
        let mut client = connect(db.url());
        let directory = directory(&mut client);
        assert!(before.contains(&directory), "{directory} is not among {before:?}");
        // A connection that wrote the files would have replaced the links.
        assert_eq!(linked(&db), before);
        assert_sound(db.url());
        assert_eq!(linked(&db), before);
    }
}

#[test]
fn a_change_of_the_catalogues_ends_the_link() {
    let changes = [
        REWRITE,
        "set allow_system_table_mods = on; alter table pg_class alter column relname set statistics 7",
        "vacuum full pg_class",
        "reindex system shop",
        "cluster pg_attribute using pg_attribute_relid_attnum_index",
    ];
    for change in &changes[..rounds(2, changes.len())] {
        let db = shop_snapshot().start().unwrap();
        let mut client = connect(db.url());
        let directory = directory(&mut client);
        assert!(linked(&db).contains(&directory));
        client.batch_execute(change).unwrap_or_else(|error| panic!("{change}: {error:?}"));
        assert!(!linked(&db).contains(&directory), "{change}");
        assert_sound(db.url());
        client.batch_execute("create extension citext; create table later (t citext)").unwrap();
        assert_sound(db.url());
        // The file of the layer is unchanged.
        let other = shop_snapshot().start().unwrap();
        assert_sound(other.url());
        assert!(linked(&other).contains(&directory));
    }
}

#[test]
fn a_server_that_starts_again_after_a_crash_gets_no_links() {
    let db = shop_snapshot().start().unwrap();
    let mut client = connect(db.url());
    client.batch_execute(REWRITE).unwrap();
    let oldest = |client: &mut Client| -> Option<String> {
        let query = "select min(backend_start)::text from pg_stat_activity";
        Some(client.query_one(query, &[]).ok()?.get(0))
    };
    let before = oldest(&mut client);
    client.batch_execute("copy (select 1) to program 'kill -9 $PPID'").unwrap_err();
    eventually(DEADLINE, "the server is back", || {
        let mut client = Client::connect(db.url(), NoTls).ok()?;
        oldest(&mut client).filter(|now| before.as_ref() != Some(now))
    });
    assert_eq!(linked(&db), Vec::<String>::new());
    assert_sound(db.url());
}

#[test]
fn copies_of_a_database_have_files_of_their_own() {
    let db = shop_snapshot().start().unwrap();
    let postgres = db.url().replace("/shop?", "/postgres?");
    let mut client = connect(&postgres);
    let strategies: &[&str] = match real().major() {
        15.. => &["strategy file_copy", "strategy wal_log"],
        _ => &[""],
    };
    for strategy in strategies {
        client.batch_execute(&format!("create database copy template shop {strategy}")).unwrap();
        let url = db.url().replace("/shop?", "/copy?");
        let directory = directory(&mut connect(&url));
        assert!(!linked(&db).contains(&directory), "{strategy}");
        connect(&url).batch_execute(REWRITE).unwrap();
        assert_sound(&url);
        assert_sound(db.url());
        client.batch_execute("drop database copy with (force)").unwrap();
        assert!(!data(db.pid()).join(directory).exists(), "{strategy}");
    }
    let shop = directory(&mut connect(db.url()));
    assert!(linked(&db).contains(&shop));
    client.batch_execute("drop database shop with (force)").unwrap();
    assert!(!data(db.pid()).join(shop).exists());
}

#[test]
fn a_layer_on_a_layer_keeps_files_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let seed = directory.path().join("rewrite.sql");
    fs::write(&seed, format!("{REWRITE};\ncreate database beside;\n")).unwrap();
    let db = shop_snapshot().seed(&seed).start().unwrap();
    let before = linked(&db);
    assert_sound(db.url());
    let shop = self::directory(&mut connect(db.url()));
    assert!(before.contains(&shop) && linked(&db) == before, "{before:?}");
    assert_sound(&db.url().replace("/shop?", "/beside?"));
}

#[test]
fn a_kept_state_gets_no_links() {
    let name = "relation_cache::kept";
    let db = shop_snapshot().keep(Keep::Always).keep_as(name).start().unwrap();
    connect(db.url()).batch_execute(REWRITE).unwrap();
    drop(db);
    let kept = Kept::open().unwrap();
    let state = kept.list().unwrap().into_iter().find(|state| state.name == name).unwrap();
    let db = state.start().unwrap();
    assert_eq!(linked(&db), Vec::<String>::new());
    assert_sound(db.url());
    drop(db);
    // A child that another test forks inherits the lock until its execve(2).
    wait_until(DEADLINE, "no process uses it", || kept.remove(&state).unwrap());
}

#[test]
fn a_server_that_connects_by_itself_gets_no_links() {
    let directory = tempfile::tempdir().unwrap();
    let seed = directory.path().join("alter.sql");
    fs::write(&seed, "alter system set autovacuum = on;\n").unwrap();
    let empty = fresh();
    let snapshots = [
        empty.clone().setting("autovacuum", "on"),
        empty.clone().setting("shared_preload_libraries", "auto_explain"),
        empty.seed(&seed),
    ];
    for snapshot in snapshots {
        let db = snapshot.start().unwrap();
        assert_eq!(linked(&db), Vec::<String>::new(), "{snapshot:?}");
        assert_sound(db.url());
    }
}

#[test]
fn no_links_are_made_after_the_first_connection() {
    let dirs = ScratchDirs::new();
    // The server cannot report readiness; a program does it later.
    let server =
        format!("#!/bin/sh\nunset NOTIFY_SOCKET\nexec {} \"$@\"\n", real().program("postgres").display());
    let bin = with_server(&dirs, &server);
    let mut process =
        TestProcess::start(dirs.command(SUBJECT).env("SANDBOXED_DB_POSTGRES", bin).args(["keep", "obey"]));
    let line = process.order("start").unwrap().remove(0);
    let line = line.strip_prefix("started ").expect("the pid and the URL");
    let (init, _) = started(line);
    let mut client = connect(line.split_once(' ').expect("a URL").1);
    let say = "copy (select where false) to program 'perl -MIO::Socket::UNIX -e ''my $s = IO::Socket::UNIX->new(\
        Type => SOCK_DGRAM, Peer => \"/run/notify\") or die; $s->send(\"READY=1\") // die'''";
    // Removes the files of this connection.
    client.batch_execute(REWRITE).unwrap();
    client.batch_execute(say).unwrap();
    // Init reads the message before it reaps the orphan.
    client.batch_execute("copy (select where false) to program '(sleep 0.1 &) > /dev/null 2>&1'").unwrap();
    wait_until(DEADLINE, "init reaps", || children(init).len() == 1);
    assert_eq!(linked_in(init), [""; 0]);
}
