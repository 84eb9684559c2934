//! Descriptors, processes, room, programs: what else may be missing, and what the doctor and a launch say of it.

use rstest::rstest;
use sandboxed_db_tests::{ScratchDirs, skip};

use crate::simulated_host::{SUBJECT, SimulatedHost, assert_check, can};

const OTHER_CACHE: &str = "export SANDBOXED_DB_CACHE=\"${TMPDIR:-/tmp}/sandboxed-db-$(id -u)\"";

#[test]
fn too_few_descriptors() {
    if can() {
        let machine = SimulatedHost::new("ulimit -n 12\nexec");
        machine.fails("too many files are open", "run", "ulimit -n 65536");
        let report = machine.doctor(false);
        assert!(
            report.contains("may open 12 files") && report.contains("too few for many sandboxes"),
            "{report}"
        );
        let verdict = "Sandboxes do not work here: too many files are open. To fix it, run: ulimit -n 65536";
        assert_eq!(report.lines().last(), Some(verdict), "{report}");
    }
}

#[test]
fn no_more_processes() {
    if can() {
        let report = SimulatedHost::filtered(&["clone3=EAGAIN", "clone=EAGAIN"]).doctor(false);
        let sentence =
            "no more processes may be started, by this user's limit or by the limit of the container around";
        let verdict =
            format!("Sandboxes do not work here: looking at it: {sentence}. To fix it, run: ulimit -u 65536");
        assert_eq!(report.lines().last(), Some(verdict.as_str()), "{report}");
    }
}

#[test]
fn a_program_that_may_not_be_executed_again() {
    if can() {
        // Its file system becomes noexec while it runs.
        let script = "mount -t tmpfs tmpfs /mnt\ncp \"$SUBJECT\" /mnt/subject\nmkfifo /mnt/orders\n\
            /mnt/subject obey < /mnt/orders & exec 3> /mnt/orders\n\
            until [ \"$(readlink /proc/$!/exe)\" = /mnt/subject ]; do sleep 0.01; done\n\
            mount -o remount,bind,noexec /mnt\necho start >&3\nexec 3>&-\nwait $!\n:";
        let output = SimulatedHost::new(script).run("");
        let told = String::from_utf8_lossy(&output.stdout);
        let hint = "hint: this program may not be executed again, which is how the launcher starts: its file system is mounted \
                    noexec, or a security module forbids it";
        assert!(told.contains("failed could not launch the sandbox: start the launcher"), "{told}{output:?}");
        assert!(told.contains(hint), "{told}");
    }
}

#[rstest]
#[case::full("size=64k", "the file system of the cache is full", "sandboxed-db prune --size 1GiB")]
#[case::read_only("ro", "the cache is not writable", OTHER_CACHE)]
fn a_cache_that_takes_no_layer(#[case] option: &str, #[case] sentence: &str, #[case] command: &str) {
    if can() {
        let machine = SimulatedHost::new(format!(
            "mkdir -p \"$CACHE\"\nmount -t tmpfs -o {option} tmpfs \"$CACHE\"\nexec"
        ));
        let machine = machine.with_an_empty_cache();
        let how = match option {
            "ro" => "set SANDBOXED_DB_CACHE to another directory, as in",
            _ => "set SANDBOXED_DB_CACHE to a directory on another one, or make room, as by",
        };
        machine.refuses("cache", sentence, how, command);
    }
}

#[test]
fn a_cache_of_another_user() {
    if !can() {
        return;
    }
    // Root in a namespace is nobody in particular to the files of a user that the namespace does not have.
    let place = "/usr/sandboxed-db-of-nobody";
    let machine = SimulatedHost::new(format!("export SANDBOXED_DB_CACHE={place}\nexec"));
    // Root itself may write there, and does not need to.
    if !rustix::process::geteuid().is_root() {
        let owner = "the cache is not writable: `/usr` belongs to user 65534";
        machine.refuses("cache", owner, "set SANDBOXED_DB_CACHE to another directory, as in", OTHER_CACHE);
    }
}

#[test]
fn a_cache_whose_programs_may_not_run_is_a_warning() {
    if can() {
        let script = "mkdir -p \"$CACHE\"\nmount -t tmpfs -o noexec tmpfs \"$CACHE\"\nexec";
        let report = SimulatedHost::new(script).with_an_empty_cache().starts();
        let warned = report.lines().find(|line| line.starts_with("warning  cache "));
        let sentence = "mounted noexec, so server programs that are unpacked there do not run";
        assert!(warned.is_some_and(|line| line.ends_with(sentence)), "{report}");
    }
}

#[test]
fn no_directory_for_a_cache() {
    let place = ScratchDirs::new();
    let mut command = place.command("unshare");
    // A user id that no list of users has, so that not even there a home is found.
    command.args(["--user", "--map-user=42424", SUBJECT, "doctor"]);
    command.env_remove("HOME").env_remove("SANDBOXED_DB_CACHE");
    let output = command.output().expect("unshare runs");
    let report = String::from_utf8_lossy(&output.stdout);
    if report.is_empty() {
        return skip("unshare(1) cannot map a user here");
    }
    let sentence = "could not find the cache directory: set SANDBOXED_DB_CACHE, XDG_CACHE_HOME or HOME";
    assert_check(&report, "FAILED", "cache", sentence, "", "");
}

#[test]
fn a_directory_without_a_server() {
    if can() {
        let machine = SimulatedHost::new("export SANDBOXED_DB_POSTGRES=\"$TOP\"\nexec");
        let report = machine.doctor(false);
        let failed = report.lines().find(|line| line.starts_with("FAILED   postgres"));
        let hint = "set SANDBOXED_DB_POSTGRES to the directory that holds `postgres`, `initdb` and `psql`";
        assert!(failed.is_some_and(|line| line.contains("No such file") && line.ends_with(hint)), "{report}");
        // What can be told of the machine is told all the same.
        assert!(report.contains("ok       overlay "), "{report}");
    }
}

#[test]
fn no_server_and_no_packages() {
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
