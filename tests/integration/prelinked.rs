//! A restored server equals an executed one in everything that the kernel shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::checkpoint::{VARIABLE, start_resumed};
use super::lifecycle::SUBJECT;
use sandboxed_db::{Sandbox, Snapshot};
use sandboxed_db_tests::{
    DEADLINE, ScratchDirs, alone, children, connect, eventually, fresh, is_alone, passed, printed,
    processes_beside, skip, start, status, value,
};

/// The directory of images in a cache.
const IMAGES: &str = "linked";

/// The pid of the server.
pub(crate) fn server(db: &Sandbox) -> u32 {
    let children = children(db.pid());
    let [server] = children.as_slice() else { panic!("{children:?}") };
    *server
}

fn read(process: u32, name: &str) -> String {
    let text = fs::read(format!("/proc/{process}/{name}")).unwrap_or_else(|error| panic!("{name}: {error}"));
    String::from_utf8(text).unwrap()
}

/// The files that a process has mapped.
fn mapped(process: u32) -> BTreeSet<String> {
    let maps = read(process, "maps");
    maps.lines().filter_map(|line| line.splitn(6, ' ').nth(5)).map(|name| name.trim().to_owned()).collect()
}

fn is_restored(process: u32) -> bool {
    mapped(process).iter().any(|name| name.contains(&format!("/{IMAGES}/")))
}

/// Starts sandboxes until the image is ready, and none from a checkpoint: there is none with a
/// limit that no other start has.
fn start_restored() -> Sandbox {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    restored(|| {
        let number = u64::from(std::process::id()) << 16 | NUMBER.fetch_add(1, Ordering::Relaxed);
        fresh().memory((4 << 30) + number)
    })
}

fn restored(snapshot: impl Fn() -> Snapshot) -> Sandbox {
    eventually(DEADLINE, "a server is restored", || {
        let db = snapshot().start().unwrap();
        is_restored(server(&db)).then_some(db)
    })
}

/// Everything that the kernel shows of a server, except for numbers, times, addresses and amounts.
fn description(db: &Sandbox) -> BTreeMap<String, String> {
    let (init, server) = (db.pid(), server(db));
    let mut all = BTreeMap::new();
    for line in read(server, "status").lines() {
        let (name, value) = line.split_once(':').unwrap();
        let varies = [
            "Pid", "Tgid", "NSpid", "NStgid", "NSpgid", "NSsid", "PPid", "SigQ", "FDSize", "Ngid", "State",
            "Cpus_allowed",
        ]
        .contains(&name);
        if !varies && !name.starts_with("Vm") && !name.starts_with("Rss") && !name.contains("ctxt_switches") {
            all.insert(format!("status {name}"), value.trim().to_owned());
        }
    }
    // The numbers inside are the same.
    for name in ["NSpid", "NSpgid", "NSsid"] {
        let inside = status(server, name).unwrap();
        all.insert(name.to_owned(), inside.split_ascii_whitespace().last().unwrap().to_owned());
    }
    assert_eq!(status(server, "PPid"), Some(init.to_string()));
    let files = [
        "cmdline", "comm", "coredump_filter", "environ", "limits", "oom_score_adj", "personality",
        "setgroups", "timerslack_ns", "uid_map", "gid_map",
    ];
    for name in files {
        all.insert(name.to_owned(), read(server, name));
    }
    let link = |name: &str| fs::read_link(format!("/proc/{server}/{name}")).unwrap().display().to_string();
    for name in ["cwd", "exe", "root"] {
        all.insert(name.to_owned(), link(name));
    }
    for entry in fs::read_dir(format!("/proc/{server}/fd")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let kind = link(&format!("fd/{name}"));
        all.insert(format!("fd {name}"), kind.split(['[', '#']).next().unwrap().to_owned());
    }
    for kind in ["user", "mnt", "pid", "pid_for_children", "net", "ipc", "uts", "cgroup"] {
        let of_init = fs::read_link(format!("/proc/{init}/ns/{kind}")).unwrap();
        assert_eq!(link(&format!("ns/{kind}")), of_init.display().to_string());
    }
    assert_eq!(read(server, "mountinfo"), read(init, "mountinfo"));
    assert_eq!(read(server, "cgroup"), read(init, "cgroup"));
    for (kind, value) in auxiliary(server) {
        // Addresses differ in every process.
        let addresses = [3, 7, 9, 15, 24, 25, 31, 33];
        if !addresses.contains(&kind) {
            all.insert(format!("auxiliary {kind}"), value.to_string());
        }
    }
    let programs = mapped(server).into_iter().filter(|name| name.starts_with("/usr"));
    all.insert("programs".to_owned(), programs.collect::<Vec<_>>().join(" "));
    // The server overwrites its arguments, and those of its children, with what they do.
    let titles =
        children(server).into_iter().map(|child| read(child, "cmdline").trim_end_matches('\0').to_owned());
    all.insert(
        "titles".to_owned(),
        titles.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", "),
    );
    all
}

