//! Collects checks and gives the verdict.

use std::error::Error as _;

use super::findings::{Check, CheckStatus, Findings};
use super::{CacheInfo, LimitInfo, ServerInfo, TrialTimings};
use crate::error::Error;
use crate::fix::Fix;

/// The checks made so far.
#[derive(Debug, Default)]
pub(super) struct Examination {
    checks: Vec<Check>,
}

impl Examination {
    pub(super) fn ok(&mut self, name: &'static str, sentence: impl Into<String>) {
        self.note(name, CheckStatus::Ok, Fix::none(sentence));
    }

    pub(super) fn warn(&mut self, name: &'static str, fix: Fix) {
        self.note(name, CheckStatus::Warning, fix);
    }

    pub(super) fn fail(&mut self, name: &'static str, fix: Fix) {
        self.note(name, CheckStatus::Failed, fix);
    }

    fn note(&mut self, name: &'static str, status: CheckStatus, fix: Fix) {
        let Fix { sentence, how, command } = fix;
        let fixes = !command.is_empty();
        // A check is one line, even if a program printed several.
        let sentence = sentence.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        self.checks.push(Check {
            name,
            status,
            sentence,
            how: fixes.then_some(how),
            command: fixes.then_some(command),
        });
    }

    pub(super) fn has_failed(&self) -> bool {
        self.checks.iter().any(|check| check.status == CheckStatus::Failed)
    }

    /// Returns the verdict. The first failure decides it: later ones may follow from it.
    fn verdict(&self) -> String {
        match self.checks.iter().find(|check| check.status == CheckStatus::Failed) {
            Some(Check { sentence, how: Some(how), command: Some(command), .. }) => {
                format!("Sandboxes do not work here: {sentence}. To fix it, {how}: {command}")
            }
            Some(Check { sentence, .. }) => format!("Sandboxes do not work here: {sentence}."),
            None => match self.checks.iter().filter(|check| check.status == CheckStatus::Warning).count() {
                0 => "Sandboxes work here.".to_owned(),
                1 => "Sandboxes work here, with 1 warning.".to_owned(),
                count => format!("Sandboxes work here, with {count} warnings."),
            },
        }
    }

    pub(super) fn findings(
        self,
        kernel: String,
        cache: Option<CacheInfo>,
        servers: Vec<ServerInfo>,
        limits: Vec<LimitInfo>,
        timings: Option<TrialTimings>,
    ) -> Findings {
        Findings {
            works: !self.has_failed(),
            verdict: self.verdict(),
            checks: self.checks,
            kernel,
            cache,
            servers,
            limits,
            timings,
        }
    }
}

/// Returns the fix of an error, or else its whole report as a sentence.
pub(super) fn fix_of(error: &Error) -> Fix {
    if let Some(fix) = error.fix() {
        return fix.clone();
    }
    let mut sentence = format!("could not {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence.push_str(&format!(": {error}"));
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        sentence.push_str(&format!(": {hint}"));
    }
    // The last line of a failed server's log holds the reason.
    if let Some(line) = error.log().and_then(|log| log.lines().rev().find(|line| !line.trim().is_empty())) {
        sentence.push_str(&format!(": its log ends with `{}`", line.trim()));
    }
    Fix::none(sentence)
}
