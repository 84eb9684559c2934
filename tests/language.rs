//! Checks the simple part of the language rules over the whole repository: how comments open, how
//! wide they are, and how long the names of tests are.
//!
//! ```sh
//! cargo test -p sandboxed-db-tests --test language
//! ```

use std::fs;
use std::path::Path;

use sandboxed_db_tests::{repository, repository_files};

/// Columns that a line of a comment may take.
const WIDTH: usize = 100;

/// Characters that the name of a test function may have.
const NAME: usize = 60;

/// Words that no comment and no sentence of a comment opens with.
const OPENINGS: [&str; 8] = ["who", "whoever", "whose", "what", "whatever", "which", "whichever", "whether"];

/// Phrases for which there are plainer ones.
const PHRASES: [&str; 4] = ["as ever", "so many", "of its own", "of their own"];

/// Attributes that make a function a test, by the last part of their path.
const TEST_ATTRIBUTES: [&str; 4] = ["test", "sandboxed_db", "rstest", "proptest"];

#[test]
fn comments_and_test_names_follow_the_language_rules() {
    let root = repository();
    let files = repository_files(has_comments);
    assert!(files.len() > 100, "only {} files were found below {}", files.len(), root.display());
    let mut offences = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let name = file.strip_prefix(root).expect("it is below the root").display().to_string();
        let found = check(&text, marker(file));
        offences.extend(found.into_iter().map(|(line, offence)| format!("{name}:{line}: {offence}")));
    }
    assert!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
}

fn has_comments(file: &Path) -> bool {
    let is_of_ci = file.parent().and_then(Path::file_name).is_some_and(|it| it == ".ci");
    is_of_ci || file.extension().is_some_and(|it| it == "rs" || it == "sh" || it == "toml")
}

/// The characters that begin a comment in a file.
fn marker(file: &Path) -> &'static str {
    if file.extension().is_some_and(|it| it == "rs") { "//" } else { "#" }
}

/// Returns the offences in a file, each with the number of its line.
fn check(text: &str, marker: &str) -> Vec<(usize, String)> {
    let mut offences = Vec::new();
    let (mut opens, mut is_code, mut is_test) = (true, false, false);
    for (line, number) in text.lines().zip(1..) {
        let code = line.trim_start();
        if number == 1 && code.starts_with("#!/") {
            continue;
        }
        if let Some(comment) = code.strip_prefix(marker) {
            let comment = comment.trim_start_matches(['/', '!', '#']).trim_start();
            if comment.starts_with("```") {
                is_code = !is_code;
            }
            // Addresses and rows of tables cannot be wrapped, and examples are as wide as code.
            let wraps = !is_code && !comment.contains("://") && !comment.starts_with('|');
            let width = line.chars().count();
            if wraps && width > WIDTH {
                offences.push((number, format!("the comment is {width} columns wide, not {WIDTH}")));
            }
            if !is_code {
                offences.extend(openings(comment, opens).map(|offence| (number, offence)));
                let words: Vec<_> = comment.split(|it: char| !it.is_alphabetic()).collect();
                let text = format!(" {} ", words.join(" ").to_lowercase());
                let phrases = PHRASES.iter().filter(|phrase| text.contains(&format!(" {phrase} ")));
                offences.extend(phrases.map(|phrase| (number, format!("the comment says `{phrase}`"))));
            }
            opens = comment.is_empty() || comment.ends_with(['.', '!', '?']);
            continue;
        }
        (opens, is_code) = (true, false);
        if let Some(comment) = trailing(code, marker) {
            offences.extend(openings(comment.trim_start(), true).map(|offence| (number, offence)));
        }
        is_test |= is_test_attribute(code);
        if let Some(name) = function(code).filter(|_| is_test) {
            let length = name.chars().count();
            if length > NAME {
                offences
                    .push((number, format!("the test's name has {length} characters, not {NAME}: {name}")));
            }
            is_test = false;
        }
    }
    offences
}

