//! Colours of text. The streams of anstream remove them where the output is no terminal, and where
//! NO_COLOR is set.

use clap::builder::styling::{AnsiColor, Style};

const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();

fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Returns the text of an error as it is printed, with coloured labels.
pub(super) fn error(text: &str) -> String {
    let label = painted(RED.bold(), "sandboxed-db:");
    let text = text.replacen("\n  hint:", &format!("\n  {}", painted(GREEN, "hint:")), 1);
    format!("{label} {text}\n")
}

/// Colours the status at the beginning of each line.
pub(super) fn findings(text: &str) -> String {
    lines(text, |line| {
        let status = ["ok", "warning", "FAILED"].into_iter().zip([GREEN, YELLOW, RED.bold()]);
        let (status, style) = status.into_iter().find(|(status, _)| line.starts_with(status))?;
        Some(painted(style, status) + &line[status.len()..])
    })
}

/// Colours the lines of a difference by their marks.
pub(super) fn difference(text: &str) -> String {
    lines(text, |line| {
        let style = match line.trim_start().split(' ').next()? {
            "+" => GREEN,
            "-" => RED,
            "~" => YELLOW,
            _ => return None,
        };
        Some(painted(style, line))
    })
}

fn lines(text: &str, coloured: impl Fn(&str) -> Option<String>) -> String {
    text.lines().map(|line| coloured(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_labels_are_coloured() {
        assert_eq!(
            difference("t:\n  + table a\n    - x\n+more\n"),
            "t:\n\u{1b}[32m  + table a\u{1b}[0m\n\u{1b}[31m    - x\u{1b}[0m\n+more\n"
        );
        assert_eq!(
            findings("ok  a\nwarning  b\nFAILED  c\nend\n"),
            "\u{1b}[32mok\u{1b}[0m  a\n\u{1b}[33mwarning\u{1b}[0m  b\n\u{1b}[1m\u{1b}[31mFAILED\u{1b}[0m  c\nend\n"
        );
        assert!(error("could not a\n  hint: b").ends_with("could not a\n  \u{1b}[32mhint:\u{1b}[0m b\n"));
    }
}
