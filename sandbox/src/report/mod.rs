//! The report of a run: a record of every sandbox, with the parts of its start and the outcome of
//! its test.
//!
//! If the environment variable `SANDBOXED_DB_REPORT` names a file, every process of the run appends
//! lines of JSON to it, each by one write, so that lines of several processes do not mix. Without
//! the variable nothing is recorded.
//!
//! ```sh
//! SANDBOXED_DB_REPORT=run.jsonl cargo test
//! sandboxed-db report run.jsonl --html run.html
//! ```
//!
//! # The lines
//! Each line is a whole [`Record`] with everything known by then, and **the last one with an `id`
//! counts**. A sandbox has a line for the request, one when it is ready and one when it has ended
//! (or its start has failed). If its test dropped the handle, one more line follows with the
//! outcome. A killed process therefore leaves a record without an end: only the outcome is lost.
//!
//! A server that only builds a layer has no record; the record of the start that waited for it
//! contains the time.
//!
//! Lines are appended, even to a file of an earlier run; the field `run` tells runs apart. A
//! relative path starts at `PWD`, the directory of the shell, since cargo runs the tests of each
//! package in that package's directory. A start fails if the file cannot be opened. A later failure
//! to write causes one warning per process.
//!
//! # Example
//! The tests that waited longest for their database:
//! ```no_run
//! # fn main() -> sandboxed_db::Result<()> {
//! let mut report = sandboxed_db::report::Report::read("run.jsonl".as_ref())?;
//! report.records.sort_by_key(|record| std::cmp::Reverse(record.started()));
//! for record in report.records.iter().take(10) {
//!     println!("{:?} {:?}", record.started(), record.test);
//! }
//! # Ok(())
//! # }
//! ```

mod file;
mod record;
mod recorder;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::environment::REPORT;
use crate::error::{Error, ErrorKind, Result};

pub(crate) use file::check;
pub use record::{Outcome, Record, VERSION};
pub(crate) use recorder::{Ended, Recorder, with_causes};

/// The records of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The last record of each sandbox, in the order of the requests.
    pub records: Vec<Record>,
    /// The number of lines that are no records: a killed process or a full disk can cut a line
    /// short, and a later version of this library may write another format.
    pub skipped: usize,
}

impl Report {
    /// Reads a file that was written by `SANDBOXED_DB_REPORT`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a file that cannot be read. Lines that are no records cause
    /// no error.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |error| {
            Error::io(ErrorKind::InvalidConfig, "read", path, error).with_hint(format!(
                "have the tests write it, as by `{}={} cargo test`",
                REPORT.name,
                path.display()
            ))
        };
        Self::parse(BufReader::new(File::open(path).map_err(failed)?)).map_err(failed)
    }

    fn parse(mut lines: impl BufRead) -> std::io::Result<Self> {
        let (mut last, mut skipped) = (HashMap::<String, Record>::new(), 0);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            match serde_json::from_slice::<Record>(&line) {
                Ok(record) if record.version == VERSION => {
                    last.insert(record.id.clone(), record);
                }
                _ if line.trim_ascii().is_empty() => {}
                _ => skipped += 1,
            }
            line.clear();
        }
        let mut records: Vec<_> = last.into_values().collect();
        records.sort_by(|a, b| (a.asked_at_us, &a.id).cmp(&(b.asked_at_us, &b.id)));
        Ok(Self { records, skipped })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(id: &str, asked: u64, outcome: Outcome) -> String {
        let record =
            Record { version: VERSION, id: id.to_owned(), asked_at_us: asked, outcome, ..Record::default() };
        serde_json::to_string(&record).unwrap() + "\n"
    }

    #[test]
    fn the_last_line_of_a_sandbox_counts() {
        let text =
            line("b", 2, Outcome::Unknown) + &line("a", 1, Outcome::Unknown) + &line("b", 2, Outcome::Failed);
        let report = Report::parse(text.as_bytes()).unwrap();
        let outcomes: Vec<_> =
            report.records.iter().map(|record| (record.id.as_str(), record.outcome)).collect();
        assert_eq!(outcomes, [("a", Outcome::Unknown), ("b", Outcome::Failed)]);
        assert_eq!(report.skipped, 0);
    }

    #[test]
    fn other_lines_are_counted() {
        let whole = line("a", 1, Outcome::Passed);
        let later = whole.replace("\"version\":1", "\"version\":2").replace("\"a\"", "\"later\"");
        assert_ne!(later, whole);
        let text = format!("{whole}{}\n\n{later}not JSON\n{}", &whole[..40], &whole[..whole.len() / 2]);
        let report = Report::parse(text.as_bytes()).unwrap();
        assert_eq!((report.records.len(), report.skipped), (1, 4), "{text}");
    }

    proptest! {
        #[test]
        fn any_file_is_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let whole = line("a", 1, Outcome::Passed);
            let text = [whole.as_bytes(), &bytes, b"\n", whole.as_bytes()].concat();
            assert_eq!(Report::parse(text.as_slice()).unwrap().records.len(), 1);
        }
    }
}
