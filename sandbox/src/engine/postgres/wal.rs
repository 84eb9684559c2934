//! Segments of PostgreSQL's write-ahead log that a cleanly stopped server will overwrite: initdb
//! leaves some.

use std::fs;
use std::io;
use std::path::Path;

use crate::engine::children;

/// Refuses data that the server has not completed: one that is stopped while it recovers from a
/// crash ends with status 0, and the rest of the log would be removed as spare.
pub(super) fn check_shut_down(data: &Path) -> io::Result<()> {
    // `state` of `ControlFileData` in pg_control.h, `DB_SHUTDOWNED`.
    const SHUT_DOWN: u32 = 1;
    let control = fs::read(data.join("global/pg_control"))?;
    let state = control.get(16..20).and_then(|state| state.try_into().ok()).map(u32::from_ne_bytes);
    if state != Some(SHUT_DOWN) {
        return Err(io::Error::other("the server crashed, and was stopped before it had recovered"));
    }
    Ok(())
}

/// Removes all segments after the one that the last checkpoint is in. Where that is not to be
/// found, none.
pub(super) fn remove_spare_segments(data: &Path) -> io::Result<()> {
    let control = fs::read(data.join("global/pg_control"))?;
    let segments: Vec<_> = children(&data.join("pg_wal")).into_iter().filter(|path| path.is_file()).collect();
    let Some(first) = segments.first() else { return Ok(()) };
    let Some(last) = last_in_use(&control, fs::metadata(first)?.len()) else { return Ok(()) };
    if !data.join("pg_wal").join(&last).is_file() {
        return Ok(());
    }
    for segment in segments {
        let name = segment.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_segment = name.len() == last.len() && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        // Names are in the order of the log, within a time line.
        if is_segment && name[..8] == last[..8] && name > last {
            fs::remove_file(segment)?;
        }
    }
    Ok(())
}

/// The name of the segment where recovery would begin: `redo` and the time line of the last
/// checkpoint, from `ControlFileData` in PostgreSQL's `pg_control.h`, which has had them there
/// since version 11.
fn last_in_use(control: &[u8], segment_size: u64) -> Option<String> {
    let redo = u64::from_ne_bytes(control.get(40..48)?.try_into().ok()?);
    let time_line = u32::from_ne_bytes(control.get(48..52)?.try_into().ok()?);
    let segment = redo.checked_div(segment_size)?;
    let of_each_id = (1_u64 << 32).checked_div(segment_size)?;
    // xlog_internal.h, XLogFileName.
    Some(format!(
        "{time_line:08X}{:08X}{:08X}",
        segment.checked_div(of_each_id)?,
        segment.checked_rem(of_each_id)?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(redo: u64) -> Vec<u8> {
        let mut control = vec![0; 8192];
        control[40..48].copy_from_slice(&redo.to_ne_bytes());
        control[48..52].copy_from_slice(&1_u32.to_ne_bytes());
        control
    }

    #[test]
    fn a_segment_is_named_as_the_server_does() {
        let name = |redo, size| last_in_use(&control(redo), size).unwrap();
        assert_eq!(name(0x0069_0B80, 1 << 20), "000000010000000000000006");
        assert_eq!(name(0x0069_0B80, 16 << 20), "000000010000000000000000");
        assert_eq!(name(0x1_2345_6789, 1 << 20), "000000010000000100000234");
        assert_eq!(last_in_use(&control(1), 0), None);
        assert_eq!(last_in_use(&[0; 20], 1 << 20), None);
    }

    #[test]
    fn only_a_server_that_was_shut_down_has_complete_data() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("global")).unwrap();
        let is_complete = |control: Vec<u8>| {
            fs::write(data.path().join("global/pg_control"), control).unwrap();
            check_shut_down(data.path()).is_ok()
        };
        let in_state = |state: u32| [vec![0; 16], state.to_ne_bytes().to_vec(), vec![0; 8172]].concat();
        assert!(is_complete(in_state(1)));
        for other in [0, 2, 3, 4, 5, 6] {
            assert!(!is_complete(in_state(other)), "{other}");
        }
        assert!(!is_complete(Vec::new()));
    }

    #[test]
    fn only_what_comes_after_is_removed() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir_all(data.path().join("global")).unwrap();
        fs::create_dir_all(data.path().join("pg_wal/archive_status")).unwrap();
        let segment = |number: u32| data.path().join("pg_wal").join(format!("0000000100000000{number:08X}"));
        let there = || (1..=9).filter(|number| segment(*number).exists()).collect::<Vec<_>>();
        for number in 4..=9 {
            fs::write(segment(number), [0; 1024]).unwrap();
        }
        // The segment of the checkpoint is not there: something is not as it is known.
        fs::write(data.path().join("global/pg_control"), control(1024 * 2)).unwrap();
        remove_spare_segments(data.path()).unwrap();
        assert_eq!(there(), [4, 5, 6, 7, 8, 9]);
        fs::write(data.path().join("global/pg_control"), control(1024 * 5 + 7)).unwrap();
        remove_spare_segments(data.path()).unwrap();
        assert_eq!(there(), [4, 5]);
    }
}
