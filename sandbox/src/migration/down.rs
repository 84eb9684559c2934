//! Down migrations beside the up migrations, in a form that no known tool reads: found in comments
//! and in names. Pure.

use super::script::{Script, line};
use super::tool::{Listing, MigrationTool, Refusal};

/// Words that name a down migration, and words that name its counterpart.
const DOWN: [&str; 13] = [
    "down", "downs", "downgrade", "rollback", "rollbacks", "undo", "revert", "reverse", "backward",
    "backwards", "teardown", "unapply", "unmigrate",
];
const UP: [&str; 9] = ["up", "ups", "upgrade", "do", "apply", "deploy", "forward", "forwards", "migrate"];

/// Words that say nothing of a direction.
const NEUTRAL: [&str; 36] = [
    "a", "all", "and", "are", "begin", "begins", "below", "change", "changes", "code", "end", "for", "from",
    "here", "how", "in", "is", "it", "migration", "migrations", "of", "on", "part", "run", "script",
    "section", "sql", "start", "starts", "statement", "statements", "step", "the", "these", "this", "to",
];

/// Marks of tools that are not understood, in lower case, with the command that applies their
/// migrations.
const OTHER_TOOLS: [(&str, &str, &str); 7] = [
    ("+migrate", "sql-migrate", "\"sql-migrate\", [\"up\"]"),
    ("+micrate", "micrate", "\"micrate\", [\"up\"]"),
    ("rambler ", "rambler", "\"rambler\", [\"apply\", \"--all\"]"),
    ("@undo", "MyBatis Migrations", "\"migrate\", [\"up\"]"),
    ("liquibase formatted sql", "Liquibase", "\"liquibase\", [\"update\"]"),
    ("!downs", "Play", "\"sbt\", […]"),
    ("==== down", "shmig", "\"shmig\", [\"up\"]"),
];

/// Refuses a file that may hold a down migration beside the one up, or that only another tool runs
/// correctly.
pub(super) fn check_contents(name: &str, contents: &str) -> Result<(), Refusal> {
    let script = Script::of(contents);
    let comment = |range: &std::ops::Range<usize>| contents[range.clone()].trim();
    for range in &script.comments {
        let text = comment(range).to_lowercase();
        let text = text.trim_start_matches(['-', '/', '*', '#', ' ']);
        if let Some((_, tool, command)) = OTHER_TOOLS.iter().find(|(mark, ..)| text.starts_with(mark)) {
            return Err(Refusal::new(
                format!(
                    "`{name}` line {} is a mark of {tool}: `{}`",
                    line(contents, range.start) + 1,
                    first_line(comment(range))
                ),
                format!(
                    "run {tool} itself in a step, by `Snapshot::run({command})` (`--prepare`), or split the file; {} runs \
                     all of it, the down migration too",
                    MigrationTool::Plain.choice()
                ),
            ));
        }
    }
    let code_after = |at: usize| script.statements.last().is_some_and(|last| last.end > at);
    let code_before = |at: usize| script.statements.first().is_some_and(|first| first.start < at);
    let begins_up = |at: usize| {
        let mut later = script.comments.iter().filter(|range| range.start > at);
        later.any(|range| is_mark(comment(range), &UP) && code_after(range.end))
    };
    let is_down = |range: &&std::ops::Range<usize>| {
        is_mark(comment(range), &DOWN)
            && code_after(range.end)
            && (code_before(range.start) || begins_up(range.end))
    };
    let Some(range) = script.comments.iter().find(is_down) else {
        return Ok(());
    };
    Err(Refusal::new(
        format!(
            "`{name}` line {} may begin a down migration: `{}`",
            line(contents, range.start) + 1,
            first_line(comment(range))
        ),
        format!(
            "name the tool that runs such files, by `Snapshot::migrations_of(MigrationTool::…, directory)` (`--tool`), run \
             it in a step, by `Snapshot::run` (`--prepare`), or split the file; {} runs all of it",
            MigrationTool::Plain.choice()
        ),
    ))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_end()
}

