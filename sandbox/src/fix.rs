//! What to do about a failure whose cause is known: one sentence, and one command or setting.

use std::fmt;

/// Why something does not work, and what makes it work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fix {
    /// The cause, as a lower-case clause without a full stop.
    pub(crate) sentence: String,
    /// What to do with the command, such as `run`.
    pub(crate) how: &'static str,
    /// The command or setting. Empty where none helps, and the sentence says what does.
    pub(crate) command: String,
}

impl Fix {
    /// A command to run here.
    pub(crate) fn run(sentence: impl Into<String>, command: impl Into<String>) -> Self {
        Self::new(sentence, "run", command)
    }

    pub(crate) fn new(sentence: impl Into<String>, how: &'static str, command: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), how, command: command.into() }
    }

    /// No more files may be opened, by this process or on the whole machine.
    pub(crate) fn too_many_files(on_machine: bool) -> Self {
        if on_machine {
            Self::run("the machine has as many files open as it allows", "sudo sysctl -w fs.file-max=1000000")
        } else {
            Self::run("too many files are open", "ulimit -n 65536")
        }
    }

    /// A cause that no command fixes.
    pub(crate) fn none(sentence: impl Into<String>) -> Self {
        Self::new(sentence, "", "")
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        if self.command.is_empty() {
            return Ok(());
        }
        write!(f, ": {} `{}`", self.how, self.command)
    }
}
