//! Scarce descriptors, processes, file sizes, disks and programs, and the reports of the doctor and
//! a launch.

use rstest::rstest;
use sandboxed_db_tests::{ScratchDirs, assert_says, printed, skip, skip_as_root};

use crate::errors::real;

use crate::lifecycle::SUBJECT;
use crate::simulated_host::{SimulatedHost, assert_check, can};

const ANOTHER_CACHE: &str = "set SANDBOXED_DB_CACHE to another directory, as in";
const OTHER_CACHE: &str = "export SANDBOXED_DB_CACHE=\"${TMPDIR:-/tmp}/sandboxed-db-$(id -u)\"";

/// The report of a hard limit, which no command of the user raises.
fn hard_limit(sentence: &str, option: char) -> String {
    format!(
        "{sentence}; the hard limit (ulimit -H{option}) is no higher: raise that where it is set, in limits.conf(5), the \
         systemd unit or the container"
    )
}

#[rstest]
#[case::for_a_launch(12)]
#[case::for_a_server(32)]
fn too_few_descriptors(#[case] files: u32) {
    if can() {
        let sentence = format!("this process may open {files} files, and a server needs 64");
        let machine = SimulatedHost::new(format!("ulimit -n {files}\nexec"));
        machine.refuses("own limits", &hard_limit(&sentence, 'n'), "", "");
        let machine = SimulatedHost::new(format!("ulimit -S -n {files}\nulimit -H -n 1024\nexec"));
        machine.refuses("own limits", &sentence, "run", "ulimit -n 1024");
    }
}

#[test]
fn files_too_small_for_a_server() {
    if can() {
        // The kernel kills a process that writes more (SIGXFSZ).
        let sentence = "this process may write files of 100 KB, and a server needs 16 MB";
        let machine = SimulatedHost::new("ulimit -S -f 200\nexec").with_an_empty_cache();
        machine.refuses("own limits", sentence, "run", "ulimit -f unlimited");
    }
}

#[test]
fn a_stack_too_small_for_a_server() {
    if can() {
        let sentence = "this process may have a stack of 500 KB, and a server needs 612 KB";
        let machine = SimulatedHost::new("ulimit -S -s 500\nexec").with_an_empty_cache();
        machine.refuses("own limits", sentence, "run", "ulimit -s 8192");
    }
}

#[test]
fn a_limit_of_processes_is_reported() {
    if can() {
        let filter = "exec prlimit --nproc=4000 \"$DENY_SYSCALLS\" clone3=EAGAIN clone=EAGAIN --";
        let report = SimulatedHost::new(filter).doctor(false);
        let sentence = hard_limit("this user has all 4000 processes and threads that it may", 'u');
        let verdict = format!("Sandboxes do not work here: looking at it: {sentence}.");
        assert_eq!(report.lines().last(), Some(verdict.as_str()), "{report}");
    }
}

#[test]
fn a_program_on_a_noexec_file_system() {
    if can() {
        // Its file system becomes noexec while it runs.
        let script = "mount -t tmpfs tmpfs /mnt\ncp \"$SUBJECT\" /mnt/subject\nmkfifo /mnt/orders\n\
            /mnt/subject obey < /mnt/orders & exec 3> /mnt/orders\n\
            until [ \"$(readlink /proc/$!/exe)\" = /mnt/subject ]; do sleep 0.01; done\n\
            mount -o remount,bind,noexec /mnt\necho start >&3\nexec 3>&-\nwait $!\n:";
        let output = SimulatedHost::new(script).run("");
        let lines = String::from_utf8_lossy(&output.stdout);
        let hint = "hint: this program may not be executed again, as the launcher: its file system is mounted \
                    noexec, or a security module forbids it";
        assert!(
            lines.contains("failed could not launch the sandbox: start the launcher"),
            "{lines}{output:?}"
        );
        assert!(lines.contains(hint), "{lines}");
    }
}

#[rstest]
#[case::full("size=64k", "the file system of the cache is full", "sandboxed-db prune --size 1GiB")]
#[case::read_only("ro", "the cache is not writable", OTHER_CACHE)]
fn a_full_or_read_only_cache(#[case] option: &str, #[case] sentence: &str, #[case] command: &str) {
    if can() {
        let machine = SimulatedHost::new(format!(
            "mkdir -p \"$CACHE\"\nmount -t tmpfs -o {option} tmpfs \"$CACHE\"\nexec"
        ));
        let machine = machine.with_an_empty_cache();
        let how = match option {
            "ro" => ANOTHER_CACHE,
            _ => "set SANDBOXED_DB_CACHE to a directory on another one, or make room, as by",
        };
        machine.refuses("cache", sentence, how, command);
    }
}