/// The offending openings of the sentences in a line of a comment. `opens` says that the line
/// begins one.
fn openings(comment: &str, opens: bool) -> impl Iterator<Item = String> {
    let first = opens.then_some(comment.trim_start_matches(['-', '*', ' ']));
    let ends = comment.match_indices([' ']).filter(|(at, _)| comment[..*at].ends_with(['.', '!', '?']));
    // Within a line only a capital tells a sentence from an abbreviation.
    let later =
        ends.map(|(at, _)| comment[at..].trim_start()).filter(|rest| rest.starts_with(char::is_uppercase));
    first.into_iter().chain(later).filter_map(|sentence| {
        let word = sentence.split(|it: char| !it.is_alphabetic()).next().unwrap_or_default();
        let offends = OPENINGS.contains(&word.to_lowercase().as_str());
        offends.then(|| format!("a sentence opens with `{word}`"))
    })
}

/// The comment at the end of a line of code; not the text of a string that looks like one.
fn trailing<'a>(code: &'a str, marker: &str) -> Option<&'a str> {
    let (before, comment) = code.split_once(&format!(" {marker} "))?;
    let quotes = before.matches('"').count() - before.matches("\\\"").count();
    (quotes % 2 == 0).then_some(comment)
}

fn is_test_attribute(code: &str) -> bool {
    let path = code.strip_prefix("#[").map(|it| it.split(['(', ']', ' ']).next().unwrap_or_default());
    path.and_then(|path| path.rsplit("::").next()).is_some_and(|last| TEST_ATTRIBUTES.contains(&last))
}

/// The name of the function that a line declares.
fn function(code: &str) -> Option<&str> {
    let rest = code.split_once("fn ").filter(|(before, _)| before.is_empty() || before.ends_with(' '))?.1;
    rest.split(['(', '<']).next()
}

/// Returns the offences in a page, each with the number of its line. Headings may ask.
fn check_page(text: &str) -> Vec<(usize, String)> {
    let mut offences = Vec::new();
    let (mut opens, mut is_code) = (true, false);
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        is_code ^= line.starts_with("```");
        if is_code || line.starts_with(['#', '|', '`']) {
            opens = true;
            continue;
        }
        let text = line.trim_start_matches("- ");
        let opens_here = (opens || text != line) && text.starts_with(char::is_uppercase);
        offences.extend(openings(line, opens_here).map(|offence| (number, offence)));
        opens = line.is_empty() || line.ends_with(['.', '!', '?']);
    }
    offences
}

#[test]
fn pages_follow_the_language_rules() {
    let pages = repository_files(|file| file.extension().is_some_and(|it| it == "md"));
    assert!(pages.len() > 30, "only {} pages were found", pages.len());
    assert_eq!(
        check_page("# What it is\n\nIt is.\n- Who waits\n```\nwhat\n```\nwhich ends. What else?").len(),
        2
    );
    let mut offences = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let found = check_page(&text)
            .into_iter()
            .map(|(line, offence)| format!("{}:{line}: {offence}", page.display()));
        offences.extend(found);
    }
    assert!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
}

#[test]
fn the_check_finds_each_kind_of_offence() {
    let long = "x".repeat(WIDTH);
    let name = "n".repeat(NAME + 1);
    let offending = [
        "// Who waits is served.".to_owned(),
        "/// Returns it.\n/// Whatever follows is dropped.".to_owned(),
        "/// - which one\n".to_owned(),
        "// It waits. What comes next is served.".to_owned(),
        "let a = 1; // whose value counts".to_owned(),
        "// It has a process of its own.".to_owned(),
        format!("// {long}"),
        format!("#[test]\nfn {name}() {{}}"),
        format!("#[tokio::test(flavor = \"multi_thread\")]\n#[ignore]\nasync fn {name}() {{}}"),
        format!("#[sandboxed_db(\n    seed = \"a\",\n)]\nasync fn {name}(db: Sandbox) {{}}"),
    ];
    for text in &offending {
        assert_eq!(check(text, "//").len(), 1, "{text}");
    }
    let fine = [
        "// The client that\n// which is next".to_owned(),
        "/// ```\n/// // What a reader sees\n/// ```".to_owned(),
        "let url = \"a // what is no comment\";".to_owned(),
        format!("// https://{long}"),
        format!("fn {name}() {{}}"),
    ];
    for text in &fine {
        assert_eq!(check(text, "//"), [], "{text}");
    }
    assert_eq!(check("#!/bin/sh\n# What it does", "#").len(), 1);
}
