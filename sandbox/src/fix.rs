//! The known cause of a failure and its fix: one sentence and one command.

use std::fmt;

/// The cause of a failure, and the command or setting that fixes it.
///
/// Programs execute these commands, so none may change what is not the project's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fix {
    /// The cause, as a lower-case clause without a full stop.
    pub(crate) sentence: String,
    /// The instruction for the command, such as `run`.
    pub(crate) how: &'static str,
    /// The command or setting. Empty if none helps; the sentence then holds the advice.
    pub(crate) command: String,
}

impl Fix {
    /// A cause that a command fixes, run in the user's shell.
    pub(crate) fn run(sentence: impl Into<String>, command: impl Into<String>) -> Self {
        Self::new(sentence, "run", command)
    }

    pub(crate) fn new(sentence: impl Into<String>, how: &'static str, command: impl Into<String>) -> Self {
        let fix = Self { sentence: sentence.into(), how, command: command.into() };
        debug_assert!(leaves_files_alone(&fix.command), "{fix}");
        fix
    }

    /// A cause that no command fixes.
    pub(crate) fn none(sentence: impl Into<String>) -> Self {
        Self::new(sentence, "", "")
    }

    /// ENFILE.
    pub(crate) fn too_many_files_on_machine() -> Self {
        Self::none("the machine has as many files open as `fs.file-max` allows")
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

/// Quotes a word of a command for a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-:./,+@%=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Returns `true` if a command neither removes a file nor changes its owner, permissions or
/// content.
fn leaves_files_alone(command: &str) -> bool {
    const CHANGES: [&str; 16] = [
        "chown", "chgrp", "chmod", "setfacl", "chattr", "rm", "rmdir", "unlink", "mv", "cp", "ln", "dd",
        "tee", "truncate", "mknod", "mkfs",
    ];
    let words = command.split(|c: char| c.is_whitespace() || ";|&()'\"`".contains(c));
    let mut programs = words.map(|word| word.rsplit('/').next().unwrap_or_default());
    !command.contains('>') && !programs.any(|program| CHANGES.contains(&program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_survives_a_shell() {
        assert_eq!(quoted("shop::orders::case_1"), "shop::orders::case_1");
        assert_eq!(quoted("it's #2"), r"'it'\''s #2'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn commands_that_change_files_are_found() {
        for command in [
            "sudo chown -R \"$(id -u)\" '/'",
            "rm -rf ~/.cache",
            "sh -c '/bin/chmod -R 777 /'",
            "true;mv a b",
            "echo 1 > /proc/sys/user/max_user_namespaces",
        ] {
            assert!(!leaves_files_alone(command), "{command}");
        }
        for command in [
            "",
            "ulimit -n 65536",
            "sudo sysctl -w user.max_user_namespaces=15000",
            "podman run --rm --security-opt unmask=ALL IMAGE",
        ] {
            assert!(leaves_files_alone(command), "{command}");
        }
    }
}