/// No fix gives the root directory away, or another user's.
#[rstest]
#[case::in_a_directory("export SANDBOXED_DB_CACHE=/usr/sandboxed-db-of-nobody", "/usr")]
#[case::in_a_home_that_is_the_root("unset SANDBOXED_DB_CACHE XDG_CACHE_HOME\nexport HOME=/", "/")]
#[case::the_root("export SANDBOXED_DB_CACHE=/", "/")]
fn a_cache_of_another_user(#[case] script: &str, #[case] directory: &str) {
    if !can() {
        return;
    }
    if rustix::process::geteuid().is_root() {
        return skip_as_root("root may write everywhere");
    }
    // The namespace does not have the owner, who is user 65534 there.
    let sentence = format!("the cache is not writable: `{directory}` belongs to user 65534");
    let machine = SimulatedHost::new(format!("{script}\nexec"));
    machine.refuses("cache", &sentence, ANOTHER_CACHE, OTHER_CACHE);
}

#[test]
fn a_noexec_cache_is_a_warning() {
    if can() {
        let script = "mkdir -p \"$CACHE\"\nmount -t tmpfs -o noexec tmpfs \"$CACHE\"\nexec";
        let report = SimulatedHost::new(script).with_an_empty_cache().starts();
        let warned = report.lines().find(|line| line.starts_with("warning  cache "));
        let sentence = "mounted noexec, so server programs that are unpacked there do not run";
        assert!(warned.is_some_and(|line| line.ends_with(sentence)), "{report}");
    }
}

#[test]
fn a_directory_without_a_server_is_reported() {
    if can() {
        let machine = SimulatedHost::new("export SANDBOXED_DB_POSTGRES=\"$TOP\"\nexec");
        let report = machine.doctor(false);
        let failed = report.lines().find(|line| line.starts_with("FAILED   postgres"));
        let hint = "SANDBOXED_DB_POSTGRES takes `packages`, an image such as `docker://postgres:17`, or \
                    directories that hold `postgres`, `initdb` and `psql`, separated by `:`";
        assert!(failed.is_some_and(|line| line.contains("No such file") && line.ends_with(hint)), "{report}");
        // The other checks still run.
        assert!(report.contains("ok       overlay "), "{report}");
    }
}

#[test]
fn missing_servers_and_packages_are_reported() {
    if can() {
        let script = "for d in /usr/lib/postgresql /usr/local; do [ ! -d $d ] || mount -t tmpfs tmpfs $d; done\n\
            for p in /usr/bin/apt-get /usr/bin/apt; do [ ! -e $p ] || mount --bind /dev/null $p; done\n\
            export PATH=/usr/bin:/bin\nexec";
        let machine = SimulatedHost::new(script).with_an_empty_cache();
        let report = machine.run("doctor");
        let report = String::from_utf8_lossy(&report.stdout);
        let warned = "no installed PostgreSQL is used: the distribution's packages are, downloaded once";
        assert!(report.contains(warned), "{report}");
        let trial = report.lines().find(|line| line.starts_with("FAILED   trial"));
        assert!(trial.is_some_and(|line| line.contains("PostgreSQL")), "{report}");
    }
}

#[test]
fn a_read_only_cache_serves_its_layers() {
    if can() {
        let script = "\"$SUBJECT\" return\nmount --bind \"$CACHE\" \"$CACHE\"\nmount -o remount,bind,ro \"$CACHE\"\n\
            touch \"$CACHE/x\" 2> /dev/null && exit 9\nexec";
        let output = SimulatedHost::new(script).with_an_empty_cache().run("--sandboxes 2 return");
        assert!(output.status.success() && printed(&output).contains("all 2"), "{output:?}");
    }
}

#[test]
fn only_the_cache_is_written() {
    if can() {
        let script = "unset TMPDIR\nexport HOME=/var/tmp/home SANDBOXED_DB_CACHE=/tmp/cache\n\
            for directory in /tmp /var/tmp /dev/shm; do mount -t tmpfs tmpfs $directory; done\n\
            run() { \"$@\"; find /tmp /var/tmp /dev/shm -mindepth 1 -not -path '/tmp/cache*'; }\nrun";
        let output = SimulatedHost::new(script).run("--sandboxes 3 --threads 3 return");
        let lines = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && lines.ends_with("\nall 3\n"), "{output:?}");
    }
}

#[rstest]
fn a_missing_cache_directory_is_reported(#[values(false, true)] names_server: bool) {
    let dirs = ScratchDirs::new();
    let run = |argument: &str| {
        // No list of users has this id, nor a home directory for it.
        let mut command = dirs.command("unshare");
        command.args(["--user", "--map-user=42424", SUBJECT, argument]);
        command.env_remove("HOME").env_remove("SANDBOXED_DB_CACHE");
        if names_server {
            command.env("SANDBOXED_DB_POSTGRES", real().bin());
        }
        command.output().expect("unshare runs")
    };
    let launch = run("return");
    if launch.status.code() == Some(1) {
        return skip("unshare(1) cannot map a user here");
    }
    assert_eq!(launch.status.code(), Some(2), "{launch:?}");
    let (error, hint) =
        ("could not find the cache directory", "set SANDBOXED_DB_CACHE, XDG_CACHE_HOME or HOME");
    assert_says(&printed(&launch), &[error, &format!("hint: {hint}")]);
    let report = String::from_utf8_lossy(&run("doctor").stdout).into_owned();
    assert_check(&report, "FAILED", "cache", &format!("{error}: {hint}"), "", "");
}
