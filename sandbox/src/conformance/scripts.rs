//! Checks of an engine's client.

use std::io::Write;

use super::checks::Check;
use super::{Checked, Conformance, Open, Texts, Violation};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::sandbox::Sandbox;

impl<E: Engine> Conformance<E> {
    fn given<'a>(
        &'a self,
        check: &Check<'_>,
        text: Option<&'a String>,
        method: &str,
    ) -> Result<(&'a Texts<E>, &'a str), Violation> {
        match (&self.scripts, text) {
            (Some(texts), Some(text)) => Ok((texts, text)),
            _ => Err(check.broken(format!("the check needs `Conformance::{method}`"))),
        }
    }

    /// Starts a server that was prepared by a script.
    fn seeded(&self, texts: &Texts<E>, script: &str) -> std::io::Result<crate::Result<Sandbox<E>>> {
        let mut file = tempfile::NamedTempFile::with_prefix("script")?;
        file.write_all(script.as_bytes())?;
        Ok((texts.seed)(self.snapshot(), file.path().to_owned()).start())
    }

    fn refused(&self, check: &Check<'_>, texts: &Texts<E>, script: &str) -> Result<Error, Violation> {
        match self.seeded(texts, script) {
            Ok(Err(error)) if error.kind() == ErrorKind::InvalidConfig => Ok(error),
            Ok(Err(error)) => Err(check.broken(format!("it failed in another way: {error:?}"))),
            Ok(Ok(_)) => Err(check.broken("it was accepted, and a layer was stored")),
            Err(error) => Err(check.broken(error)),
        }
    }

    /// Checks that a [script](Self::script) runs to its end, and that its data is in each sandbox.
    ///
    /// # Errors
    /// The violation.
    pub fn runs_scripts(&self) -> Checked {
        let check = self.check("runs_scripts", "`Scripts::run_file` runs a file to its end");
        let good = self.scripts.as_ref().and_then(|texts| texts.good.as_ref());
        let (texts, script) = self.given(&check, good, "script")?;
        let before = self.read(&check, &check.of(self.snapshot().start())?)?;
        let sandbox = self.seeded(texts, script).map_err(|error| check.broken(error))?;
        let after = self.read(&check, &check.of(sandbox)?)?;
        match after == before {
            true => Err(check
                .broken(format!("without the script and with it `Conformance::reads` returns `{after}`"))),
            false => Ok(()),
        }
    }

    /// Checks that a [broken script](Self::broken_script) is an error, with a message.
    ///
    /// # Errors
    /// The violation.
    pub fn refuses_broken_scripts(&self) -> Checked {
        let check = self.check(
            "refuses_broken_scripts",
            "`Scripts::failure` returns a failure, with its message, of each file that the server refuses",
        );
        let broken = self.scripts.as_ref().and_then(|texts| texts.broken.as_ref()).map(|(script, _)| script);
        let (texts, script) = self.given(&check, broken, "broken_script")?;
        self.refused(&check, texts, script).map(drop)
    }

    /// Checks that the error of a [broken script](Self::broken_script) names its line.
    ///
    /// # Errors
    /// The violation.
    pub fn names_the_line(&self) -> Checked {
        let check =
            self.check("names_the_line", "`ScriptError::line` is the line at fault, counted from one");
        let broken = self.scripts.as_ref().and_then(|texts| texts.broken.as_ref());
        let (texts, script) = self.given(&check, broken.map(|(script, _)| script), "broken_script")?;
        let error = self.refused(&check, texts, script)?;
        let expected = broken.and_then(|(_, line)| *line);
        match error.line() == expected {
            true => Ok(()),
            false => {
                let named =
                    |line: Option<u64>| line.map_or("no line".to_owned(), |line| format!("line {line}"));
                Err(check.broken(format!(
                    "{} instead of {}: {error:?}",
                    named(error.line()),
                    named(expected)
                )))
            }
        }
    }

    /// Checks that a script with an [open transaction](Self::open_transaction) is an error.
    ///
    /// # Errors
    /// The violation.
    pub fn refuses_open_transactions(&self) -> Checked {
        let check = self.check(
            "refuses_open_transactions",
            "the command of `Scripts::run_file` fails where a file leaves a transaction open",
        );
        let open = self.scripts.as_ref().and_then(|texts| match &texts.open {
            Open::Script(script) => Some(script),
            Open::Unsaid | Open::Impossible => None,
        });
        let (texts, script) = self.given(&check, open, "open_transaction")?;
        self.refused(&check, texts, script).map(drop)
    }
}