/// getauxval(3)
fn auxiliary(process: u32) -> BTreeMap<u64, u64> {
    let words = fs::read(format!("/proc/{process}/auxv")).unwrap();
    let words: Vec<_> =
        words.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
    words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

#[test]
#[ignore = "run by `a_restored_server_equals_an_executed_one`"]
#[expect(clippy::print_stdout, reason = "the other test reads it")]
fn a_server_is_described() {
    if !is_alone() {
        return;
    }
    let way = std::env::var(VARIABLE).unwrap();
    let db = match way.as_str() {
        "exec" => start(),
        "linked" => restored(fresh),
        _ => start_resumed(),
    };
    assert_eq!(is_restored(server(&db)), way == "linked");
    let mut client = connect(db.url());
    // It works, and allocates memory.
    let large = "select length(string_agg(n::text, ',')) from generate_series(1, 100000) n";
    assert_eq!(value::<i32>(&mut client, large), 588_894);
    println!();
    for (name, value) in description(&db) {
        println!("shown {name}: {value:?}");
    }
}

pub(crate) fn described(way: &str) -> Vec<String> {
    let text = passed(alone("prelinked::a_server_is_described").arg("--nocapture").env(VARIABLE, way));
    text.lines().filter(|line| line.starts_with("shown ")).map(str::to_owned).collect()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_restored_server_equals_an_executed_one() {
    let (executed, restored) = (described("exec"), described("linked"));
    assert!(executed.len() > 50, "{executed:#?}");
    assert_eq!(executed, restored);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn no_two_servers_are_given_the_same_random_bytes() {
    let random = |db: &Sandbox| {
        let server = server(db);
        let mut bytes = [0; 16];
        let memory = File::open(format!("/proc/{server}/mem")).unwrap();
        const AT_RANDOM: u64 = 25;
        memory.read_exact_at(&mut bytes, auxiliary(server)[&AT_RANDOM]).unwrap();
        bytes
    };
    let (one, other) = (start_restored(), start_restored());
    assert_ne!(random(&one), random(&other));
}

/// OpenSSL is initialised in the image, and must still give each server other bytes.
#[test]
#[cfg(target_arch = "x86_64")]
fn no_two_servers_draw_the_same_random_bytes() {
    let servers: Vec<_> = (0..6).map(|_| start_restored()).collect();
    let mut drawn = BTreeSet::new();
    for db in &servers {
        let mut client = connect(db.url());
        for sql in ["select gen_random_uuid()::text", "select random()::text"] {
            drawn.insert(value::<String>(&mut client, sql));
        }
    }
    assert_eq!(drawn.len(), 2 * servers.len(), "{drawn:#?}");
}

/// OpenSSL has read its configuration when the image is captured.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_server_finds_openssl_ready() {
    let db = start();
    if !mapped(server(&db)).iter().any(|path| path.ends_with("/libcrypto.so.3")) {
        skip("this server is not linked to OpenSSL 3");
        return;
    }
    let dirs = ScratchDirs::with_shared_cache();
    let cache = cache_with_its_own_images(&dirs);
    start_in(&cache);
    let [image] = images(&cache).try_into().unwrap();
    let image = fs::read(image).unwrap();
    let has = |text: &[u8]| image.windows(text.len()).any(|part| part == text);
    assert!(has(b"HASH-DRBG"), "the generator that the configuration names");
    // The environment of prelinking is not in the image.
    assert!(!has(b"LD_BIND_NOW=1"));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn servers_share_the_pages_that_linking_wrote() {
    let own = |process: u32| -> u64 {
        let amount = status(process, "RssAnon").unwrap();
        amount.trim_end_matches(" kB").parse().unwrap()
    };
    let restored = own(server(&start_restored()));
    let text =
        passed(alone("prelinked::memory_of_its_own_is_printed").arg("--nocapture").env(VARIABLE, "exec"));
    let executed: u64 = text.lines().find_map(|line| line.strip_prefix("own ")?.parse().ok()).expect(&text);
    assert!(restored < executed, "{restored} kB of {executed} kB");
}

#[test]
#[ignore = "run by `servers_share_the_pages_that_linking_wrote`"]
#[expect(clippy::print_stdout, reason = "the other test reads it")]
fn memory_of_its_own_is_printed() {
    if is_alone() {
        let amount = status(server(&start()), "RssAnon").unwrap();
        println!("\nown {}", amount.trim_end_matches(" kB"));
    }
}

/// A cache with the layers of the usual one, and separate images.
pub(crate) fn cache_with_its_own_images(dirs: &ScratchDirs) -> PathBuf {
    // The usual cache then has the layer.
    drop(start());
    let cache = dirs.path().join("cache");
    fs::create_dir(&cache).unwrap();
    for name in ["layers", "locks", "lookups", "chains", "servers", "packages"] {
        let part = dirs.cache().join(name);
        if part.exists() {
            symlink(part, cache.join(name)).unwrap();
        }
    }
    cache
}

/// The files of images without their seals.
fn images(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.join(IMAGES)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_none_or(|name| name != "seal")).collect()
}

/// Starts a sandbox in a separate process.
fn start_in(cache: &Path) {
    start_by(Command::new(SUBJECT).arg("return"), cache);
}

fn start_by(command: &mut Command, cache: &Path) {
    let output = command.env("SANDBOXED_DB_CACHE", cache).output().unwrap();
    assert!(output.status.success(), "{}", printed(&output));
}

/// A shortage passes; a refusal stays.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_shortage_is_not_remembered() {
    let dirs = ScratchDirs::with_shared_cache();
    let cache = cache_with_its_own_images(&dirs);
    let start_denied = |errno: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deny_syscalls"));
        start_by(command.args([&format!("ptrace={errno}"), "--", SUBJECT, "return"]), &cache);
    };
    for errno in ["EAGAIN", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC"] {
        start_denied(errno);
        assert_eq!(images(&cache), Vec::<PathBuf>::new(), "{errno}");
    }
    // Too few for the files that a restored server maps.
    let few = Command::new("sh")
        .args(["-c", "ulimit -n 32; exec \"$0\" return", SUBJECT])
        .env("SANDBOXED_DB_CACHE", &cache)
        .output()
        .unwrap();
    assert!(!few.status.success(), "{few:?}");
    for image in images(&cache) {
        assert_eq!(image.extension(), None);
        fs::remove_file(image).unwrap();
    }
    start_denied("EPERM");
    let [refused] = images(&cache).try_into().unwrap();
    assert_eq!(refused.extension().unwrap(), "none");
    fs::remove_file(&refused).unwrap();
    start_in(&cache);
    assert_eq!(images(&cache), [refused.with_extension("")]);
}

