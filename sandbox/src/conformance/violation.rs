//! Rules of the contract that an engine breaks.

use std::error::Error;
use std::fmt;

/// Rules of the [contract](crate::Engine#the-contract) that an engine breaks, with the check that
/// found each and its finding. `Debug` and `Display` are the same report.
#[derive(Clone)]
pub struct Violation {
    engine: String,
    broken: Vec<Broken>,
}

#[derive(Clone)]
struct Broken {
    check: &'static str,
    rule: &'static str,
    found: String,
}

impl Violation {
    pub(super) fn new(engine: &str, check: &'static str, rule: &'static str, found: impl ToString) -> Self {
        Self { engine: engine.to_owned(), broken: vec![Broken { check, rule, found: found.to_string() }] }
    }

    /// Joins violations; `None` without any.
    pub(super) fn all(violations: impl IntoIterator<Item = Self>) -> Option<Self> {
        violations.into_iter().reduce(|mut all, more| {
            all.broken.extend(more.broken);
            all
        })
    }

    /// Returns the names of the checks that found something, in their order.
    pub fn checks(&self) -> impl Iterator<Item = &'static str> {
        self.broken.iter().map(|broken| broken.check)
    }

    /// Returns the rules that are broken, in the order of the checks.
    pub fn rules(&self) -> impl Iterator<Item = &'static str> {
        self.broken.iter().map(|broken| broken.rule)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Broken { check, rule, found }) in self.broken.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let found = found.replace('\n', "\n         ");
            let engine = &self.engine;
            write!(f, "the engine `{engine}` breaks the rule: {rule}\n  check: {check}\n  found: {found}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_all_rules() {
        let one = Violation::new("x", "stops_cleanly", "it stops", "status 1\nand a log");
        let all = Violation::all([one.clone(), Violation::new("x", "b", "c", "d")]).unwrap();
        assert_eq!(
            one.to_string(),
            "the engine `x` breaks the rule: it stops\n  check: stops_cleanly\n  found: status 1\n         and a log"
        );
        assert_eq!(all.checks().collect::<Vec<_>>(), ["stops_cleanly", "b"]);
        assert!(format!("{all:?}").ends_with("the rule: c\n  check: b\n  found: d"));
        assert!(Violation::all([]).is_none());
    }
}
