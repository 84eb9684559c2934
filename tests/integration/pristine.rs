//! Two sandboxes of one snapshot never see each other's writes, and a layer's bytes never change.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use sandboxed_db::Sandbox;
use sandboxed_db_fixtures::shop_snapshot;
use sandboxed_db_tests::{
    DEADLINE, connect, connect_async, continues_in_cache, eventually, fresh, rounds, value, wait_until,
};

fn shop() -> Sandbox {
    shop_snapshot().start().unwrap()
}

/// Two sandboxes of the shop, alive at the same time, and a connection to each.
fn two() -> ([Sandbox; 2], [Client; 2]) {
    let sandboxes = [shop(), shop()];
    let clients = [connect(sandboxes[0].url()), connect(sandboxes[1].url())];
    (sandboxes, clients)
}

const CUSTOMERS: &str = "select count(*) from customers";

/// Changes everything, and makes the server write to as many files as it can.
fn ruin(client: &mut Client) {
    for statement in [
        "update customers set last_name = last_name || '!'",
        "update orders set note = 'ruined'",
        "delete from stock_movements",
        "truncate reviews",
        "drop table audit_log cascade",
        "select setval('customers_id_seq', 1000000)",
        "create unlogged table loot as select i, repeat('x', 100) from generate_series(1, 20000) i",
        "create role intruder superuser",
        "create database loot",
        "alter database shop set work_mem = '1MB'",
        "alter system set maintenance_work_mem = '2MB'",
        "reindex table products",
        "cluster customers using customers_pkey",
        "vacuum full",
        "vacuum freeze analyze",
        "checkpoint",
        "select pg_switch_wal()",
        "copy (select 'garbage') to program 'cat > global/garbage; for f in base/1/*; do touch $f; chmod 0640 $f; done'",
    ] {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

// Separation of two sandboxes.

#[test]
fn notifications_do_not_cross() {
    let (sandboxes, [mut one, mut other]) = two();
    one.batch_execute("listen news").unwrap();
    other.batch_execute("listen news").unwrap();
    connect(sandboxes[0].url()).batch_execute("notify news, 'from one'").unwrap();
    connect(sandboxes[1].url()).batch_execute("notify news, 'from other'").unwrap();
    for (client, expected) in [(&mut one, "from one"), (&mut other, "from other")] {
        let heard = client.notifications().timeout_iter(DEADLINE).next().unwrap();
        assert_eq!(heard.expect("a notification").payload(), expected);
        // No further notification has arrived.
        client.batch_execute("select 1").unwrap();
        assert!(client.notifications().iter().next().unwrap().is_none());
    }
}

#[test]
fn a_crash_does_not_cross() {
    let (sandboxes, [mut one, mut other]) = two();
    other.batch_execute("begin; update orders set note = 'kept'").unwrap();
    let backend: i32 = value(&mut one, "select pg_backend_pid()");
    let kill = format!("copy (select where false) to program 'kill -9 {backend}'");
    // The server may or may not answer before it is cut off.
    let _ = connect(sandboxes[0].url()).batch_execute(&kill);
    wait_until(DEADLINE, "the server has noticed", || {
        let log = sandboxes[0].log().unwrap();
        log.contains("was terminated by signal 9")
    });
    // The server recovers, and the other one keeps its open transaction.
    eventually(DEADLINE, "the crashed server is back", || {
        let mut client = Client::connect(sandboxes[0].url(), postgres::NoTls).ok()?;
        client.query_one(CUSTOMERS, &[]).ok()
    });
    assert!(!sandboxes[1].log().unwrap().contains("was terminated by signal 9"));
    other.batch_execute("commit").unwrap();
    assert_eq!(value::<i64>(&mut other, "select count(*) from orders where note = 'kept'"), 3000);
}

#[test]
fn the_death_of_a_server_does_not_cross() {
    let (sandboxes, [one, mut other]) = two();
    drop(one);
    let kill = "copy (select where false) to program 'kill -9 $(head -1 postmaster.pid)'";
    // The server may or may not answer before it is cut off.
    let _ = connect(sandboxes[0].url()).batch_execute(kill);
    eventually(DEADLINE, "the killed server is gone", || {
        Client::connect(sandboxes[0].url(), postgres::NoTls).err()
    });
    assert_eq!(value::<i64>(&mut other, CUSTOMERS), 2500);
    assert_eq!(value::<i64>(&mut connect(shop().url()), CUSTOMERS), 2500);
}

// Later and simultaneous sandboxes.

#[test]
fn a_sandbox_is_pristine_beside_a_ruined_one_and_after_it() {
    let pristine = |db: &Sandbox| {
        let mut client = connect(db.url());
        assert_eq!(value::<i64>(&mut client, CUSTOMERS), 2500);
        assert_eq!(value::<i64>(&mut client, "select count(*) from stock_movements"), 9767);
        assert_eq!(value::<i64>(&mut client, "select count(*) from orders where note = 'ruined'"), 0);
        assert_eq!(value::<i64>(&mut client, "select count(*) from pg_roles where rolname = 'intruder'"), 0);
        assert_eq!(value::<i64>(&mut client, "select count(*) from pg_database"), 4);
        assert_eq!(value::<String>(&mut client, "show maintenance_work_mem"), "64MB");
        assert_eq!(value::<i64>(&mut client, "select last_value from customers_id_seq"), 2500);
    };
    let (ruined, older) = (shop(), shop());
    pristine(&ruined);
    ruin(&mut connect(ruined.url()));
    let maintenance = ruined.url().replace("/shop?", "/postgres?");
    connect(&maintenance).batch_execute("drop database shop with (force)").unwrap();
    let beside = shop();
    pristine(&older);
    // Rewrites the files, and reads them instead of the server's memory.
    connect(older.url()).batch_execute("vacuum full").unwrap();
    pristine(&older);
    pristine(&beside);
    ruined.stop().unwrap();
    pristine(&shop());
    drop((older, beside));
    pristine(&shop());
}

#[test]
fn a_sandbox_may_be_used_and_dropped_by_another_thread() {
    let db = shop();
    let pid = db.pid();
    thread::spawn(move || assert_eq!(value::<i64>(&mut connect(db.url()), CUSTOMERS), 2500)).join().unwrap();
    wait_until(DEADLINE, "the sandbox is gone", || !Path::new(&format!("/proc/{pid}")).exists());
}

// start_async.

/// Tasks of one thread run only while no other blocks.
#[tokio::test(flavor = "current_thread")]
async fn start_async_does_not_block_the_other_tasks_of_a_thread() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let ticks = Rc::new(Cell::new(0_u64));
            let counted = ticks.clone();
            let ticking = tokio::task::spawn_local(async move {
                loop {
                    counted.set(counted.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
            // No other test has this size, so that no prewarmed sandbox fits.
            let db = shop_snapshot().disk(300 << 20).start_async().await.unwrap();
            assert!(ticks.get() > 1, "the other task ran {} times", ticks.get());
            ticking.abort();
            let client = connect_async(db.url()).await.unwrap();
            let customers: i64 = client.query_one(CUSTOMERS, &[]).await.unwrap().get(0);
            assert_eq!(customers, 2500);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_async_starts_several_at_once() {
    let start = || async { shop_snapshot().start_async().await.unwrap() };
    let sandboxes: [Sandbox; 4] = tokio::join!(start(), start(), start(), start()).into();
    let mut pids: Vec<_> = sandboxes.iter().map(Sandbox::pid).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 4);
}

/// The smallest executor there is: it sleeps until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn start_async_needs_no_tokio_runtime() {
    let db = block_on(shop_snapshot().start_async()).unwrap();
    assert_eq!(value::<i64>(&mut connect(db.url()), CUSTOMERS), 2500);
}

#[test]
fn start_async_reports_what_start_does() {
    let wrong = fresh().migrations("no/such/directory");
    let error = block_on(wrong.start_async()).unwrap_err();
    assert_eq!(format!("{error:?}"), format!("{:?}", wrong.start().unwrap_err()));
}

// Layers.

/// Every file below a directory: what it is, and when it was last touched.
fn fingerprint(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let mut hasher = DefaultHasher::new();
        if meta.is_dir() {
            found.extend(fingerprint(&path));
        } else {
            fs::read(&path).unwrap().hash(&mut hasher);
        }
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        let facts = (meta.ino(), meta.mode(), meta.uid(), meta.gid(), meta.nlink(), meta.size(), times);
        found.insert(path, format!("{:016x} {facts:?}", hasher.finish()));
    }
    found
}

/// Uses the shop as hard as it can and compares its layer before and after.
#[test]
fn a_layers_bytes_never_change() {
    if !continues_in_cache(a_layers_bytes_never_change) {
        return;
    }
    let layers = PathBuf::from(std::env::var_os("SANDBOXED_DB_CACHE").unwrap()).join("layers");
    // The first start builds the layers.
    drop(shop());
    let before = fingerprint(&layers);
    assert!(before.len() > 1000, "only {} files are in {}", before.len(), layers.display());

    let crashed = shop();
    let mut client = connect(crashed.url());
    ruin(&mut client);
    // Recovery from a crash opens every file for writing.
    client.batch_execute("copy (select where false) to program 'kill -9 $PPID'").unwrap_err();
    eventually(DEADLINE, "the crashed server is back", || {
        Client::connect(crashed.url(), postgres::NoTls).ok()
    });
    drop(crashed);
    thread::scope(|scope| {
        for _ in 0..rounds(1, 4) {
            scope.spawn(|| ruin(&mut connect(shop().url())));
        }
        let stopped = shop();
        ruin(&mut connect(stopped.url()));
        stopped.stop().unwrap();
    });

    let after = fingerprint(&layers);
    let changed: Vec<_> =
        before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
    assert!(changed.is_empty(), "changed: {changed:?}");
}