/// Changes one byte of an image's last page.
pub(crate) fn flip_a_byte(image: &Path) {
    let file = File::options().read(true).write(true).open(image).unwrap();
    let last = file.metadata().unwrap().len() - 1;
    let mut byte = [0];
    file.read_exact_at(&mut byte, last).unwrap();
    file.write_all_at(&[!byte[0]], last).unwrap();
}

#[test]
#[cfg(target_arch = "x86_64")]
fn an_image_with_a_flipped_byte_is_made_anew() {
    let dirs = ScratchDirs::with_shared_cache();
    let cache = cache_with_its_own_images(&dirs);
    start_in(&cache);
    let [image] = images(&cache).try_into().unwrap();
    flip_a_byte(&image);
    start_in(&cache);
    let mut left = images(&cache);
    left.sort();
    assert_eq!(left, [image.clone(), image.with_extension("damaged")]);
    // It is used again.
    let seal = || fs::read(image.with_extension("seal")).unwrap();
    let sealed = seal();
    start_in(&cache);
    assert_eq!(seal(), sealed);
    // A file that is no image at all harms no test either.
    fs::write(&image, "nothing").unwrap();
    start_in(&cache);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn verify_finds_an_image_with_a_flipped_byte() {
    let dirs = ScratchDirs::with_shared_cache();
    let cache = cache_with_its_own_images(&dirs);
    start_in(&cache);
    // A cache without the layers of other tests, which may be in the making.
    let alone = dirs.path().join("images");
    fs::create_dir(&alone).unwrap();
    fs::rename(cache.join(IMAGES), alone.join(IMAGES)).unwrap();
    let cache = alone;
    let [image] = images(&cache).try_into().unwrap();
    let verify = || {
        let mut verify = dirs.command(SUBJECT);
        verify.env("SANDBOXED_DB_CACHE", &cache).arg("verify").output().unwrap()
    };
    let output = verify();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    flip_a_byte(&image);
    let found = String::from_utf8(verify().stdout).unwrap();
    assert!(
        found.contains("prelinked image") && found.contains(image.file_name().unwrap().to_str().unwrap()),
        "{found}"
    );
    assert_eq!(images(&cache), [image.with_extension("damaged")]);
    assert!(verify().stdout.is_empty());
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_restored_server_dies_with_its_sandbox() {
    let db = start_restored();
    let pids = processes_beside(db.pid());
    assert!(pids.len() > 3, "{pids:?}");
    drop(db);
    let left: Vec<_> = pids.into_iter().filter(|&pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}
