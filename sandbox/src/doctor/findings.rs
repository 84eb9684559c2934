//! The findings of the doctor, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::{CacheInfo, LimitInfo, ServerInfo, TrialTimings};

/// The findings of [`doctor`](fn@crate::doctor).
///
/// `Display` is for people: a line for each check, a second one if there is something to do, and
/// the verdict at the end.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Findings {
    /// `true` if sandboxes work here, perhaps with warnings.
    pub works: bool,
    /// All findings in one sentence.
    pub verdict: String,
    /// All checks, in their order.
    pub checks: Vec<Check>,
    /// The kernel's release, such as `6.12.9`.
    pub kernel: String,
    /// The cache directory, if it can be determined.
    pub cache: Option<CacheInfo>,
    /// The servers found, the preferred first.
    pub servers: Vec<ServerInfo>,
    /// The limits of a sandbox; empty if none could be launched.
    pub limits: Vec<LimitInfo>,
    /// The durations of one sandbox, if one was started.
    pub timings: Option<TrialTimings>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// The subject of the check, such as `namespaces`.
    pub name: &'static str,
    /// The result of the check.
    pub status: CheckStatus,
    /// The finding in one sentence.
    pub sentence: String,
    /// The instruction for the command, such as `run`.
    pub how: Option<&'static str>,
    /// The one command or setting that fixes it.
    pub command: Option<String>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// The check found nothing to do.
    Ok,
    /// Sandboxes work with a shortcoming.
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
            writeln!(f, "{:<7}  {:<width$}  {}", check.status, check.name, check.sentence)?;
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
    fn findings_print_a_line_for_each_check_and_the_verdict() {
        let findings = examined().findings(String::new(), None, Vec::new(), Vec::new(), None);
        assert!(findings.works);
        assert_eq!(
            findings.to_string(),
            "ok       kernel  Linux 6.12.9\n\
             warning  proc    parts of /proc are hidden\n\
             \x20                run: unhide it\n\
             Sandboxes work here, with 1 warning."
        );
    }

    #[test]
    fn a_verdict_is_the_first_failure_and_its_command() {
        let mut examination = examined();
        examination.fail("namespaces", Fix::run("`user.max_user_namespaces` is 0", "sysctl"));
        examination.fail("servers", Fix::none("none is installed"));
        let findings = examination.findings(String::new(), None, Vec::new(), Vec::new(), None);
        assert!(!findings.works);
        assert_eq!(
            findings.verdict,
            "Sandboxes do not work here: `user.max_user_namespaces` is 0. To fix it, run: sysctl"
        );
        assert!(findings.to_string().contains("\nFAILED   namespaces  `user.max"), "{findings}");
        let json = serde_json::to_value(&findings).unwrap();
        assert_eq!(json["checks"][2]["status"], "failed");
        assert_eq!(json["checks"][2]["command"], "sysctl");
        assert_eq!(json["checks"][3]["command"], serde_json::Value::Null);
    }
}