/// Returns `true` if a comment is a heading that has one of these words at its beginning or end.
fn is_mark(comment: &str, vocabulary: &[&str]) -> bool {
    let all = words(comment);
    let significant: Vec<_> = all.iter().map(String::as_str).filter(|word| !NEUTRAL.contains(word)).collect();
    let in_vocabulary = |word: Option<&&str>| word.is_some_and(|word| vocabulary.contains(word));
    let has_colon = all.first().is_some_and(|first| comment.to_lowercase().contains(&format!("{first}:")));
    let drops_below =
        vocabulary == DOWN && all.windows(2).any(|pair| pair[0] == "drop" && pair[1] == "below");
    let rolls_back = vocabulary == DOWN
        && significant.len() <= 3
        && all.windows(2).any(|pair| pair[0] == "roll" && pair[1] == "back");
    drops_below
        || rolls_back
        || (significant.len() <= 3
            && (in_vocabulary(significant.first()) || in_vocabulary(significant.last())))
        || (has_colon && in_vocabulary(significant.first()))
}

/// The words of a text in lower case; `migrateDown` is two.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for letter in text.chars() {
        if !letter.is_alphanumeric() || (letter.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if letter.is_alphanumeric() {
            words.last_mut().expect("there is a word").extend(letter.to_lowercase());
        }
        before = letter;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Returns `true` if a file is the down migration of another one, and has its name but for the
/// direction: `x_up.sql` and `x_down.sql`.
pub(super) fn is_counterpart(name: &str, listing: &Listing) -> bool {
    let pairs = [
        ("down", "up"),
        ("undo", "do"),
        ("revert", "deploy"),
        ("rollback", "apply"),
        ("backward", "forward"),
    ];
    pairs.iter().any(|(down, up)| {
        let replaced = name
            .match_indices(down)
            .map(|(at, _)| format!("{}{up}{}", &name[..at], &name[at + down.len()..]));
        let is_whole_word = |candidate: &String| words(candidate).iter().any(|word| word == up);
        replaced.filter(is_whole_word).any(|candidate| listing.sql().any(|other| other == candidate))
    })
}

/// Refuses a file whose name says that it may be the down migration of another one.
pub(super) fn check_names(listing: &Listing) -> Result<(), Refusal> {
    for name in listing.sql() {
        let stem = words(name.trim_end_matches(".sql"));
        let Some(down) = stem.iter().position(|word| DOWN.contains(&word.as_str())) else { continue };
        if name.ends_with(".down.sql") || is_counterpart(name, listing) {
            continue;
        }
        let mut without = stem.clone();
        without.remove(down);
        let number = stem.first().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
        let undone = listing.sql().filter(|other| *other != name).find(|other| {
            let other = words(other.trim_end_matches(".sql"));
            other == without || (number.is_some() && other.first() == number)
        });
        if let Some(undone) = undone {
            return Err(Refusal::new(
                format!("`{name}` may be the down migration of `{undone}`"),
                format!(
                    "move it to a separate directory, or name it `….down.sql`; {} runs both",
                    MigrationTool::Plain.choice()
                ),
            ));
        }
    }
    Ok(())
}

/// Refuses directories that hold both directions.
pub(super) fn check_directories(listing: &Listing) -> Result<(), Refusal> {
    let holding = |words: &'static [&'static str]| {
        let holds = move |(name, files): &&(String, Vec<String>)| {
            words.contains(&name.to_lowercase().as_str()) && files.iter().any(|file| file.ends_with(".sql"))
        };
        listing.directories.iter().find(holds).map(|(name, _)| name)
    };
    match (holding(&UP), holding(&DOWN)) {
        (Some(up), Some(down)) => Err(Refusal::new(
            format!("the directory `{down}` may hold the down migrations of `{up}`"),
            format!("name the directory `{up}` itself as the one of the migrations"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(contents: &str) -> String {
        check_contents("1_a.sql", contents).map_or_else(|refusal| refusal.cause, |()| String::new())
    }

    #[test]
    fn headings_of_a_down_are_refused() {
        for mark in [
            "-- Down",
            "--- DOWN ---",
            "-- rollback",
            "-- Roll back:",
            "/* undo */",
            "-- @DOWN",
            "-- !Down",
            "# down",
            "-- migrate down",
            "-- migrateDown",
            "-- To undo this migration:",
            "-- Revert the changes",
            "  -- down",
            "-- create above / drop below",
            "-- MIGRATE:DOWN",
            "-- Rollback: drop the table that this file makes",
            "/*\n * Down migration\n */",
            "-- section 2: reverse",
        ] {
            let contents = format!("create table k ();\n{mark}\ndrop table k;\n");
            assert!(cause(&contents).contains("line 2 may begin a down migration"), "{mark}");
        }
        assert!(cause("-- down\ndrop table k;\n-- up\ncreate table k ();\n").contains("line 1 may begin"));
        let open = "create table k (a text default 'it);\n-- down\ndrop table k;\n";
        assert!(cause(open).contains("line 2 may begin"));
        assert!(cause("\u{feff}create table k ();\r\n--down\r\ndrop table k;").contains("line 2"));
    }

    #[test]
    fn marks_of_other_tools_are_refused_by_name() {
        for (mark, tool) in [
            ("-- +migrate Up", "sql-migrate"),
            ("-- +micrate Down", "micrate"),
            ("-- rambler up", "rambler"),
            ("-- //@UNDO", "MyBatis"),
            ("--liquibase formatted sql", "Liquibase"),
            ("-- ==== DOWN ====", "shmig"),
            ("# --- !Downs", "Play"),
        ] {
            assert!(cause(&format!("{mark}\nselect 1;")).contains(tool), "{mark}");
        }
    }

    #[test]
    fn other_comments_are_no_headings() {
        for contents in [
            "create table k ();\n-- Drop the old table.\ndrop table o;",
            "create table k ();\n-- down\n-- drop table k;\n",
            "-- Revert the type of a column\nalter table k alter c type int;",
            "create table k ();\n-- The cool down period of a machine in seconds\ncreate table m ();",
            "create table k ();\n-- roll back is not possible here, since rows are lost\ndrop table o;",
            "create function f() returns int language plpgsql as $$\nbegin\n  -- rollback\n  return 1;\nend $$;",
            "select '\n-- down\n';",
        ] {
            assert_eq!(cause(contents), "", "{contents}");
        }
    }

    #[test]
    fn files_of_the_down_migration_are_found_by_name() {
        let counterpart = |name: &str, up: &str| is_counterpart(name, &Listing::of(&[name, up]));
        assert!(counterpart("1_a_down.sql", "1_a_up.sql"));
        assert!(counterpart("001.undo.a.sql", "001.do.a.sql"));
        assert!(counterpart("down-1.sql", "up-1.sql"));
        assert!(!counterpart("1_countdown.sql", "1_countup.sql"));
        let cause = |names: &[&str]| {
            check_names(&Listing::of(names)).map_or_else(|refusal| refusal.cause, |()| String::new())
        };
        assert_eq!(
            cause(&["1_a.sql", "1_a_rollback.sql"]),
            "`1_a_rollback.sql` may be the down migration of `1_a.sql`"
        );
        assert_eq!(cause(&["a.sql", "a.undo.sql"]), "`a.undo.sql` may be the down migration of `a.sql`");
        for names in
            [&["1_a.sql", "2_revert_a.sql"][..], &["1_a.up.sql", "1_a.down.sql"], &["a_up.sql", "a_down.sql"]]
        {
            assert_eq!(cause(names), "", "{names:?}");
        }
        let listing = Listing::of(&["up/1.sql", "down/1.sql"]);
        assert!(check_directories(&listing).unwrap_err().cause.contains("`down` may hold"));
    }
}
