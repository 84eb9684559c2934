//! Comments and statements of a SQL script, found without parsing the statements. Pure.

use std::ops::Range;

/// The parts of a script, as byte ranges in the order of the text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// Each with its dashes or its `/* */`.
    pub(super) comments: Vec<Range<usize>>,
    /// Each with its semicolon, and with the comments inside it.
    pub(super) statements: Vec<Range<usize>>,
}

impl Script {
    /// Finds the parts of `text`.
    ///
    /// A text whose quotes do not match is split by lines instead, so that no comment is missed
    /// because it appears to be inside a string.
    pub(super) fn of(text: &str) -> Self {
        Scanner { text, at: 0, begin: None, script: Self::default() }.scan().unwrap_or_else(|| by_lines(text))
    }
}

/// The number of line ends before a position.
pub(super) fn line(text: &str, at: usize) -> usize {
    memchr::memchr_iter(b'\n', &text.as_bytes()[..at]).count()
}

/// The lines of a text without their ends, each with its position.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split_inclusive('\n').map(move |line| {
        at += line.len();
        (at - line.len(), line.trim_end_matches(['\n', '\r']))
    })
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// The beginning of the statement that the scanner is in, and its end so far.
    begin: Option<Range<usize>>,
    script: Script,
}

impl Scanner<'_> {
    /// Returns `None` where a quote or comment has no end.
    fn scan(mut self) -> Option<Script> {
        while self.at < self.text.len() {
            let rest = &self.text[self.at..];
            if rest.starts_with("--") || (rest.starts_with('#') && self.begin.is_none()) {
                self.comment(rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                self.comment(block_comment(rest)?);
            } else {
                self.code(rest)?;
            }
        }
        self.end_statement();
        Some(self.script)
    }

    fn comment(&mut self, length: usize) {
        self.script.comments.push(self.at..self.at + length);
        self.at += length;
    }

    fn code(&mut self, rest: &str) -> Option<()> {
        let first = rest.chars().next()?;
        if first.is_whitespace() || first == '\u{feff}' {
            self.at += first.len_utf8();
            return Some(());
        }
        let before = self.text[..self.at].chars().next_back();
        let in_word = before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == '$');
        let length = match first {
            '\'' => quoted(rest, '\'', before.is_some_and(|before| matches!(before, 'e' | 'E')))?,
            '"' => quoted(rest, '"', false)?,
            '$' if !in_word => dollar_quoted(rest)?,
            _ => first.len_utf8(),
        };
        let begin = self.begin.as_ref().map_or(self.at, |statement| statement.start);
        self.at += length;
        self.begin = Some(begin..self.at);
        if first == ';' {
            self.end_statement();
        }
        Some(())
    }

    fn end_statement(&mut self) {
        let Some(statement) = self.begin.take() else { return };
        if reads_input(&self.text[statement.clone()]) {
            self.skip_rows();
        }
        self.script.statements.push(statement);
    }

    /// Skips the rows after `COPY … FROM stdin`, as pg_dump writes them.
    fn skip_rows(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.find("\n\\.").map_or(0, |end| end + "\n\\.".len());
    }
}

/// Returns `true` if a statement has the client send rows after it.
pub(super) fn reads_input(statement: &str) -> bool {
    let mut words = statement.split_ascii_whitespace().map(|word| word.trim_end_matches(';'));
    let is_copy = words.next().is_some_and(|word| word.eq_ignore_ascii_case("copy"));
    let mut last = "";
    is_copy
        && words.any(|word| {
            let stdin = word.eq_ignore_ascii_case("stdin") && last.eq_ignore_ascii_case("from");
            last = word;
            stdin
        })
}

/// The length of a block comment, which may hold others.
fn block_comment(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    loop {
        let rest = &text[at..];
        let (open, close) = (rest.find("/*"), rest.find("*/"));
        match (open, close) {
            (Some(open), Some(close)) if open < close => (depth, at) = (depth + 1, at + open + 2),
            (_, Some(close)) => (depth, at) = (depth - 1, at + close + 2),
            (_, None) => return None,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The length of a string or identifier. A doubled quote looks like two strings, which is as good.
fn quoted(text: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, letter)| {
        let ends = *letter == quote && !escaped;
        escaped = escapes && *letter == '\\' && !escaped;
        ends
    });
    end.map(|(at, _)| at + 1)
}

/// The length of a dollar-quoted string, or of the dollar sign that begins none.
fn dollar_quoted(text: &str) -> Option<usize> {
    let tag = text[1..].find(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
    let Some(end) = tag.map(|at| at + 1).filter(|at| text[*at..].starts_with('$')) else {
        return Some(1);
    };
    let (tag, body) = text.split_at(end + 1);
    if tag[1..].starts_with(|letter: char| letter.is_ascii_digit()) {
        return Some(1);
    }
    body.find(tag).map(|at| end + 1 + at + tag.len())
}

fn by_lines(text: &str) -> Script {
    let mut script = Script::default();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let part = at..at + line.trim_end().len();
        match line.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}') {
            "" => {}
            code if code.starts_with("--") || code.starts_with("/*") || code.starts_with('#') => {
                script.comments.push(part);
            }
            _ => script.statements.push(part),
        }
        at += line.len();
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Vec<&str>, Vec<&str>) {
        let Script { comments, statements } = Script::of(text);
        let texts = |ranges: Vec<Range<usize>>| ranges.into_iter().map(|range| &text[range]).collect();
        (texts(comments), texts(statements))
    }

    #[test]
    fn quotes_hide_semicolons_and_dashes() {
        let text = "\u{feff}-- a\nselect ';--', e'\\';', \";\", $$;--$$, $x$;$$--$x$ /* b /* c */ ; */, a$1;\n# d\nx";
        let statement = "select ';--', e'\\';', \";\", $$;--$$, $x$;$$--$x$ /* b /* c */ ; */, a$1;";
        assert_eq!(parts(text), (vec!["-- a", "/* b /* c */ ; */", "# d"], vec![statement, "x"]));
        assert_eq!(parts("select $1, 'it''s';"), (vec![], vec!["select $1, 'it''s';"]));
    }

    #[test]
    fn rows_of_a_dump_are_no_statements() {
        let text = "COPY t (a) FROM stdin;\nit's -- no comment\n\\.\nselect 1;";
        assert_eq!(parts(text), (vec![], vec!["COPY t (a) FROM stdin;", "select 1;"]));
    }

    #[test]
    fn an_open_quote_hides_no_comment() {
        assert_eq!(parts("select 'a;\n-- b\nc"), (vec!["-- b"], vec!["select 'a;", "c"]));
        assert_eq!(parts("a $$\n  /* b"), (vec!["  /* b"], vec!["a $$"]));
    }
}
