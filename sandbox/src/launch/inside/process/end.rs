//! The end of a server in process mode: of all its processes, and of its shared memory.

use std::fs;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, geteuid, kill_process, wait};

use crate::machine::process::children;
use crate::sys::process::remove_shared_memory;

/// The time for a server to end by itself and to remove files outside its directory.
const PATIENCE: Duration = Duration::from_secs(2);
/// The deadline for all processes. A process that the kernel has not ended by then is left.
const LIMIT: Duration = Duration::from_secs(8);

/// Ends the server by its signal, then the rest of its processes. `ended` are those that have ended
/// before.
pub(super) fn end(server: Option<Pid>, mut ended: Vec<Pid>, signal: Signal) {
    let begin = Instant::now();
    ended.extend(server);
    let mut server = server.filter(|&server| kill_process(server, signal).is_ok());
    while begin.elapsed() < LIMIT {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, _))) => {
                server = server.filter(|&server| server != pid);
                ended.push(pid);
                continue;
            }
            Err(Errno::CHILD) => break,
            _ => {}
        }
        // Orphans become children of this process, until none are left.
        if server.is_none() || begin.elapsed() >= PATIENCE {
            for child in children("self").into_iter().filter_map(|child| Pid::from_raw(child.cast_signed())) {
                let _ = kill_process(child, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    remove_memory_of(&ended);
}

/// Removes the System V shared memory of ended processes, sysvipc(7): it outlives a killed server.
pub(super) fn remove_memory_of(ended: &[Pid]) {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    for id in abandoned(&table, ended, geteuid().as_raw()) {
        let _ = remove_shared_memory(id);
    }
}

/// Returns the segments without users that one of the processes made and the user owns.
fn abandoned(table: &str, makers: &[Pid], user: u32) -> Vec<i32> {
    let number = |field: Option<&&str>| field?.parse::<i64>().ok();
    let found = table.lines().skip(1).filter_map(|line| {
        // key, id, permissions, size, maker, last user, attached, owner
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let maker = number(fields.get(4))?;
        let is_theirs = makers.iter().any(|pid| i64::from(pid.as_raw_nonzero().get()) == maker);
        let is_free = number(fields.get(6))? == 0 && number(fields.get(7))? == i64::from(user);
        (is_theirs && is_free).then(|| i32::try_from(number(fields.get(1))?).ok())?
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unused_memory_of_ended_makers_is_removed() {
        let table = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n\
            5432001          3   600                    56    70    70      0  1000  1000  1000  1000 1 0 1 4096 0\n\
            5432002          4   600                    56    70    71      2  1000  1000  1000  1000 1 0 1 4096 0\n\
            5432003          5   600                    56    70    71      0  1001  1001  1001  1001 1 0 1 4096 0\n\
            5432004          6   600                    56    80    80      0  1000  1000  1000  1000 1 0 1 4096 0\n";
        let pid = |number| Pid::from_raw(number).unwrap();
        assert_eq!(abandoned(table, &[pid(70), pid(71)], 1000), [3]);
        assert_eq!(abandoned("", &[pid(70)], 1000), [0; 0]);
    }
}
