//! A process with many sandboxes may end in any way and at any moment: no process, mount,
//! namespace, file or shared memory of it is left.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use sandboxed_db_tests::{
    CLEANUP_DEADLINE, DEADLINE, Namespaces, Random, ScratchDirs, TestProcess, children, connect, eventually,
    processes_in, rounds, status, wait_until,
};

use crate::lifecycle::{launcher, started, subject};
use crate::requests::dirs_with_base;

/// Threads of a process, each with up to three sandboxes.
fn threads() -> &'static str {
    rounds("6", "16")
}

/// Returns the time in which 16 sandboxes start under the present load.
fn run(dirs: &ScratchDirs) -> Duration {
    let begin = Instant::now();
    let mut process = subject(dirs, &["--threads", threads(), "churn"]);
    for _ in 0..16 {
        process.wait_for("started ");
    }
    let took = begin.elapsed();
    process.killed();
    took
}

/// Some sandboxes start in this time.
const MOMENT: Duration = Duration::from_millis(400);

/// Signals a process that may have ended.
fn try_kill(process: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

#[track_caller]
fn assert_unused(namespaces: &Namespaces) {
    let used = || namespaces.users().is_empty().then_some(());
    eventually(CLEANUP_DEADLINE, &format!("no process uses {namespaces:?}"), used);
}

#[rstest]
#[case::returning("return", "code 0")]
#[case::returning_an_error("error", "code 1")]
#[case::panicking("panic", "code 101")]
#[case::exiting("exit", "code 7")]
#[case::aborting("abort", "signal 6")]
#[case::overflowing_the_stack("overflow", "signal 6")]
#[case::an_interrupt("sleep", "signal 2")]
#[case::a_hangup("sleep", "signal 1")]
#[case::a_termination("sleep", "signal 15")]
fn every_way_to_end_at_random_moments_leaves_nothing(#[case] end: &str, #[case] expected: &str) {
    let rounds = rounds(1, 4);
    let mut random = Random::new();
    let dirs = dirs_with_base();
    let run = run(&dirs);
    for round in 0..rounds {
        let time = random.within(run, round, rounds).as_millis().to_string();
        let mut process = subject(&dirs, &["--threads", threads(), "--churn-for-ms", &time, end]);
        if end == "sleep" {
            process.wait_for("all 0");
            let signal = match expected {
                "signal 1" => Signal::HUP,
                "signal 2" => Signal::INT,
                _ => Signal::TERM,
            };
            // A terminal signals the whole group.
            process.kill(signal, true);
        }
        let (ended, lines) = process.gone();
        assert_eq!(ended, expected, "after {time} ms: {lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("failed ")), "{lines:?}");
        dirs.assert_no_leftovers();
    }
    dirs.assert_nothing_left();
}

#[rstest]
#[case::launcher(true, false)]
#[case::inits(false, true)]
#[case::launcher_and_inits(true, true)]
fn stopped_processes_do_not_survive_a_kill(#[case] stops_launcher: bool, #[case] stops_inits: bool) {
    let dirs = dirs_with_base();
    let mut process = subject(&dirs, &["--sandboxes", "2", "sleep"]);
    let inits: Vec<_> = (0..2).map(|_| started(&process.wait_for("started ")).0).collect();
    // The threads that started them have ended: the end of one would continue the launcher.
    process.wait_for("all 2");
    let launcher = launcher(process.pid());
    let stopped = [(stops_launcher, vec![launcher]), (stops_inits, inits)];
    for pid in stopped.into_iter().filter(|(stops, _)| *stops).flat_map(|(_, pids)| pids) {
        try_kill(pid, Signal::STOP);
        eventually(DEADLINE, "it is stopped", || status(pid, "State").filter(|state| state.starts_with('T')));
    }
    process.killed();
    dirs.assert_nothing_left();
}

/// Waits until a launcher other than the killed one has started a sandbox.
fn wait_for_another_launcher(process: &mut TestProcess, killed: u32) {
    loop {
        let line = process.wait_for("started ");
        let init = line.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
        let parent = status(init, "PPid").and_then(|parent| parent.parse::<u32>().ok());
        if parent.is_some_and(|parent| parent != killed && children(process.pid()).contains(&parent)) {
            return;
        }
    }
}

#[test]
fn starts_succeed_again_after_launchers_are_killed() {
    let mut random = Random::new();
    let dirs = dirs_with_base();
    let mut process = subject(&dirs, &["--threads", threads(), "--churn-for-ms", "600000", "return"]);
    process.wait_for("started ");
    for _ in 0..rounds(2, 10) {
        sleep(random.below(MOMENT));
        let killed = launcher(process.pid());
        try_kill(killed, Signal::KILL);
        wait_for_another_launcher(&mut process, killed);
    }
    process.killed();
    dirs.assert_nothing_left();
}

#[test]
fn starts_succeed_again_after_inits_are_killed() {
    let mut random = Random::new();
    let dirs = dirs_with_base();
    let mut process = subject(&dirs, &["--threads", threads(), "--churn-for-ms", "600000", "return"]);
    process.wait_for("started ");
    let launcher = launcher(process.pid());
    let (mut killed, kills) = (0, rounds(6, 50));
    while killed < kills {
        sleep(random.below(MOMENT / 10));
        // The oldest init may be about to end, and the youngest about to start its server.
        let inits = children(launcher);
        for init in [inits.first(), inits.last()].into_iter().flatten() {
            try_kill(*init, Signal::KILL);
            killed += 1;
        }
    }
    // The launcher lives, and starts further sandboxes.
    let last = eventually(DEADLINE, "another sandbox", || children(launcher).into_iter().max());
    eventually(DEADLINE, "yet another sandbox", || children(launcher).into_iter().find(|&init| init != last));
    process.killed();
    dirs.assert_nothing_left();
}

/// How a process with sandboxes is ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It drops its sandboxes.
    Return,
    Kill,
    Interrupt,
    KillTheLauncher,
    KillTheInits,
}

impl End {
    fn ended(self, process: TestProcess) -> (String, Vec<String>) {
        let launcher = launcher(process.pid());
        match self {
            Self::Return => {}
            Self::Kill => process.kill(Signal::KILL, false),
            Self::Interrupt => process.kill(Signal::INT, true),
            Self::KillTheLauncher => try_kill(launcher, Signal::KILL),
            Self::KillTheInits => {
                children(launcher).into_iter().for_each(|init| try_kill(init, Signal::KILL))
            }
        }
        process.gone()
    }
}

fn obeying_with_three(dirs: &ScratchDirs) -> (TestProcess, Vec<String>) {
    let mut process = subject(dirs, &["obey"]);
    let start = |_| process.order("start").unwrap().remove(0).strip_prefix("started ").unwrap().to_owned();
    let lines = (0..3).map(start).collect();
    (process, lines)
}

#[rstest]
fn stopped_servers_are_killed(
    #[values(End::Return, End::Kill, End::Interrupt, End::KillTheLauncher, End::KillTheInits)] end: End,
    #[values(false, true)] inits_too: bool,
) {
    let dirs = ScratchDirs::with_shared_cache();
    let (process, lines) = obeying_with_three(&dirs);
    for (init, namespace) in lines.iter().map(|line| started(line)) {
        for process in processes_in(&namespace) {
            if process != init || inits_too {
                try_kill(process, Signal::STOP);
            }
        }
        wait_until(DEADLINE, "the processes are stopped", || {
            let stopped = |pid: &u32| status(*pid, "State").is_some_and(|state| state.starts_with('T'));
            processes_in(&namespace).iter().all(|pid| stopped(pid) || *pid == init)
        });
    }
    end.ended(process);
    dirs.assert_nothing_left();
}

#[rstest]
fn daemons_and_their_objects_are_removed(
    #[values(End::Return, End::Kill, End::Interrupt, End::KillTheLauncher, End::KillTheInits)] end: End,
) {
    // Objects in shared memory come first, since forks may fail once the last daemon runs. The
    // daemons are orphans in separate sessions, and the last one forks without end.
    const DAEMONS: &str = "ipcmk -M 4096 -S 1 -Q; echo here > /dev/shm/here; echo here > /tmp/here; \
        setsid sh -c ''setsid sleep 1000 & setsid sh -c \"setsid sleep 1000 &\" & exit'' \
        < /dev/null > /dev/null 2>&1 & \
        setsid sh -c ''trap \"\" INT TERM HUP QUIT; while :; do setsid sh -c \"sleep 0.02 &\"; sleep 0.01; done'' \
        < /dev/null > /dev/null 2>&1 &";
    let dirs = ScratchDirs::with_shared_cache();
    let (process, lines) = obeying_with_three(&dirs);
    for line in &lines {
        let (_, url) = line.split_once(' ').expect("a line names the URL last");
        let (init, namespace) = started(line);
        connect(url).batch_execute(&format!("copy (select where false) to program '{DAEMONS}'")).unwrap();
        wait_until(DEADLINE, "the daemons run", || {
            let daemon = |pid: &u32| {
                status(*pid, "Name").is_some_and(|name| name == "sleep")
                    && status(*pid, "PPid").is_some_and(|parent| parent == init.to_string())
            };
            processes_in(&namespace).iter().filter(|pid| daemon(pid)).count() >= 2
        });
    }
    let namespaces = Namespaces::of(&process.processes());
    // Prewarmed sandboxes may have added more.
    assert!(namespaces.count() >= 3 * 7, "{namespaces:?}");
    end.ended(process);
    assert_unused(&namespaces);
    drop(namespaces);
    dirs.assert_nothing_left();
}
