//! What the doctor found, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::{CacheInfo, LimitInfo, ServerInfo, TrialTimings};

/// What [`doctor`](fn@crate::doctor) found.
///
/// `Display` is for people: a line for each check, a second one where there is something to do, and the verdict at the
/// end.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Findings {
    /// Whether sandboxes work here. Warnings are no obstacle.
    pub works: bool,
    /// The whole outcome in one sentence.
    pub verdict: String,
    /// What was looked at, in the order in which it was.
    pub checks: Vec<Check>,
    /// The kernel's release, such as `6.12.9`.
    pub kernel: String,
    /// The cache directory, where there is one.
    pub cache: Option<CacheInfo>,
    /// The servers found, the preferred first.
    pub servers: Vec<ServerInfo>,
    /// What a sandbox may take; empty where none could be launched.
    pub limits: Vec<LimitInfo>,
    /// How long one sandbox took, if it came to that.
    pub timings: Option<TrialTimings>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// What it is about, such as `namespaces`.
    pub name: &'static str,
    /// How it came out.
    pub outcome: CheckStatus,
    /// What was found, or what is wrong, in one sentence.
    pub sentence: String,
    /// What to do with the command, such as `run`.
    pub how: Option<&'static str>,
    /// The one command or setting that helps.
    pub command: Option<String>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Sandboxes work, but not as well as they could.
    Warning,
    /// Sandboxes do not work.
    Failed,
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        })
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for check in &self.checks {
            writeln!(f, "{:<7}  {:<width$}  {}", check.outcome, check.name, check.sentence)?;
            if let (Some(how), Some(command)) = (check.how, &check.command) {
                writeln!(f, "{:<7}  {:<width$}  {how}: {command}", "", "")?;
            }
        }
        f.write_str(&self.verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::super::examination::Examination;
    use crate::fix::Fix;

    fn examined() -> Examination {
        let mut examination = Examination::default();
        examination.ok("kernel", "Linux 6.12.9");
        examination.warn("proc", Fix::run("parts of /proc are hidden", "unhide it"));
        examination
    }

    #[test]
    fn a_report_has_a_line_for_each_check_and_the_verdict_at_the_end() {
        let report = examined().report(String::new(), None, Vec::new(), Vec::new(), None);
        assert!(report.works);
        assert_eq!(
            report.to_string(),
            "ok       kernel  Linux 6.12.9\n\
             warning  proc    parts of /proc are hidden\n\
             \x20                run: unhide it\n\
             Sandboxes work here, with 1 warning."
        );
    }

    #[test]
    fn the_verdict_on_a_failure_is_its_sentence_and_its_command() {
        let mut examination = examined();
        examination.fail("namespaces", Fix::run("`user.max_user_namespaces` is 0", "sysctl"));
        examination.fail("servers", Fix::none("none is installed"));
        let report = examination.report(String::new(), None, Vec::new(), Vec::new(), None);
        assert!(!report.works);
        assert_eq!(
            report.verdict,
            "Sandboxes do not work here: `user.max_user_namespaces` is 0. To fix it, run: sysctl"
        );
        assert!(report.to_string().contains("\nFAILED   namespaces  `user.max"), "{report}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["checks"][2]["outcome"], "failed");
        assert_eq!(json["checks"][2]["command"], "sysctl");
        assert_eq!(json["checks"][3]["command"], serde_json::Value::Null);
    }
}
